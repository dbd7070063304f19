"""A task of the short axis: the same task, with the modules, cines and rows of that view in its hands.

Comes in: a task's class that knows one view. Goes out: the class of the same task for the short axis. To the
outside, to trainer, wire and ledger, it trains ``sax_tokenizer`` where the other trains ``cmr_tokenizer``,
and needs ``sax`` where the other needs ``cine``; inside nothing is written twice.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch

from cardionets_core.config.generation import LATER, Parts
from cardionets_core.data.batches import Batch
from cardionets_core.data.cohort import Split
from cardionets_core.tasks.base import Modules, Role, Scalar, SiteView, Sums, Task, TaskLoss
from cardionets_core.tasks.site_view import EVALUATION_BATCH

VIEW, LONG_AXIS, SHORT_AXIS = "view", "4ch", "sax"
VIEW_OPTION: dict[str, Scalar] = {VIEW: LONG_AXIS}
"""The option of every task that can be of either view."""
VIEW_CHOICE: dict[str, tuple[str, ...]] = {VIEW: (LONG_AXIS, SHORT_AXIS)}
SHORT_AXIS_NAMES = {
    "cmr_encoder": "sax_encoder",
    "cmr_decoder": "sax_decoder",
    "cmr_projection": "sax_projection",
    "cmr_principal": "sax_principal",
    "cmr_tokenizer": "sax_tokenizer",
    "cmr_generator": "sax_generator",
    "diffusion_head": "sax_diffusion_head",
}
"""Module of the 4-chamber view to that of the short axis."""
_NEEDS = {"cine": "sax"}


def view_of(options: Mapping[str, Scalar]) -> str:
    """The view that a phase with these options is of: the 4-chamber view unless they say otherwise."""
    return str(options.get(VIEW, LONG_AXIS))


def short_axis_name(module: str) -> str:
    """The module of the short axis that stands for one of the 4-chamber view; others serve both."""
    return SHORT_AXIS_NAMES.get(module, module)


def short_axis_modules(modules: Modules) -> Modules:
    """The modules of the short axis under the names of those of the 4-chamber view, and all the others."""
    found = {name: modules[own] for name, own in SHORT_AXIS_NAMES.items() if own in modules}
    return {**modules, **found}


def short_axis_site(site: SiteView) -> SiteView:
    """The site as if its short-axis cines were all the cines that it has."""
    return ShortAxisSite(
        cohort=site.cohort.of_view(SHORT_AXIS),
        shape=replace(site.shape, view="sax"),
        device=site.device,
        kept=site.kept.of_view(SHORT_AXIS, SHORT_AXIS_NAMES),
        shared=site.shared,
        smallest_cell=site.smallest_cell,
        draws=site.draws,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ShortAxisSite(SiteView):
    """A site whose cines are those of the short axis, by either name of them."""

    def rows(self, needs: frozenset[str], split: Split) -> np.ndarray:
        """See ``SiteView.rows``."""
        return SiteView.rows(self, _inside(needs), split)

    def batches(
        self, rows: np.ndarray, *, keys: frozenset[str], window: int, size: int = EVALUATION_BATCH
    ) -> Iterator[tuple[np.ndarray, Batch]]:
        """See ``SiteView.batches``."""
        return SiteView.batches(self, rows, keys=_inside(keys), window=window, size=size)


class _OfShortAxis(Task):
    """What changes of a task for the short axis; stands in front of the task's own class."""

    def __init__(self, options: Mapping[str, Scalar], parts: Parts = LATER) -> None:
        super().__init__(options, parts)
        self.trains = tuple(map(short_axis_name, self.trains))
        self.reads = tuple(map(short_axis_name, self.reads))
        self.needs = _outside(self.needs)
        if self.batch_keys is not None:
            self.batch_keys = _outside(self.batch_keys)

    @property
    def roles(self) -> tuple[Role, ...]:
        return tuple(
            replace(
                role,
                needs=_outside(role.needs),
                takes=_outside(role.takes),
                trains=tuple(map(short_axis_name, role.trains)),
            )
            for role in super().roles
        )

    def metric_sums(self, modules: Modules, site: SiteView, *, split: Split, seed: int) -> Sums:
        return super().metric_sums(  # type: ignore[safe-super]
            short_axis_modules(modules), short_axis_site(site), split=split, seed=seed
        )

    # Of tasks that are trained by steps:

    def open_round(self, modules: Modules, site: SiteView, role: Role) -> object:
        inside = replace(role, needs=_inside(role.needs), takes=_inside(role.takes))
        return self._own().open_round(short_axis_modules(modules), short_axis_site(site), inside)

    def loss(self, modules: Modules, batch: Batch, state: object, *, generator: torch.Generator) -> TaskLoss:
        inside = replace(batch, cine_BFYX=batch.sax_BFYX, sax_BFYX=None)
        return self._own().loss(short_axis_modules(modules), inside, state, generator=generator)

    def statistics(self, modules: Modules, batches: Iterable[Batch], *, smallest_cell: int = 1) -> Sums:
        inside = (replace(batch, cine_BFYX=batch.sax_BFYX, sax_BFYX=None) for batch in batches)
        return self._own().statistics(short_axis_modules(modules), inside, smallest_cell=smallest_cell)

    # Of tasks that are solved from sums:

    def sums(self, modules: Modules, site: SiteView) -> Sums:
        return self._own().sums(short_axis_modules(modules), short_axis_site(site))

    def _own(self) -> Any:
        return super()


@functools.cache
def of_short_axis(kind: type[Task]) -> type[Task]:
    """The class of a task for the short axis.

    Args:
        kind: has the option ``view`` and knows one view.
    """
    return cast(
        type[Task], type(f"{kind.__name__}OfShortAxis", (_OfShortAxis, kind), {"__doc__": kind.__doc__})
    )


def _outside(needs: frozenset[str]) -> frozenset[str]:
    return frozenset(_NEEDS.get(need, need) for need in needs)


def _inside(needs: frozenset[str]) -> frozenset[str]:
    back = {own: name for name, own in _NEEDS.items()}
    return frozenset(back.get(need, need) for need in needs)
