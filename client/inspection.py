"""What we read of a file or folder, or why not (``inspect``; step 2 of the walk, for people).

Comes in: paths that a person named, and what the site's document declares. Goes out: one plain dict a
recording. No identifier goes out: a recording is the n-th of the m-th argument, lead names are the twelve or
a number, and of a reader's refusal only the reason and its fixed sentence are told, since a detail could
quote the file. Writes nothing.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cardionets_core.config.site import LocalSource, SiteConfig
from cardionets_core.data.cine import prepare_cine
from cardionets_core.data.leads import order_leads
from cardionets_core.data.quality import check_ecg
from cardionets_core.data.readers.base import Reader, ReadOptions
from cardionets_core.data.records import LEADS, CineStack, EcgRecord
from cardionets_core.data.sources.local_files import Part, parts_of
from cardionets_core.errors import REFUSAL_REASONS, RecordRefused
from client.recordings_on_disk import Found, recordings_on_disk

SCHEMA_VERSION = 1
OTHER_LEADS = frozenset({"vx", "vy", "vz", "x", "y", "z", "v7", "v8", "v9", "v3r", "v4r", "v5r"})
"""Leads beyond the twelve that are named; any other name in a file could be anything, a patient's too."""

_OF_ECGS = ("rate_hz", "unit", "leads", "dataset")
_WHAT_TO_DECLARE = {
    "rate_hz": "rate_hz (samples per second)",
    "unit": "unit (mV, uV or V)",
    "leads": "leads (names in the order of the rows)",
    "dataset": "dataset (name of the array in the file)",
    "view": "view (4ch, 2ch, 3ch or sax)",
    "third_axis": "third_axis (frames or slices)",
    "label_map": "label_map (ukb or acdc)",
}


@dataclass(slots=True)
class Tally:
    """What came of an inspection.

    Attributes:
        read: recordings that a reader gave, whatever was then thought of them.
        verdicts: verdict to number, without the files that nobody knows.
        reasons: reason of refusal to number, without ``unrecognised``.
        unrecognised: files that no reader knows.
    """

    read: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    unrecognised: int = 0

    def add(self, found: dict[str, Any]) -> None:
        """Count one recording of ``inspect_paths``."""
        if found["reason"] == "unrecognised":
            self.unrecognised += 1
            return
        self.read += "leads" in found or "views" in found
        self.verdicts[found["verdict"]] += 1
        if found["reason"]:
            self.reasons[found["reason"]] += 1


def inspect_paths(paths: Sequence[Path], *, declared: Sequence[Part] = ()) -> Iterator[dict[str, Any]]:
    """Read every recording under some paths and say what it is.

    Args:
        paths: files or folders.
        declared: what the site's document says of its folders; see ``declared_parts``.

    Yields:
        One JSON-ready dict a recording: ``verdict`` is ``accepted``, ``flagged`` (accepted, with what was
        repaired or doubted) or ``refused`` (with ``reason`` and its sentence). A file that no reader knows
        is refused as ``unrecognised``.
    """
    for argument, path in enumerate(paths, start=1):
        for found in recordings_on_disk(path):
            yield {"schema_version": SCHEMA_VERSION, "argument": argument} | inspect_one(found, declared)


def inspect_one(found: Found, declared: Sequence[Part] = ()) -> dict[str, Any]:
    """One recording; see ``inspect_paths``."""
    reader = found.reader
    if reader is None:
        return {"record": found.position, "kind": None, "format": None} | _refused("unrecognised")
    part = _part_of(found.path, reader, declared)
    owned = part is not None and part.owns(found.path.absolute())
    if part is not None and owned and part.reader is not None:
        reader = part.reader
    head = {"record": found.position, "kind": reader.kind, "format": reader.name, "title": reader.title}
    options = ReadOptions() if part is None else part.options
    lacking = [name for name in reader.needs if getattr(options, name) is None]
    if lacking:
        return head | _undeclared(reader, lacking)
    try:
        record = part.read(found.path) if part and owned else reader.read(found.path, options)
    except RecordRefused as refusal:
        if refusal.reason == "ecg-undeclared":
            return head | _undeclared(reader, [name for name in _OF_ECGS if getattr(options, name) is None])
        return head | _refused(refusal.reason)
    except Exception:  # a fault of ours; it is counted as one, and the other files are still told
        return head | _refused("reader-failed")
    return head | (_ecg(record) if isinstance(record, EcgRecord) else _study(record))


def declared_parts(config: SiteConfig) -> tuple[Part, ...]:
    """What a site's document declares of its folders; only ``local_site`` has files that need it."""
    return parts_of(config.source) if isinstance(config.source, LocalSource) else ()


def _part_of(path: Path, reader: Reader, declared: Sequence[Part]) -> Part | None:
    """The folder of the document that a file lies in, or else the first one of its format."""
    fitting = [part for part in declared if part.kind == reader.kind]
    for part in fitting:
        if part.owns(path.absolute()):
            return part
    of_format = [part for part in fitting if part.reader is None or part.reader.name == reader.name]
    return of_format[0] if of_format else None


