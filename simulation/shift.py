"""Carts and scanners of sites that differ: from one machine for all to a fleet of strangers.

Comes in: the usual machine, a strength from 0 to 1, and a generator. Goes out: a machine of the documents in
``machines.py``. Strength 0 is the usual machine; the same draws grow with the strength.
"""

from __future__ import annotations

import numpy as np

from simulation.machines import Cart, Scanner

RATES_HZ = (250, 500, 1000)
FIXED_RATE_HZ = 500
"""Of the layouts whose files have one rate."""
LEAST_VIEW_MM = 171.0


def shifted_cart(base: Cart, strength: float, rng: np.random.Generator, *, any_rate: bool) -> Cart:
    """A site's cart.

    Args:
        base: the usual cart.
        strength: 0 to 1.
        rng: the only source of chance; as many draws are made whatever the strength.
        any_rate: whether the site's files may have another rate than 500 Hz.
    """
    draws, rate, mains, lowpass, gain = rng.standard_normal(5), *rng.random(3), rng.uniform(-1, 1)
    placement = float(rng.uniform(-1, 1))
    factors = np.exp(0.7 * strength * np.clip(draws, -2.0, 2.0))
    rate_hz = base.rate_hz if any_rate else FIXED_RATE_HZ
    if any_rate and rate < strength:
        rate_hz = RATES_HZ[int(rate / strength * len(RATES_HZ)) % len(RATES_HZ)]
    # From as the base has it down to the 40 Hz of an old monitor.
    lowpass_hz = base.lowpass_hz - strength * lowpass * max(0.0, base.lowpass_hz - 40.0)
    return Cart.model_validate(
        base.model_dump()
        | {
            "rate_hz": rate_hz,
            "mains_hz": (110 - base.mains_hz) if mains < 0.5 * strength else base.mains_hz,
            "mains_mv": _within(base.mains_mv * factors[0], 0.0, 0.5),
            "noise_mv": _within(base.noise_mv * factors[1], 0.0, 0.5),
            "muscle_mv": _within(base.muscle_mv * factors[2], 0.0, 0.5),
            "wander_mv": _within(base.wander_mv * factors[3], 0.0, 2.0),
            "lowpass_hz": round(min(lowpass_hz, 0.4 * rate_hz), 1),
            "gain": _within(base.gain * (1.0 + 0.06 * strength * float(gain)), 0.51, 1.99),
            "placement_degrees": _within(base.placement_degrees * (1.0 + 0.6 * strength * placement), 0, 30),
        }
    )


def shifted_scanner(base: Scanner, strength: float, rng: np.random.Generator) -> Scanner:
    """A site's scanner; arguments as of ``shifted_cart``."""
    noise, gain = rng.standard_normal(2)
    spacing, bias, contrast, frames = rng.uniform(-1, 1, 4)
    spacing_mm = _within(base.spacing_mm * (1.0 + 0.25 * strength * float(spacing)), 1.0, 2.6)
    # The matrix grows where the pixels are small, so that the whole heart stays in view.
    pixels = max(base.pixels, int(np.ceil(LEAST_VIEW_MM / spacing_mm)))
    return Scanner.model_validate(
        base.model_dump()
        | {
            "spacing_mm": spacing_mm,
            "pixels": pixels,
            "frames": int(np.clip(round(base.frames * (1.0 + 0.3 * strength * float(frames))), 20, 60)),
            "noise": _within(base.noise * np.exp(0.7 * strength * np.clip(noise, -2, 2)), 0.0, 0.5),
            "bias": _within(base.bias * (1.0 + 0.8 * strength * float(bias)), 0.0, 0.9),
            "contrast": _within(base.contrast * (1.0 + 0.3 * strength * float(contrast)), 0.5, 1.5),
            "gain": _within(base.gain * np.exp(0.6 * strength * np.clip(gain, -2, 2)), 50.0, 2000.0),
        }
    )


def _within(value: float, low: float, high: float) -> float:
    return round(float(np.clip(value, low, high)), 4)
