"""Trained modules in the study's wire precision, and what that has lost so far (rows 8 and 9 of the walk).

Comes in: modules after the local steps, and the order with them as they were sent. Goes out: modules as they
travel; in fp32 the same. What int8 loses stays at the site, named by the round, and enters its next update.
As with a control variate it counts only where the reply entered the model (``TAKEN``): of a reply that was
lost, late or refused nothing is carried on, and a round that is asked for again begins from the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from cardionets_core.errors import CheckpointError, DisclosureRefusedError, OrderRefusedError, PeerError
from cardionets_core.exchange.messages import Order, PackedModule
from cardionets_core.exchange.precision import Coded, decode
from cardionets_core.exchange.updates import to_update
from cardionets_core.training.controls import TAKEN, mark
from cardionets_core.training.local_rule import LocalRule
from client.memory import DiskMemory

FOLDER = "update-remainder"


class Updates:
    """The updates of one training order.

    Args:
        state: the site's state folder.
        site: the site's name.
        order: with the tensors of all modules that are trained; of int8 also with ``TAKEN``.
        rule: names the form.

    Raises:
        OrderRefusedError: ``TAKEN`` is absent.
        CheckpointError: what is kept is torn.
    """

    def __init__(self, state: Path, *, site: str, order: Order, rule: LocalRule) -> None:
        self._order, self._form, self._carries = order, rule.form, rule.carries
        self._kept: dict[str, torch.Tensor] = {}
        if not rule.carries:
            return
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
        self._kept = self._memory.recall(order.name.round) or {}

    def code(self, trained: Mapping[str, PackedModule]) -> dict[str, PackedModule]:
        """The modules as they travel; what is lost of them is on the disk when this returns.

        Args:
            trained: float32, of the modules that the order brings; empty where the site had no usable rows.

        Raises:
            DisclosureRefusedError: an update is not finite, or too large for the form.
            CheckpointError: what is kept does not fit its module.
            StorageFailedError: the disk did not take it.
        """
        if self._form == "fp32" or not trained:
            return dict(trained)
        coded: dict[str, PackedModule] = {}
        lost: dict[str, torch.Tensor] = {}
        for name, packed in trained.items():
            try:
                coded[name], rest = to_update(
                    packed, self._order.modules[name].values, self._form, carried=self._carried(name, packed)
                )
            except PeerError as error:
                raise DisclosureRefusedError(f"the update of {name}: {error.what}", where="gate") from error
            lost[name] = torch.from_numpy(rest)
        if self._carries:
            # A module that was not trained this time keeps what it lacked.
            self._memory.keep(self._order.name.round, {**self._kept, **lost})
        return coded

    def _carried(self, name: str, packed: PackedModule) -> np.ndarray | None:
        if name not in self._kept:
            return None
        found: np.ndarray = self._kept[name].numpy()
        if found.dtype != np.float32 or found.shape != packed.values.shape:
            raise CheckpointError(
                f"what earlier updates of {name} have lost does not fit the module",
                where=FOLDER,
                remedy="remove the study's folder there: it begins anew from nothing",
            )
        return found


def check_codes(modules: Mapping[str, PackedModule], *, rule: LocalRule) -> None:
    """The gate's check: modules leave in the study's form, and stand for finite values.

    Raises:
        DisclosureRefusedError: names the module.
    """
    for name, packed in modules.items():
        # What a strategy sends beside the modules is always exact.
        wanted = "fp32" if "." in name else rule.form
        if packed.form != wanted:
            raise DisclosureRefusedError(f"{name} is in {packed.form}, not in {wanted}", where="gate")
        if packed.form == "fp32":
            continue
        try:
            decode(Coded(packed.form, packed.values, packed.scales), size=packed.layout.size)
        except PeerError as error:
            raise DisclosureRefusedError(f"the update of {name}: {error.what}", where="gate") from error
