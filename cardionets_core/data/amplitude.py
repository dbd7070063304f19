"""Is the amplitude that of a heart in mV? (step 2 of the walk; FORMATS sections 5 and 7).

Comes in: filtered leads, or raw ones for the recorder's limits. Goes out: the amplitude of a recording, the
known error that explains a wrong one, and a sentence where a whole site looks wrong. Nothing is rescaled
here: which factor is right is for the site to say (``scale`` in its document).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cardionets_core.data.leads import segments

AMPLITUDE_MV = (0.1, 10.0)
"""Bounds of what is accepted: median over leads of the median peak to peak. A patient may be odd."""
TRUE_AMPLITUDE_MV = (0.3, 5.0)
"""Where true ones lie (FORMATS section 5): a known error is named only where undoing it leads here."""
TYPICAL_MEDIAN_MV = (0.6, 1.8)
"""Where the median over a site's recordings lies: 0.9 to 1.3 mV in each of the open sets."""
KNOWN_FACTORS: dict[str, tuple[float, ...]] = {"4.88 or 5": (4.88, 5.0), "1000 or 2000": (1000.0, 2000.0)}
"""Wrong gains of released headers, counts of 4.88 or 5 uV taken for mV/1000, and uV taken for mV. Members of
a family cannot be told apart by amplitude; the families can."""
MINIMUM_RECORDINGS = 10
"""Under which a median says nothing of a site."""

RUN_SECONDS = 0.02
CLIPPED_FLAGGED = 0.015
SATURATED_REFUSED = 0.05
"""Shares of a recording that a lead stands at its extreme in runs of ``RUN_SECONDS``. The longest in the open
recordings is 1.1 %, once; clipped R waves make some percent, a lead at the rail makes most of it."""
SPAN_MV = 0.1
"""Peak to peak under which a lead has too few levels for its extremes to mean anything."""


def median_amplitude_mv(signal_mv: np.ndarray) -> float:
    """Median over leads of the median over 2 s segments of the peak-to-peak value: a spike does not move it.

    Args:
        signal_mv: [L, T] at 250 Hz, L at least 1, T at least one segment.
    """
    return float(np.median(np.median(np.ptp(segments(signal_mv), axis=2), axis=1)))


def known_gain_error(amplitude_mv: float, *, true_mv: tuple[float, float] = TRUE_AMPLITUDE_MV) -> str:
    """The one known error that explains an amplitude, ``4.88 or 5 times too large`` for one; or nothing."""
    low, high = true_mv
    if low <= amplitude_mv <= high:
        return ""
    found = [
        f"{name} times too {side}"
        for name, factors in KNOWN_FACTORS.items()
        for side, sign in (("large", -1), ("small", 1))
        if any(low <= amplitude_mv * factor**sign <= high for factor in factors)
    ]
    return found[0] if len(found) == 1 else ""


def gain_suspect(amplitudes_mv: Sequence[float]) -> str | None:
    """A sentence for the site's report where its recordings together look like those of a wrong gain.

    A factor near 5 leaves most single recordings inside the bounds; the median of the site tells it.

    Args:
        amplitudes_mv: ``amplitude_mv`` of the accepted recordings.
    """
    found = np.asarray([value for value in amplitudes_mv if np.isfinite(value)], dtype=np.float64)
    if len(found) < MINIMUM_RECORDINGS:
        return None
    median = float(np.median(found))
    error = known_gain_error(median, true_mv=TYPICAL_MEDIAN_MV)
    if not error:
        return None
    return (
        f"half of the ECGs are under {median:.2g} mV peak to peak, which is {error}: "
        "compare the gain in the files with the recorder's, and declare `scale` in the site's document"
    )


def share_at_extremes(signal_mv: np.ndarray, fs_hz: float) -> float:
    """Greatest share of a recording that any lead stands at its least or greatest value.

    Counted are runs of ``RUN_SECONDS``, at least three samples. Zero is no recorder's limit but what
    recorders pad with; a missing sample ends a run.

    Args:
        signal_mv: [L, T] before any filter, NaN or infinite where missing.
        fs_hz: samples per second.
    """
    shortest = max(3, int(np.ceil(RUN_SECONDS * fs_hz)))
    with np.errstate(invalid="ignore", over="ignore"):
        low, high = np.fmin.reduce(signal_mv, axis=1), np.fmax.reduce(signal_mv, axis=1)
        wide = np.isfinite(high - low) & (high - low >= SPAN_MV)
    greatest = 0
    for row, least, most in zip(signal_mv[wide], low[wide], high[wide], strict=True):
        of_lead = 0
        for extreme in (least, most):
            if extreme == 0.0 or np.count_nonzero(here := row == extreme) < shortest:
                continue
            edges = np.flatnonzero(np.diff(here.astype(np.int8), prepend=0, append=0))
            lengths = edges[1::2] - edges[::2]
            of_lead += int(lengths[lengths >= shortest].sum())
        greatest = max(greatest, of_lead)
    return greatest / signal_mv.shape[1]
