"""Releases of a workspace are signed by its authority; --key signs others; and who signed is told."""

from __future__ import annotations

import json
import shutil

import pytest

from cardionets_core.release.layout import CHECKSUMS, SIGNATURE
from cardionets_core.trust.keys import fingerprint, make_key, private_pem, public_pem, read_private
from server.release.build import ReleaseRequest, _seal
from server.release.run_folder import find_run, read_run
from server.release.signing import signing_key


@pytest.fixture
def workspace(tmp_path, run, write_run):
    home = tmp_path / "home"
    assert run("cardionets-server", "init", home, "--consortium", "hearts").returncode == 0
    assert run("cardionets-server", "provision", home).returncode == 0
    write_run(home / "runs" / "heads-1", names=("ecg_encoder", "phenotype_probe"), measured={})
    return home


def test_a_workspaces_release_is_to_be_signed_by_its_authority(workspace, run, tmp_path):
    done = run(
        "cardionets-server", "release", workspace, "--out", tmp_path / "r", "--dry-run", "--format", "json"
    )
    content = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert content["signed_by"].startswith("the authority of the consortium 'hearts', fingerprint ")


def test_the_one_that_completed_is_taken_and_of_several_one_is_to_be_named(
    workspace, run, tmp_path, write_run
):
    other = write_run(workspace / "runs" / "heads-2", names=("ecg_encoder", "phenotype_probe"), measured={})
    (other / "status.json").write_text('{"state": "paused"}')
    assert find_run(workspace).name == "heads-1"
    (other / "status.json").write_text('{"state": "completed"}')
    done = run("cardionets-server", "release", workspace, "--out", tmp_path / "r", "--dry-run")
    assert done.returncode == 2 and "heads-1, heads-2" in done.stderr
    done = run("cardionets-server", "release", other, "--out", tmp_path / "r", "--dry-run")
    assert done.returncode == 0 and "hearts" in done.stdout


@pytest.fixture
def sealed(released, tmp_path, workspace):
    """The release, signed by the workspace's authority."""
    folder = shutil.copytree(released, tmp_path / "sealed")
    (folder / CHECKSUMS).unlink()
    signer = signing_key(read_run(find_run(workspace)).workspace, key=None)
    _seal(folder, signer)
    return folder


def test_the_receiver_holds_it_against_the_consortiums_certificate(
    sealed, workspace, run, write_ecg, tmp_path
):
    done = run("cardionets-server", "verify-release", sealed, "--trust", workspace / "trust" / "ca.crt",
               "--format", "json")  # fmt: skip
    content = json.loads(done.stdout)
    assert done.returncode == 0 and content["trusted"] is True, done.stderr
    ecg = write_ecg(tmp_path / "ecgs", "one")
    done = run("cardionets-client", "predict", "--model", sealed, ecg, "--format", "json",
               "--fingerprint", content["fingerprint"])  # fmt: skip
    told = json.loads(done.stdout)["model"]["release"]
    assert done.returncode == 0 and told["trusted"] is True
    assert told["signed_by"].startswith("signed by the consortium 'hearts', fingerprint ")
    bare = run("cardionets-client", "predict", "--model", sealed, ecg)
    assert bare.returncode == 0 and "compare it, or give --trust" in bare.stderr


def test_an_unsigned_release_or_a_runs_folder_is_refused_where_a_signer_is_asked_for(
    released, finished, workspace, run, write_ecg, tmp_path
):
    ecg, trust = write_ecg(tmp_path / "ecgs", "one"), workspace / "trust" / "ca.crt"
    done = run("cardionets-client", "predict", "--model", released, ecg, "--trust", trust)
    assert done.returncode == 6 and "unsigned" in done.stderr and done.stdout == ""
    done = run("cardionets-client", "predict", "--model", finished / "model", ecg, "--trust", trust)
    assert done.returncode == 2 and "no release" in done.stderr
    both = run(
        "cardionets-client", "predict", "--model", released, ecg, "--trust", trust, "--fingerprint", "0" * 64
    )
    assert both.returncode == 2 and "not both" in both.stderr


def test_equal_keys_sign_equally_and_a_named_key_signs_without_a_workspace(released, tmp_path, run):
    key = tmp_path / "release.key"
    key.write_bytes(private_pem(make_key(), passphrase="dear me"))
    key.chmod(0o600)
    (tmp_path / "word").write_text("dear me\n")
    signer = signing_key(None, key=key, passphrase=tmp_path / "word")
    signatures = []
    for name in ("one", "two"):
        folder = shutil.copytree(released, tmp_path / name)
        _seal(folder, signer)
        signatures.append((folder / SIGNATURE).read_bytes())
    assert signatures[0] == signatures[1]
    public = read_private(key.read_bytes(), where="key", passphrase="dear me").public_key()
    (tmp_path / "release.pub").write_bytes(public_pem(public))
    done = run("cardionets-server", "verify-release", tmp_path / "one", "--trust", tmp_path / "release.pub")
    assert done.returncode == 0 and "a key without a certificate" in done.stdout
    assert fingerprint(public)[:4] in done.stdout


def test_a_key_that_lies_open_is_not_used(tmp_path, finished, run):
    key = tmp_path / "release.key"
    key.write_bytes(private_pem(make_key()))
    key.chmod(0o644)
    done = run("cardionets-server", "release", finished, "--out", tmp_path / "r", "--key", key)
    assert done.returncode == 5 and "chmod 600" in done.stderr
    assert not (tmp_path / "r").exists()
    assert ReleaseRequest(folder=finished, out=tmp_path / "r").key is None
