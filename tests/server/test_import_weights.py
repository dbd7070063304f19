"""Downloaded checkpoints: nothing of them runs, faults are told, the rest becomes a model folder."""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import pickle
import random
import tarfile
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from cardionets_core.errors import CheckpointError, ConfigError, UnknownNameError, UsageError
from cardionets_core.exchange.tensors import layout_of, module_digest, pack
from cardionets_core.models import build_module
from cardionets_core.models.published import PUBLISHED
from cardionets_core.training.tensors import export_tensors, load_tensors
from server.cli import Family
from server.given_model import given_modules
from server.import_weights import ImportRequest, import_weights
from server.published_file import read_published_file


def vit_state(seed=0):
    """A ViT of the nano preset's sizes in timm's names, made from our own module."""
    names = {
        "cls": "cls_token",
        "position": "pos_embed",
        "embed": "patch_embed.proj",
        "norm_attention": "norm1",
        "attention.out": "attn.proj",
        "attention.qkv": "attn.qkv",
        "norm_mlp": "norm2",
        "mlp.0": "mlp.fc1",
        "mlp.2": "mlp.fc2",
    }
    state = {}
    for name, value in build_module("cmr_encoder", "nano", seed=seed).named_parameters():
        for ours, theirs in names.items():
            if name == ours or name.startswith(f"{ours}.") or f".{ours}." in name:
                name = name.replace(ours, theirs, 1)
                break
        ones = {"cls_token": 2, "pos_embed": 1}.get(name, 0)
        state[name] = value.detach().clone().reshape(*(1,) * ones, *value.shape)
    return state


def request(source, out, **more):
    return ImportRequest(family="mae-vit", source=source, preset="nano", out=out, **more)


def saved(path, content, *, zipped=True):
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


