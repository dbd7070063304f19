"""What enters the package: the files of a whitelist, from wherever they are installed (before row 0).

A wheel brings no ``pyproject.toml`` along, so the app's document is written anew from what stands here; a
test holds it equal to the checkout's. Goes out: names and bytes. Imports none of the packages.
"""

from __future__ import annotations

import importlib.metadata
import json
from typing import Any

from cardionets_core.errors import ConfigError
from cardionets_core.exchange.package import folder_of, installed_files

DISTRIBUTION = "cardionets"
LICENCE = "LICENSE"
FLOWER_APP: dict[str, Any] = {
    "publisher": "cardionets",
    "fab-include": [
        "cardionets_core/**/*.py",
        "client/**/*.py",
        "server/**/*.py",
        "server/studies/*.yaml",
        "strategies/**/*.py",
        "LICENSE",
    ],
    "components": {"serverapp": "server.app:app", "clientapp": "client.app:app"},
    "config": {
        "study": "demo",
        "hospitals": "",
        "initial": "",
        "out": "",
        "track": True,
        "minimum-free-bytes": 0,
    },
}
"""``[tool.flwr.app]`` of the package."""


def staged_files() -> dict[str, bytes]:
    """The package's files: path in the package to content, in the order of the paths.

    Raises:
        ConfigError: a package or the licence is not installed.
    """
    found = installed_files()
    found[LICENCE] = licence_text()
    found["pyproject.toml"] = app_document(version_here()).encode()
    return dict(sorted(found.items()))


def version_here() -> str:
    """The installed version of CardioNets.

    Raises:
        ConfigError: it is not installed.
    """
    return _distribution().version


def app_document(version: str) -> str:
    """``pyproject.toml`` of the package: no dependencies, so that no site ever installs for it.

    Args:
        version: of CardioNets.
    """
    app = {name: value for name, value in FLOWER_APP.items() if not isinstance(value, dict)}
    tables = {
        "project": {
            "name": DISTRIBUTION,
            "version": version,
            "description": "Federated multi-center training of CardioNets.",
            "license": "Apache-2.0",
        },
        "tool.flwr.app": app,
        "tool.flwr.app.components": FLOWER_APP["components"],
        "tool.flwr.app.config": FLOWER_APP["config"],
    }
    # Text, truth values and lists of text are written in TOML as they are in JSON.
    return "\n".join(
        "\n".join([f"[{table}]", *(f"{key} = {json.dumps(value)}" for key, value in rows.items()), ""])
        for table, rows in tables.items()
    )


def licence_text() -> bytes:
    """The licence, as it is installed.

    Raises:
        ConfigError: it is not.
    """
    # A wheel keeps it among its metadata, a checkout beside the packages.
    beside = folder_of("server").parent / LICENCE
    if beside.is_file():
        return beside.read_bytes()
    text = _distribution().read_text(f"licenses/{LICENCE}")
    if text is None:
        raise ConfigError("the licence is not installed", where="package", remedy="install CardioNets again")
    return text.encode()


def _distribution() -> importlib.metadata.Distribution:
    try:
        return importlib.metadata.distribution(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError as error:
        raise ConfigError(
            "CardioNets is not installed in this environment",
            where="package",
            remedy="install CardioNets as the README says",
        ) from error
