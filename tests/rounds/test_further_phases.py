"""Rounds of the later phases: roles, shared statistics, averages, moments, sites that only measure."""

from __future__ import annotations

import functools
import shutil

import numpy as np
import pytest
import yaml
from flwr.app import MessageType

from cardionets_core.config.site import read_site
from cardionets_core.config.study import Study
from cardionets_core.data.prepare import prepare
from cardionets_core.errors import CheckpointError, ConfigError
from client.app import make_app
from server.app import run_study
from server.checkpoints import CheckpointStore, export_model
from simulation.central import train_centrally
from simulation.flower import hospital_of_partition
from simulation.local_grid import LocalGrid
from simulation.make import make_hospitals
from simulation.scenario import Scenario

SCANNER = {"spacing_mm": 2.2, "pixels": 80, "frames": 20}
SMALL = {"repeat_share": 0.2, "split": {"validation": 0.2, "test": 0.3}}
POLICY = {"minimum_patients": 5, "minimum_cell": 1}
STEPS = {"rounds": 2, "local_steps": 2, "batch_size": 8, "optimiser": {"lr": 1e-3, "state": "persist"}}


def run(study, paths, folder, initial=None, **options):
    paths = tuple(paths)
    for path in paths:
        shutil.rmtree(path.parent / "state" / "replies", ignore_errors=True)
    grid = LocalGrid([make_app(functools.partial(hospital_of_partition, paths)) for _ in paths], **options)
    return run_study(grid, study, folder=folder, track=False, initial=initial)


def make_study(*phases: dict, **changes) -> Study:
    content = {"name": "later", "seed": 5, "sites": {"minimum": 1, "deadline_s": 60}, "phases": list(phases)}
    return Study.model_validate({**content, **changes})


ALL_PHASES = (
    {"task": "cmr_mae", **STEPS},
    {"task": "ecg_mae", **STEPS},
    {"task": "principal", "rounds": 1},
    {"task": "align", **STEPS, "options": {"loss": "weighted"}},
    {"task": "standardise", "rounds": 1},
    {"task": "phenotype", **STEPS, "options": {"windows": "mean", "bootstrap_replicates": 20}},
    {"task": "prevalence", "rounds": 1},
    {"task": "logistic", "rounds": 2, "options": {"bootstrap_replicates": 20}},
    {"task": "screening", **STEPS, "options": {"windows": "mean", "bootstrap_replicates": 20}},
    {"task": "calibrate", "rounds": 1},
    {"task": "tokenizer", "rounds": 1, "local_steps": 1, "batch_size": 2, "optimiser": {"lr": 1e-3}},
    {"task": "generate", **STEPS, "ema_decay": 0.5, "options": {"measured_patients": 2}},
    {"task": "memorisation", "rounds": 1},
)
"""Every phase but fuse, in a few steps."""


@pytest.fixture(scope="module")
def every_phase(consortium, tmp_path_factory):
    """All of it, on one site with pairs: beside a central run of the same study."""
    study = make_study(*ALL_PHASES)
    folder = tmp_path_factory.mktemp("every")
    return study, folder, run(study, [consortium.paths["alpha"]], folder)


@pytest.mark.slow
def test_every_phase_of_one_site_is_plain_local_training_bit_for_bit(every_phase, consortium):
    study, _, result = every_phase
    assert [e["task"] for e in result["rounds"] if e["round"] == 1] == [p["task"] for p in ALL_PHASES]
    assert result["model_digest"] == train_centrally(study, consortium.cohorts["alpha"]).digest


@pytest.mark.slow
def test_frozen_modules_keep_their_digest_and_averages_end_with_their_phase(every_phase):
    study, folder, result = every_phase
    store = CheckpointStore(folder / "checkpoints", study_digest=study.digest)
    tokenizer, end = (store.phase_end(i, study.phases[i].rounds) for i in (10, 12))
    assert tokenizer.digests["cmr_tokenizer"] == end.digests["cmr_tokenizer"]
    assert not any(name.endswith(".average") for name in end.digests)
    assert result["rounds"][-1]["task"] == "memorisation"
    assert result["rounds"][-1]["test"]["pooled"]["n_patients"] > 0


def test_a_phase_that_only_measures_leaves_the_central_model_as_it_came(consortium):
    trained = {"task": "cmr_mae", "rounds": 1, "local_steps": 1, "batch_size": 2, "optimiser": {"lr": 1e-3}}
    study = make_study(trained, {"task": "memorisation", "rounds": 1})
    model = train_centrally(study, consortium.cohorts["alpha"])
    first, last = model.phase_ends
    assert {"cmr_encoder", "cmr_generator"} <= first.keys() == last.keys()
    assert all(np.array_equal(first[m][key], last[m][key]) for m in first for key in first[m])


