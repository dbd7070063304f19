"""The refusals of a release are leaves of the one tree, each with a code of its own that is documented."""

from __future__ import annotations

import inspect
from pathlib import Path

from cardionets_core.errors import CardioNetsError, error_codes
from cardionets_core.release import refusals

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "exit-codes.md"


def test_every_refusal_is_documented_with_its_exit_code():
    classes = [cls for _, cls in inspect.getmembers(refusals, inspect.isclass)]
    found = [cls for cls in classes if cls.__module__ == refusals.__name__]
    rows = [line.split("|") for line in DOCUMENT.read_text().splitlines() if line.startswith("|")]
    exits = {cells[3].strip(): int(cells[1]) for cells in rows if cells[1].strip().isdigit()}
    assert len(found) == 5
    for cls in found:
        assert issubclass(cls, CardioNetsError) and error_codes()[cls.code] is cls
        assert exits[f"`{cls.code}`"] == cls.exit_code
