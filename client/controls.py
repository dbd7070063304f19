"""SCAFFOLD's control variates of a site: kept on its disk, their change sent with each module (step 7).

A site's control variate counts from the moment that its change has entered the coordinator's. The order tells
which replies have (``TAKEN``); a state whose reply was late, lost or refused is passed over, so both sides
add up to the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from cardionets_core.errors import CheckpointError, OrderRefusedError
from cardionets_core.exchange.messages import Order, PackedModule
from cardionets_core.exchange.tensors import layout_of, pack, unpack
from cardionets_core.training.controls import TAKEN, change_of, mark, next_control, shift_of
from cardionets_core.training.local_rule import CONTROL
from client.memory import DiskMemory

FOLDER = "control"
Tensors = dict[str, np.ndarray]


class Controls:
    """The control variates of one training order.

    Args:
        state: the site's state folder.
        site: the site's name.
        order: carries ``MODULE.control`` beside each module, and ``TAKEN``.
        trains: modules that the site's role trains.

    Raises:
        OrderRefusedError: a control variate does not fit its module, or ``TAKEN`` is absent.
        CheckpointError: the kept state is torn or does not fit.
    """

    def __init__(self, state: Path, *, site: str, order: Order, trains: tuple[str, ...]) -> None:
        if TAKEN not in order.shared:
            raise OrderRefusedError("the order does not tell which replies were taken", where="order")
        taken = {float(value) for value in np.ravel(order.shared[TAKEN])}
        phase = order.name.phase
        self._memory = DiskMemory(
            state / FOLDER,
            study_digest=order.name.study_digest,
            phase=phase,
            counts=lambda number: mark(site, phase, number) in taken,
        )
        self._round = order.name.round
        self._sent = {module: _tensors(order.modules[module]) for module in trains}
        self._control = {module: _tensors(order.modules[f"{module}.{CONTROL}"]) for module in trains}
        held = self._memory.recall(self._round) or {}
        self._own: dict[str, Tensors] = {module: {} for module in trains}
        for key, value in held.items():
            module, _, tensor = key.partition("/")
            if module in self._own:
                sent = self._sent[module].get(tensor)
                if sent is None or value.dtype != torch.float32 or tuple(value.shape) != sent.shape:
                    raise CheckpointError(
                        "a control variate of this study does not fit its module",
                        where=FOLDER,
                        remedy="remove the study's folder there: the control variates begin anew",
                    )
                self._own[module][tensor] = value.numpy()

    @property
    def shift(self) -> dict[str, dict[str, torch.Tensor]]:
        """What is added to every gradient, by module and tensor."""
        return {
            module: {
                name: torch.from_numpy(np.array(value))
                for name, value in shift_of(control, self._own[module]).items()
            }
            for module, control in self._control.items()
        }

    def close(self, trained: Mapping[str, PackedModule], *, way: float) -> dict[str, PackedModule]:
        """Store the site's next control variates; returns their change, by the name under which it travels.

        Args:
            trained: the modules after the local steps; empty where the site had no usable rows.
            way: how far a gradient of one would have gone.
        """
        after: dict[str, Tensors] = {}
        for module, packed in trained.items():
            after[module] = next_control(
                start=self._sent[module],
                end=_tensors(packed),
                control=self._control[module],
                own=self._own[module],
                way=way,
            )
        if not after:
            return {}
        # A module that was not trained this time keeps its control variate.
        state = {**self._own, **after}
        self._memory.keep(
            self._round,
            {
                f"{m}/{name}": torch.from_numpy(np.array(v))
                for m, each in state.items()
                for name, v in each.items()
            },
        )
        found = {}
        for module, tensors in after.items():
            change = change_of(tensors, self._own[module])
            found[f"{module}.{CONTROL}"] = PackedModule(layout=layout_of(change), values=pack(change))
        return found


def _tensors(packed: PackedModule) -> Tensors:
    return unpack(packed.layout, packed.values)
