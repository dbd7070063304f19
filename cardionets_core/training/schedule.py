"""Learning rate as a pure function of global progress, so that a round does not restart it (SCIENCE 5.6)."""

from __future__ import annotations

import math

from cardionets_core.config.study import Optimiser, Phase


def peak_rate(optimiser: Optimiser, batch_size: int) -> float:
    """Rate after warm-up: ``lr``, or ``blr * batch_size / 256``."""
    if optimiser.lr is not None:
        return optimiser.lr
    return float(optimiser.blr or 0.0) * batch_size / 256.0


def learning_rate(optimiser: Optimiser, *, peak: float, progress: float, total: float) -> float:
    """Linear warm-up from 0, then constant, or half a cosine down to ``minimum_lr`` at ``total``.

    Args:
        optimiser: names the schedule, its warm-up and its minimum.
        peak: rate after warm-up.
        progress: units done since the phase began, 0 to ``total``.
        total: units of the whole phase. Unit: local epochs or local steps, whichever the phase counts in.
    """
    if progress < optimiser.warmup:
        return peak * progress / optimiser.warmup
    if optimiser.schedule == "constant":
        return peak
    share = (progress - optimiser.warmup) / max(total - optimiser.warmup, 1e-12)
    floor = min(optimiser.minimum_lr, peak)
    return floor + (peak - floor) * 0.5 * (1.0 + math.cos(math.pi * min(max(share, 0.0), 1.0)))


def step_progress(phase: Phase, *, round_index: int, step: int, steps: int) -> float:
    """Units done at the middle of a local step; the middle, so that no step has a rate of zero.

    Args:
        phase: counts in ``local_steps`` or ``local_epochs``.
        round_index: from 1.
        step: of this round, from 0.
        steps: local steps of this round.
    """
    units = units_per_round(phase)
    return (round_index - 1) * units + (step + 0.5) * units / steps


def units_per_round(phase: Phase) -> float:
    """Local steps or local epochs of one round."""
    return float(phase.local_steps if phase.local_steps is not None else phase.local_epochs or 0.0)
