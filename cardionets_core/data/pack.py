"""One recording becomes its packed array, or the reason why not (steps 2 and 4 of the walk).

This is what worker processes run: it takes a source and a recording and imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cardionets_core.data.cine import prepare_cine
from cardionets_core.data.quality import check_ecg
from cardionets_core.data.records import CineStack, EcgRecord, Recording
from cardionets_core.data.sources import Source
from cardionets_core.errors import RecordRefused

ECG_COUNTS_PER_MV = 1000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """The outcome for one recording.

    Attributes:
        array: int16 [12, T] in microvolts, or uint8 [50, 96, 96]; None where refused.
        reason: of ``REFUSAL_REASONS``; empty where accepted.
        flags: doubts that did not stop the recording.
    """

    array: np.ndarray | None = None
    reason: str = ""
    flags: tuple[str, ...] = ()


def pack_recordings(source: Source, recordings: tuple[Recording, ...]) -> list[Packed]:
    """Read, check and pack some recordings; nothing of one can stop the others."""
    return [pack_recording(source, recording) for recording in recordings]


def pack_recording(source: Source, recording: Recording) -> Packed:
    """Read, check and pack one recording."""
    try:
        record = source.read(recording)
        if isinstance(record, CineStack):
            return Packed(array=prepare_cine(record))
        return _pack_ecg(record)
    except RecordRefused as refusal:
        return Packed(reason=refusal.reason)
    except Exception:  # a fault of ours on one file must not cost a site its other files; it is counted
        return Packed(reason="reader-failed")


def _pack_ecg(record: EcgRecord) -> Packed:
    checked = check_ecg(record)
    limits = np.iinfo(np.int16)
    counts = np.rint(checked.signal_mv * ECG_COUNTS_PER_MV).clip(limits.min, limits.max)
    return Packed(array=counts.astype(np.int16), flags=tuple(sorted(checked.flags)))
