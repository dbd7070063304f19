"""Ditto's personal modules: trained beside the global ones, measured here, never sent (step 7).

Comes in: the modules as the coordinator sent them, before the site's own steps. Goes out: nothing but a file
in the site's state, and at an order to measure, sums of the personal model beside those of the global one.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from cardionets_core.config.study import Phase
from cardionets_core.errors import CheckpointError
from cardionets_core.exchange.messages import Order
from cardionets_core.tasks import Role, SiteView, Task
from cardionets_core.training.local import train_locally
from cardionets_core.training.local_rule import LocalRule
from cardionets_core.training.numerics import Numerics
from cardionets_core.training.pull import Pull
from client.memory import DiskMemory

FOLDER, MOMENTS = "personal", "personal-optimiser"


@dataclass(frozen=True, slots=True, kw_only=True)
class Personal:
    """The personal modules of one order.

    Attributes:
        state: the site's state folder.
        order: names study, phase and round.
        rule: says which modules are personal.
    """

    state: Path
    order: Order
    rule: LocalRule

    def train(
        self,
        task: Task,
        modules: Mapping[str, nn.Module],
        view: SiteView,
        *,
        phase: Phase,
        seed: int,
        role: Role,
        numerics: Numerics,
    ) -> None:
        """Train the personal modules for one round from where the last round left them, and store them.

        Args:
            task: of the phase.
            modules: as they were sent; they are left so.
            view: the site.
            phase: rounds, steps, optimiser; the same as for the global modules.
            seed: as for the global modules: the personal ones see the same batches.
            role: how the site takes part.
            numerics: precision, compilation, prefetch.
        """
        mine = self.rule.personal_of(role.trains)
        if not mine:
            return
        number = self.order.name.round
        copies = self._own(modules, mine, before=number)
        anchor = {name: dict(modules[name].named_parameters()) for name in mine}
        result = train_locally(
            task,
            copies,
            view,
            phase=phase,
            round_index=number,
            seed=seed,
            role=replace(role, trains=mine),
            numerics=numerics,
            memory=self._memory(MOMENTS),
            pull=Pull(mu=self.rule.pull, anchor=anchor),
        )
        if result.samples:
            tensors = {
                f"{name}/{key}": value.detach().cpu().clone().contiguous()
                for name in mine
                for key, value in copies[name].named_parameters()
            }
            self._memory(FOLDER).keep(number, tensors)

    def for_measuring(self, task: Task, modules: Mapping[str, nn.Module]) -> dict[str, nn.Module] | None:
        """The personal model that belongs to the modules that were sent; None where the site has none.

        That is the one after an order's round where it is an order to measure, the one before it where the
        site measures on its way to train.
        """
        mine = self.rule.personal_of(task.trains)
        before = self.order.name.round + (self.order.kind == "evaluate")
        if not mine or self._memory(FOLDER).recall(before) is None:
            return None
        return self._own(modules, mine, before=before)

    def _memory(self, folder: str) -> DiskMemory:
        name = self.order.name
        return DiskMemory(self.state / folder, study_digest=name.study_digest, phase=name.phase)

    def _own(
        self, modules: Mapping[str, nn.Module], mine: tuple[str, ...], *, before: int
    ) -> dict[str, nn.Module]:
        """All modules, those of the site's own as copies; they begin as the global ones."""
        found = {name: copy.deepcopy(value) if name in mine else value for name, value in modules.items()}
        held = self._memory(FOLDER).recall(before) or {}
        for key, value in held.items():
            name, _, tensor = key.partition("/")
            parameter = dict(found[name].named_parameters()).get(tensor) if name in mine else None
            if parameter is None or (parameter.shape, parameter.dtype) != (value.shape, value.dtype):
                raise CheckpointError(
                    "a personal tensor of this study does not fit its module",
                    where=FOLDER,
                    remedy="remove the study's folder there: the personal model begins anew",
                )
            with torch.no_grad():
                parameter.copy_(value)
        return found
