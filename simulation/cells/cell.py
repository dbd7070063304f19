"""A cell: one piece of work of a grid, and what it gives.

Comes in: who it is, what decides its result, and the work. Goes out: plain content and arrays, which last in
one file beside the digest of what decided them.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from cardionets_core.durable import write_whole

RESULT = "cell.npz"
CONTENT = "content"


@dataclass(frozen=True, slots=True, kw_only=True)
class CellResult:
    """What a cell gives.

    Attributes:
        content: plain values, as JSON holds them; NaN is allowed.
        arrays: by name.
        seconds: that the work took, of the try that ended it.
        peak_bytes: most memory that its process held.
    """

    content: dict[str, Any]
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    seconds: float = 0.0
    peak_bytes: int = 0


class Work(Protocol):
    """The work of a cell: a plain value that a fresh process can be given."""

    @property
    def starts_anew(self) -> bool:
        """Whether a try that was broken off must not be taken up."""

    def run(self, folder: Path) -> CellResult:
        """Do the work; what lies in the folder of an earlier try may be taken up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One piece of work.

    Attributes:
        name: for people, and the name of its folder.
        digest: of all that decides its result.
        work: the work.
    """

    name: str
    digest: str
    work: Work


def digest_of(**decides: Any) -> str:
    """SHA-256 of plain values, whatever their order, and of the version of the program."""
    decides["version"] = version("cardionets")
    text = json.dumps(decides, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def save_result(folder: Path, result: CellResult, *, digest: str) -> None:
    """Write a cell's result in one step."""
    head = {
        "digest": digest,
        "content": result.content,
        "seconds": result.seconds,
        "peak_bytes": result.peak_bytes,
    }
    buffer = io.BytesIO()
    text = np.frombuffer(json.dumps(head).encode(), dtype=np.uint8)
    np.savez_compressed(buffer, allow_pickle=False, **{CONTENT: text, **result.arrays})
    write_whole(folder / RESULT, buffer.getvalue())


def load_result(folder: Path, *, digest: str) -> CellResult | None:
    """The result of a cell that was done; None where there is none, or of something else, or a broken one."""
    try:
        # Opened here: of a file that is cut off, numpy would leave its own handle open.
        with (folder / RESULT).open("rb") as handle, np.load(handle, allow_pickle=False) as found:
            head = json.loads(found[CONTENT].tobytes())
            if head["digest"] != digest:
                return None
            arrays = {name: found[name] for name in found.files if name != CONTENT}
            return CellResult(
                content=head["content"],
                arrays=arrays,
                seconds=float(head["seconds"]),
                peak_bytes=int(head["peak_bytes"]),
            )
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return None
