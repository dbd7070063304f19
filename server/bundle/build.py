"""Builds the package with Flower's own builder, and says what changed since the last one (before row 0).

Comes in: the coordinator's workspace. Goes out: ``code/app`` (what ``flwr run`` starts from),
``code/NAME-VERSION.fab`` (what the sites approve) and ``code/package.json``. The same code gives the same
bytes on any machine: names are sorted, dates fixed, nothing is compressed, and modes and times of the files
play no part. Starts no run.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cardionets_core.config.workspace import Workspace
from cardionets_core.errors import CheckpointError, ConfigError, StorageFailedError
from cardionets_core.plain_json import read_json
from server.bundle.contents import DISTRIBUTION, staged_files, version_here

SCHEMA_VERSION = 1
PACKAGE = "package.json"
APP = "app"
BUILD_S = 120.0
QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "PYTHONDONTWRITEBYTECODE": "1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Files that differ between two packages, by path.

    Attributes:
        added: only in the newer one.
        removed: only in the older one.
        changed: in both, with other content.
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A built package.

    Attributes:
        path: of the FAB.
        sha256: of its bytes; what a site approves and what Flower names the code by.
        version: of CardioNets.
        app: the folder for ``flwr run``.
        files: path in the package to the SHA-256 of its content.
        change: against the package that was there before; empty where there was none.
        first: whether there was none before.
    """

    path: Path
    sha256: str
    version: str
    app: Path
    files: Mapping[str, str]
    change: Change
    first: bool


def build_bundle(workspace: Workspace) -> Bundle:
    """Build the package of the code that is installed here; the same code changes nothing.

    Args:
        workspace: of the coordinator.

    Raises:
        ConfigError: CardioNets is not wholly installed, or Flower refuses to build.
        StorageFailedError: the folder cannot be written.
    """
    version, files = version_here(), staged_files()
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    earlier = packaged(workspace)
    before = dict(earlier["files"]) if earlier else {}
    path = workspace.code / f"{DISTRIBUTION}-{version}.fab"
    try:
        workspace.code.mkdir(parents=True, exist_ok=True)
        _stage(files, workspace.code / APP)
        facts: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "fab": path.name,
            "version": version,
            "flwr": importlib.metadata.version("flwr"),
            "files": digests,
        }
        sha256 = _sha256_of(path)
        if earlier is None or {**facts, "sha256": sha256} != earlier:
            content = _built(workspace.code / APP)
            sha256 = hashlib.sha256(content).hexdigest()
            _write(path, content)
            facts["sha256"] = sha256
            _write(workspace.code / PACKAGE, (json.dumps(facts, indent=2, sort_keys=True) + "\n").encode())
    except OSError as error:
        raise StorageFailedError(
            f"the package cannot be written: {error.strerror}",
            where=str(workspace.code),
            remedy="free space, or mount the disk for writing",
        ) from error
    return Bundle(
        path=path,
        sha256=sha256,
        version=version,
        app=workspace.code / APP,
        files=digests,
        change=_change(before, digests) if earlier else Change(),
        first=earlier is None,
    )


def packaged(workspace: Workspace) -> dict[str, Any] | None:
    """What ``package.json`` says of the last package; None before the first.

    Raises:
        CheckpointError: the file is torn.
    """
    path = workspace.code / PACKAGE
    if not path.is_file():
        return None
    try:
        content = read_json(path)
        if not isinstance(content["files"], dict) or not isinstance(content["sha256"], str):
            raise ValueError("not a package's document")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            "what is known of the last package cannot be read",
            where=str(path),
            remedy="remove this file: the package is then built as the first",
        ) from error
    return dict(content)


def _sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def _change(before: Mapping[str, str], now: Mapping[str, str]) -> Change:
    return Change(
        added=tuple(sorted(set(now) - set(before))),
        removed=tuple(sorted(set(before) - set(now))),
        changed=tuple(sorted(name for name in set(now) & set(before) if now[name] != before[name])),
    )


def _stage(files: Mapping[str, bytes], folder: Path) -> None:
    """Put the files into a folder that holds nothing else; one that is right already is left alone."""
    if folder.is_dir() and _held(folder) == files:
        return
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        fresh.chmod(0o755)
        for name, content in files.items():
            target = fresh / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        if folder.exists():
            shutil.rmtree(folder)
        fresh.rename(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _held(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() or path.is_symlink()
    }


def _built(app: Path) -> bytes:
    """The bytes that Flower's builder makes of an app's folder, as ``flwr run`` does once more by itself."""
    with tempfile.TemporaryDirectory() as scratch:
        done = subprocess.run(
            [sys.executable, "-P", "-c", "from flwr.cli.app import app; app()", "build", "--app", str(app)],
            cwd=scratch,
            env={**os.environ, **QUIET, "FLWR_HOME": scratch},
            capture_output=True,
            text=True,
            timeout=BUILD_S,
            check=False,
        )
        built = list(Path(scratch).glob("*.fab"))
        if done.returncode != 0 or len(built) != 1:
            told = (done.stderr or done.stdout).strip().splitlines()
            raise ConfigError(
                f"Flower did not build the package: {told[-1] if told else 'without a word'}",
                where=str(app),
                remedy="compare the versions of flwr; `pip check` tells what does not fit",
            )
        return built[0].read_bytes()


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all, and on the disk before it has its name."""
    handle, part = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(part).chmod(0o644)
        Path(part).replace(path)
    finally:
        Path(part).unlink(missing_ok=True)