def _ecg(record: EcgRecord) -> dict[str, Any]:
    samples = record.signal_mv.shape[1]
    facts: dict[str, Any] = {
        "rate_hz": _number(record.fs_hz),
        "samples": samples,
        "seconds": _number(samples / record.fs_hz) if record.fs_hz > 0 else None,
        "missing_samples": int((~np.isfinite(record.signal_mv)).sum()),
        "leads": _lead_names(record.leads),
        "leads_derived": [],
        "lead_mv": _lead_sizes(record.leads, record.signal_mv),
    }
    if missing := [lead for lead in LEADS if lead not in facts["lead_mv"]]:
        with contextlib.suppress(RecordRefused), np.errstate(invalid="ignore"):
            sizes = _lead_sizes(LEADS, order_leads(record)[0])
            facts["leads_derived"] = missing
            facts["lead_mv"] |= {lead: sizes[lead] for lead in missing}
    found = facts["lead_mv"]
    facts["lead_mv"] = {lead: found[lead] for lead in LEADS if lead in found} | found
    try:
        checked = check_ecg(record)
    except RecordRefused as refusal:
        return facts | _refused(refusal.reason, detail=refusal.what)
    except Exception:
        return facts | _refused("reader-failed")
    return facts | {"amplitude_mv": _number(checked.facts["amplitude_mv"])} | _accepted(checked.flags)


def _lead_names(names: Sequence[str]) -> list[str]:
    return [
        name if name in LEADS or name.lower() in OTHER_LEADS else f"other {place}"
        for place, name in enumerate(names, start=1)
    ]


def _lead_sizes(leads: Sequence[str], signal_mv: np.ndarray) -> dict[str, dict[str, float | None]]:
    """Lead to the largest absolute value and the root of the mean square, over the samples that are there."""
    sizes: dict[str, dict[str, float | None]] = {}
    for name, row in zip(_lead_names(leads), signal_mv.astype(np.float64), strict=True):
        there = row[np.isfinite(row)]
        sizes.setdefault(
            name,
            {
                "peak": _number(np.abs(there).max()) if len(there) else None,
                "rms": _number(np.sqrt(np.mean(there**2))) if len(there) else None,
            },
        )
    return sizes


def _study(stacks: tuple[CineStack, ...]) -> dict[str, Any]:
    views = [_view(stack) for stack in stacks]
    usable = [view for view in views if view["verdict"] != "refused"]
    if not usable:
        reason = views[0]["reason"] if views else "cine-no-view"
        return {"views": views} | _refused(reason, detail=views[0]["detail"] if views else "")
    return {"views": views} | _accepted(frozenset(flag for view in usable for flag in view["flags"]))


def _view(stack: CineStack) -> dict[str, Any]:
    """Frames are counted from 1, as on a scanner's screen."""
    shape = stack.pixels.shape
    facts: dict[str, Any] = {
        "view": stack.view,
        "frames": shape[0],
        "slices": shape[1] if len(shape) == 4 else 1,
        "rows": shape[-2],
        "columns": shape[-1],
        "spacing_mm": [_number(spacing) for spacing in stack.spacing_mm],
        "slice_spacing_mm": _number(stack.slice_spacing_mm),
        "frame_ms": _number(stack.frame_ms),
        "mask": stack.mask is not None,
    }
    outcome, found = _prepared(stack)
    phases = {"ed_frame": stack.ed_frame, "es_frame": stack.es_frame}
    source = stack.phase_source
    if None in phases.values() and {"ed_frame", "es_frame"} <= set(found):
        phases = {name: int(found[name]) for name in phases}
        source = str(found.get("phase_source", "heuristic"))
    counted = {name: None if frame is None else frame + 1 for name, frame in phases.items()}
    return facts | counted | {"frames_counted_from": 1, "phase_source": source} | outcome


def _prepared(stack: CineStack) -> tuple[dict[str, Any], dict[str, Any]]:
    """The verdict on one view, and what its preparation found out."""
    if stack.view == "unknown":
        return _refused("cine-no-view", detail="neither name nor geometry tells the view"), {}
    try:
        prepared = prepare_cine(stack)
    except RecordRefused as refusal:
        return _refused(refusal.reason, detail=refusal.what), {}
    except Exception:
        return _refused("reader-failed"), {}
    return _accepted(prepared.flags), prepared.facts


def _accepted(flags: frozenset[str]) -> dict[str, Any]:
    verdict = "flagged" if flags else "accepted"
    return {"verdict": verdict, "reason": None, "sentence": "", "detail": "", "flags": sorted(flags)}


def _refused(reason: str, *, detail: str = "") -> dict[str, Any]:
    sentence = REFUSAL_REASONS[reason]
    detail = "" if detail == sentence else detail
    return {"verdict": "refused", "reason": reason, "sentence": sentence, "detail": detail, "flags": []}


def _undeclared(reader: Reader, lacking: list[str]) -> dict[str, Any]:
    part = "ecg" if reader.kind == "ecg" else "cmr"
    names = ", ".join(_WHAT_TO_DECLARE[name] for name in lacking) or "what the file leaves open"
    told = f"declare in site.yaml, source.{part}: {names}; then give --site"
    return _refused("ecg-undeclared" if reader.kind == "ecg" else "cine-unsupported", detail=told)


def _number(value: float | None) -> float | None:
    """Rounded to 6 significant digits; None where it is absent or no number."""
    if value is None or not np.isfinite(value):
        return None
    return float(f"{float(value):.6g}")
