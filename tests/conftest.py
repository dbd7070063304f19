"""What all tests may ask for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real recordings and replicas beside the checkout; absent in CI it is a failure."""
    folder = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    if not folder.is_dir():
        if os.environ.get("CI") == "true":
            pytest.fail("CI must have the shared data beside the checkout")
        pytest.skip("the shared data does not lie beside the checkout")
    return folder
