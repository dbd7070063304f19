"""One WFDB record: a header and a format 16 signal file (WFDB header(5) and signal(5) manual pages).

Comes in: a signal in mV. Goes out: ``NAME.hea`` and ``NAME.dat``. NaN becomes the digital value -32768.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

INVALID = -32768


def write_record(
    path: Path,
    signal_mv: np.ndarray,
    *,
    rate_hz: int,
    leads: tuple[str, ...],
    gain_per_mv: int,
    clock: str = "",
    comments: tuple[str, ...] = (),
) -> None:
    """Write a record.

    Args:
        path: the record without extension; its folder exists.
        signal_mv: [L, T]; NaN for a missing sample.
        rate_hz: samples per second.
        leads: L names.
        gain_per_mv: counts per mV.
        clock: time and date for the record line, ``HH:MM:SS DD/MM/YYYY``, or nothing.
        comments: lines after the signals, without ``#``.
    """
    counts = to_counts(signal_mv, gain_per_mv=gain_per_mv)
    checksums = counts.sum(axis=1, dtype=np.int64) % 65536
    name = path.name
    lines = [f"{name} {len(leads)} {rate_hz} {counts.shape[1]} {clock}".rstrip()]
    for lead, first, checksum in zip(leads, counts[:, 0], checksums, strict=True):
        lines.append(f"{name}.dat 16 {gain_per_mv:.1f}(0)/mV 16 0 {first} {checksum} 0 {lead}")
    lines += [f"# {comment}" for comment in comments]
    path.with_name(f"{name}.hea").write_text("\n".join(lines) + "\n", encoding="utf-8")
    path.with_name(f"{name}.dat").write_bytes(np.ascontiguousarray(counts.T).tobytes())


def to_counts(signal_mv: np.ndarray, *, gain_per_mv: int) -> np.ndarray:
    """Little-endian int16 [L, T]; NaN becomes ``INVALID``."""
    scaled = np.clip(np.rint(np.nan_to_num(signal_mv, nan=0.0) * gain_per_mv), -32767, 32767)
    return np.where(np.isnan(signal_mv), INVALID, scaled).astype("<i2")
