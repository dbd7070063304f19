"""Is so much left out that something is wrong with all of it, and not with single recordings?

Comes in: counts of what was found and left out. Goes out: a sentence a kind of which less than half can be
used, and an error where nothing at all can. Who has withdrawn is no fault of the data and counts for nothing
here, unless nobody else is left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from cardionets_core.errors import REFUSAL_REASONS, DataError, TooFewPatientsError

WITHDRAWN = "withdrawn"
_NAMES = {"ecg": "ECGs", "cine": "cines"}
_INSPECT = (
    "give one such file to `cardionets-client inspect`; mostly the unit, rate or format is declared wrongly"
)


def mostly_left_out(table: Mapping[str, Sequence[Any]], refusals: Mapping[str, int]) -> list[str]:
    """A sentence for each kind of recordings of which more than half is left out.

    Args:
        table: columns kind, accepted and reason, a row a recording.
        refusals: reason to number, those that the source left out before reading included.
    """
    told = []
    rows = list(zip(table["kind"], table["accepted"], table["reason"], strict=True))
    unlisted = Counter(refusals) - Counter(reason for _, _, reason in rows if reason)
    for kind, name in _NAMES.items():
        used = sum(bool(accepted) for of, accepted, _ in rows if of == kind)
        reasons = Counter(reason for of, _, reason in rows if of == kind and reason)
        # What was left out while listing stands in no row; its reason tells what it would have been.
        reasons += Counter({r: count for r, count in unlisted.items() if r.startswith(f"{kind}-")})
        del reasons[WITHDRAWN]
        if (out := reasons.total()) > used:
            what = (
                f"{out:,} of {used + out:,} {name} cannot be used"
                if used
                else f"None of {out:,} {name} can be used"
            )
            told.append(f"{what}, most often for {_commonest(reasons)}: {_INSPECT}.")
    return told


def nothing_usable(content: Mapping[str, Any]) -> DataError | None:
    """The error of a prepared site that holds no usable recording; None where it holds one.

    Args:
        content: with ``found`` (kind to counts), ``refusals`` and ``report``, as ``prepare`` prints it.
    """
    if any(counts["accepted"] for counts in content["found"].values()):
        return None
    reasons = Counter(content["refusals"])
    where = "site.yaml: source"
    if not reasons:
        return TooFewPatientsError(
            "there is no recording in the folders of this site", where=where,
            remedy="compare folder, pattern or index with the files; `prepare --dry-run` counts them",
        )  # fmt: skip
    total = reasons.total()
    if set(reasons) != {WITHDRAWN}:
        del reasons[WITHDRAWN]
    return TooFewPatientsError(
        f"none of {total:,} recordings can be used, most often for {_commonest(reasons)}",
        where=where,
        remedy=f"{_INSPECT}; mend site.yaml and run prepare again; the report shows examples: "
        f"{content['report']}",
    )


def _commonest(reasons: Mapping[str, int]) -> str:
    reason, count = min(reasons.items(), key=lambda item: (-item[1], item[0]))
    return f"{reason} ({count:,}: {REFUSAL_REASONS.get(reason, 'unknown reason')})"
