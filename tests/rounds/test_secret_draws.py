"""A site's replicates cannot be solved for its people: the coordinator does not know whom it has drawn."""

import numpy as np

from cardionets_core.config.study import Study
from cardionets_core.evaluation.bootstrap import replicate_weights
from cardionets_core.exchange.messages import Order, RoundName
from cardionets_core.exchange.tensors import module_digest
from cardionets_core.models import build_module
from cardionets_core.tasks import make_task
from cardionets_core.tasks.phenotype_sums import phenotype_sums
from cardionets_core.training.seeds import derive_seed
from client.modules import pack_module
from client.round import answer

REPLICATES = 80
PHASE = {"task": "probe", "rounds": 1, "options": {"bootstrap_replicates": REPLICATES}}


def study() -> Study:
    return Study.model_validate({"name": "draws", "seed": 3, "phases": [PHASE]})


def measured(path):
    task = make_task("probe", PHASE["options"])
    modules = {name: pack_module(build_module(name, "nano", seed=1)) for name in (*task.trains, *task.reads)}
    order = Order(
        kind="evaluate",
        name=RoundName(study_digest=study().digest, phase=0, round=1, attempt=1),
        study_json=study().to_json(),
        modules={name: modules[name] for name in task.trains},
        frozen={name: module_digest(modules[name].layout, modules[name].values) for name in task.reads},
        frozen_modules={name: modules[name] for name in task.reads},
        split="test",
    )
    return answer(order, site_path=path)


def solved(replicates_MK, people, site):
    """What somebody finds who takes the site's draws to be those of a name."""
    seed = derive_seed(study().seed, "evaluate", 0, "alpha")
    weights = np.concatenate(list(replicate_weights(people, replicates=REPLICATES, seed=seed, site=site)))
    return np.linalg.lstsq(weights, replicates_MK, rcond=None)[0]


def test_with_the_draws_known_every_value_would_be_told(consortium):
    cohort = consortium.cohorts["alpha"]
    rows = np.flatnonzero(np.isfinite(cohort.phenotypes[:, 0]))
    target = cohort.phenotypes[rows].astype(np.float64)
    seed = derive_seed(study().seed, "evaluate", 0, "alpha")
    common = {"cohort": cohort, "rows": rows, "replicates": REPLICATES, "seed": seed}
    sums = phenotype_sums(target, np.zeros_like(target), **common)
    people, first = np.unique(cohort.row_patient[rows], return_inverse=True)
    found = solved(sums["boot_Sy"][:, :1], len(people), "alpha")[:, 0]
    own = np.bincount(first, weights=target[:, 0])
    np.testing.assert_allclose(found, own, rtol=1e-6)
    secret = phenotype_sums(target, np.zeros_like(target), **common, draws="secret")
    wrong = solved(secret["boot_Sy"][:, :1], len(people), "alpha")[:, 0]
    assert np.abs(wrong - own).max() > 0.1 * np.abs(own).max()
    # The same people, drawn in another way: the whole is told as before.
    np.testing.assert_array_equal(secret["Sy"], sums["Sy"])


def test_a_site_draws_with_its_own_secret_and_the_same_way_each_time(hospitals):
    path = hospitals["alpha"]
    first = measured(path)
    assert first.code == "" and first.sums["boot_n"].any()
    key = path.parent / "secret" / "pseudonym.key"
    (path.parent / "state" / "replies").rename(path.parent / "state" / "old")
    again = measured(path)
    np.testing.assert_array_equal(first.sums["boot_Sy"], again.sums["boot_Sy"])
    assert key.is_file()


def test_another_key_draws_other_people(hospitals, monkeypatch):
    first = measured(hospitals["alpha"])
    (hospitals["alpha"].parent / "state" / "replies").rename(hospitals["alpha"].parent / "state" / "old")
    monkeypatch.setattr("client.measuring.load_key", lambda path: b"x" * 32)
    other = measured(hospitals["alpha"])
    assert not np.array_equal(first.sums["boot_Sy"], other.sums["boot_Sy"])
    np.testing.assert_array_equal(first.sums["Sy"], other.sums["Sy"])
