"""The code package: what it holds, and that it is the same wherever and whenever it is built."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from flwr.cli.build import build_fab_from_disk

from cardionets_core.config.workspace import Workspace
from cardionets_core.errors import CheckpointError
from server.bundle import build_bundle, staged_files
from server.bundle.contents import FLOWER_APP

ROOT = Path(__file__).resolve().parents[2]


# Flower's builder asks pathspec for a name that pathspec deprecates; neither is ours.
pytestmark = pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build_bundle(Workspace(tmp_path_factory.mktemp("first")))


def test_the_same_code_has_the_same_hash_whatever_folder_mode_and_time(built, tmp_path):
    before = os.umask(0o077)
    try:
        other = build_bundle(Workspace(tmp_path / "another-folder"))
    finally:
        os.umask(before)
    assert other.sha256 == built.sha256 == hashlib.sha256(other.path.read_bytes()).hexdigest()
    for path in other.app.rglob("*"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
        path.chmod(0o700)
    # `flwr run APP` builds by this function; it must start the very bytes that the sites approved.
    assert hashlib.sha256(build_fab_from_disk(other.app)).hexdigest() == built.sha256


def test_an_installed_copy_without_a_checkout_gives_the_same_hash(built, tmp_path):
    """As from a wheel: packages alone, the licence among the metadata, no pyproject.toml."""
    site = tmp_path / "site-packages"
    for name, content in staged_files().items():
        if "/" in name:
            (site / name).parent.mkdir(parents=True, exist_ok=True)
            (site / name).write_bytes(content)
    metadata = site / "cardionets-0.1.0.dist-info"
    (metadata / "licenses").mkdir(parents=True)
    (metadata / "licenses" / "LICENSE").write_bytes((ROOT / "LICENSE").read_bytes())
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.4\nName: cardionets\nVersion: {built.version}\n")
    code = (
        "from pathlib import Path; from cardionets_core.config.workspace import Workspace;"
        "from server.bundle import build_bundle; import server;"
        f"print(server.__file__, build_bundle(Workspace(Path({str(tmp_path / 'w')!r}))).sha256)"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env={**os.environ, "PYTHONPATH": str(site)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    where, sha256 = done.stdout.split()
    assert Path(where).is_relative_to(site)
    assert sha256 == built.sha256


def test_a_second_build_writes_nothing_and_a_changed_file_is_told(tmp_path, monkeypatch):
    workspace = Workspace(tmp_path)
    first = build_bundle(workspace)
    times = {path: path.stat().st_mtime_ns for path in workspace.code.rglob("*")}
    again = build_bundle(workspace)
    assert first.first and not again.first and not again.change and again.sha256 == first.sha256
    assert {path: path.stat().st_mtime_ns for path in workspace.code.rglob("*")} == times

    files = staged_files()
    files["client/round.py"] += b"# another line\n"
    files["client/new.py"] = b'"""New."""\n'
    del files["client/wording.py"]
    monkeypatch.setattr("server.bundle.build.staged_files", lambda: files)
    changed = build_bundle(workspace)
    assert changed.sha256 != first.sha256
    assert changed.change.added == ("client/new.py",)
    assert changed.change.removed == ("client/wording.py",)
    assert changed.change.changed == ("client/round.py",)
    assert not (changed.app / "client" / "wording.py").exists()


def test_the_document_of_the_package_tells_hash_and_files(built):
    told = json.loads((built.path.parent / "package.json").read_text())
    assert told["sha256"] == built.sha256 and told["fab"] == built.path.name
    with zipfile.ZipFile(built.path) as archive:
        inside = {name: archive.read(name) for name in archive.namelist() if not name.startswith(".info")}
    assert set(inside) == set(told["files"])
    for name, content in inside.items():
        if name != "pyproject.toml":  # Flower writes its table anew
            assert hashlib.sha256(content).hexdigest() == told["files"][name]


def test_nothing_is_ever_installed_for_the_package(built):
    project = tomllib.loads((built.app / "pyproject.toml").read_text())
    assert "dependencies" not in project["project"]
    assert project["tool"]["flwr"]["app"] == FLOWER_APP


def test_a_package_that_was_changed_by_hand_is_built_anew(built, tmp_path):
    shutil.copytree(built.path.parent, tmp_path / "code")
    (tmp_path / "code" / built.path.name).write_bytes(b"something else")
    (tmp_path / "code" / "app" / "client" / "app.py").write_text("")
    again = build_bundle(Workspace(tmp_path))
    assert again.sha256 == built.sha256 == hashlib.sha256(again.path.read_bytes()).hexdigest()
    assert (again.app / "client" / "app.py").read_bytes() == (ROOT / "client" / "app.py").read_bytes()


def test_a_torn_document_of_the_last_package_is_an_error_with_a_remedy(tmp_path):
    workspace = Workspace(tmp_path)
    workspace.code.mkdir()
    (workspace.code / "package.json").write_text('{"sha256": ')
    with pytest.raises(CheckpointError, match="remove this file"):
        build_bundle(workspace)


def test_the_command_prints_the_hash_and_refuses_a_folder_that_is_no_workspace(built, tmp_path, run):
    (tmp_path / "server.yaml").write_text("consortium: demo\naddress: localhost:9100\n")
    done = run("cardionets-server", "package", tmp_path, "--format", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["sha256"] == built.sha256
    told = run("cardionets-server", "package", tmp_path)
    assert built.sha256 in told.stdout and "nothing changed" in told.stdout
    assert run("cardionets-server", "package", tmp_path / "nowhere").returncode == 3
