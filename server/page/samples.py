"""Invented hearts that a model's drawings are shown beside: their ECGs, and their cines.

Comes in: ``samples.npz`` of this room, which ``python -m simulation.page_samples`` makes from the
simulation's hearts. Goes out: packed ECGs, as a site would pack them, and cines. No patient had any of them.

Legend: H hearts, L leads, T samples, F frames, Y rows, X columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cardionets_core.data.cohort import SPLITS, Cohort, Split, empty_cohort
from cardionets_core.errors import CheckpointError
from cardionets_core.models import PHENOTYPES
from cardionets_core.pages.own_files import own_folder

FILE = "samples.npz"
SPLIT: Split = "test"


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """The invented hearts.

    Attributes:
        names: of each, such as ``healthy``.
        words: what its heart is like.
        ecg_HLT: int16, microvolts at 250 Hz, filtered.
        cines_HFYX: uint8, the first frame at end diastole.
    """

    names: Sequence[str]
    words: Sequence[str]
    ecg_HLT: np.ndarray
    cines_HFYX: np.ndarray

    def cohort(self) -> Cohort:
        """Their ECGs as a cohort of one row a heart, without cines."""
        hearts, _, samples = self.ecg_HLT.shape
        nobody = empty_cohort(site="invented", phenotypes=PHENOTYPES)
        each = np.arange(hearts, dtype=np.int64)
        return Cohort(
            site="invented",
            digest="",
            ecg_counts=np.ascontiguousarray(self.ecg_HLT).reshape(-1),
            ecg_offsets=each * samples,
            ecg_samples=np.full(hearts, samples, dtype=np.int64),
            cines=nobody.cines,
            row_patient=each,
            row_split=np.full(hearts, SPLITS.index(SPLIT), dtype=np.int8),
            row_ecg=each,
            row_cine=np.full(hearts, -1, dtype=np.int64),
            phenotypes=np.full((hearts, PHENOTYPES), np.nan, dtype=np.float32),
            diseases=np.full((hearts, nobody.diseases.shape[1]), np.nan, dtype=np.float32),
        )


def read_samples(path: Path | None = None) -> Samples:
    """The samples that are installed.

    Raises:
        CheckpointError: the file is torn.
    """
    path = own_folder("server.page", FILE) if path is None else path
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in ("names", "words", "ecg", "cines")}
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            "the invented hearts cannot be read", where=str(path), remedy="install CardioNets again"
        ) from error
    return Samples(
        names=[str(name) for name in found["names"]],
        words=[str(text) for text in found["words"]],
        ecg_HLT=found["ecg"],
        cines_HFYX=found["cines"],
    )
