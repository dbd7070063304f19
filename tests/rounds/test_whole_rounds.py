"""Whole studies on an in-process grid: the same ServerApp code and ClientApp as on Flower, without Ray."""

import functools
import json
import random
import shutil

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MessageType, RecordDict

from cardionets_core.audit import journal
from cardionets_core.errors import CheckpointError, QuorumNotMetError, UnknownNameError
from cardionets_core.tasks import task_of
from client.app import make_app
from server.app import run_study
from server.plan import plan_of
from simulation.central import train_centrally
from simulation.flower import hospital_of_partition
from simulation.local_grid import LocalGrid


def grid_of(paths, **options):
    locate = functools.partial(hospital_of_partition, tuple(paths))
    return LocalGrid([make_app(locate) for _ in paths], **options)


def run(study, paths, folder, **options):
    # A site that has answered an order answers it from its store: here every run is to be worked on.
    for path in paths:
        shutil.rmtree(path.parent / "state" / "replies", ignore_errors=True)
    return run_study(grid_of(paths, **options), study, folder=folder, track=False)


def only(study, *tasks, **changes):
    phases = tuple(phase for phase in study.phases if phase.task in tasks)
    return study.model_copy(update={"phases": phases, **changes})


@pytest.fixture(scope="module")
def study(in_either_generation):
    """Each test here runs in either generation."""
    return in_either_generation


@pytest.fixture(scope="module")
def finished(consortium, study, tmp_path_factory):
    """One whole study over three hospitals, and its folder."""
    folder = tmp_path_factory.mktemp("finished")
    return run(study, consortium.paths.values(), folder), folder


def test_a_study_runs_from_first_model_to_result(finished, study):
    result, folder = finished
    assert result["status"] == "completed"
    assert [entry["task"] for entry in result["rounds"]] == ["cmr_mae"] * 2 + ["ecg_mae"] * 2 + [
        "align"
    ] * 2 + ["probe"]
    assert result["study_digest"] == study.digest
    model = json.loads((folder / "model" / "model.json").read_text())
    assert model["model_digest"] == result["model_digest"] == result["rounds"][-1]["model_digest"]
    assert {path.stem for path in (folder / "model").glob("*.safetensors")} == set(model["modules"])
    assert json.loads((folder / "result.json").read_text()) == result


def test_a_site_without_cmr_sits_out_what_it_cannot_serve(finished):
    result, _ = finished
    beta = next(site for site in result["sites"] if site["site"] == "beta")
    assert beta["phases"]["ecg_mae"] == "serves"
    assert beta["phases"]["cmr_mae"] == "phase-not-permitted"
    # Without cines it takes part in align by distillation, and moves the ECG encoder alone.
    assert beta["phases"]["align"] == "serves"
    trained = {e["task"]: {row["site"] for row in e["sites"]} for e in result["rounds"]}
    assert trained["cmr_mae"] == {"alpha", "gamma"}
    assert trained["ecg_mae"] == {"alpha", "beta", "gamma"}


def test_refused_records_are_counted_by_reason(finished, consortium):
    result, _ = finished
    for site in result["sites"]:
        assert site["refusals"] == consortium.cohorts[site["site"]].refusals
    assert sum(sum(site["refusals"].values()) for site in result["sites"]) > 0


def test_each_round_has_per_site_and_pooled_metrics_and_its_cost(finished):
    result, _ = finished
    for entry in result["rounds"]:
        assert entry["pooled"]
        assert entry["seconds"] > 0 and entry["bytes_sent"] > 0 and entry["bytes_received"] > 0
        measured = [row["metrics"]["n_rows"] for row in entry["sites"] if "metrics" in row]
        assert sum(measured) == entry["pooled"]["n_rows"]


