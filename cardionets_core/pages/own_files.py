"""Where a package's files lie that are not Python: templates, styles, samples.

They lie beside the package's modules, but for one case: Flower packs an app without any file of these kinds,
so code that runs from such a package finds them where the program itself is installed.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from cardionets_core.errors import ConfigError


@cache
def own_folder(package: str, name: str) -> Path:
    """The folder or file of a package, as it is installed.

    Args:
        package: dotted name.
        name: of the folder or file inside it.

    Raises:
        ConfigError: it is not installed anywhere that Python looks.
    """
    for top in _places(package.partition(".")[0]):
        found = top.joinpath(*package.split(".")[1:], name)
        if found.exists():
            return found
    raise ConfigError(
        f"{name} of {package} is not installed",
        where="installation",
        remedy="install CardioNets as the README says",
    )


def _places(top: str) -> Iterator[Path]:
    """Every folder that holds a package of this name, the one that is in use first."""
    specs = [importlib.util.find_spec(top)]
    specs += [importlib.machinery.PathFinder.find_spec(top, [entry]) for entry in sys.path]
    specs += [finder.find_spec(top, None) for finder in sys.meta_path if hasattr(finder, "find_spec")]
    for spec in specs:
        for place in (spec.submodule_search_locations or ()) if spec else ():
            yield Path(place)
