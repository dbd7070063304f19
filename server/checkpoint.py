"""A point from which a study can go on: the model, what a strategy remembers, the history (step 13)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cardionets_core.exchange.names import is_plain_name
from cardionets_core.exchange.tensors import Layout, model_digest, unpack
from cardionets_core.plain_json import read_json

STATE = "state.json"
LARGEST_STATE_BYTES = 1_000_000_000
"""It holds the history of all rounds."""


@dataclass(frozen=True, slots=True)
class Stretches:
    """Flat float32 values in a file; a slice of them is read when it is asked for, and nothing is kept.

    Attributes:
        path: raw little-endian float32.
    """

    path: Path

    def __getitem__(self, part: slice) -> np.ndarray:
        """The values of a slice of step 1."""
        start, stop, _ = part.indices(self.path.stat().st_size // 4)
        return np.fromfile(self.path, dtype="<f4", count=stop - start, offset=4 * start)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A point from which a study can go on.

    Attributes:
        folder: where its files lie.
        study_digest: of the study that made it.
        phase: index of the phase in which the next round is.
        round: rounds of that phase that are done.
        layouts: module to layout.
        digests: module to SHA-256.
        history: one entry a finished round, as in ``result.json``.
    """

    folder: Path
    study_digest: str
    phase: int
    round: int
    layouts: Mapping[str, Layout]
    digests: Mapping[str, str]
    history: list[dict[str, Any]]

    @property
    def model_digest(self) -> str:
        """One digest over all modules."""
        return model_digest(self.digests)

    def path(self, module: str) -> Path:
        """The file of a module: raw little-endian float32."""
        return self.folder / f"{module}.f32"

    def values(self, module: str) -> np.ndarray:
        """A module's flat float32 values."""
        return np.fromfile(self.path(module), dtype="<f4")

    def stretches(self, module: str) -> Stretches:
        """A module's flat float32 values, read from the disk stretch by stretch."""
        return Stretches(self.path(module))

    def tensors(self, module: str) -> dict[str, np.ndarray]:
        """A module's named tensors."""
        return unpack(self.layouts[module], self.values(module))


def checkpoint_in(folder: Path) -> Checkpoint:
    """What ``state.json`` of a folder says, each part of the kind that it must be; no module is looked at.

    Raises:
        OSError, ValueError, KeyError, TypeError, AttributeError, PeerError: it is torn, or none of ours.
    """
    state = read_json(folder / STATE, most_bytes=LARGEST_STATE_BYTES, finite=False)
    checkpoint = Checkpoint(
        folder=folder,
        study_digest=state["study_digest"],
        phase=state["phase"],
        round=state["round"],
        layouts={name: Layout.from_json(text) for name, text in state["layouts"].items()},
        digests=dict(state["digests"].items()),
        history=list(state["history"]),
    )
    numbers = (checkpoint.phase, checkpoint.round)
    fits = (
        # A name becomes part of a path.
        all(is_plain_name(name) and "/" not in name for name in checkpoint.digests)
        and checkpoint.digests.keys() == checkpoint.layouts.keys()
        and all(isinstance(text, str) for text in (checkpoint.study_digest, *checkpoint.digests.values()))
        and all(type(number) is int and number >= 0 for number in numbers)
        and all(isinstance(entry, dict) for entry in checkpoint.history)
    )
    if not fits:
        raise ValueError("not a checkpoint's state")
    return checkpoint