def test_the_plan_told_how_much_goes_out_and_comes_back(finished, study):
    result, _ = finished
    for index, phase in enumerate(plan_of(study)["phases"]):
        done = [entry for entry in result["rounds"] if entry["phase"] == index]
        sites = max(sum("metrics" in row for row in entry["sites"]) for entry in done)
        moved = sum(entry["bytes_sent"] + entry["bytes_received"] for entry in done)
        taking_part = max(len(entry["sites"]) for entry in done)
        assert 0 < moved <= taking_part * phase["bytes_per_site"], phase["task"]
        if phase["task"] == "probe":
            sums = phase["sum_bytes_per_round_and_site"] + 2 * phase["measured_bytes_each_time"]
            assert sum(entry["bytes_received"] for entry in done) == sites * sums


def test_what_left_each_site_is_in_its_journal(finished, consortium):
    for path in consortium.paths.values():
        assert journal.verify(path.parent / "state" / "journal.jsonl") > 0


def test_the_same_seed_gives_the_same_model_and_another_seed_another(finished, consortium, study, tmp_path):
    result, _ = finished
    paths = list(consortium.paths.values())
    again = run(study, paths, tmp_path / "again", shuffle=random.Random(4))
    assert again["model_digest"] == result["model_digest"], "the order of arrival changed the model"
    other = run(only(study, "ecg_mae", seed=6), paths, tmp_path / "other")
    base = run(only(study, "ecg_mae"), paths, tmp_path / "base")
    assert other["model_digest"] != base["model_digest"]


def test_a_federation_of_one_site_is_plain_local_training_bit_for_bit(consortium, study, tmp_path):
    alone = study.model_copy(update={"sites": study.sites.model_copy(update={"minimum": 1})})
    result = run(alone, [consortium.paths["alpha"]], tmp_path)
    assert result["model_digest"] == train_centrally(alone, consortium.cohorts["alpha"]).digest


def test_a_killed_study_resumes_to_the_same_model(finished, consortium, study, tmp_path):
    result, _ = finished
    paths = list(consortium.paths.values())
    sent = []

    class Killed(BaseException):
        pass

    def kill_late(message):
        if message.metadata.message_type == MessageType.TRAIN:
            sent.append(message)
            if len(sent) == 11:
                raise Killed
        return False

    with pytest.raises(Killed):
        run(study, paths, tmp_path, lost=kill_late)
    resumed = run(study, paths, tmp_path)
    assert resumed["model_digest"] == result["model_digest"]
    assert len(resumed["rounds"]) == len(result["rounds"])


def test_a_folder_of_another_study_is_refused(finished, consortium, study):
    _, folder = finished
    with pytest.raises(CheckpointError, match="another study"):
        run(study.model_copy(update={"seed": 99}), consortium.paths.values(), folder)


def test_frozen_modules_do_not_change_a_byte_and_travel_once(finished, study):
    result, folder = finished
    digests = {e["task"]: e for e in result["rounds"]}
    assert digests["align"]["round"] == 2
    first = next(e for e in result["rounds"] if e["task"] == "align")
    # All sites hold the encoder that ecg_mae left; only beta, without cines, lacks the frozen ones.
    folder_of = folder / "checkpoints" / "03-00001"
    size = {path.stem: path.stat().st_size for path in folder_of.glob("*.f32")}
    align = task_of(study.phases[2], study)
    assert set(align.reads) >= {"cmr_encoder"}
    new = sum(size[name] for name in align.trains if name != "ecg_encoder")
    assert first["bytes_sent"] == 3 * new + sum(size[name] for name in align.reads)
    checkpoints = folder / "checkpoints"
    before = (checkpoints / "00-00002" / "cmr_encoder.f32").read_bytes()
    assert (checkpoints / "03-00001" / "cmr_encoder.f32").read_bytes() == before