class Runs:
    """Unpickled, it writes a marker file."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


class Claims:
    """Unpickled, it is a tensor of a size and stride that its storage does not have."""

    def __init__(self, size, stride):
        self.size, self.stride = size, stride

    def __reduce__(self):
        storage = torch.storage.TypedStorage(
            wrap_storage=torch.ones(4).untyped_storage(), dtype=torch.float32, _internal=True
        )
        return torch._utils._rebuild_tensor_v2, (storage, 0, self.size, self.stride, False, OrderedDict())


# -- what is written ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["safetensors", "zip", "legacy", "bare"])
def test_every_form_gives_the_same_model(tmp_path, form):
    state = vit_state()
    source = tmp_path / "weights.bin"
    if form == "safetensors":
        save_file(state, source)
    elif form == "bare":
        saved(source, state)
    else:
        beside = {
            "epoch": 3,
            "args": argparse.Namespace(lr=1e-3, data="/somewhere"),
            "optimizer": {"state": {}},
        }
        saved(source, {"model": state, **beside}, zipped=form == "zip")
    content = import_weights(request(source, tmp_path / "model"))
    values = load_file(tmp_path / "model" / "cmr_encoder.safetensors")
    expected = dict(build_module("cmr_encoder", "nano", seed=0).named_parameters())
    assert set(values) == set(expected)
    assert all(torch.equal(values[name], expected[name]) for name in expected)
    origin = content["published"]
    assert origin["source_sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    assert origin["source_file"] == "weights.bin" and origin["source_bytes"] == source.stat().st_size
    assert origin["source_entry"] == ("model" if form in ("zip", "legacy") else None)


def test_the_folder_is_one_that_a_study_can_start_from(tmp_path):
    source = saved(tmp_path / "w.pth", {"model": vit_state(seed=4)})
    out = tmp_path / "deep" / "model"
    content = import_weights(request(source, out, licence="CC0"))
    assert json.loads((out / "model.json").read_text()) == content
    entry = content["modules"]["cmr_encoder"]
    assert hashlib.sha256((out / entry["file"]).read_bytes()).hexdigest() == entry["file_sha256"]
    given = given_modules({"cmr_encoder": entry["digest"]}, out, preset="nano")["cmr_encoder"]
    module = build_module("cmr_encoder", "nano", seed=0)
    load_tensors(module, given)
    tensors = export_tensors(module)
    assert module_digest(layout_of(tensors), pack(tensors)) == entry["digest"]
    twin = build_module("cmr_encoder", "nano", seed=4)
    cine = torch.randn(1, 8, 32, 32)
    assert torch.equal(module(cine), twin(cine))
    origin = content["published"]
    assert origin["licence"] == "CC0" and "check it" in origin["licence_note"]
    assert str(tmp_path) not in json.dumps(content), "no path of this machine is written"
    assert sorted(path.name for path in out.iterdir()) == ["cmr_encoder.safetensors", "model.json"]
    assert [path.name for path in out.parent.iterdir()] == ["model"]


def test_the_average_is_taken_where_there_is_one(tmp_path):
    source = saved(tmp_path / "w.pth", {"model": vit_state(seed=1), "model_ema": vit_state(seed=2)})
    content = import_weights(request(source, tmp_path / "model"))
    assert content["published"]["source_entry"] == "model_ema"
    values = load_file(tmp_path / "model" / "cmr_encoder.safetensors")
    assert torch.equal(values["cls"], build_module("cmr_encoder", "nano", seed=2).cls)
    empty = saved(tmp_path / "e.pth", {"model": vit_state(seed=1), "model_ema": None})
    assert read_published_file(empty).entry == "model"


def test_what_the_publisher_lacks_comes_from_the_seed(tmp_path, monkeypatch):
    def translate(tensors, *, preset, adapt=False):
        found = PUBLISHED["mae-vit"].translate(tensors, preset=preset, adapt=adapt)
        del found.modules["cmr_encoder"]["cls"]
        found.kept["cmr_encoder.cls"] = "for the test"
        return found

    source = saved(tmp_path / "w.pth", vit_state())
    family = PUBLISHED["mae-vit"]
    other = type(family)(translate=translate, origin=family.origin, code_licence=family.code_licence)
    monkeypatch.setattr("server.import_weights.PUBLISHED", {"mae-vit": other})
    monkeypatch.setitem(globals(), "PUBLISHED", {"mae-vit": family})
    content = import_weights(request(source, tmp_path / "model", seed=9))
    values = load_file(tmp_path / "model" / "cmr_encoder.safetensors")
    assert torch.equal(values["cls"], build_module("cmr_encoder", "nano", seed=9).cls)
    assert torch.equal(values["norm.weight"], vit_state()["norm.weight"])
    assert content["published"]["kept_at_initial_values"] == {"cmr_encoder.cls": "for the test"}
    assert content["published"]["seed"] == 9


def test_half_precision_is_converted_and_noted(tmp_path):
    state = {key: value.to(torch.bfloat16) for key, value in vit_state().items()}
    save_file(state, tmp_path / "w.safetensors")
    content = import_weights(request(tmp_path / "w.safetensors", tmp_path / "model"))
    assert content["published"]["notes"] == [f"{len(state)} tensors of bfloat16 became float32"]
    values = load_file(tmp_path / "model" / "cmr_encoder.safetensors")
    assert torch.equal(values["norm.bias"], state["norm.bias"].float())


# -- what must not run -------------------------------------------------------------------------------------


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", ["beside", "inside", "alone", "in the arguments"])
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path, zipped, place):
    marker = tmp_path / "it ran"
    bomb = Runs(marker)
    state = vit_state()
    content = {
        "beside": {"model": state, "args": bomb},
        "inside": {"model": state | {"norm.weight": bomb}},
        "alone": bomb,
        "in the arguments": {"model": state, "args": argparse.Namespace(lr=bomb)},
    }[place]
    source = saved(tmp_path / "w.safetensors", content, zipped=zipped)
    with source.open("rb") as handle:
        torch.load(handle, weights_only=False)
    assert marker.is_dir(), "the file does run code where it is read carelessly"
    marker.rmdir()
    with pytest.raises(CheckpointError, match=r"it asks for posix\.mkdir, and only tensors are read"):
        import_weights(request(source, tmp_path / "model"))
    assert not marker.exists()
    assert [path.name for path in tmp_path.iterdir()] == [source.name]


def test_a_plain_pickle_and_code_inside_containers_do_not_run_either(tmp_path):
    marker = tmp_path / "it ran"
    for number, content in enumerate(([Runs(marker)], {"model": Runs(marker)}, OrderedDict(a=Runs(marker)))):
        source = tmp_path / f"{number}.pkl"
        source.write_bytes(pickle.dumps(content, protocol=2 + number))
        pickle.loads(source.read_bytes())
        marker.rmdir()
        with pytest.raises(CheckpointError, match="refused"):
            read_published_file(source)
        assert not marker.exists()


def test_the_environment_cannot_switch_the_restriction_off(tmp_path, monkeypatch):
    marker = tmp_path / "it ran"
    source = saved(tmp_path / "w.pth", {"model": Runs(marker)})
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with pytest.raises(CheckpointError, match=r"posix\.mkdir"):
        read_published_file(source)
    assert not marker.exists()


def test_the_reader_leaves_nothing_allowed_behind(tmp_path):
    before = set(torch.serialization.get_safe_globals())
    read_published_file(saved(tmp_path / "w.pth", {"model": vit_state(), "args": argparse.Namespace(a=1)}))
    assert set(torch.serialization.get_safe_globals()) == before and argparse.Namespace not in before


# -- what is torn or lies ----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["safetensors", "zip", "legacy"])
def test_truncated_and_flipped_files_are_refused_or_read_and_nothing_else(tmp_path, form):
    whole = tmp_path / "whole"
    state = {"a": torch.arange(40.0), "b": torch.ones(3, 5)}
    if form == "safetensors":
        save_file(state, whole)
    else:
        saved(whole, {"model": state}, zipped=form == "zip")
    data = whole.read_bytes()
    assert set(read_published_file(whole).tensors) == set(state)
    draw = random.Random(0)
    torn = tmp_path / "torn"
    for length in {0, 1, 8, 9, len(data) - 1, *(draw.randrange(len(data)) for _ in range(60))}:
        torn.write_bytes(data[:length])
        with pytest.raises(CheckpointError):
            read_published_file(torn)
    refused = 0
    for _ in range(300):
        flipped = bytearray(data)
        for _ in range(draw.randrange(1, 4)):
            flipped[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        torn.write_bytes(flipped)
        try:
            read_published_file(torn)
        except CheckpointError:
            refused += 1
    assert refused > 20


def test_sizes_that_a_file_only_claims_are_refused(tmp_path):
    out = tmp_path / "model"
    header = json.dumps({"a": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}}).encode()
    source = tmp_path / "claims"
    source.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 64)
    with pytest.raises(CheckpointError, match="torn"):
        read_published_file(source)
    source.write_bytes((2**62).to_bytes(8, "little") + header)
    with pytest.raises(CheckpointError, match="torn"):
        read_published_file(source)
    state = vit_state()
    for zipped in (True, False):
        for size, stride in (((10**12,), (1,)), ((64,), (2,)), ((10**12,), (0,)), ((64,), (0,))):
            saved(source, {"model": state | {"norm.weight": Claims(size, stride)}}, zipped=zipped)
            with pytest.raises(CheckpointError):
                import_weights(request(source, out, adapt=True))
    assert not out.exists()


def test_files_over_the_limit_and_compressed_archives_are_refused(tmp_path):
    source = saved(tmp_path / "w.pth", {"model": vit_state()})
    size = source.stat().st_size
    with pytest.raises(CheckpointError, match=f"{size} bytes; at most {size - 1}"):
        read_published_file(source, max_bytes=size - 1)
    assert read_published_file(source, max_bytes=size).size_bytes == size
    bomb = tmp_path / "bomb.pth"
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as packed:
        for member in archive.infolist():
            packed.writestr(member.filename, archive.read(member))
    with pytest.raises(CheckpointError, match="compressed"):
        read_published_file(bomb)


def test_other_formats_are_refused_by_content_whatever_their_name(tmp_path):
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("storages"))
    for data in (
        b"",
        b"x",
        b"<html>not found</html>",
        buffer.getvalue(),
        packed.getvalue(),
        b"\x1f\x8b\x08\0",
        b"PK\x03\x04",
    ):
        source = tmp_path / "w.safetensors"
        source.write_bytes(data)
        with pytest.raises(CheckpointError, match="refused"):
            read_published_file(source)
    with zipfile.ZipFile(source, "w") as archive:
        archive.writestr("data.txt", "text")
    with pytest.raises(CheckpointError, match="refused"):
        read_published_file(source)
    for absent in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(UsageError, match="no such"):
            read_published_file(absent)


def test_what_is_no_plain_tensor_is_named(tmp_path):
    state = vit_state() | {
        "meta": torch.empty(3, device="meta"),
        "sparse": torch.eye(3).to_sparse(),
        "number": 3,
        "text": "a",
        "view": torch.ones(1).expand(5),
        10**500: torch.ones(1),
        "evil\x1b[2J": [torch.ones(1)],
    }
    with pytest.raises(CheckpointError) as caught:
        read_published_file(saved(tmp_path / "w.pth", {"model": state}))
    told = str(caught.value)
    assert (
        "meta, sparse, number, text, view, under a key of type int, 'evil\\x1b[2J'" in told
        and "\x1b" not in told
    )
    for content in ([1, 2], {}, {"model": {}}, torch.ones(3), "text", 7):
        with pytest.raises(CheckpointError, match=r"table of tensors"):
            read_published_file(saved(tmp_path / "x.pth", content))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_does_not_fit_writes_nothing(tmp_path, bad):
    state = vit_state()
    state["norm.bias"][3] = bad
    source = saved(tmp_path / "w.pth", state)
    with pytest.raises(CheckpointError, match=r"norm\.bias is not finite"):
        import_weights(request(source, tmp_path / "model"))
    assert [path.name for path in tmp_path.iterdir()] == ["w.pth"]


def test_nothing_is_overwritten_and_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    source = saved(tmp_path / "w.pth", vit_state())
    out = tmp_path / "model"
    out.mkdir()
    with pytest.raises(UsageError, match="there already"):
        import_weights(request(source, out))
    out.rmdir()

    def fails(*_):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr("server.import_weights.save_file", fails)
        with pytest.raises(OSError, match="disk full"):
            import_weights(request(source, out))
    assert [path.name for path in tmp_path.iterdir()] == ["w.pth"]
    with pytest.raises(UnknownNameError, match="st-mem, mae-vit, mar"):
        import_weights(ImportRequest(family="gpt", source=source, preset="nano", out=out))


# -- the command -------------------------------------------------------------------------------------------


def test_the_command_tells_what_became_of_every_tensor(tmp_path, run):
    state = vit_state() | {"head.weight": torch.zeros(2, 64), "decoder_pred.bias": torch.zeros(1)}
    state["patch_embed.proj.weight"] = torch.randn(64, 3, 8, 8)
    source = saved(tmp_path / "w.pth", {"model": state})
    plain = ("import-weights", "mae-vit", source, "--preset", "nano", "--out", tmp_path / "model")
    refused = run("cardionets-server", *plain)
    assert refused.returncode == 7 and "(64, 3, 8, 8), not (64, 8, 8, 8)" in refused.stderr
    assert not (tmp_path / "model").exists()
    done = run("cardionets-server", *plain, "--adapt")
    assert done.returncode == 0, done.stderr
    for told in (
        "30 parameters imported",
        "skipped head.weight",
        "skipped decoder_pred.bias",
        "3 channels",
        "check it",
    ):
        assert told in done.stdout
    again = run("cardionets-server", *plain, "--adapt")
    assert again.returncode == 2 and "there already" in again.stderr
    other = (
        *plain[:-1],
        tmp_path / "other",
        "--adapt",
        "--format",
        "json",
        "--licence",
        "MIT",
        "--seed",
        "5",
    )
    content = json.loads(run("cardionets-server", *other).stdout)
    assert content == json.loads((tmp_path / "other" / "model.json").read_text())
    assert content["published"]["licence"] == "MIT" and content["published"]["adapt"] is True
    assert set(content["published"]["skipped"]) == {"head.weight", "decoder_pred.bias"}


def test_the_command_knows_every_family():
    assert {family.value for family in Family} == set(PUBLISHED)


@pytest.mark.parametrize(
    ("family", "preset", "said"),
    [
        ("st-mem", "nano+vit", "ecg_encoder: st-mem, and nano.vit has ecg_encoder: vit"),
        ("mae-vit", "nano+cardiacnets", "cmr_encoder: vit"),
        ("mar", "nano+diffusion", "cmr_generator: mar"),
    ],
)
def test_weights_of_another_generation_than_the_preset_s_part_are_refused_by_name(family, preset, said):
    with pytest.raises(ConfigError, match=said) as caught:
        PUBLISHED[family].translate({}, preset=preset)
    assert "keeps" in caught.value.remedy
