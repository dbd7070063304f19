"""A latent heart becomes a 12-lead ECG: a moving dipole seen by leads, then all that spoils a recording.

Comes in: a ``Heart``, a ``Cart`` and a generator. Goes out: an ``EcgRecord`` in mV at the cart's rate.

The dipole is the sum of asymmetric Gaussian waves in time, each with a direction in Frank's frame (x to the
left, y to the feet, z to the back; McSharry et al., IEEE Trans Biomed Eng 2003, in three dimensions). Leads
I, II and V1 to V6 are seen with the coefficients of Dower, Machado and Osborne (Clin Cardiol 1980); the
other limb leads follow from I and II, so that Einthoven's identities hold exactly. Noise enters at the
electrodes, so that it obeys them too. How the waves depend on the heart stands in ``waves.py``.

Legend: L leads, T samples, W waves, E electrodes.
"""

from __future__ import annotations

import numpy as np
from scipy.signal import butter, sosfilt

from cardionets_core.data.records import LEADS, EcgRecord
from simulation.hearts import Heart
from simulation.machines import Cart
from simulation.waves import Waves, rotation, waves_of

# Frank x, y, z to I, II, V1 .. V6.
DOWER = np.array(
    [
        [0.632, -0.235, 0.059],
        [0.235, 1.066, -0.132],
        [-0.515, 0.157, -0.917],
        [0.044, 0.164, -1.387],
        [0.882, 0.098, -1.277],
        [1.213, 0.127, -0.601],
        [1.125, 0.127, -0.086],
        [0.831, 0.076, 0.230],
    ]
)

# Electrodes RA, LA, LL, V1 .. V6 to I, II, V1 .. V6; the precordials against Wilson's terminal.
_ELECTRODES = np.zeros((8, 9), dtype=np.float32)
_ELECTRODES[0, :2] = (-1, 1)
_ELECTRODES[1, (0, 2)] = (-1, 1)
_ELECTRODES[2:, :3] = -1 / 3
_ELECTRODES[2:, 3:] = np.eye(6)

_BEFORE_S, _AFTER_S = 0.42, 0.68


def draw_ecg(
    heart: Heart, cart: Cart, rng: np.random.Generator, *, seconds: float = 10.0, clean: bool = False
) -> EcgRecord:
    """Record a resting ECG.

    Args:
        heart: the latent heart.
        cart: the machine.
        rng: draws the rhythm, the placement of electrodes and the noise.
        seconds: length of the recording.
        clean: leave out electrode placement, beat-to-beat change, habitus, filter, noise and the cart's
            fault: the heart alone, at a steady rate.

    Returns:
        float32 [12, T] in mV, leads as in ``LEADS``; of a cart that shuffles them, the names are wrong.
    """
    samples = round(seconds * cart.rate_hz)
    waves = waves_of(heart)
    rr_s = 60.0 / heart.heart_rate_bpm
    if clean:
        beats_s = np.arange(-1.0 + 0.3, seconds + 1.0, rr_s)
        return _record(_dipole(waves, beats_s, samples=samples, rate_hz=cart.rate_hz), cart)

    breath_hz = rng.uniform(0.18, 0.32)
    phase = rng.uniform(0, 2 * np.pi)
    count = int(np.ceil((seconds + 2.0) / rr_s * 1.3)) + 2
    wobble = 0.012 * rng.standard_normal(count)
    breathing = np.sin(2 * np.pi * breath_hz * np.arange(count) * rr_s + phase)
    rr = rr_s * (1.0 + rng.uniform(0.005, 0.04) * breathing + wobble)
    beats_s = rng.uniform(-1.0, -1.0 + rr_s) + np.cumsum(rr) - rr[0]
    placement = rotation(np.radians(cart.placement_degrees) * rng.standard_normal(3))
    habitus = float(np.exp(0.22 * rng.standard_normal()))
    dipole = _dipole(
        waves, beats_s, samples=samples, rate_hz=cart.rate_hz, rng=rng, breath=(breath_hz, phase)
    )
    seen = _seen(habitus * placement, dipole)
    # Each precordial electrode sits a little nearer to the heart or farther from it.
    seen[2:] *= np.exp(0.08 * rng.standard_normal((6, 1))).astype(np.float32)
    seen += np.einsum("le,et->lt", _ELECTRODES, _electrode_noise(cart, rng, samples=samples))
    cutoff = butter(2, cart.lowpass_hz, fs=cart.rate_hz, output="sos")
    seen = (cart.gain * sosfilt(cutoff, seen, axis=1)).astype(np.float32)
    if cart.leads == "arms-swapped":
        seen[:2] = -seen[0], seen[1] - seen[0]  # I turns over, II is what III was
    names = tuple(sorted(LEADS)) if cart.leads == "shuffled" else LEADS
    return EcgRecord(signal_mv=_twelve(seen), fs_hz=float(cart.rate_hz), leads=names)


