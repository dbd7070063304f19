"""How much of a true ECG there is in a guessed one, and how much there is in anybody's.

Comes in: standardised windows. Goes out: correlations by lead, signal over noise, and a null: what the ECGs
of other people, and their mean, reach without any attack.

Legend: N windows, L leads, T samples.
"""

from __future__ import annotations

import numpy as np


def agreement(true_LT: np.ndarray, made_LT: np.ndarray) -> np.ndarray:
    """Pearson's correlation of each lead, 0 where a side is constant; float64 ``[L]``."""
    true = true_LT.astype(np.float64) - true_LT.mean(axis=1, keepdims=True, dtype=np.float64)
    made = made_LT.astype(np.float64) - made_LT.mean(axis=1, keepdims=True, dtype=np.float64)
    scale = np.linalg.norm(true, axis=1) * np.linalg.norm(made, axis=1)
    return np.divide((true * made).sum(axis=1), scale, out=np.zeros(len(true)), where=scale > 0)


def signal_to_noise_db(true_LT: np.ndarray, made_LT: np.ndarray) -> float:
    """Power of the truth over that of the error, in dB; below 0 a flat line would be nearer."""
    error = np.square(made_LT.astype(np.float64) - true_LT).sum()
    return float(10.0 * np.log10(np.square(true_LT.astype(np.float64)).sum() / max(error, 1e-300)))


def null_scores(true_LT: np.ndarray, others_NLT: np.ndarray) -> dict[str, float]:
    """What is reached without the update.

    Returns:
        Mean correlation over leads of the mean ECG of others, and of the others: median, 95th percentile and
        the best, which no attacker could pick out.
    """
    each = np.array([agreement(true_LT, other).mean() for other in others_NLT])
    return {
        "mean_ecg": float(agreement(true_LT, others_NLT.mean(axis=0)).mean()),
        "median": float(np.median(each)),
        "percentile_95": float(np.percentile(each, 95)),
        "best": float(each.max()),
        "people": float(len(each)),
    }
