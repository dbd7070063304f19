"""The leakage checker: nobody may stand in two splits (SCIENCE sections 7 and 8, identity 16)."""

from __future__ import annotations

import numpy as np

from cardionets_core.errors import DataError


def check_leakage(row_patient: np.ndarray, row_split: np.ndarray) -> None:
    """Check that every person's rows are in one split.

    Args:
        row_patient: int [R], a number for each person.
        row_split: int [R], index into ``SPLITS``.

    Raises:
        DataError: says how many people leak; never who.
    """
    if len(row_patient) != len(row_split):
        raise DataError("the columns of people and splits differ in length", where="leakage check")
    pairs = np.unique(np.stack([np.asarray(row_patient), np.asarray(row_split)]).astype(np.int64), axis=1)
    leaking = pairs.shape[1] - len(np.unique(pairs[0]))
    if leaking:
        raise DataError(
            f"people stand in more than one split ({leaking} too many)",
            where="leakage check",
            remedy="split by person, not by recording; delete the cache and run `prepare` again",
        )
