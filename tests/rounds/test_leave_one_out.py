"""A federation without one of its sites, on the in-process grid."""

import pytest

from server.checkpoints import CheckpointStore
from simulation.arms import phase_ends
from simulation.flower import run_locally
from simulation.holdout import HoldoutJob, run_without, study_without


@pytest.fixture(scope="module")
def left_out(consortium, study, tmp_path_factory):
    folder = tmp_path_factory.mktemp("left-out")
    job = HoldoutJob(site="gamma", study=study, base=study, site_paths=tuple(consortium.paths.values()))
    found = run_without(job, folder)
    asked = [(folder / "sites" / site / "state" / "journal.jsonl").exists() for site in ("gamma", "alpha")]
    return found, folder, asked


def test_the_left_out_site_is_measured_and_was_never_asked(left_out):
    found, _, asked = left_out
    assert found.site == "gamma" and found.trained == ("alpha", "beta")
    assert found.sums["probe"]["n_patients"][0] > 0
    assert asked == [False, True]


def test_its_model_is_that_of_the_others_alone(left_out, consortium, study, tmp_path):
    _, folder, _ = left_out
    others = [consortium.paths[site] for site in ("alpha", "beta")]
    without = study_without(study, "gamma")
    again = without.model_copy(update={"name": "the-others"})
    run_locally(again, others, folder=tmp_path, progress=lambda event: None, track=False)
    places = ((without, folder), (again, tmp_path))
    first, second = (
        phase_ends(CheckpointStore(place / "checkpoints", study_digest=each.digest), each)["probe"]
        for each, place in places
    )
    assert set(first) == set(second)
    for module in first:
        for name, value in first[module].items():
            assert (value == second[module][name]).all(), (module, name)
