"""The sample of ``check`` as one picture: twelve leads of each ECG, three frames of each cine.

Comes in: the outcomes of a sample. Goes out: a PNG with numbers for names. It shows what the model would get,
so a wrong unit, a wrong lead or a heart outside the window is seen at a glance.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cardionets_core.data.cohort import ECG_MV_PER_COUNT, ECG_RATE_HZ
from cardionets_core.errors import REFUSAL_REASONS, UsageError
from client.doctor.sample import Sampled
from client.private_file import write_private
from client.report.pictures import even_frames, even_places, sheet_png
from client.report.strips import Strip, lay_out


def write_sample_picture(path: Path, sampled: Sequence[Sampled]) -> None:
    """Draw a sample.

    Args:
        path: of the PNG; replaced where it is there.
        sampled: outcomes, at least one.

    Raises:
        UsageError: the picture cannot be written there.
    """
    rows: list[tuple[str, Strip | list[np.ndarray] | None]] = []
    for number, item in enumerate(sampled, start=1):
        rows += _rows(number, item)
    try:
        write_private(path, sheet_png(rows))
    except OSError as error:
        raise UsageError(
            f"the picture cannot be written: {error.strerror}", where=str(path), remedy="name another file"
        ) from error


def _rows(number: int, item: Sampled) -> list[tuple[str, Strip | list[np.ndarray] | None]]:
    packed = item.packed
    name = f"{number}  {'ECG' if item.kind == 'ecg' else 'cine'}"
    flags = f"; flags: {', '.join(packed.flags)}" if packed.flags else ""
    if packed.reason:
        return [(f"{name}; left out, {packed.reason}: {REFUSAL_REASONS[packed.reason]}", None)]
    if packed.ecg is not None:
        strip = lay_out(packed.ecg.astype(np.float32) * ECG_MV_PER_COUNT, fs_hz=ECG_RATE_HZ)
        return [(f"{name}; {strip.scale}{flags}", strip)]
    rows: list[tuple[str, Strip | list[np.ndarray] | None]] = []
    for view, frames in packed.cines.items():
        shown = ", ".join(str(place + 1) for place in even_places(len(frames)))
        rows.append((f"{name}, {view}; frames {shown} of {len(frames)}{flags}", even_frames(frames)))
    return rows
