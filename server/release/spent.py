"""What sites say they have spent: their budgets, handed over by them (``cardionets-client budget``).

Comes in: files with the JSON of ``budget --format json``. Goes out: site to epsilon of one study. The
coordinator sees no ledger, so this is the sites' own word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cardionets_core.config.study import Study
from cardionets_core.errors import UsageError
from cardionets_core.plain_json import read_json


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """One site's word.

    Attributes:
        epsilon: of the whole study there, at the study's delta or a smaller one.
        secret: all noise of its ledger was.
    """

    epsilon: float
    secret: bool


def read_spent(paths: Sequence[Path], study: Study) -> dict[str, Spent]:
    """Site to what it spent on a study; 0 where its ledger does not name the study.

    Raises:
        UsageError: a file is none of ``budget``, at a larger delta than the study's, or of a site twice.
    """
    found: dict[str, Spent] = {}
    for path in paths:
        try:
            content = read_json(path)
            site, delta = str(content["site"]), float(content["limit"]["delta"])
            epsilons = [
                float(each["epsilon"]) for each in content["studies"] if each["study"] == study.digest
            ]
            told = Spent(epsilon=sum(epsilons), secret=content["noise_was_secret"] is True)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _refused("the file is no budget of a site", path) from error
        if delta > study.privacy.delta:
            raise _refused(f"the budget is at delta {delta:g}, the study's is {study.privacy.delta:g}", path)
        if site in found:
            raise _refused(f"the site {site} has handed in two budgets", path)
        found[site] = told
    return found


def _refused(what: str, path: Path) -> UsageError:
    return UsageError(
        what, where=str(path), remedy="ask the site for: cardionets-client budget --format json > FILE"
    )
