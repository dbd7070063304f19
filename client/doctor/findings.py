"""What one part of the check found: facts, problems that stop the site, and notices that do not."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cardionets_core.errors import CardioNetsError


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Something to know that stops nothing.

    Attributes:
        what: one plain sentence.
        remedy: what to do about it, if anything.
    """

    what: str
    remedy: str = ""


@dataclass(slots=True, kw_only=True)
class Findings:
    """The outcome of one part.

    Attributes:
        facts: JSON-ready.
        problems: each with its remedy and the exit code of its family.
        notices: each with its remedy.
    """

    facts: dict[str, Any] = field(default_factory=dict)
    problems: list[CardioNetsError] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
