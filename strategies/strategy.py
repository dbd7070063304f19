"""The contract of a strategy: stored replies in, one new module out (step 12 of the walk).

A strategy sees one module at a time. The replies lie on disk as raw little-endian float32, in the order of
the sites' names; it reads them in tiles, so its memory grows neither with the module nor with the sites,
and its result does not depend on the order of arrival. It does not know which sites sent what else, and
does not check values: the round store did that when each reply arrived.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO, ClassVar

import numpy as np

from cardionets_core.errors import ConfigError

TILE_VALUES = 1 << 20
NOTHING: Mapping[str, Path] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredModule:
    """One site's tensors of one module, on disk.

    Attributes:
        site: name of the site.
        samples: how many samples count for this module: those that produced gradient, times the weight of
            the site's role; at least 1.
        path: raw little-endian float32, ``size`` values.
        size: number of values.
    """

    site: str
    samples: int
    path: Path
    size: int


class Strategy(ABC):
    """One way of combining replies.

    Args:
        options: the study's ``aggregation.options``; an unknown key is refused.
    """

    name: ClassVar[str]
    option_names: ClassVar[frozenset[str]] = frozenset()
    state_names: ClassVar[tuple[str, ...]] = ()
    """What is remembered of each module from round to round of a phase; each is laid out as the module."""

    def __init__(self, options: Mapping[str, bool | int | float | str]) -> None:
        unknown = sorted(set(options) - self.option_names)
        if unknown:
            raise ConfigError(
                f"the strategy {self.name} has no option {', '.join(unknown)}",
                where="study: aggregation.options",
                remedy=f"it takes: {', '.join(sorted(self.option_names)) or 'none'}",
            )
        self.options = dict(options)

    @abstractmethod
    def combine(
        self,
        replies: Sequence[StoredModule],
        *,
        current: Path,
        target: Path,
        before: Mapping[str, Path] = NOTHING,
        after: Mapping[str, Path] = NOTHING,
    ) -> None:
        """Write the next global module.

        Args:
            replies: at least one, sorted by site, all of one size.
            current: the global module that was sent out, raw little-endian float32.
            target: where to write the next one, in the same form.
            before: what is remembered, by ``state_names``; a name is absent in a phase's first round.
            after: where to write what is to be remembered, for each of ``state_names``.
        """


def tiles(replies: Sequence[StoredModule], *, tile_values: int = TILE_VALUES) -> Iterator[list[np.ndarray]]:
    """Walk over all replies side by side.

    Yields:
        One float32 array a reply, all of the same stretch of the module; read anew for each tile.
    """
    size = replies[0].size
    handles: list[BinaryIO] = []
    try:
        for reply in replies:
            handles.append(reply.path.open("rb"))
        for start in range(0, size, tile_values):
            count = min(tile_values, size - start)
            yield [np.fromfile(handle, dtype="<f4", count=count) for handle in handles]
    finally:
        for handle in handles:
            handle.close()
