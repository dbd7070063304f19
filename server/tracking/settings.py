"""Where a run folder's study is mirrored to: ``tracking.json``, written before the study begins.

Comes in: the part ``tracking`` of ``server.yaml``, or options of a command line. Goes out: an address, and a
place for artefacts where the address brings none. A folder without the file has its own SQLite store.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cardionets_core.config.read import parse_document
from cardionets_core.config.tracking import Tracking
from cardionets_core.durable import write_json
from cardionets_core.errors import ConfigError
from cardionets_core.plain_json import read_json

SETTINGS = "tracking.json"
STORE = "mlflow.db"
ARTEFACTS = "mlflow"


def write_settings(folder: Path, settings: Tracking) -> None:
    """Keep in a run folder where it is mirrored to; made if absent."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / SETTINGS, settings.model_dump(mode="json", by_alias=True))


def read_settings(folder: Path) -> Tracking:
    """Where a run folder is mirrored to; its own store where nothing else was said.

    Raises:
        ConfigError: the file is none of ours.
    """
    path = folder / SETTINGS
    try:
        content: dict[str, Any] = read_json(path)
    except FileNotFoundError:
        return Tracking()
    except (OSError, ValueError) as error:
        raise ConfigError("it cannot be read", where=str(path), remedy="remove or mend it") from error
    return parse_document(Tracking, content, where=str(path))


def label_of(settings: Tracking) -> str:
    """How a store is called in results and notes: its address, or its file's name in the run folder."""
    return settings.uri or STORE


def address_of(folder: Path, settings: Tracking) -> str:
    """The address that MLflow is given."""
    return settings.uri or f"sqlite:///{(folder / STORE).resolve()}"


def artefacts_of(folder: Path, settings: Tracking) -> str:
    """Where artefacts of a new experiment go; empty where the tracking server says that itself.

    A store that is a file has no server to say so, and MLflow would take the folder that it is started in.
    """
    if not settings.uri:
        return (folder / ARTEFACTS).resolve().as_uri()
    parts = urlsplit(settings.uri)
    if parts.scheme == "sqlite":
        return (Path(parts.path[1:]).parent / ARTEFACTS).as_uri()
    return ""
