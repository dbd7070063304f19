"""What several tests of the data path ask for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cardionets_core.data import reading
from cardionets_core.data.records import EcgRecord
from cardionets_core.data.sources.tables import read_columns
from cardionets_core.errors import RecordRefused


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were decoded in this process."""
    names: list[str] = []
    real = reading.pack_recording

    def watching(source: Any, recording: Any, **options: Any) -> Any:
        names.append(recording.path.name)
        return real(source, recording, **options)

    monkeypatch.setattr(reading, "pack_recording", watching)
    return names


@pytest.fixture(scope="session")
def answer_of() -> Callable[[Callable[[Path], EcgRecord], Path], str]:
    """What a reader answers to a wounded file: the reason of its refusal, or ``read`` for a valid record."""

    def answer(read: Callable[[Path], EcgRecord], path: Path) -> str:
        try:
            record = read(path)
        except RecordRefused as refusal:
            return refusal.reason
        assert record.signal_mv.dtype == np.float32 and record.signal_mv.shape[0] == len(record.leads)
        assert np.isfinite(record.fs_hz) and record.fs_hz > 0 and record.signal_mv.shape[1] > 0
        return "read"

    return answer


@pytest.fixture(scope="session")
def read_table() -> Callable[..., Iterator[dict[str, str]]]:
    """Rows of a table as text, with the arguments of ``read_columns``."""

    def rows(path: Path, **choice: Any) -> Iterator[dict[str, str]]:
        for piece in read_columns(path, **choice):
            for cells in zip(*piece.values(), strict=True):
                yield dict(zip(piece, cells, strict=True))

    return rows
