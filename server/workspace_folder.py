"""Makes a coordinator's workspace: documents from commented templates, and folders.

Comes in: a folder, an address, a name. Goes out: what was made and what was there already. Nothing is
overwritten.
"""

from __future__ import annotations

from pathlib import Path
from string import Template
from typing import Any

from cardionets_core.config.read import parse_document
from cardionets_core.config.study import read_study
from cardionets_core.config.workspace import ServerConfig, Workspace
from cardionets_core.errors import StorageFailedError, UsageError
from cardionets_core.trust.secret_files import make_secret_folder, write_file
from server.study_files import find_study

TEMPLATES = Path(__file__).resolve().parent / "templates"
DEFAULT_ADDRESS = "localhost:9092"
DEFAULT_CONSORTIUM = "cardionets"
_FILES = {"server.yaml": "server.yaml", "study.yaml": "study.yaml", "README.md": "README.md",
          ".gitignore": "gitignore"}  # fmt: skip


def make_workspace(
    folder: Path,
    *,
    address: str | None,
    consortium: str | None,
    study: str | None = None,
    inner_port: int | None = None,
    health_port: int | None = None,
) -> dict[str, Any]:
    """Make what is not there yet.

    Args:
        folder: made if absent.
        address: host:port under which the sites reach the server.
        consortium: its name.
        study: path of a study, or name of a shipped one, to begin with instead of the template.
        inner_port: on loopback, of Flower's control and runtime.
        health_port: on loopback, of the health of the service.

    Returns:
        JSON-ready: ``folder``, ``address``, ``consortium``, ``made`` and ``kept``.

    Raises:
        ConfigError: address, name or study are wrong; nothing was made.
        UsageError: ``server.yaml`` is there and says otherwise.
    """
    workspace = Workspace(folder.expanduser().resolve())
    options = {
        "address": address,
        "consortium": consortium,
        "inner_port": inner_port,
        "health_port": health_port,
    }
    given = {key: value for key, value in options.items() if value is not None}
    if workspace.server_yaml.exists():
        config = workspace.config()
        for key, asked in given.items():
            there = getattr(config, key)
            if asked != there:
                raise UsageError(
                    f"server.yaml is there already and says {there!r}, not {asked!r}",
                    where=f"{workspace.server_yaml}: {key}",
                    remedy="change the document by hand; init never overwrites one",
                )
    else:
        wanted = {"address": DEFAULT_ADDRESS, "consortium": DEFAULT_CONSORTIUM} | given
        where = ", ".join(f"--{key.replace('_', '-')}" for key in given)
        config = parse_document(ServerConfig, wanted, where=where or "defaults")
    study_text = None if study is None else _study_text(study)
    made: list[str] = []
    kept: list[str] = []
    _make_folders(workspace, made, kept)
    words = {key: getattr(config, key) for key in options}
    for name, template in _FILES.items():
        text = (TEMPLATES / template).read_text(encoding="utf-8")
        if name == "study.yaml" and study_text is not None:
            text = study_text.replace("$", "$$")
        filled = Template(text).substitute(words) if name != ".gitignore" else text
        try:
            write_file(workspace.root / name, filled.encode(), secret=False, replace=False)
            made.append(name)
        except FileExistsError:
            kept.append(name)
    return {
        "folder": str(workspace.root),
        "address": config.address,
        "consortium": config.consortium,
        "made": made,
        "kept": kept,
    }


def _study_text(name_or_path: str) -> str:
    path = find_study(name_or_path)
    read_study(path)
    return path.read_text(encoding="utf-8")


def _make_folders(workspace: Workspace, made: list[str], kept: list[str]) -> None:
    secret = (workspace.trust, workspace.kits, workspace.link)
    plain = (workspace.code, workspace.runs, workspace.logs, workspace.state)
    for path in (workspace.root, *secret, *plain):
        (kept if path.is_dir() else made).append(f"{path.relative_to(workspace.root)}/")
        if path in secret:
            make_secret_folder(path)
            continue
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageFailedError(
                f"the folder {path} cannot be made: {error.strerror}",
                where=str(path),
                remedy="choose a folder that this account may write",
            ) from error
