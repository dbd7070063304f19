"""Whole rounds under strategies that have a side at the sites."""

from __future__ import annotations

import functools
import random
import shutil

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MessageType, RecordDict
from safetensors.numpy import load_file

from cardionets_core.config.study import Study
from cardionets_core.errors import ConfigError
from cardionets_core.exchange.tensors import unpack
from client.app import make_app
from server.app import run_study
from server.checkpoints import CheckpointStore
from server.plan import plan_of
from simulation.flower import hospital_of_partition
from simulation.local_grid import LocalGrid

SGD = {"name": "sgd", "lr": 0.05, "weight_decay": 0.0, "schedule": "constant"}
ADAMW = {"lr": 1e-3}


def study_with(strategy: str, *, rounds: int = 2, optimiser=ADAMW, minimum: int = 2, **options) -> Study:
    phase = {"task": "ecg_mae", "rounds": rounds, "local_steps": 2, "batch_size": 8, "optimiser": optimiser}
    return Study.model_validate(
        {
            "name": "strategies",
            "seed": 5,
            "sites": {"minimum": minimum, "deadline_s": 60, "attempts": 2},
            "phases": [phase],
            "aggregation": {"strategy": strategy, "options": options},
        }
    )


def run(study, hospitals, folder, *, names=None, **options):
    paths = tuple(hospitals[name] for name in names or sorted(hospitals))
    locate = functools.partial(hospital_of_partition, paths)
    grid = LocalGrid([make_app(locate) for _ in paths], **options)
    return run_study(grid, study, folder=folder, track=False)


def forget(hospitals):
    for path in hospitals.values():
        shutil.rmtree(path.parent / "state", ignore_errors=True)


def tensors(folder, study, module="ecg_encoder"):
    checkpoint = CheckpointStore(folder / "checkpoints", study_digest=study.digest).latest()
    return unpack(checkpoint.layouts[module], checkpoint.values(module))


def model_values(folder):
    return {path.stem: load_file(path) for path in sorted((folder / "model").glob("*.safetensors"))}


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[m][t], b[m][t]) for m in a for t in a[m])


def test_without_a_proximal_term_fedprox_is_fedavg_bit_for_bit(hospitals, tmp_path):
    for name, study in (
        ("avg", study_with("fedavg")),
        ("zero", study_with("fedprox", mu=0.0)),
        ("some", study_with("fedprox", mu=50.0)),
    ):
        run(study, hospitals, tmp_path / name)
    avg, zero, some = (model_values(tmp_path / name) for name in ("avg", "zero", "some"))
    assert same(avg, zero)
    assert not same(avg, some)


def test_equal_steps_make_fednova_fedavg_bit_for_bit(hospitals, tmp_path):
    run(study_with("fedavg"), hospitals, tmp_path / "avg")
    run(study_with("fednova"), hospitals, tmp_path / "nova")
    assert same(model_values(tmp_path / "avg"), model_values(tmp_path / "nova"))


def test_without_fairness_qfedavg_is_fedavg_and_with_it_another(hospitals, tmp_path):
    run(study_with("fedavg"), hospitals, tmp_path / "avg")
    run(study_with("qfedavg", q=0.0, local_rate=0.001), hospitals, tmp_path / "zero")
    result = run(study_with("qfedavg", q=2.0, local_rate=0.001), hospitals, tmp_path / "fair")
    avg, zero, fair = (model_values(tmp_path / name) for name in ("avg", "zero", "fair"))
    assert same(avg, zero) and not same(avg, fair)
    assert all(row["first_loss"] > 0 for entry in result["rounds"] for row in entry["sites"])


def test_scaffold_runs_repeats_and_sends_twice_the_bytes(hospitals, tmp_path):
    study = study_with("scaffold", rounds=3, optimiser=SGD)
    result = run(study, hospitals, tmp_path / "a")
    plain = study_with("fedavg", rounds=3, optimiser=SGD)
    forget(hospitals)
    other = run(plain, hospitals, tmp_path / "plain")
    once = plan_of(plain)["phases"][0]["bytes_per_round_and_site"] // 2
    assert plan_of(study)["phases"][0]["bytes_per_round_and_site"] == 4 * once
    for mine, theirs in zip(result["rounds"], other["rounds"], strict=True):
        assert mine["bytes_received"] - theirs["bytes_received"] == 3 * once
    forget(hospitals)
    again = run(study, hospitals, tmp_path / "b", shuffle=random.Random(3))
    assert again["model_digest"] == result["model_digest"]
    assert not same(model_values(tmp_path / "a"), model_values(tmp_path / "plain"))