def test_the_average_of_one_site_with_one_step_a_round_is_the_central_one(consortium, tmp_path):
    phase = {"task": "ecg_mae", "rounds": 3, "local_steps": 1, "batch_size": 8, "optimiser": {"lr": 1e-2}}
    averaged = make_study({**phase, "ema_decay": 0.6})
    result = run(averaged, [consortium.paths["alpha"]], tmp_path / "a")
    assert result["model_digest"] == train_centrally(averaged, consortium.cohorts["alpha"]).digest
    plain = run(make_study(phase), [consortium.paths["alpha"]], tmp_path / "p")
    assert plain["model_digest"] != result["model_digest"]


def test_a_head_that_is_solved_over_rounds_starts_from_that_of_the_round_before(tmp_path):
    solved = {"task": "logistic", "rounds": 3, "options": {"bootstrap_replicates": 20}}
    study = make_study({"task": "prevalence", "rounds": 1}, solved)
    hospital = {"site": "theta", "layout": "mimic_iv_ecg", "patients": 20, **SMALL, "policy": POLICY}
    scenario = {
        "name": "ill",
        "seed": 4,
        "hospitals": [{**hospital, "prevalence": {"cad": 0.5, "hf": 0.4}}],
        "study": study.model_dump(mode="json"),
    }
    made = make_hospitals(Scenario.model_validate(scenario), tmp_path / "hospitals", workers=1)
    cohort = prepare(read_site(made[0]))
    result = run(study, made, tmp_path / "run")
    assert result["model_digest"] == train_centrally(study, cohort).digest
    short = make_study({"task": "prevalence", "rounds": 1}, {**solved, "rounds": 1})
    assert train_centrally(short, cohort).digest != result["model_digest"]


def test_central_training_starts_from_the_weights_that_the_study_names(consortium, tmp_path):
    phase = {"task": "ecg_mae", "rounds": 1, "local_steps": 2, "batch_size": 8, "optimiser": {"lr": 1e-2}}
    paths, cohort = [consortium.paths["alpha"]], consortium.cohorts["alpha"]
    earlier = make_study(phase, seed=6)
    run(earlier, paths, tmp_path / "earlier")
    store = CheckpointStore(tmp_path / "earlier" / "checkpoints", study_digest=earlier.digest)
    given = export_model(store.phase_end(0, 1), tmp_path / "given", study=earlier)
    study = make_study(phase, initial={"ecg_encoder": given["modules"]["ecg_encoder"]["digest"]})
    result = run(study, paths, tmp_path / "later", initial=tmp_path / "given")
    assert result["model_digest"] == train_centrally(study, cohort, initial=tmp_path / "given").digest
    assert result["model_digest"] != train_centrally(make_study(phase), cohort).digest
    with pytest.raises(CheckpointError, match="no folder"):
        train_centrally(study, cohort)


def test_moments_that_persist_survive_a_killed_server(consortium, tmp_path):
    study = make_study({"task": "ecg_mae", **STEPS, "rounds": 3}, sites={"minimum": 2, "deadline_s": 60})
    paths = [consortium.paths["alpha"], consortium.paths["gamma"]]
    whole = run(study, paths, tmp_path / "whole")["model_digest"]
    sent = []

    class Killed(BaseException):
        pass

    def kill(message):
        if message.metadata.message_type == MessageType.TRAIN:
            sent.append(message)
            if len(sent) == 4:
                raise Killed
        return False

    with pytest.raises(Killed):
        run(study, paths, tmp_path / "killed", lost=kill)
    assert run(study, paths, tmp_path / "killed")["model_digest"] == whole
    phase = study.phases[0]
    reset = phase.model_copy(update={"optimiser": phase.optimiser.model_copy(update={"state": "reset"})})
    forgetful = study.model_copy(update={"phases": (reset,)})
    assert run(forgetful, paths, tmp_path / "reset")["model_digest"] != whole


def test_server_momentum_is_part_of_the_checkpoint_and_ends_with_its_phase(consortium, tmp_path):
    """Killed between rounds or not, the model is the same; a phase's velocity never reaches the next."""
    phase = {"task": "ecg_mae", **STEPS, "rounds": 3}
    momentum = {"strategy": "fedavgm", "options": {"momentum": 0.7}}
    study = make_study(phase, phase, aggregation=momentum)
    paths = [consortium.paths["alpha"], consortium.paths["gamma"]]
    whole = run(study, paths, tmp_path / "whole")
    sent = []

    class Killed(BaseException):
        pass

    def kill(message):
        sent.append(message.metadata.message_type)
        if sent.count(MessageType.TRAIN) == 5:
            raise Killed
        return False

    with pytest.raises(Killed):
        run(study, paths, tmp_path / "killed", lost=kill)
    store = CheckpointStore(tmp_path / "killed" / "checkpoints", study_digest=study.digest)
    assert {"ecg_encoder.velocity", "ecg_decoder.velocity"} <= set(store.latest().digests)
    assert run(study, paths, tmp_path / "killed")["model_digest"] == whole["model_digest"]
    assert set(whole["modules"]) == {"ecg_encoder", "ecg_decoder"}
    plain = run(make_study(phase, phase), paths, tmp_path / "plain")
    assert plain["model_digest"] != whole["model_digest"]


