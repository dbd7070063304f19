"""A model folder is believed only where every file has its digest."""

from __future__ import annotations

import hashlib
import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from cardionets_core.config.study import Study
from cardionets_core.errors import CheckpointError
from cardionets_core.exchange.tensors import layout_of, pack
from cardionets_core.models import build_module
from cardionets_core.training.model_folder import MODEL, read_model_folder
from cardionets_core.training.tensors import export_tensors
from server.checkpoints import CheckpointStore, export_model

CPU = torch.device("cpu")
STUDY = Study.model_validate({"name": "probed", "phases": [{"task": "probe", "rounds": 1}]})


@pytest.fixture
def folder(tmp_path):
    """An encoder and a probe, written as a run writes them."""
    layouts, files = {}, {}
    for name in ("ecg_encoder", "phenotype_probe"):
        tensors = export_tensors(build_module(name, "nano", seed=3))
        layouts[name], files[name] = layout_of(tensors), tmp_path / f"{name}.f32"
        pack(tensors).tofile(files[name])
    entry = {"phase": 0, "round": 1, "task": "probe", "test": {"pooled": {"r2_mean": 0.25}}}
    store = CheckpointStore(tmp_path / "checkpoints", study_digest=STUDY.digest)
    last = store.write(phase=0, round_number=1, layouts=layouts, files=files, history=[entry], previous=None)
    export_model(last, tmp_path / "model", study=STUDY)
    return tmp_path / "model"


def edit(folder, change):
    content = json.loads((folder / MODEL).read_text())
    change(content)
    (folder / MODEL).write_text(json.dumps(content))


def test_what_a_run_writes_is_read_back_bit_for_bit(folder):
    stored = read_model_folder(folder)
    assert (stored.preset, stored.study, stored.study_digest) == ("nano", "probed", STUDY.digest)
    assert stored.metrics_of("probe") == {"r2_mean": 0.25} and stored.metrics_of("phenotype") == {}
    assert stored.lacks(["ecg_encoder", "phenotype_head"]) == ["phenotype_head"]
    module = stored.load("ecg_encoder", device=CPU)
    for name, value in build_module("ecg_encoder", "nano", seed=3).named_parameters():
        assert torch.equal(module.get_parameter(name), value)
    assert not module.training and not any(each.requires_grad for each in module.parameters())


def test_metrics_that_no_longer_hold_are_not_given(folder):
    edit(folder, lambda content: content["evaluation"][0].update(current=False))
    assert read_model_folder(folder).metrics_of("probe") == {}


@pytest.mark.parametrize("name", ["ecg_encoder", "phenotype_probe"])
def test_a_file_that_was_changed_cut_or_lost_is_refused(folder, name):
    path = folder / f"{name}.safetensors"
    whole = path.read_bytes()
    for content in (whole[:-4], whole[:-1] + bytes([whole[-1] ^ 1]), b""):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="digest"):
            read_model_folder(folder)
    path.unlink()
    with pytest.raises(CheckpointError, match="digest"):
        read_model_folder(folder)


def test_other_tensors_under_a_fitting_file_digest_are_refused_when_loaded(folder):
    path = folder / "phenotype_probe.safetensors"
    tensors = load_file(path)
    tensors["bias"] = tensors["bias"] + np.float32(1)
    save_file(tensors, path)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    edit(folder, lambda content: content["modules"]["phenotype_probe"].update(file_sha256=found))
    stored = read_model_folder(folder)
    stored.load("ecg_encoder", device=CPU)
    with pytest.raises(CheckpointError, match="digest"):
        stored.load("phenotype_probe", device=CPU)


def test_another_preset_does_not_fit(folder):
    edit(folder, lambda content: content.update(preset="small"))
    with pytest.raises(CheckpointError, match="shape"):
        read_model_folder(folder).load("ecg_encoder", device=CPU)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.update(schema_version=1),
        lambda content: content.update(schema_version=99),
        lambda content: content.update(preset="vast"),
        lambda content: content.update(model_digest="0" * 64),
        lambda content: content.pop("evaluation"),
        lambda content: content["modules"].update({"../outside": content["modules"]["ecg_encoder"]}),
        lambda content: content["modules"]["ecg_encoder"].update(digest="0" * 64),
        lambda content: content["evaluation"][0].update(test={"r2_mean": "good"}),
    ],
)
def test_a_description_that_is_not_ours_is_refused(folder, change):
    edit(folder, change)
    with pytest.raises(CheckpointError):
        read_model_folder(folder)


def test_a_folder_without_a_model_is_refused(tmp_path, folder):
    (folder / MODEL).write_text("[]")
    with pytest.raises(CheckpointError, match="schema version None"):
        read_model_folder(folder)
    shutil.rmtree(folder)
    with pytest.raises(CheckpointError, match="no model"):
        read_model_folder(folder)
