"""Hearts: plausible values, and each disease moves what it should."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from simulation.diagnoses import codes_of
from simulation.hearts import LIMITS, draw_heart, revisit


def _many(count: int, **prevalence: float) -> list:
    return [draw_heart(np.random.default_rng([1, index]), prevalence=prevalence) for index in range(count)]


def _median(hearts: list, name: str) -> float:
    return float(np.median([getattr(heart, name) for heart in hearts]))


def test_healthy_medians_lie_in_the_reference_ranges():
    healthy = _many(400)
    for name, low, high in (
        ("lv_end_diastolic_ml", 120, 175),
        ("ejection_fraction", 0.55, 0.65),
        ("wall_thickness_mm", 6.5, 9.0),
        ("rv_end_diastolic_ml", 130, 190),
        ("la_max_ml", 55, 85),
        ("heart_rate_bpm", 58, 70),
    ):
        assert low < _median(healthy, name) < high, name
    assert not any(heart.diseases for heart in healthy)


def test_every_value_stays_within_its_limits():
    for heart in _many(300, cad=0.5, cm=0.5, hf=0.5, pc=0.5, ph=0.5):
        for name, (low, high) in LIMITS.items():
            assert low <= getattr(heart, name) <= high
        assert (heart.subtype is None) == ("cm" not in heart.diseases)


def test_diseases_move_the_heart_the_way_they_should():
    healthy = _many(300)
    sick = {name: _many(300, **{name: 1.0}) for name in ("cad", "hf", "pc", "ph")}
    cardiomyopathy = _many(300, cm=1.0)
    by_type = {
        kind: [h for h in cardiomyopathy if h.subtype == kind and h.diseases == {"cm"}]
        for kind in ("dcm", "hcm", "rcm")
    }
    assert all(by_type.values())
    assert _median(by_type["dcm"], "lv_end_diastolic_ml") > 1.3 * _median(healthy, "lv_end_diastolic_ml")
    assert _median(by_type["dcm"], "ejection_fraction") < 0.45
    assert _median(by_type["dcm"], "conduction_delay_ms") > 20
    assert _median(by_type["hcm"], "wall_thickness_mm") > 1.4 * _median(healthy, "wall_thickness_mm")
    assert _median(by_type["hcm"], "ejection_fraction") > _median(healthy, "ejection_fraction")
    assert _median(by_type["rcm"], "la_max_ml") > 1.4 * _median(healthy, "la_max_ml")
    assert _median(sick["hf"], "ejection_fraction") < _median(healthy, "ejection_fraction") - 0.1
    assert _median(sick["ph"], "rv_end_diastolic_ml") > 1.3 * _median(healthy, "rv_end_diastolic_ml")
    assert _median(sick["ph"], "axis_degrees") > _median(healthy, "axis_degrees") + 25
    assert _median(sick["cad"], "ischaemia") > 0.5
    assert _median(sick["pc"], "effusion") > 0.5


def test_prevalence_is_what_was_asked_for():
    sick = sum("ph" in heart.diseases for heart in _many(2000, ph=0.2))
    assert 0.17 < sick / 2000 < 0.24


def test_a_later_visit_is_the_same_heart_a_little_changed():
    heart = draw_heart(np.random.default_rng(3), prevalence={"hf": 1.0})
    later = revisit(heart, np.random.default_rng(4), years=2.0)
    assert later.age_years == heart.age_years + 2.0
    assert (later.sex, later.diseases, later.traits) == (heart.sex, heart.diseases, heart.traits)
    assert 0.8 < later.lv_end_diastolic_ml / heart.lv_end_diastolic_ml < 1.25
    assert later.lv_end_diastolic_ml != heart.lv_end_diastolic_ml


def test_codes_name_the_diseases():
    heart = draw_heart(np.random.default_rng(3), prevalence={})
    sick = replace(heart, diseases=frozenset({"cm", "hf", "ph"}), subtype="hcm")
    codes = codes_of(sick, np.random.default_rng(0))
    assert any(code.startswith("I50") for code in codes)
    assert any(code in ("I42.1", "I42.2") for code in codes)
    assert any(code in ("I27.0", "I27.2") for code in codes)
    assert not any(code.startswith(("I20", "I21", "I25", "I30")) for code in codes)
