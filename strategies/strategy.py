"""The contract of a strategy: stored replies in, one new module out (step 12 of the walk).

A strategy sees one module at a time. The replies lie on disk as raw little-endian float32, in the order of
the sites' names; it reads them in tiles, so its memory grows neither with the module nor with the sites,
and its result does not depend on the order of arrival. It does not know which sites sent what else, and
does not check values: the round store did that when each reply arrived.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO, ClassVar

import numpy as np

from cardionets_core.errors import QuorumNotMetError, StorageFailedError
from strategies.options import Options, Scalar

TILE_VALUES = 1 << 16
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
        values: scalars of the site's reply, such as ``steps``.
        extras: further tensors that came with this module, laid out as it, such as ``control``.
    """

    site: str
    samples: int
    path: Path
    size: int
    values: Mapping[str, float] = field(default_factory=dict)
    extras: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundFacts:
    """What a strategy may know of the round beside its replies.

    Attributes:
        number: of the round in its phase, from 1.
        population: member sites that serve the phase, drawn for this round or not; 0 where they are those
            that replied.
    """

    number: int = 1
    population: int = 0


FIRST_ROUND = RoundFacts()


class Strategy(ABC):
    """One way of combining replies.

    Args:
        options: the study's ``aggregation.options``.

    Raises:
        ConfigError: an option is unknown, missing, of the wrong type or out of range.
    """

    name: ClassVar[str]
    defaults: ClassVar[Mapping[str, Scalar]] = {}
    """Every option that may be left out, with its default."""
    required: ClassVar[frozenset[str]] = frozenset()
    """Options without a default."""
    from_mean: ClassVar[bool] = False
    """Whether the sample-weighted mean of the replies is all that it needs of them: then it serves under
    secure aggregation, as one reply that stands for all sites."""
    state_names: ClassVar[tuple[str, ...]] = ()
    """What is remembered of each module from round to round of a phase; each is laid out as the module."""

    def __init__(self, options: Mapping[str, Scalar]) -> None:
        self.options = Options(self.name, options, defaults=self.defaults, required=self.required)

    @property
    def fewest(self) -> int:
        """The fewest replies of a module that it can be combined from."""
        return 1

    @abstractmethod
    def combine(
        self,
        replies: Sequence[StoredModule],
        *,
        current: Path,
        target: Path,
        before: Mapping[str, Path] = NOTHING,
        after: Mapping[str, Path] = NOTHING,
        facts: RoundFacts = FIRST_ROUND,
    ) -> None:
        """Write the next global module.

        Args:
            replies: at least one, sorted by site, all of one size.
            current: the global module that was sent out, raw little-endian float32.
            target: where to write the next one, in the same form.
            before: what is remembered, by ``state_names``; a name is absent in a phase's first round.
            after: where to write what is to be remembered, for each of ``state_names``.
            facts: of the round.

        Raises:
            QuorumNotMetError: there are fewer replies than ``fewest``.
        """

    def check_enough(self, replies: Sequence[StoredModule]) -> None:
        """Raise QuorumNotMetError where there are fewer replies than the strategy needs."""
        if len(replies) < self.fewest:
            raise QuorumNotMetError(
                f"{len(replies)} site(s) sent this module; the strategy {self.name} needs {self.fewest}",
                where="aggregation",
                remedy="ask more sites to take part, or let the study assume fewer attackers",
            )


@contextmanager
def fsynced(path: Path) -> Iterator[BinaryIO]:
    """A new file whose bytes are on the disk when the block ends."""
    with path.open("wb") as handle:
        yield handle
        handle.flush()
        os.fsync(handle.fileno())


def stretch(path: Path, start: int, count: int) -> np.ndarray:
    """``count`` values of a raw file from value ``start`` on, float64."""
    return np.fromfile(path, dtype="<f4", count=count, offset=4 * start).astype(np.float64)


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


def stacks(replies: Sequence[StoredModule], *, most_values: int = TILE_VALUES) -> Iterator[np.ndarray]:
    """All replies of one stretch after the other, float32 [sites, stretch].

    The stretch shrinks as the sites grow, so that a stack stays in a processor's cache. The array is written
    anew for each stretch and may be changed by the caller. Of several replies, -0 comes as +0, so that no
    comparison of the two can tell one site's bytes from another's.
    """
    size, width = replies[0].size, max(256, most_values // len(replies))
    held = np.empty((len(replies), min(width, size)), dtype="<f4")
    with ExitStack() as exits:
        handles = [exits.enter_context(reply.path.open("rb", buffering=0)) for reply in replies]
        for start in range(0, size, width):
            count = min(width, size - start)
            for row, handle in zip(held, handles, strict=True):
                if handle.readinto(row[:count].view(np.uint8).data) != 4 * count:
                    raise StorageFailedError(
                        "a stored reply is shorter than it was when it arrived",
                        where=str(handle.name),
                        remedy="look after the disk, then run again: the round is asked for anew",
                    )
            found = held[:, :count]
            if len(replies) > 1:
                found += 0.0
            yield found
