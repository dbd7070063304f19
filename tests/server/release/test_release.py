"""``cardionets-server release``: what is in it, that it is the same twice, and that predict takes it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from cardionets_core.errors import StorageFailedError
from cardionets_core.release.opening import UNSIGNED
from cardionets_core.release.refusals import OnnxDiffersError

ROOT = Path(__file__).resolve().parents[3]
DATA = ROOT.parent / "shared" / "data" / "ecg"


@pytest.fixture(scope="module")
def ecg(write_ecg, tmp_path_factory):
    return write_ecg(tmp_path_factory.mktemp("ecg"), "one")


def numbers_of(recording):
    """What ``predict`` says, by the name of the column."""
    found = {each["name"]: each["value"] for each in recording["phenotypes"]}
    found |= {each["disease"]: each["probability"] for each in recording["screening"]["diseases"]}
    return found | recording["screening"]["subtypes_given_cm"]


def test_every_file_is_there_and_the_list_is_what_sha256sum_reads(released):
    names = sorted(path.relative_to(released).as_posix() for path in released.rglob("*") if path.is_file())
    modules = [f"model/{name}.safetensors" for name in (
        "ecg_encoder", "phenotype_head", "phenotype_standardiser", "screening_calibration", "screening_head",
        "screening_prior")]  # fmt: skip
    assert names == sorted([
        "CARD.md", "LICENSE", "calibration.json", "card.html", "checksums.sha256", "model/model.json",
        *modules,
        "onnx/heads.onnx", "onnx/window.onnx", "preprocessing.json", "release.json", "standardiser.json",
        "study.json",
    ])  # fmt: skip
    for line in (released / "checksums.sha256").read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((released / name).read_bytes()).hexdigest() == digest


def test_nothing_names_a_path_or_a_machine(released, finished):
    told = b"".join(path.read_bytes() for path in released.rglob("*") if path.is_file())
    strange = [str(finished), str(ROOT), os.uname().nodename, "/tmp", "site-packages", ".py"]
    assert not [word for word in strange if len(word) > 2 and word.encode() in told]


def test_the_page_stands_alone(released):
    page = (released / "card.html").read_text()
    assert not [word for word in ("http:", "https:", "<script", '<link rel="style', "url(") if word in page]
    assert "Research use only" in page and '<th scope="row">a</th>' in page


@pytest.mark.slow
def test_a_second_release_and_one_in_a_zip_are_the_same(released, finished, tmp_path, run):
    done = run("cardionets-server", "release", finished, "--out", tmp_path / "again.zip", "--format", "json")
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)
    assert content["schema_version"] == 1 and content["signed_by"] == "" and content["left_out"] == []
    assert set(content["onnx_largest_relative_difference"]) == {"window.onnx", "heads.onnx"}
    with zipfile.ZipFile(tmp_path / "again.zip") as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    assert files == {
        path.relative_to(released).as_posix(): path.read_bytes()
        for path in released.rglob("*") if path.is_file()
    }  # fmt: skip
    assert list(tmp_path.iterdir()) == [tmp_path / "again.zip"]


def test_predict_says_the_same_of_the_release_as_of_the_run(released, finished, ecg, tmp_path, run):
    told = []
    for model in (finished / "model", released):
        done = run("cardionets-client", "predict", "--model", model, ecg, "--format", "json")
        assert done.returncode == 0, done.stderr
        told.append(json.loads(done.stdout))
    of_run, of_release = told
    assert of_run["recordings"] == of_release["recordings"]
    assert of_run["model"]["release"] is None
    assert of_release["model"]["release"] == {"signed_by": UNSIGNED, "fingerprint": None, "trusted": False}
    assert of_run["model"]["digest"] == of_release["model"]["digest"]


def script() -> str:
    text = (ROOT / "docs" / "release.md").read_text()
    return re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]


def told_by_script(release, record):
    done = subprocess.run(
        [sys.executable, "-I", "-c", script(), str(release), str(record)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    rows = [line.split() for line in done.stdout.splitlines()]
    return {name: float(value) for _, name, value in rows}


def close(found, wanted):
    assert found.keys() == wanted.keys() and len(wanted) == 2 + 4 + 3
    apart = [abs(found[name] - wanted[name]) / max(1.0, abs(wanted[name])) for name in wanted]
    assert max(apart) < 1e-4


def test_the_documents_script_gives_predicts_numbers_without_our_code(released, ecg, run):
    done = run("cardionets-client", "predict", "--model", released, ecg, "--format", "json")
    (recording,) = json.loads(done.stdout)["recordings"]
    close(told_by_script(released, ecg.with_suffix("")), numbers_of(recording))


def test_the_script_gives_predicts_numbers_of_a_real_recording(released, run):
    found = sorted((DATA / "ptbxl_native").rglob("*_hr.hea"))
    if not found:
        pytest.skip("the real recordings are absent")
    done = run("cardionets-client", "predict", "--model", released, found[0], "--format", "json")
    (recording,) = json.loads(done.stdout)["recordings"]
    assert recording["verdict"] == "accepted" and recording["flags"] == []
    close(told_by_script(released, found[0].with_suffix("")), numbers_of(recording))


def test_a_shorter_recording_than_a_window_is_one_window_of_whole_patches(released, finished):
    import onnxruntime
    import torch

    from cardionets_core.models import get_preset
    from cardionets_core.training.model_folder import read_model_folder

    preset = get_preset(json.loads((finished / "model" / "model.json").read_text())["preset"])
    windows = np.random.default_rng(3).normal(size=(4, 12, 3 * preset.ecg_patch)).astype(np.float32)
    session = onnxruntime.InferenceSession(released / "onnx" / "window.onnx")
    encoder = read_model_folder(finished / "model").load("ecg_encoder", device=torch.device("cpu"))
    wanted = encoder(torch.from_numpy(windows)).numpy()
    np.testing.assert_allclose(session.run(["feature"], {"ecg": windows})[0], wanted, atol=1e-5)


def test_the_words_of_preprocessing_are_the_librarys_constants(released):
    from scipy.signal import butter

    how = json.loads((released / "preprocessing.json").read_text())
    step = {each["step"]: each for each in how["steps"]}
    assert how["signal"]["leads"] == [
        "I",
        "II",
        "III",
        "aVR",
        "aVL",
        "aVF",
        "V1",
        "V2",
        "V3",
        "V4",
        "V5",
        "V6",
    ]
    assert (how["signal"]["unit"], how["signal"]["rate_hz"]) == ("mV", 250.0)
    high = butter(5, 0.67, btype="highpass", fs=250, output="sos")
    np.testing.assert_allclose(step["filter"]["sections"][0]["sos"], high, rtol=1e-12)
    assert step["windows"]["windows"] == 3 and step["round"]["counts_per_mv"] == 1000.0
    columns = how["onnx"]["columns"]
    assert [each["field"] for each in columns["phenotypes"]] == [24100, 24103]
    assert [each["name"] for each in columns["probabilities"]] == ["cad", "cm", "hf", "ph"]
    standardiser = json.loads((released / "standardiser.json").read_text())
    assert [(each["mean"], each["sd"]) for each in standardiser["phenotypes"]] == [(150.0, 35.0), (60.0, 7.0)]
    cad = json.loads((released / "calibration.json").read_text())["diseases"][0]
    assert (cad["slope"], cad["calibrated"]) == (0.5, True)
    assert cad["prevalence"] == pytest.approx(1 / (1 + np.exp(1.0)))


def test_nothing_is_written_over_and_a_strangers_folder_never(released, finished, tmp_path, run):
    assert run("cardionets-server", "release", finished, "--out", released).returncode == 2
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear colleague")
    for out in (tmp_path / "mine", tmp_path / "mine" / "letter.txt"):
        done = run("cardionets-server", "release", finished, "--out", out, "--replace")
        assert done.returncode == 2, done.stderr
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear colleague"


def test_a_dry_run_says_what_would_be_in_it_and_writes_nothing(finished, tmp_path, run):
    done = run("cardionets-server", "release", finished, "--out", tmp_path / "r", "--dry-run")
    assert done.returncode == 0 and list(tmp_path.iterdir()) == []
    assert "nothing stands against it" in done.stdout and "UNSIGNED" in done.stdout
    model = json.loads((finished / "model" / "model.json").read_text())
    count = {"nano": "106,838", "nano+cardiacnets": "2,426,880"}[model["preset"]]
    assert re.search(rf"ecg_encoder +{count} parameters", done.stdout)


def test_a_dry_run_names_the_very_files_of_the_release(finished, released, tmp_path, run):
    asked = ("cardionets-server", "release", finished, "--out", tmp_path / "r", "--dry-run")
    told = json.loads(run(*asked, "--format", "json").stdout)["files"]
    assert told == sorted(
        path.relative_to(released).as_posix() for path in released.rglob("*") if path.is_file()
    )
    words = " ".join(run(*asked).stdout.split())
    assert not [name for name in told if "safetensors" not in name and name not in words]


@pytest.mark.slow
def test_a_release_of_a_probe_alone_has_neither_standardiser_nor_calibration(
    write_run, make_study, tmp_path, run
):
    study = make_study(("ecg_mae", "probe"))
    folder = write_run(tmp_path / "run", names=("ecg_encoder", "phenotype_probe"), study=study, measured={})
    told = run("cardionets-server", "release", folder, "--out", tmp_path / "r", "--dry-run").stdout
    assert "standardiser.json" not in told and "calibration.json" not in told
    done = run("cardionets-server", "release", folder, "--out", tmp_path / "r")
    assert done.returncode == 0, done.stderr
    made = {path.relative_to(tmp_path / "r").as_posix() for path in (tmp_path / "r").rglob("*.*")}
    assert not {"standardiser.json", "calibration.json", "signature.json"} & made
    assert not [name for name in made if "safetensors" not in name and name not in " ".join(told.split())]


@pytest.mark.parametrize("dry", [[], ["--dry-run"]], ids=["real", "dry"])
@pytest.mark.parametrize("out", ["file/x.zip", "nowhere/sub/x.zip"])
def test_a_release_into_no_folder_is_refused_and_makes_none(finished, tmp_path, run, out, dry):
    (tmp_path / "file").write_text("")
    done = run("cardionets-server", "release", finished, "--out", tmp_path / out, *dry)
    assert done.returncode == 2 and "folder" in done.stderr and "make that folder first" in done.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="a file system that takes no folder")
def test_a_release_where_nothing_can_be_made_is_an_error_and_no_traceback(finished, run):
    done = run("cardionets-server", "release", finished, "--out", "/proc/x.zip")
    assert done.returncode == StorageFailedError.exit_code and "nothing can be written" in done.stderr


def test_an_installation_without_the_export_says_what_to_install(finished, tmp_path, run, monkeypatch):
    from server.release import onnx_export

    monkeypatch.setattr(onnx_export, "LIBRARIES", ("onnx", "no_such_library"))
    done = run("cardionets-server", "release", finished, "--out", tmp_path / "r")
    assert (
        done.returncode == 3
        and "needs no_such_library" in done.stderr
        and "cardionets[server]" in done.stderr
    )
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_computes_something_else_is_found(released, finished):
    import torch

    from cardionets_core.prediction.predictor import open_predictor
    from cardionets_core.training.model_folder import read_model_folder
    from server.release.onnx_export import HEADS_FILE, _largest_difference
    from server.release.onnx_model import Heads

    content = (released / "onnx" / HEADS_FILE).read_bytes()
    heads = Heads(open_predictor(read_model_folder(finished / "model"), device=torch.device("cpu"))).eval()
    asked = {"given": "feature", "outputs": heads.outputs.names, "file": HEADS_FILE}
    width = heads.phenotype_head[0].in_features
    features = [torch.randn(batch, width, generator=torch.Generator().manual_seed(batch)) for batch in (1, 5)]
    assert _largest_difference(content, heads, features, **asked) < 1e-5
    with torch.no_grad():
        heads.phenotype_head[-1].weight.mul_(1.01)
    with pytest.raises(OnnxDiffersError, match="phenotypes differs from torch"):
        _largest_difference(content, heads, features, **asked)
    with torch.no_grad():
        heads.phenotype_head[-1].bias.fill_(torch.nan)
    with pytest.raises(OnnxDiffersError, match="phenotypes differs from torch"):
        _largest_difference(content, heads, features, **asked)


@pytest.mark.parametrize("models", ["nano", "nano+vit", "nano+vit-film"])
def test_every_ecg_encoder_takes_other_batches_and_shorter_windows_once_exported(models):
    import torch

    from cardionets_core.models import build_module, get_preset
    from server.release.onnx_export import TOLERANCE, _exported, _largest_difference

    class Feature(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = build_module("ecg_encoder", models, seed=0)

        def forward(self, ecg):
            return (self.encoder(ecg),)

    module, draw = Feature().eval().requires_grad_(False), torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.add_(0.02 * torch.randn(parameter.shape, generator=draw))
    preset = get_preset(models)
    patches = (preset.ecg_patches, preset.ecg_patches // 2, 1)
    windows = [
        torch.randn(batch, 12, count * preset.ecg_patch, generator=draw)
        for batch in (2, 1, 5)
        for count in patches
    ]
    names = {"given": "ecg", "outputs": ["feature"]}
    content = _exported(module, windows[0], **names)
    assert _largest_difference(content, module, windows, file="f", **names) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize(("preset", "head"), [("nano", "phenotype_probe"), ("small", "phenotype_probe")])
def test_a_probe_and_another_preset_are_exported_too(write_run, make_study, tmp_path, ecg, run, preset, head):
    study = make_study(("ecg_mae", "probe", "prevalence", "screening"), preset=preset)
    names = ("ecg_encoder", head, "screening_head", "screening_prior")
    folder = write_run(tmp_path / "run", names=names, study=study, measured={})
    done = run("cardionets-server", "release", folder, "--out", tmp_path / "r")
    assert done.returncode == 0, done.stderr
    told = run("cardionets-client", "predict", "--model", tmp_path / "r", ecg, "--format", "json")
    (recording,) = json.loads(told.stdout)["recordings"]
    close(told_by_script(tmp_path / "r", ecg.with_suffix("")), numbers_of(recording))


@pytest.mark.slow
def test_an_export_that_differs_is_refused_and_leaves_nothing(finished, tmp_path, run, monkeypatch):
    from server.release import onnx_export

    monkeypatch.setattr(onnx_export, "TOLERANCE", 1e-12)
    done = run("cardionets-server", "release", finished, "--out", tmp_path / "r")
    assert done.returncode == 7 and "differs from torch by" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_verify_release_tells_what_it_is(released, run):
    done = run("cardionets-server", "verify-release", released, "--format", "json")
    content = json.loads(done.stdout)
    assert done.returncode == 0 and content["trusted"] is False and content["fingerprint"] is None
    assert content["study"] == "heads" and "ecg_encoder" in content["modules"]