def test_the_first_round_of_scaffold_is_fedavg(hospitals, tmp_path):
    """All control variates are zero."""
    run(study_with("fedavg", rounds=1, optimiser=SGD), hospitals, tmp_path / "avg")
    run(study_with("scaffold", rounds=1, optimiser=SGD), hospitals, tmp_path / "scaffold")
    assert same(model_values(tmp_path / "avg"), model_values(tmp_path / "scaffold"))


def test_the_coordinators_control_is_the_mean_of_the_sites(hospitals, tmp_path):
    """c is the mean of the c_i, though one reply of the second round was spoiled on its way."""
    study = study_with("scaffold", rounds=4, optimiser=SGD, weights="equal")
    lost = []

    def lose(node, content):
        """Site alpha trains in round 2, but its reply is spoiled on the way."""
        fields = dict(content.config_records["fields"])
        if node != 1000 or fields["round"] != 2 or "samples/ecg_encoder" not in fields:
            return content
        lost.append(node)
        fields["samples/ecg_encoder"] = -1
        arrays = {k: Array(v.numpy()) for k, v in content.array_records["arrays"].items()}
        return RecordDict({"fields": ConfigRecord(fields), "arrays": ArrayRecord(arrays)})

    class Stopped(BaseException):
        pass

    def stop(message):
        """Before the last round, so that what the strategy remembers is there."""
        fields = message.content.config_records["fields"]
        if message.metadata.message_type == MessageType.TRAIN and fields["round"] == 4:
            raise Stopped
        return False

    with pytest.raises(Stopped):
        run(study, hospitals, tmp_path / "run", tamper=lose, lost=stop)
    assert lost == [1000]
    checkpoint = CheckpointStore(tmp_path / "run" / "checkpoints", study_digest=study.digest).latest()
    assert checkpoint.round == 3
    control = unpack(checkpoint.layouts["ecg_encoder"], checkpoint.values("ecg_encoder.control"))
    own = []
    for path in hospitals.values():
        (folder,) = (path.parent / "state" / "control").iterdir()
        own.append(load_file(sorted(folder.glob("*.safetensors"))[-1]))
    for name, value in control.items():
        mean = np.mean([each[f"ecg_encoder/{name}"].astype(np.float64) for each in own], axis=0)
        np.testing.assert_allclose(value, mean, atol=1e-6 * max(1.0, float(np.abs(mean).max())))
    assert any(np.abs(value).max() > 0 for value in control.values())


@pytest.mark.parametrize(
    "strategy, optimiser, options",
    [
        ("scaffold", SGD, {}),
        ("fedbn", ADAMW, {}),
        ("ditto", {**ADAMW, "state": "persist"}, {}),
        ("fedadam", ADAMW, {"rate": 0.001}),
        ("flower/fedadam", ADAMW, {"eta": 0.001}),
    ],
)
def test_a_killed_study_resumes_to_the_same_model_and_the_same_sites(
    hospitals, tmp_path, strategy, optimiser, options
):
    """The second round is asked for twice; nobody's state advances twice."""
    study = study_with(strategy, rounds=3, optimiser=optimiser, **options)
    whole = run(study, hospitals, tmp_path / "whole")
    states = site_states(hospitals)
    forget(hospitals)
    sent = []

    class Killed(BaseException):
        pass

    def kill(message):
        if message.metadata.message_type == MessageType.TRAIN:
            sent.append(message)
            if len(sent) == 6:  # two of three sites have trained the second round
                raise Killed
        return False

    with pytest.raises(Killed):
        run(study, hospitals, tmp_path / "killed", lost=kill)
    resumed = run(study, hospitals, tmp_path / "killed")
    assert resumed["model_digest"] == whole["model_digest"]
    assert site_states(hospitals) == states


def site_states(hospitals):
    """Bytes of all that lasts at the sites."""
    return {
        (name, path.relative_to(config.parent).as_posix()): path.read_bytes()
        for name, config in hospitals.items()
        for path in sorted((config.parent / "state").rglob("*.safetensors"))
        if "frozen" not in path.parts
    }


def test_local_tensors_never_leave_and_the_global_ones_keep_their_bytes(hospitals, tmp_path):
    study = study_with("fedbn", rounds=2, local="*norm*")
    seen = []

    def look(node, content):
        arrays = content.array_records["arrays"]
        if "module/ecg_encoder" in arrays:
            seen.append((node, arrays["module/ecg_encoder"].numpy()))
        return content

    run(study, hospitals, tmp_path / "run", tamper=look)
    store = CheckpointStore(tmp_path / "run" / "checkpoints", study_digest=study.digest)
    end = store.phase_end(0, 2)
    layout, last = end.layouts["ecg_encoder"], tensors(tmp_path / "run", study)
    first = [name for name in last if name.endswith("norm_mlp.weight")]
    assert first and all((last[name] == 1.0).all() for name in first), "as they were drawn"
    assert len(seen) == 6
    for _, values in seen:
        for name in first:
            assert (unpack(layout, values)[name] == 1.0).all()
    kept = {}
    for site, path in hospitals.items():
        (folder,) = (path.parent / "state" / "local-tensors").iterdir()
        kept[site] = load_file(folder / "00002.safetensors")
        assert all("norm" in name for name in kept[site])
        assert any((value != 1.0).any() for name, value in kept[site].items() if name.endswith("mlp.weight"))
    key = f"ecg_encoder/{first[0]}"
    assert not np.array_equal(kept["alpha"][key], kept["beta"][key])


