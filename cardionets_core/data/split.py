"""Which split a person is in: by a keyed hash, so stable as data is added (step 3 of the walk)."""

from __future__ import annotations

from cardionets_core.data.cohort import SPLITS
from cardionets_core.data.pseudonym import keyed_digest


def split_of(key: bytes, pseudonym: str, *, validation: float, test: float) -> int:
    """Index into ``SPLITS``.

    A uniform number in [0, 1) from the pseudonym alone: all recordings, visits and phases of a person fall
    on one side, and nobody changes sides when others join or leave.

    Args:
        key: the site's key.
        pseudonym: of the person.
        validation: share of people for validation; 0 is legal.
        test: share of people for the test; 0 is legal.
    """
    uniform = int(keyed_digest(key, "split", pseudonym)[:13], 16) / 16**13
    if uniform < test:
        return SPLITS.index("test")
    if uniform < test + validation:
        return SPLITS.index("validation")
    return SPLITS.index("train")
