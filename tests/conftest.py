"""What all tests may ask for."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import settings

# A loaded machine makes no test fail: time is nothing that tests assert.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PACKAGE = {"cardionets-sim": "simulation", "cardionets-client": "client", "cardionets-server": "server"}


@dataclass(frozen=True)
class Ended:
    """How a program ended."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture(scope="session")
def run() -> Callable[..., Ended]:
    """Runs a program's entry point in this process: what it prints, and its exit code."""

    def run_program(program: str, *arguments: object) -> Ended:
        main = importlib.import_module(f"{PACKAGE[program]}.cli").main
        out, err, code = io.StringIO(), io.StringIO(), 0
        with (
            mock.patch.object(sys, "argv", [program, *map(str, arguments)]),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            try:
                main()
            except SystemExit as ended:
                code = int(ended.code or 0)
        return Ended(returncode=code, stdout=out.getvalue(), stderr=err.getvalue())

    return run_program


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real recordings and replicas beside the checkout; absent in CI it is a failure."""
    folder = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    if not folder.is_dir():
        if os.environ.get("CI") == "true":
            pytest.fail("CI must have the shared data beside the checkout")
        pytest.skip("the shared data does not lie beside the checkout")
    return folder


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium: that of the machine, or playwright's own; tests skip where neither is there."""
    api = pytest.importorskip("playwright.sync_api")
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    with api.sync_playwright() as playwright:
        try:
            opened = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        except api.Error as error:
            pytest.skip(f"no browser can be started here: {str(error).splitlines()[0]}")
        yield opened
        opened.close()
