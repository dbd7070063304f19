"""What stands between a site and its first round, all of it at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cardionets_core.config.site import read_site
from cardionets_core.data.cache import open_cache
from cardionets_core.errors import CardioNetsError, UnknownNameError
from cardionets_core.tasks import TASKS, make_task
from cardionets_core.tasks.shapes import shape_of
from client.site import Site, resolve_device, training_rows

SCHEMA_VERSION = 1


@dataclass(kw_only=True)
class Checked:
    """What a check found.

    Attributes:
        phases: task to ``can be served``, or the code for which it cannot.
        problems: errors, each with its remedy.
    """

    phases: dict[str, str] = field(default_factory=dict)
    problems: list[CardioNetsError] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """That of the worst family: the largest exit code of the problems, 0 without any."""
        return max((problem.exit_code for problem in self.problems), default=0)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "schema_version": SCHEMA_VERSION,
            "phases": self.phases,
            "problems": [
                {"code": p.code, "what": p.what, "where": p.where, "remedy": p.remedy} for p in self.problems
            ],
        }


def check_site(path: Path, *, preset: str = "nano") -> Checked:
    """Check a site's document, device, cache and phases.

    Args:
        path: of ``site.yaml``.
        preset: whose windows the phases are judged by.
    """
    found = Checked()
    try:
        config = read_site(path)
    except CardioNetsError as error:
        found.problems.append(error)
        return found
    unknown = [name for name in config.policy.phases if name not in TASKS]
    if unknown:
        found.problems.append(
            UnknownNameError(
                f"the policy permits phases that do not exist: {', '.join(unknown)}",
                where=f"{path}: policy.phases",
                remedy=f"the phases are: {', '.join(sorted(TASKS))}",
            )
        )
    try:
        device = resolve_device(config)
        site = Site(config=config, cohort=open_cache(config), device=device)
    except CardioNetsError as error:
        found.problems.append(error)
        return found
    for name in TASKS:
        try:
            training_rows(site, make_task(name, {}), shape_of(preset))
            found.phases[name] = "can be served"
        except CardioNetsError as error:
            found.phases[name] = error.code
            if name in config.policy.phases:
                found.problems.append(error)
    return found