def test_a_site_with_ecg_alone_moves_the_encoder_and_never_the_projections(consortium, tmp_path):
    align = {"task": "align", **STEPS, "rounds": 1}
    with_ecg_only = run(make_study(align), consortium.paths.values(), tmp_path / "three")
    pairs = [consortium.paths["alpha"], consortium.paths["gamma"]]
    without = run(make_study(align), pairs, tmp_path / "two")
    samples = {row["site"]: set(row["samples"]) for row in with_ecg_only["rounds"][0]["sites"]}
    assert samples["beta"] == {"ecg_encoder"}
    assert samples["gamma"] == {"ecg_encoder", "ecg_projection", "cmr_projection"}
    same = {n for n, digest in with_ecg_only["modules"].items() if without["modules"][n] == digest}
    assert {"ecg_projection", "cmr_projection", "cmr_encoder"} <= same
    assert "ecg_encoder" not in same


def test_shared_statistics_are_asked_for_before_the_steps(consortium, tmp_path):
    study = make_study({"task": "align", **STEPS, "rounds": 1, "options": {"loss": "dcco"}})
    asked = []

    def note(message):
        asked.append((message.metadata.dst_node_id, message.metadata.message_type))
        return False

    result = run(study, consortium.paths.values(), tmp_path, lost=note)
    kinds = [kind for _, kind in asked]
    statistics = [place for place, kind in enumerate(kinds) if "statistics" in kind]
    assert len(statistics) == 3
    assert max(statistics) < kinds.index(MessageType.TRAIN)
    assert np.isfinite(result["rounds"][0]["pooled"]["loss"])


def test_a_site_whose_statistics_are_lost_sits_the_round_out(consortium, tmp_path):
    study = make_study({"task": "align", **STEPS, "rounds": 1, "options": {"loss": "dcco"}})
    lost = run(
        study, consortium.paths.values(), tmp_path / "lost",
        lost=lambda m: m.metadata.dst_node_id == 1000 and "statistics" in m.metadata.message_type,
    )  # fmt: skip
    row = next(row for row in lost["rounds"][0]["sites"] if row["site"] == "alpha")
    assert (row["status"], row["code"]) == ("left-out", "unreachable")
    without = [consortium.paths["beta"], consortium.paths["gamma"]]
    assert lost["model_digest"] == run(study, without, tmp_path / "without")["model_digest"]


def test_an_external_site_measures_and_changes_nothing(consortium, tmp_path):
    hospital = {
        "site": "zeta",
        "layout": "local_wfdb",
        "patients": 14,
        "scanner": SCANNER,
        "external": True,
        **SMALL,
        "split": {"validation": 0.0, "test": 1.0},
        "policy": POLICY,
    }
    study = make_study({"task": "ecg_mae", **STEPS, "rounds": 1}, {"task": "probe", "rounds": 1})
    member = {**hospital, "site": "eta", "external": False, **SMALL}
    scenario = {
        "name": "ext",
        "seed": 4,
        "hospitals": [hospital, member],
        "study": study.model_dump(mode="json"),
    }
    made = make_hospitals(Scenario.model_validate(scenario), tmp_path / "hospitals", workers=1)
    outside = next(path for path in made if path.parent.name == "zeta")
    assert yaml.safe_load(outside.read_text())["policy"]["role"] == "external"
    prepare(read_site(outside))
    paths = [consortium.paths["alpha"], consortium.paths["gamma"]]
    result = run(study, [*paths, outside], tmp_path / "with")
    assert result["model_digest"] == run(study, paths, tmp_path / "without")["model_digest"]
    for entry in result["rounds"]:
        assert "zeta" not in {row["site"] for row in entry["sites"]}
        assert entry["test"]["external"]["zeta"]["n_patients"] > 0
        members = sum(row["metrics"]["n_rows"] for row in entry["test"]["sites"])
        assert entry["test"]["pooled"]["n_rows"] == members


def test_a_study_whose_phases_cannot_work_is_refused_before_anything_is_sent(consortium, tmp_path):
    study = make_study({"task": "phenotype", **STEPS})
    with pytest.raises(ConfigError, match="standardise"):
        run(
            study, consortium.paths.values(), tmp_path, lost=lambda message: pytest.fail("something was sent")
        )
    with pytest.raises(ConfigError, match="takes no optimiser"):
        run(make_study({"task": "probe", **STEPS}), consortium.paths.values(), tmp_path)
