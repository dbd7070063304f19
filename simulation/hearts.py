"""One latent heart per person: the common cause of a simulated ECG and of a simulated cine.

Stands before step 1 of the walk: it draws what no hospital ever knows. Comes in: a generator and the case
mix of a hospital. Goes out: a ``Heart``. It draws no signal and no image.

The normal values follow the UK Biobank reference ranges (Petersen et al., J Cardiovasc Magn Reson 2017) in
round numbers; how far each disease moves them is invented, in the direction that cardiology texts give.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from cardionets_core.data.records import DISEASES

TRAITS = 11
"""How many standard normal numbers describe what is individual in a person's ECG, whatever the heart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heart:
    """The latent heart of one person at one visit.

    Attributes:
        age_years: age at the visit.
        sex: ``female`` or ``male``.
        heart_rate_bpm: resting heart rate.
        lv_end_diastolic_ml: left ventricle, largest volume.
        ejection_fraction: of the left ventricle, 0 to 1.
        wall_thickness_mm: mean left ventricular wall at end diastole.
        rv_end_diastolic_ml: right ventricle, largest volume.
        rv_ejection_fraction: 0 to 1.
        la_max_ml: left atrium, largest volume.
        ra_max_ml: right atrium, largest volume.
        conduction_delay_ms: what slow conduction adds to the QRS duration.
        axis_degrees: frontal axis of the left ventricular forces; 0 is to the left, 90 to the feet.
        ischaemia: 0 (none) to about 1.5.
        effusion: pericardial fluid and inflammation, 0 (none) to about 1.5.
        diseases: any of ``DISEASES``.
        subtype: ``dcm``, ``hcm`` or ``rcm`` where ``cm`` is among the diseases.
        traits: ``TRAITS`` standard normal numbers; they stay with the person.
    """

    age_years: float
    sex: Literal["female", "male"]
    heart_rate_bpm: float
    lv_end_diastolic_ml: float
    ejection_fraction: float
    wall_thickness_mm: float
    rv_end_diastolic_ml: float
    rv_ejection_fraction: float
    la_max_ml: float
    ra_max_ml: float
    conduction_delay_ms: float
    axis_degrees: float
    ischaemia: float = 0.0
    effusion: float = 0.0
    diseases: frozenset[str] = frozenset()
    subtype: str | None = None
    traits: tuple[float, ...] = (0.0,) * TRAITS

    @property
    def la_emptying_fraction(self) -> float:
        """Left atrial emptying fraction: large atria and stiff or weak ventricles empty less."""
        return _bounded(
            0.60 - 0.0022 * (self.la_max_ml - 70.0) + 0.25 * (self.ejection_fraction - 0.6), 0.15, 0.72
        )

    @property
    def ra_emptying_fraction(self) -> float:
        """Right atrial emptying fraction."""
        return _bounded(
            0.48 - 0.0018 * (self.ra_max_ml - 80.0) + 0.2 * (self.rv_ejection_fraction - 0.57), 0.12, 0.65
        )


LIMITS: dict[str, tuple[float, float]] = {
    "heart_rate_bpm": (42.0, 122.0),
    "lv_end_diastolic_ml": (65.0, 340.0),
    "ejection_fraction": (0.13, 0.80),
    "wall_thickness_mm": (4.8, 21.0),
    "rv_end_diastolic_ml": (75.0, 350.0),
    "rv_ejection_fraction": (0.15, 0.74),
    "la_max_ml": (25.0, 200.0),
    "ra_max_ml": (28.0, 210.0),
    "conduction_delay_ms": (0.0, 75.0),
    "axis_degrees": (-60.0, 150.0),
}


def draw_heart(rng: np.random.Generator, *, prevalence: Mapping[str, float], mean_age: float = 62.0) -> Heart:
    """Draw a person's heart from a hospital's case mix.

    Args:
        rng: the only source of chance.
        prevalence: share of people with each of ``DISEASES``; an absent one is 0.
        mean_age: of the hospital's patients, in years.
    """
    age = _bounded(mean_age + 9.0 * rng.standard_normal(), 25.0, 92.0)
    sex: Literal["female", "male"] = "male" if rng.random() < 0.5 else "female"
    heart = _healthy(rng, age=age, sex=sex)
    chances = rng.random(len(DISEASES))
    severities = rng.uniform(0.5, 1.4, size=len(DISEASES))
    subtype = ("dcm", "hcm", "rcm")[int(np.searchsorted((0.5, 0.85), rng.random()))]
    older = float(np.exp(0.025 * (age - mean_age)))
    found: list[str] = []
    for name, chance, severity in zip(DISEASES, chances, severities, strict=True):
        # A dilated ventricle often fails: half of them do, whatever the hospital's mix.
        likely = prevalence.get(name, 0.0) * older
        if name == "hf" and "cm" in found and subtype == "dcm":
            likely = max(likely, 0.5)
        if chance < likely:
            found.append(name)
            heart = _with_disease(heart, subtype if name == "cm" else name, severity=float(severity))
    return _within_limits(
        replace(heart, diseases=frozenset(found), subtype=subtype if "cm" in found else None)
    )


