"""The cells of a sweep: a scenario each, all of them checked before anything runs.

Comes in: a scenario's document and the axes. Goes out: scenarios with the values that make them.
"""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cardionets_core.config.read import parse_document, read_mapping
from cardionets_core.errors import CardioNetsError, ConfigError, UsageError
from simulation.asked import in_one_line
from simulation.scenario import Scenario, named_study, scenario_path
from simulation.sweep.keys import set_key
from simulation.sweep.values import Axis, Value

MOST_CELLS = 10_000
MOST_TOLD = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A cell.

    Attributes:
        values: key to value.
        scenario: with those values.
    """

    values: Mapping[str, Value]
    scenario: Scenario

    @property
    def label(self) -> str:
        """For people: the last part of each key, and its value."""
        return " ".join(f"{short_key(key)}={value}" for key, value in self.values.items())

    @property
    def slug(self) -> str:
        """For a folder."""
        return re.sub(r"[^A-Za-z0-9.=-]+", "-", self.label)[:80]


def short_key(key: str) -> str:
    """The part of a key that a table's head has room for."""
    return key.rpartition(".")[2]


def read_base(name_or_path: str) -> dict[str, Any]:
    """A scenario's document with its study written out, so that keys of the study can be set.

    Raises:
        ConfigError: no such scenario or study, or a file that is no mapping.
    """
    document = read_mapping(scenario_path(name_or_path))
    if isinstance(document.get("study"), str):
        document["study"] = named_study(document["study"])
    return document


def plan_cells(
    base: Mapping[str, Any], axes: Sequence[Axis], *, sample: int | None = None, sample_seed: int = 0
) -> list[Planned]:
    """Every combination of the values, or some of them, each a checked scenario.

    Args:
        base: the document.
        axes: keys and values.
        sample: how many combinations to draw, without repeats; None takes all.
        sample_seed: of the draw.

    Raises:
        UsageError: too many cells.
        ConfigError: every combination that is no valid scenario, each with its keys and faults.
    """
    size = int(np.prod([len(axis.values) for axis in axes], dtype=object))
    if size > MOST_CELLS and sample is None:
        raise UsageError(
            f"the grid has {size} cells",
            where="--set",
            remedy=f"at most {MOST_CELLS}: set fewer, or --random N",
        )
    combinations = itertools.product(*(axis.values for axis in axes))
    if sample is not None and sample < size:
        if size > 100 * MOST_CELLS:
            raise UsageError(f"a grid of {size} cells is too large to draw from", where="--set")
        chosen = set(np.random.default_rng(sample_seed).choice(size, sample, replace=False).tolist())
        combinations = (each for place, each in enumerate(combinations) if place in chosen)  # type: ignore[assignment]
    planned: list[Planned] = []
    faults: dict[str, list[str]] = {}
    for combination in combinations:
        values = dict(zip((axis.key for axis in axes), combination, strict=True))
        try:
            planned.append(Planned(values=values, scenario=_scenario(base, values)))
        except CardioNetsError as error:
            # One wrong value spoils many cells: each fault is told once, with the cells that have it.
            told = in_one_line(error)
            named = " ".join(f"{key}={value}" for key, value in values.items())
            faults.setdefault(told, []).append(named)
    if faults:
        shown = [
            f"  - {cells[0]}{f' and {len(cells) - 1} more' if len(cells) > 1 else ''}: {told}"
            for told, cells in list(faults.items())[:MOST_TOLD]
        ]
        if len(faults) > MOST_TOLD:
            shown.append(f"  - and {len(faults) - MOST_TOLD} more faults")
        raise ConfigError(
            f"{sum(map(len, faults.values()))} cell(s) are no valid scenario, and nothing was run:\n"
            + "\n".join(shown),
            where="--set",
            remedy="mend the keys and values that are named above",
        )
    return planned


def _scenario(base: Mapping[str, Any], values: Mapping[str, Value]) -> Scenario:
    document = copy.deepcopy(dict(base))
    for key, value in values.items():
        set_key(document, key, value)
    return parse_document(Scenario, document, where="")