def _record(dipole: np.ndarray, cart: Cart) -> EcgRecord:
    signal = _twelve(_seen(np.eye(3), dipole))
    return EcgRecord(signal_mv=signal, fs_hz=float(cart.rate_hz), leads=LEADS)


def _dipole(
    waves: Waves,
    beats_s: np.ndarray,
    *,
    samples: int,
    rate_hz: int,
    rng: np.random.Generator | None = None,
    breath: tuple[float, float] = (0.25, 0.0),
) -> np.ndarray:
    """The heart's vector, float64 [3, T] in mV; with a generator, beats differ from each other."""
    dipole = np.zeros((3, samples))
    mean_rr = float(np.mean(np.diff(beats_s)))
    for index, beat in enumerate(beats_s):
        first = max(0, int((beat - _BEFORE_S) * rate_hz))
        last = min(samples, int((beat + _AFTER_S) * rate_hz) + 1)
        if first >= last:
            continue
        rr = beats_s[index] - beats_s[index - 1] if index else mean_rr
        # Repolarisation follows the preceding cycle by half of what a steady rate would do.
        centre = waves.centre_s + waves.follows_rate * 0.5 * (np.sqrt(rr / mean_rr) - 1.0)
        vector = waves.vector_mv
        if rng is not None:
            air = np.sin(2 * np.pi * breath[0] * beat + breath[1])
            jitter = 1.0 + waves.jitter * rng.standard_normal(len(centre))
            vector = (vector * jitter[:, None]) @ rotation(np.radians([2.0 * air, 1.5 * air, 3.5 * air])).T
            vector = vector * (1.0 + 0.05 * air)
            centre = centre + 0.002 * waves.jitter / 0.05 * rng.standard_normal(len(centre))
        time = np.arange(first, last) / rate_hz - beat
        away = time[None, :] - centre[:, None]
        width = np.where(away < 0, waves.rise_s[:, None], waves.fall_s[:, None])
        dipole[:, first:last] += vector.T @ np.exp(-0.5 * np.square(away / width))
    return dipole


def _seen(placement: np.ndarray, dipole: np.ndarray) -> np.ndarray:
    """I, II, V1 .. V6 of a turned dipole, float32 [8, T]."""
    # einsum, because threaded BLAS makes such thin products slow where several workers draw.
    return np.einsum("lk,kt->lt", DOWER @ placement, dipole).astype(np.float32)


def _twelve(independent: np.ndarray) -> np.ndarray:
    """Add III, aVR, aVL and aVF to I, II, V1 .. V6; float32 [12, T]."""
    one, two = independent[0], independent[1]
    limbs = [one, two, two - one, -0.5 * (one + two), one - 0.5 * two, two - 0.5 * one]
    return np.concatenate([np.stack(limbs), independent[2:]]).astype(np.float32)


def _electrode_noise(cart: Cart, rng: np.random.Generator, *, samples: int) -> np.ndarray:
    """White and muscle noise, mains and wander at each electrode, float32 [E, T] in mV."""
    electrodes = _ELECTRODES.shape[1]
    time = np.arange(samples, dtype=np.float32) / np.float32(cart.rate_hz)
    noise = np.float32(cart.noise_mv) * rng.standard_normal((electrodes, samples), dtype=np.float32)

    # Muscle: noise without its slow part, louder for a while at each electrode by turns.
    rough = np.diff(rng.standard_normal((electrodes, samples + 1), dtype=np.float32), axis=1)
    loud = rng.uniform(0.05, 1.0, size=(electrodes, 1)) * rng.uniform(0.2, 1.0)
    swell = 0.5 + 0.5 * np.sin(
        2 * np.pi * rng.uniform(0.05, 0.4, (electrodes, 1)) * time + rng.uniform(0, 6.28, (electrodes, 1))
    )
    noise += (cart.muscle_mv / np.sqrt(2.0) * loud * swell).astype(np.float32) * rough

    mains = cart.mains_mv * rng.uniform(0.2, 1.0, (electrodes, 1))
    noise += (
        mains * np.sin(2 * np.pi * cart.mains_hz * time + rng.uniform(0, 6.28, (electrodes, 1)))
    ).astype(np.float32)
    for low, high, share in ((0.03, 0.12, 0.8), (0.15, 0.35, 0.55), (0.4, 0.9, 0.12)):
        size = cart.wander_mv * share * rng.standard_normal((electrodes, 1))
        rate = rng.uniform(low, high)
        noise += (size * np.sin(2 * np.pi * rate * time + rng.uniform(0, 6.28, (electrodes, 1)))).astype(
            np.float32
        )
    return noise
