"""Which programs are installed here, in one line for people (``--version`` of every program).

Comes in: the installed distributions' own records. Goes out: text. Imports none of them: torch alone takes
seconds.
"""

from __future__ import annotations

import importlib.metadata

TOLD = ("cardionets", "flwr", "torch")
"""What two machines must agree on, in the order in which it is told."""


def version_line() -> str:
    """Name and version of each; one that is not installed says so."""
    return " · ".join(f"{name} {_version(name)}" for name in TOLD)


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
