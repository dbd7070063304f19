"""Finds a study document: by path, or by name among those that come with the server."""

from __future__ import annotations

from pathlib import Path

from cardionets_core.errors import ConfigError

SHIPPED = Path(__file__).parent / "studies"


def find_study(name_or_path: str) -> Path:
    """The file of a study.

    Raises:
        ConfigError: there is none; the message lists the shipped ones.
    """
    for candidate in (Path(name_or_path), SHIPPED / f"{name_or_path}.yaml"):
        if candidate.is_file():
            return candidate
    names = ", ".join(sorted(path.stem for path in SHIPPED.glob("*.yaml")))
    raise ConfigError(
        f"there is no study {name_or_path!r}",
        where="study",
        remedy=f"give the path of a study.yaml, or one of: {names}",
    )
