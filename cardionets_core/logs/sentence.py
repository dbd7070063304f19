"""A refusal's sentence with the numbers and names that its line holds beside it.

Comes in: a line of our log. Goes out: its ``what``, for people. Only values of the line's own fields go in,
which are of the kinds of the table of events; where one of them is not there, the sentence stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cardionets_core.errors import BudgetSpentError, StudyNotApprovedError

FULL: Mapping[str, tuple[str, tuple[str, ...]]] = {
    BudgetSpentError.code: (
        "epsilon {epsilon_spent:.3f} is spent, and would be {epsilon_after:.3f} after this round; "
        "the limit is {epsilon_limit:g} at delta {delta:g}",
        ("epsilon_spent", "epsilon_after", "epsilon_limit", "delta"),
    ),
    StudyNotApprovedError.code: (
        "the study {study_name} ({study:.16}) is not approved on this site",
        ("study_name", "study"),
    ),
}
"""Code to the sentence as its error has it, and the fields that stand in it."""


def sentence(line: Mapping[str, Any]) -> str:
    """What the line says."""
    if told_in(line):
        return FULL[line["code"]][0].format_map(line)
    return str(line.get("what", ""))


def told_in(line: Mapping[str, Any]) -> frozenset[str]:
    """Fields of the line that its sentence tells, so that they need not be told beside it."""
    _, fields = FULL.get(str(line.get("code", "")), ("", ()))
    return frozenset(fields if all(name in line for name in fields) else ())
