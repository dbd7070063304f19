"""Tensors that stay at the site, such as norm layers (FedBN): laid over what was sent, left out of replies.

Comes in: modules as the coordinator sent them. Goes out: the same modules with the site's own local tensors,
and packed modules in which the local tensors are again those that were sent. They last from phase to phase of
a study.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn

from cardionets_core.errors import CheckpointError, DisclosureRefusedError
from cardionets_core.exchange.messages import Order, PackedModule
from cardionets_core.training.local_rule import LocalRule
from client.memory import DiskMemory

FOLDER = "local-tensors"


class LocalTensors:
    """The local tensors of one order.

    Args:
        state: the site's state folder.
        order: names study, phase and round. An order to measure sees the state after its round, others that
            before it.
        rule: says which tensors are local.
    """

    def __init__(self, state: Path, *, order: Order, rule: LocalRule) -> None:
        self._rule = rule
        self._order = order
        self._memories = [
            DiskMemory(state / FOLDER, study_digest=order.name.study_digest, phase=phase)
            for phase in range(order.name.phase + 1)
        ]

    def lay_over(self, modules: Mapping[str, nn.Module]) -> dict[str, str]:
        """Put the site's tensors into the modules.

        Returns:
            Digests of the frozen modules as they now are: those of the order, changed where a tensor is
            local.

        Raises:
            CheckpointError: a kept state is torn or does not fit.
        """
        digests = dict(self._order.frozen)
        if not self._rule.local:
            return digests
        name = self._order.name
        found: dict[str, torch.Tensor] = {}
        for phase, memory in enumerate(self._memories):
            here = phase == name.phase
            found |= memory.recall(name.round + (self._order.kind == "evaluate") if here else 10**6) or {}
        for module, whole in modules.items():
            parameters = dict(whole.named_parameters())
            mine = {key: value for key, value in found.items() if key.startswith(f"{module}/")}
            marks = [digests.get(module, "")]
            for key, value in sorted(mine.items()):
                parameter = parameters.get(key.removeprefix(f"{module}/"))
                if parameter is None or (parameter.shape, parameter.dtype) != (value.shape, value.dtype):
                    raise CheckpointError(
                        "a local tensor of this study does not fit its module",
                        where=str(FOLDER),
                        remedy="remove the study's folder there: the local tensors begin anew",
                    )
                with torch.no_grad():
                    parameter.copy_(value)
                marks.append(hashlib.sha256(key.encode() + value.numpy().tobytes()).hexdigest())
            if mine and module in digests:
                digests[module] = hashlib.sha256("".join(marks).encode()).hexdigest()
        return digests

    def keep(self, modules: Mapping[str, nn.Module], trains: Iterable[str]) -> None:
        """Store the local tensors of the trained modules as they are after the round."""
        state = {
            f"{module}/{name}": value.detach().cpu().clone().contiguous()
            for module in trains
            for name, value in modules[module].named_parameters()
            if self._rule.keeps(module, name)
        }
        if state:
            self._memories[-1].keep(self._order.name.round, state)

    def take_out(self, name: str, packed: PackedModule) -> PackedModule:
        """The module with the tensors that were sent in the place of the local ones."""
        parts = self._rule.kept_parts(name, packed.layout)
        if not parts:
            return packed
        values = packed.values.copy()
        for part in parts:
            values[part] = self._order.modules[name].values[part]
        return PackedModule(layout=packed.layout, values=values)


def check_none_leaves(modules: Mapping[str, PackedModule], *, order: Order, rule: LocalRule) -> None:
    """The gate's check: what a reply holds in the place of a local tensor is what was sent, byte for byte.

    Of a module that travels as its change, nothing but zeros may stand there.

    Raises:
        DisclosureRefusedError: names the module.
    """
    for name, packed in modules.items():
        for part in rule.kept_parts(name, packed.layout):
            held = packed.values[part]
            sent = order.modules[name].values[part] if packed.form == "fp32" else np.zeros_like(held)
            if not np.array_equal(held, sent):
                raise DisclosureRefusedError(f"local tensors of {name} may not leave", where="gate")
