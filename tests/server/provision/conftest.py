"""A workspace and the coordinator's program in this process."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from cardionets_core.config.connection import SiteFolder
from client.site_request import ask_for_certificate


@pytest.fixture
def server(run):
    """Runs ``cardionets-server``; ``content`` is the JSON of its answer."""

    def ended(*arguments: object, code: int = 0) -> SimpleNamespace:
        done = run("cardionets-server", *arguments, "--format", "json")
        assert done.returncode == code, done.stdout + done.stderr
        return SimpleNamespace(content=json.loads(done.stdout), told=done.stderr)

    return ended


@pytest.fixture
def workspace(server, tmp_path) -> Path:
    server("init", tmp_path / "home", "--consortium", "heart", "--address", "localhost:19092")
    return tmp_path / "home"


@pytest.fixture
def asks(tmp_path):
    """A site makes its key and its request."""

    def ask(site: str, folder: str | None = None) -> SimpleNamespace:
        place = SiteFolder(tmp_path / (folder or site))
        made = ask_for_certificate(place, site)
        return SimpleNamespace(request=Path(made["request"]), fingerprint=made["fingerprint"], folder=place)

    return ask