def test_with_everything_local_nothing_is_learnt_together_and_each_site_trains_on(hospitals, tmp_path):
    """The limit: the global model keeps its bytes, a site's own tensors are those of training alone."""
    study = study_with("fedbn", rounds=2, local="*", minimum=1)
    run(study, hospitals, tmp_path / "one", names=["alpha"])
    (folder,) = (hospitals["alpha"].parent / "state" / "local-tensors").iterdir()
    alone = load_file(folder / "00002.safetensors")
    run(study_with("fedavg", rounds=2, minimum=1), hospitals, tmp_path / "plain", names=["alpha"])
    plain = model_values(tmp_path / "plain")
    assert all(np.array_equal(alone[f"{m}/{t}"], plain[m][t]) for m in plain for t in plain[m])
    untouched = model_values(tmp_path / "one")
    assert not same(untouched, plain)


def test_ditto_leaves_the_global_model_as_fedavg_and_measures_its_own(hospitals, tmp_path):
    run(study_with("fedavg"), hospitals, tmp_path / "avg")
    result = run(study_with("ditto", **{"lambda": 0.5}), hospitals, tmp_path / "ditto")
    assert same(model_values(tmp_path / "avg"), model_values(tmp_path / "ditto"))
    for entry in result["rounds"]:
        assert set(entry["personal"]) == {"alpha", "beta", "gamma", "pooled"}
        assert entry["personal"]["alpha"].keys() == entry["pooled"].keys()
        assert entry["personal"]["pooled"] != entry["pooled"]
    assert set(result["rounds"][-1]["test"]["personal"]) == {"alpha", "beta", "gamma", "pooled"}
    for path in hospitals.values():
        (folder,) = (path.parent / "state" / "personal").iterdir()
        assert [each.name for each in sorted(folder.iterdir())] == ["00001.safetensors", "00002.safetensors"]


def test_without_a_pull_the_personal_model_is_training_alone(hospitals, tmp_path):
    run(study_with("ditto", **{"lambda": 0.0}), hospitals, tmp_path / "ditto")
    run(study_with("fedavg", minimum=1), hospitals, tmp_path / "alone", names=["alpha"])
    (folder,) = (hospitals["alpha"].parent / "state" / "personal").iterdir()
    own, alone = load_file(folder / "00002.safetensors"), model_values(tmp_path / "alone")
    assert all(np.array_equal(own[f"{m}/{t}"], alone[m][t]) for m in alone for t in alone[m])


def test_personal_heads_alone(hospitals, tmp_path):
    run(study_with("ditto", rounds=1, personal="ecg_decoder"), hospitals, tmp_path / "run")
    (folder,) = (hospitals["alpha"].parent / "state" / "personal").iterdir()
    assert {key.partition("/")[0] for key in load_file(folder / "00001.safetensors")} == {"ecg_decoder"}


@pytest.mark.parametrize(
    "study",
    [
        study_with("scaffold"),
        study_with("scaffold", optimiser={**SGD, "state": "persist"}),
        study_with("fednova", optimiser={**SGD, "momentum": 0.9, "state": "persist"}),
        study_with("krum"),
        study_with("bulyan", minimum=6),
        study_with("fedbn", local="*batchnorm*"),
        study_with("fedbn", local="*norm*,"),
        study_with("ditto", personal="cmr_encoder"),
        study_with("ditto", **{"lambda": -1.0}),
        study_with("fedprox", mu="strong"),
        study_with("flower/krum", num_malicious=1),
        study_with("flower/fedtrimmedavg", beta=0.7),
    ],
    ids=lambda study: study.aggregation.strategy,
)
def test_what_does_not_fit_is_told_before_anything_is_sent(study, tmp_path):
    grid = LocalGrid([], lost=lambda message: pytest.fail("something was sent"))
    with pytest.raises(ConfigError) as told:
        run_study(grid, study, folder=tmp_path / "run", track=False)
    assert told.value.remedy
    with pytest.raises(ConfigError):
        plan_of(study)
