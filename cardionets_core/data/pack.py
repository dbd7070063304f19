"""One recording becomes its packed array, or the reason why not (steps 2 and 4 of the walk).

This is what worker processes run: it takes a source and a recording and imports no torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from cardionets_core.data.cine import prepare_cine
from cardionets_core.data.duplicates import ecg_signature
from cardionets_core.data.quality import check_ecg
from cardionets_core.data.records import CineStack, EcgRecord, Recording
from cardionets_core.data.sources import Source
from cardionets_core.errors import RecordRefused

ECG_COUNTS_PER_MV = 1000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """The outcome for one recording.

    Attributes:
        ecg: int16 [12, T] in microvolts; None for a cine, or where refused.
        cines: view to uint8 [50, 96, 96].
        reason: of ``REFUSAL_REASONS``; empty where accepted.
        flags: doubts that did not stop the recording.
        facts: name to number or word, for the report; those of a cine are prefixed with its view.
        signature: of the ECG, for finding duplicates.
    """

    ecg: np.ndarray | None = None
    cines: dict[str, np.ndarray] = field(default_factory=dict)
    reason: str = ""
    flags: tuple[str, ...] = ()
    facts: dict[str, float | str] = field(default_factory=dict)
    signature: np.ndarray | None = None


def pack_recording(source: Source, recording: Recording, *, views: tuple[str, ...] = ("4ch",)) -> Packed:
    """Read, check and pack one recording."""
    try:
        record = source.read(recording)
        return _pack_ecg(record) if isinstance(record, EcgRecord) else _pack_cines(record, views=views)
    except RecordRefused as refusal:
        return Packed(reason=refusal.reason)
    except Exception:  # a fault of ours on one file must not cost a site its other files; it is counted
        return Packed(reason="reader-failed")


def packed_arrays(packed: Packed) -> dict[str, np.ndarray]:
    """``ecg``, ``signature`` or a view to its array; empty where refused."""
    arrays = dict(packed.cines)
    if packed.ecg is not None:
        arrays["ecg"] = packed.ecg
    if packed.signature is not None:
        arrays["signature"] = packed.signature.astype("<f4")
    return arrays


def packed_digest(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of the packed arrays of one recording."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        content = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}:{content.nbytes}:".encode())
        digest.update(content.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _pack_ecg(record: EcgRecord) -> Packed:
    checked = check_ecg(record)
    limits = np.iinfo(np.int16)
    counts = np.rint(checked.signal_mv * ECG_COUNTS_PER_MV).clip(limits.min, limits.max).astype(np.int16)
    return Packed(
        ecg=counts,
        flags=tuple(sorted(checked.flags)),
        facts=dict(checked.facts),
        signature=ecg_signature(counts),
    )


def _pack_cines(stacks: tuple[CineStack, ...], *, views: tuple[str, ...]) -> Packed:
    """The wanted views that can be prepared; refused only where none can."""
    wanted = {stack.view: stack for stack in stacks if stack.view in views}
    if not wanted:
        raise RecordRefused("cine-no-view")
    cines: dict[str, np.ndarray] = {}
    flags: set[str] = set()
    facts: dict[str, float | str] = {}
    refusal: RecordRefused | None = None
    for view, stack in wanted.items():
        try:
            prepared = prepare_cine(stack)
        except RecordRefused as error:
            refusal = refusal or error
            continue
        cines[view] = prepared.pixels
        flags |= prepared.flags
        facts |= {f"{view}_{name}": value for name, value in prepared.facts.items()}
    if not cines and refusal is not None:
        raise refusal
    return Packed(cines=cines, flags=tuple(sorted(flags)), facts=facts)