def spoiled(kind):
    """A hostile site's reply: everything else as it was."""

    def tamper(node, content):
        fields, arrays = content.config_records["fields"], content.array_records["arrays"]
        if node != 1000 or "module/ecg_encoder" not in arrays:
            return content
        fields, arrays = dict(fields), {k: v.numpy() for k, v in arrays.items()}
        values = arrays["module/ecg_encoder"].copy()
        if kind == "nan":
            values[7] = np.nan
        elif kind == "inf":
            values[-1] = np.inf
        elif kind == "shape":
            values = values[:-1]
        elif kind == "dtype":
            values = values.astype(np.float64)
        elif kind == "huge-count":
            fields["samples/ecg_encoder"] = 10**12
        elif kind == "negative-count":
            fields["samples/ecg_encoder"] = -9
        elif kind == "zero-count":
            fields["samples/ecg_encoder"] = 0
        elif kind == "names":
            fields["layout/module/ecg_encoder"] = fields["layout/module/ecg_encoder"].replace(
                "blocks", "blacks"
            )
        elif kind == "stranger":
            arrays["module/cmr_encoder"] = values
            fields["layout/module/cmr_encoder"] = fields["layout/module/ecg_encoder"]
            fields["samples/cmr_encoder"] = 3
        elif kind == "other-round":
            fields["round"] = fields["round"] + 1
        elif kind == "other-site":
            fields["site"] = "gamma"
        elif kind == "nan-loss":
            fields["value/loss"] = float("nan")
        elif kind == "no-fields":
            return RecordDict({"arrays": ArrayRecord({k: Array(v) for k, v in arrays.items()})})
        arrays["module/ecg_encoder"] = values
        return RecordDict(
            {"fields": ConfigRecord(fields), "arrays": ArrayRecord({k: Array(v) for k, v in arrays.items()})}
        )

    return tamper


KINDS = (
    "nan", "inf", "shape", "dtype", "huge-count", "negative-count", "zero-count", "names", "stranger",
    "other-round", "other-site", "nan-loss", "no-fields",
)  # fmt: skip


@pytest.fixture(scope="module")
def without_alpha(consortium, study, tmp_path_factory):
    mae = one_round(study)
    paths = [consortium.paths["beta"], consortium.paths["gamma"]]
    return run(mae, paths, tmp_path_factory.mktemp("without"))["model_digest"]


def one_round(study):
    phase = next(phase for phase in study.phases if phase.task == "ecg_mae")
    return study.model_copy(update={"phases": (phase.model_copy(update={"rounds": 1}),)})


@pytest.mark.parametrize("kind", KINDS)
def test_a_spoiled_reply_never_enters_the_model(kind, consortium, study, without_alpha, tmp_path):
    result = run(one_round(study), consortium.paths.values(), tmp_path, tamper=spoiled(kind))
    (entry,) = result["rounds"]
    row = next(row for row in entry["sites"] if row["site"] == "alpha")
    assert (row["status"], row["code"]) == ("left-out", "reply-refused")
    assert "loss" not in row
    assert result["model_digest"] == without_alpha


def test_a_site_that_vanishes_is_named_and_the_others_go_on(consortium, study, without_alpha, tmp_path):
    def gone(message):
        return message.metadata.dst_node_id == 1000 and message.metadata.message_type == MessageType.TRAIN

    result = run(one_round(study), consortium.paths.values(), tmp_path, lost=gone)
    row = next(row for row in result["rounds"][0]["sites"] if row["site"] == "alpha")
    assert (row["status"], row["code"]) == ("left-out", "unreachable")
    assert result["model_digest"] == without_alpha


def test_below_the_quorum_the_study_pauses_with_its_state_kept(consortium, study, tmp_path):
    def gone(message):
        return message.metadata.dst_node_id != 1000 and message.metadata.message_type == MessageType.TRAIN

    with pytest.raises(QuorumNotMetError, match="ecg_mae"):
        run(only(study, "ecg_mae"), consortium.paths.values(), tmp_path, lost=gone)
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["status"] == "paused" and result["paused"]["code"] == "quorum-not-met"
    assert result["paused"]["remedy"]
    resumed = run(only(study, "ecg_mae"), consortium.paths.values(), tmp_path)
    assert resumed["status"] == "completed"


def test_an_unknown_phase_is_told_before_anything_is_sent(consortium, study, tmp_path):
    wrong = study.model_copy(update={"phases": (study.phases[0].model_copy(update={"task": "sing"}),)})
    with pytest.raises(UnknownNameError, match="sing"):
        run(
            wrong, consortium.paths.values(), tmp_path, lost=lambda message: pytest.fail("something was sent")
        )
