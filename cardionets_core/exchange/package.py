"""Which installed files are the code that sites and coordinator share, and what they hold (before row 0).

The coordinator builds the package from them; a site compares the package that it was sent with its own. Finds
the packages without importing them, so that nothing of a package runs here.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from cardionets_core.errors import ConfigError

PACKAGES = ("cardionets_core", "client", "server", "strategies")
"""What one site and the server of its study need, and nothing else."""
STUDIES = "server/studies"


def installed_files() -> dict[str, bytes]:
    """The installed files that enter the package: path in the package to content.

    Raises:
        ConfigError: one of the packages is not installed.
    """
    found = {
        f"{package}/{path.relative_to(folder).as_posix()}": path.read_bytes()
        for package in PACKAGES
        for folder in (folder_of(package),)
        for path in folder.rglob("*.py")
    }
    studies = folder_of("server") / "studies"
    found |= {f"{STUDIES}/{path.name}": path.read_bytes() for path in studies.glob("*.yaml")}
    return dict(sorted(found.items()))


def folder_of(package: str) -> Path:
    """Where a package is installed.

    Raises:
        ConfigError: it is not.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            f"the package {package} is not installed here",
            where="package",
            remedy="install CardioNets as the README says",
        )
    return Path(spec.submodule_search_locations[0])
