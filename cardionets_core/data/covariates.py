"""What is known of a person beside the ECG, as numbers for an encoder that takes it (step 5 of the walk).

Such an encoder's results are those of ECG and demographics together, and are never called those of the ECG.
"""

from __future__ import annotations

import numpy as np

COVARIATES: tuple[str, ...] = ("age", "age known", "sex", "sex known")
MIDDLE_AGE_YEARS, DECADE_YEARS = 60.0, 10.0


def covariates_of(age_years: np.ndarray, sex: np.ndarray) -> np.ndarray:
    """Age in decades from 60, and whether it is known; sex as -1 (F) or 1 (M), and whether it is known.

    Args:
        age_years: [B], NaN where unknown.
        sex: int [B], 0 (F), 1 (M), or -1 where unknown.

    Returns:
        Float32 [B, 4] in the order of ``COVARIATES``; what is not known is 0.
    """
    aged, sexed = np.isfinite(age_years), sex >= 0
    age = np.where(aged, (np.nan_to_num(age_years) - MIDDLE_AGE_YEARS) / DECADE_YEARS, 0.0)
    columns = (age, aged, np.where(sexed, 2.0 * sex - 1.0, 0.0), sexed)
    return np.stack(columns, axis=1).astype(np.float32)
