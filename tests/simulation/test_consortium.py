"""A consortium by its numbers: sums are exact, concentrations do what they say, and the same seed repeats."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cardionets_core.config.read import parse_document
from cardionets_core.data.records import DISEASES
from cardionets_core.errors import ConfigError
from simulation.consortium import Consortium, expand
from simulation.machines import Cart, Scanner
from simulation.patients import draw_patient, ill_patients
from simulation.scenario import Scenario, load_scenario, named_study
from simulation.scenario_table import scenario_content, scenario_table
from simulation.shift import shifted_cart, shifted_scanner
from simulation.skew import (
    LARGEST_SHARE,
    apportion,
    dirichlet_shares,
    divergence,
    evenness,
    spread_cases,
    spread_sizes,
)


def consortium(**changes) -> Consortium:
    return Consortium.model_validate({"sites": 8, "patients": 800, **changes})


def scenario(**changes) -> Scenario:
    content = {"name": "made", "seed": 3, "study": "rehearsal", "consortium": {"sites": 4, "patients": 240}}
    return parse_document(Scenario, {**content, **changes}, where="test")


@given(
    total=st.integers(0, 500),
    shares=st.lists(st.floats(0, 1), min_size=1, max_size=12),
    seed=st.integers(0, 2**20),
)
@settings(max_examples=80, deadline=None)
def test_what_is_dealt_adds_up_and_keeps_its_bounds(total, shares, seed):
    rng = np.random.default_rng(seed)
    least = rng.integers(0, 10, len(shares))
    most = least + rng.integers(0, 100, len(shares))
    if not least.sum() <= total <= most.sum():
        with pytest.raises(ValueError, match="cannot be spread"):
            apportion(total, np.array(shares), least=least, most=most)
        return
    found = apportion(total, np.array(shares), least=least, most=most)
    assert found.sum() == total and (found >= least).all() and (found <= most).all()


def test_without_bounds_that_bite_everybody_gets_its_share():
    shares = np.array([0.5, 0.3, 0.2])
    found = apportion(10, shares, least=np.zeros(3, int), most=np.full(3, 10))
    assert found.tolist() == [5, 3, 2]


@pytest.mark.parametrize("alpha", [1e-3, 0.1, 1.0, 100.0])
def test_shares_are_those_of_a_dirichlet_distribution(alpha):
    rng = np.random.default_rng(0)
    shares = np.array([dirichlet_shares(4, alpha, rng) for _ in range(4000)])
    np.testing.assert_allclose(shares.sum(axis=1), 1.0)
    # Mean 1 / S, variance (S - 1) / (S^2 (S alpha + 1)).
    np.testing.assert_allclose(shares.mean(axis=0), 0.25, atol=0.03)
    np.testing.assert_allclose(shares.var(axis=0), 3 / (16 * (4 * alpha + 1)), rtol=0.15)


def test_sizes_and_cases_are_exact_and_the_concentration_evens_them():
    entropies = []
    for alpha in (0.05, 0.5, 5.0, 1e5):
        rng = np.random.default_rng(1)
        sizes = spread_sizes(2000, 10, alpha=alpha, least=20, rng=rng)
        assert sizes.sum() == 2000 and sizes.min() >= 20
        cases = spread_cases(300, np.full(10, 200), alpha=alpha, rng=rng)
        assert cases.sum() == 300 and (cases <= LARGEST_SHARE * 200).all()
        entropies.append((evenness(sizes), evenness(cases), divergence(cases, np.full(10, 200))))
    sizes, cases, apart = zip(*entropies, strict=True)
    assert (
        list(sizes) == sorted(sizes) and list(cases) == sorted(cases) and list(apart) == sorted(apart)[::-1]
    )
    assert sizes[-1] > 0.999 and cases[-1] > 0.999 and apart[-1] < 0.01
    assert cases[0] < 0.5


def test_a_measure_of_evenness_by_hand():
    assert evenness(np.array([5, 5])) == pytest.approx(1.0) and evenness(np.array([5, 0])) == 0.0
    assert divergence(np.array([10, 0]), np.array([10, 10])) == pytest.approx(0.5)


def test_a_consortium_is_the_same_again_and_another_with_another_seed():
    asked = consortium(quantity={"dirichlet": 1.0}, labels={"dirichlet": 0.5}, cart_shift=1, scanner_shift=1)
    assert expand(asked, seed=4) == expand(asked, seed=4) != expand(asked, seed=5)
    members = expand(asked, seed=4)
    assert [each.site for each in members] == [f"s{number:02d}" for number in range(1, 9)]
    assert sum(each.patients for each in members) == 800
    for name in DISEASES:
        # The expected number of patients with each disease is the consortium's, whatever the skew.
        expected = sum(each.patients * each.prevalence.as_mapping()[name] for each in members)
        assert expected == pytest.approx(round(800 * asked.labels.prevalence.as_mapping()[name]), abs=1e-3)


def test_without_skew_all_sites_are_alike():
    members = expand(consortium(layouts=["local_wfdb"]), seed=0)
    assert len({each.model_dump_json(exclude={"site"}) for each in members}) == 1


def test_sites_lack_what_was_asked_for():
    asked = consortium(missing={"cmr": 0.25, "labels": 0.5, "phenotypes": 0.125}, external=2)
    members = [each for each in expand(asked, seed=2) if not each.external]
    without = {name: sum(name in each.lacks for each in members) for name in ("cmr", "labels")}
    assert without == {"cmr": 2, "labels": 4}
    assert sum("phenotypes" in each.lacks and "cmr" not in each.lacks for each in members) == 1
    assert {each.layout for each in members if "cmr" in each.lacks} == {"mimic_iv_ecg"}
    assert [each.site for each in expand(asked, seed=2) if each.external] == ["x01", "x02"]
    local = consortium(missing={"cmr": 1.0}, layouts=["local_csv"])
    assert {each.missing for each in expand(local, seed=2)} == {("cmr",)}


def test_machines_differ_more_with_the_strength():
    spreads = []
    for strength in (0.0, 0.5, 1.0):
        rngs = [np.random.default_rng(site) for site in range(12)]
        carts = [shifted_cart(Cart(), strength, rng, any_rate=True) for rng in rngs]
        scanners = [shifted_scanner(Scanner(), strength, rng) for rng in rngs]
        spreads.append(
            [np.std([each.gain for each in carts]), np.std([each.wander_mv for each in carts]),
             np.std([each.contrast for each in scanners]), np.std([each.spacing_mm for each in scanners])]
        )  # fmt: skip
        if not strength:
            assert (
                set(carts) == {Cart()} if hasattr(Cart, "__hash__") and Cart.__hash__ else carts[0] == Cart()
            )
            assert scanners[0] == Scanner()
    assert (np.diff(spreads, axis=0) > 0).all()
    assert {each.rate_hz for each in carts} == {250, 500, 1000}
    fixed = shifted_cart(Cart(), 1.0, np.random.default_rng(0), any_rate=False)
    assert fixed.rate_hz == 500


@pytest.mark.parametrize(
    "changes, told",
    [
        ({"patients": 100}, "need 400 patients"),
        ({"quantity": {"sizes": [400, 400]}}, "names 2 sites"),
        ({"quantity": {"sizes": [100] * 7 + [99]}}, "add up to 799"),
        ({"quantity": {"sizes": [10, 190, *[100] * 6]}}, "a site of 10"),
        ({"quantity": {"sizes": [100] * 8, "dirichlet": 1}}, "not both"),
        ({"smallest": 30}, "policy.minimum_patients is 20"),
        ({"layouts": ["mimic_iv_ecg"]}, "set missing.cmr to 1"),
        ({"missing": {"cmr": 0.8, "phenotypes": 0.5}}, "more sites than have cines"),
        ({"labels": {"prevalence": {"cad": 0.9}}}, "leaves nobody"),
        ({"labels": {"dirichlett": 1.0}}, "did you mean 'dirichlet'"),
        ({"labels": {"dirichlet": 0.0}}, "greater than 0"),
        ({"quantityy": {}}, "did you mean 'quantity'"),
    ],
)
def test_what_cannot_be_is_told(changes, told):
    with pytest.raises(ConfigError, match=told) as caught:
        scenario(consortium={"sites": 8, "patients": 800, **changes})
    assert "hospitals" not in str(caught.value)


def test_a_scenario_has_hospitals_or_a_consortium():
    with pytest.raises(ConfigError, match="there is none"):
        scenario(consortium=None)
    one = {"site": "a", "layout": "local_csv", "patients": 50, "cart": {"rate_hz": 250, "lowpass_hz": 100}}
    with pytest.raises(ConfigError, match="not both"):
        scenario(hospitals=[one])
    assert scenario().hospitals_digest == scenario().hospitals_digest != scenario(seed=4).hospitals_digest


def test_the_table_counts_the_hearts_that_are_drawn():
    made = scenario(
        consortium={"sites": 4, "patients": 240, "labels": {"dirichlet": 0.3}},
        events=[{"site": "s02", "kind": "offline"}],
    )
    content = scenario_content(made)
    assert sum(row["patients"] for row in content["hospitals"]) == 240 == content["patients"]
    for row in content["hospitals"]:
        assert row["ill"] == ill_patients(made, row["site"])
    heart = draw_patient(made, "s01", 0).visits[0].heart
    assert heart.diseases <= set(DISEASES)
    text = scenario_table(content)
    assert "s04" in text and "event: offline · site s02" in text


def test_a_site_with_flipped_labels_codes_the_opposite():
    plain, flipped = scenario(), scenario(events=[{"site": "s01", "kind": "label_flip"}])
    assert plain.hospitals_digest != flipped.hospitals_digest
    for index in range(3):
        honest, lying = draw_patient(plain, "s01", index), draw_patient(flipped, "s01", index)
        assert honest.coded.diseases | lying.coded.diseases == set(DISEASES)
        assert not honest.coded.diseases & lying.coded.diseases
        # The recordings are those of the same heart.
        assert honest.visits[0].heart == lying.visits[0].heart
    assert draw_patient(flipped, "s02", 0).coded == draw_patient(plain, "s02", 0).coded


EVENTS = [
    ({"site": "z", "kind": "offline"}, "no hospital 'z'"),
    ({"site": "s01", "kind": "offline", "phase": "tokenizer"}, "no phase 'tokenizer'"),
    ({"site": "s01", "kind": "offline", "phase": 9}, "no phase 9"),
    ({"site": "s01", "kind": "offline", "phase": "align", "rounds": [7, 8]}, "a round 7"),
    ({"site": "s01", "kind": "offline", "rounds": [3, 2]}, "the last not before it"),
    ({"site": "s01", "kind": "slow"}, "seconds belongs to slow"),
    ({"site": "s01", "kind": "nan", "factor": 2.0}, "nan has no factor"),
    ({"site": "s01", "kind": "asleep"}, "kind"),
    ({"site": "s01", "kind": "scale", "facter": 2.0}, "unknown key"),
]


@pytest.mark.parametrize("event, told", EVENTS)
def test_an_event_that_cannot_be_is_refused(event, told):
    with pytest.raises(ConfigError, match=told):
        scenario(events=[event])


def test_faults_of_events_and_of_the_studys_name_are_told_together_with_their_keys():
    with pytest.raises(ConfigError) as caught:
        scenario(events=[{"site": "s1", "kind": "offline"}, {"site": "z", "kind": "late"}])
    assert "- events.1: offline: there is no hospital 's1'; did you mean 's01'?" in caught.value.what
    assert "- events.2: late: there is no hospital 'z'" in caught.value.what
    with pytest.raises(ConfigError) as caught:
        scenario(study="rehersal", sead=1, events=[{"site": "s01", "kind": "offline", "factor": 1}])
    lines = caught.value.what.splitlines()
    assert lines[0].startswith("3 fault(s)") and caught.value.where == "test"
    assert any("study: there is no study 'rehersal'; did you mean 'rehearsal'?" in line for line in lines)
    assert any("events.1.factor: unknown key; offline has" in line for line in lines)
    with pytest.raises(ConfigError, match="did you mean 'skewed'"):
        load_scenario("skwed")


def test_what_is_masked_or_rounded_cannot_be_attacked_on_its_way():
    study = load_scenario("rehearsal").study.model_dump(mode="json")
    study["exchange"] = {"precision": "bf16"}
    with pytest.raises(ConfigError, match="precision"):
        scenario(study=study, events=[{"site": "s01", "kind": "scale"}])
    study["exchange"] = {"precision": "fp32"}
    study["secure_aggregation"] = {"threshold": 3}
    study["sites"] = {**study["sites"], "minimum": 3}
    with pytest.raises(ConfigError, match="masked"):
        scenario(study=study, events=[{"site": "s01", "kind": "scale"}])
    assert scenario(study=study, events=[{"site": "s01", "kind": "offline"}]).events


def test_a_table_of_hospitals_heads_every_column_and_spells_diseases_out():
    lines = scenario_table(scenario_content(load_scenario("attacked"))).splitlines()
    heads, rules = lines[2].split("  "), lines[3].split("  ")
    assert len([word for word in heads if word.strip()]) == len(rules) and lines[2].endswith("role")
    assert lines[4].endswith("member") and "cad coronary artery disease" in "\n".join(lines)


@pytest.mark.parametrize(
    "change, told",
    [
        ({"aggregation": {"strategy": "fedagv"}}, "no strategy 'fedagv'; did you mean 'fedavg'"),
        ({"aggregation": {"strategy": "fedprox", "options": {"nu": 1}}}, "fedprox has no option nu"),
        ({"preset": "nanoo"}, "no preset 'nanoo'; did you mean 'nano'"),
        ({"phases": [{"task": "ecg_mea", "rounds": 1}]}, "no task 'ecg_mea'; did you mean 'ecg_mae'"),
        ({"phases": [{"task": "align", "rounds": 1}, {"task": "probe", "rounds": 1}]}, "align"),
    ],
)
def test_a_study_that_no_server_would_run_is_refused_with_the_scenario(change, told):
    study = named_study("rehearsal") | change
    with pytest.raises(ConfigError, match="study: ") as caught:
        scenario(study=study, events=[{"kind": "offline", "site": "s01", "phase": "ecg_mae"}])
    assert told in str(caught.value) and "events" not in str(caught.value)
