"""The server's moving average, weights that a study starts from, and the order of its phases."""

from __future__ import annotations

import json

import numpy as np
import pytest

from cardionets_core.config.study import Study
from cardionets_core.errors import CheckpointError, ConfigError
from cardionets_core.tasks import make_task
from server.checkpoints import CheckpointStore, export_model
from server.next_model import (
    AVERAGE,
    average_files,
    digest_of,
    first_model,
    layouts_of,
    measured_files,
    settle,
)
from server.phase_order import check_order, tasks_of

TASK = make_task("ecg_mae", {})


def make_study(**changes) -> Study:
    phase = {"task": "ecg_mae", "rounds": 3, "local_steps": 1, "optimiser": {"lr": 1e-3}}
    return Study.model_validate({"name": "s", "phases": [phase], **changes})


def start(folder, study: Study, initial=None):
    store = CheckpointStore(folder / "checkpoints", study_digest=study.digest)
    (folder / "work").mkdir(parents=True)
    files, layouts = first_model(study, [TASK], work=folder / "work", initial=initial)
    return store, store.write(
        phase=0, round_number=0, layouts=layouts, files=files, history=[], previous=None
    )


def test_the_average_follows_its_closed_form_over_rounds_and_replaces_its_module_at_the_end(tmp_path):
    """After rounds of s steps to values v_r: a <- d^s a + (1 - d^s) v_r, from the first weights on."""
    study = make_study()
    store, checkpoint = start(tmp_path, study)
    decay, expected = 0.9, checkpoint.values("ecg_encoder").astype(np.float64)
    for number, (steps, value) in enumerate([(1, 2.0), (3, -1.0), (2, 0.5)], start=1):
        files = {name: checkpoint.path(name) for name in checkpoint.digests}
        for module in TASK.trains:
            files[module] = tmp_path / "work" / f"{module}.f32"
            np.full(checkpoint.layouts[module].size, value, dtype="<f4").tofile(files[module])
        files |= average_files(
            TASK, files, checkpoint=checkpoint, decay=decay, steps=steps, work=tmp_path / "work"
        )
        expected = decay**steps * expected + (1 - decay**steps) * value
        measured = measured_files(TASK, files)
        assert measured["ecg_encoder"] == files["ecg_encoder" + AVERAGE]
        if number == 3:
            files = settle(files)
        assert (tmp_path / "work" / "ecg_encoder.f32").exists()
        digest = digest_of(checkpoint, files)
        checkpoint = store.write(
            phase=0, round_number=number, layouts=layouts_of(checkpoint, files), files=files, history=[],
            previous=checkpoint,
        )  # fmt: skip
        assert checkpoint.model_digest == digest
        assert store.latest().model_digest == digest
    assert set(checkpoint.digests) == set(TASK.trains)
    np.testing.assert_allclose(checkpoint.values("ecg_encoder"), expected, atol=1e-6)


def given(folder, seed: int = 3):
    """A model folder with other weights, and their digests."""
    study = make_study(seed=seed)
    _, checkpoint = start(folder, study)
    export_model(checkpoint, folder / "model", study=study)
    content = json.loads((folder / "model" / "model.json").read_text())
    return folder / "model", {name: module["digest"] for name, module in content["modules"].items()}


def test_a_study_starts_from_the_weights_that_it_names(tmp_path):
    folder, digests = given(tmp_path / "given")
    study = make_study(initial={"ecg_encoder": digests["ecg_encoder"]})
    _, checkpoint = start(tmp_path / "run", study, initial=folder)
    assert checkpoint.digests["ecg_encoder"] == digests["ecg_encoder"]
    assert checkpoint.digests["ecg_decoder"] != digests["ecg_decoder"]
    assert study.digest != make_study().digest


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("no folder", "no folder was named"),
        ("absent", "cannot be read"),
        ("others", "not the weights"),
        ("torn", "cannot be read"),
    ],
)
def test_weights_that_are_not_those_are_refused(tmp_path, damage, said):
    folder, digests = given(tmp_path / "given")
    path = folder / "ecg_encoder.safetensors"
    if damage == "absent":
        path.unlink()
    elif damage == "others":
        folder, _ = given(tmp_path / "other", seed=4)
    elif damage == "torn":
        path.write_bytes(path.read_bytes()[:100])
    study = make_study(initial={"ecg_encoder": digests["ecg_encoder"]})
    with pytest.raises(CheckpointError, match=said):
        start(tmp_path / "run", study, initial=None if damage == "no folder" else folder)


@pytest.mark.parametrize(
    ("tasks", "said"),
    [
        (["phenotype"], "phase 1 .phenotype. reads phenotype_standardiser"),
        (["standardise", "screening"], "phase 2 .screening. reads screening_prior"),
        (["generate", "tokenizer"], "phase 1 .generate. reads cmr_tokenizer"),
        (["tokenizer", "memorisation"], "reads cmr_generator"),
    ],
)
def test_a_phase_before_what_it_reads_is_refused(tasks, said):
    with pytest.raises(ConfigError, match=said):
        check_order([make_task(name, {}) for name in tasks], initial=())


def test_what_stands_in_order_or_is_given_passes():
    names = ("tokenizer", "generate", "memorisation", "prevalence", "screening", "calibrate", "fuse")
    check_order([make_task(name, {}) for name in names], initial=())
    check_order([make_task("generate", {})], initial={"cmr_tokenizer"})
    check_order([make_task("align", {}), make_task("probe", {})], initial=())


def test_principal_components_of_other_weights_are_refused():
    cosine = make_task("align", {"loss": "cosine"})
    mae, principal = make_task("cmr_mae", {}), make_task("principal", {})
    check_order([mae, principal, cosine], initial=())
    check_order([cosine], initial={"cmr_principal"})
    check_order([principal, mae, principal, cosine], initial=())
    for before, initial in (([mae], {"cmr_principal"}), ([principal, mae], set())):
        with pytest.raises(ConfigError, match="cmr_principal, made before cmr_encoder was trained") as caught:
            check_order([*before, cosine], initial=initial)
        assert "put a phase of task principal between" in caught.value.remedy


def test_what_privacy_forbids_is_said_before_what_a_phase_lacks():
    align = {"task": "align", "rounds": 1, "local_steps": 1, "batch_size": 8, "optimiser": {"lr": 1e-3}}
    content = {"name": "s", "phases": [{**align, "options": {"loss": "weighted"}}]}
    with pytest.raises(ConfigError, match="cmr_principal, which nothing before it makes"):
        tasks_of(Study.model_validate(content))
    private = {"mechanism": "dp_sgd", "epsilon": 3.0}
    with pytest.raises(ConfigError, match="couples the patients"):
        tasks_of(Study.model_validate({**content, "privacy": private}))