def revisit(heart: Heart, rng: np.random.Generator, *, years: float) -> Heart:
    """The same heart some years later: the person and the diseases stay, the values drift a little."""
    drift = np.exp(0.035 * rng.standard_normal(6))
    return _within_limits(
        replace(
            heart,
            age_years=heart.age_years + years,
            heart_rate_bpm=heart.heart_rate_bpm * float(np.exp(0.08 * rng.standard_normal())),
            lv_end_diastolic_ml=heart.lv_end_diastolic_ml * float(drift[0]),
            ejection_fraction=heart.ejection_fraction + 0.015 * float(rng.standard_normal()),
            wall_thickness_mm=heart.wall_thickness_mm * float(drift[1]),
            rv_end_diastolic_ml=heart.rv_end_diastolic_ml * float(drift[2]),
            rv_ejection_fraction=heart.rv_ejection_fraction + 0.015 * float(rng.standard_normal()),
            la_max_ml=heart.la_max_ml * float(drift[3]),
            ra_max_ml=heart.ra_max_ml * float(drift[4]),
            conduction_delay_ms=heart.conduction_delay_ms * float(drift[5]),
        )
    )


def _healthy(rng: np.random.Generator, *, age: float, sex: Literal["female", "male"]) -> Heart:
    normal = rng.standard_normal(14)
    body = float(np.exp((0.12 if sex == "male" else -0.12) + 0.09 * normal[0]))
    pressure = float(normal[1]) + 0.02 * (age - 60.0)
    strength = float(normal[2])
    fitness = float(normal[3])
    lv = 145.0 * body * float(np.exp(0.17 * normal[4] + 0.05 * fitness))
    return Heart(
        age_years=age,
        sex=sex,
        heart_rate_bpm=64.0 - 4.0 * fitness + 7.5 * float(normal[5]),
        lv_end_diastolic_ml=lv,
        ejection_fraction=0.595 + 0.06 * strength,
        wall_thickness_mm=7.6 * body**0.4 * float(np.exp(0.13 * normal[6] + 0.11 * pressure)),
        rv_end_diastolic_ml=158.0 * body * float(np.exp(0.17 * normal[7] + 0.05 * fitness)),
        rv_ejection_fraction=0.57 + 0.03 * strength + 0.05 * float(normal[8]),
        la_max_ml=68.0 * body**0.7 * float(np.exp(0.24 * normal[9] + 0.07 * pressure)),
        ra_max_ml=78.0 * body**0.7 * float(np.exp(0.26 * normal[10])),
        conduction_delay_ms=float(np.exp(1.9 + 0.5 * normal[11])),
        axis_degrees=42.0 - 0.25 * (age - 60.0) - 4.0 * pressure + 20.0 * float(normal[12]),
        traits=tuple(float(value) for value in rng.standard_normal(TRAITS)),
    )


def _with_disease(heart: Heart, name: str, *, severity: float) -> Heart:
    """Move a heart by one disease (or subtype of cardiomyopathy) of a severity of about 0.5 to 1.4."""
    scale: dict[str, float] = {}
    shift: dict[str, float] = {}
    if name == "cad":
        scale = {"lv_end_diastolic_ml": 0.09}
        shift = {"ejection_fraction": -0.09, "ischaemia": 1.0}
    elif name == "dcm":
        scale = {"lv_end_diastolic_ml": 0.45, "la_max_ml": 0.30, "wall_thickness_mm": -0.08}
        shift = {
            "ejection_fraction": -0.24,
            "conduction_delay_ms": 30.0,
            "heart_rate_bpm": 6.0,
            "axis_degrees": -15.0,
        }
    elif name == "hcm":
        scale = {"lv_end_diastolic_ml": -0.12, "la_max_ml": 0.25, "wall_thickness_mm": 0.55}
        shift = {"ejection_fraction": 0.07, "axis_degrees": -15.0}
    elif name == "rcm":
        scale = {
            "la_max_ml": 0.55,
            "ra_max_ml": 0.50,
            "wall_thickness_mm": 0.22,
            "lv_end_diastolic_ml": -0.10,
        }
        shift = {"ejection_fraction": -0.06, "conduction_delay_ms": 8.0}
    elif name == "hf":
        scale = {"lv_end_diastolic_ml": 0.22, "la_max_ml": 0.38, "ra_max_ml": 0.15}
        shift = {
            "ejection_fraction": -0.17,
            "heart_rate_bpm": 8.0,
            "conduction_delay_ms": 8.0,
            "rv_ejection_fraction": -0.05,
        }
    elif name == "ph":
        scale = {"rv_end_diastolic_ml": 0.40, "ra_max_ml": 0.42}
        shift = {"rv_ejection_fraction": -0.17, "axis_degrees": 48.0, "heart_rate_bpm": 4.0}
    elif name == "pc":
        shift = {"effusion": 1.0, "heart_rate_bpm": 9.0}
    values = {key: getattr(heart, key) * float(np.exp(log * severity)) for key, log in scale.items()}
    values |= {key: getattr(heart, key) + by * severity for key, by in shift.items()}
    return replace(heart, **values)


def _within_limits(heart: Heart) -> Heart:
    bounded: dict[str, Any] = {key: _bounded(getattr(heart, key), *limits) for key, limits in LIMITS.items()}
    return replace(heart, **bounded)


def _bounded(value: float, low: float, high: float) -> float:
    return float(min(max(value, low), high))
