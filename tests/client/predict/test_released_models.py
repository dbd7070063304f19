"""``predict`` takes a release, as folder or zip, and uses nothing of one that was changed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from cardionets_core.release.archive import pack_release
from cardionets_core.release.layout import CHECKSUMS, checksums_of


@pytest.fixture(scope="module")
def ecg(write_ecg, tmp_path_factory) -> Path:
    return write_ecg(tmp_path_factory.mktemp("ecg"), "one")


@pytest.fixture
def release(whole, tmp_path) -> Path:
    folder = tmp_path / "release"
    shutil.copytree(whole, folder / "model")
    (folder / CHECKSUMS).write_bytes(checksums_of(folder))
    return folder


def test_a_release_predicts_what_the_runs_model_predicts(release, whole, ecg, tmp_path, client):
    pack_release(release, tmp_path / "r.zip")
    told = []
    for model in (whole, release, tmp_path / "r.zip"):
        done = client("predict", "--model", model, ecg, "--no-cine", "--format", "json")
        assert done.code == 0, done.err
        told.append(json.loads(done.out)["recordings"])
        assert ("the model is a release, unsigned" in done.err) == (model != whole)
    assert told[0] == told[1] == told[2]


def test_a_changed_release_is_not_used(release, ecg, tmp_path, client):
    path = release / "model" / "model.json"
    path.write_bytes(path.read_bytes() + b" ")
    pack_release(release, tmp_path / "r.zip")
    for model in (release, tmp_path / "r.zip"):
        done = client("predict", "--model", model, ecg, "--format", "json")
        error = json.loads(done.out)["error"]
        assert (done.code, error["code"]) == (7, "release-torn") and "model.json was changed" in error["what"]


def test_a_signer_that_is_asked_for_must_have_signed(release, whole, ecg, client):
    done = client("predict", "--model", release, ecg, "--fingerprint", "ab" * 32)
    assert done.code == 6 and "unsigned" in done.err
    done = client("predict", "--model", whole, ecg, "--fingerprint", "ab" * 32)
    assert done.code == 2 and "nobody has signed it" in done.err
    assert client("predict", "--model", release, ecg, "--fingerprint", "ab").code == 2
