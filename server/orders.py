"""Builds the orders of a round: the study, the phase's modules by digest, and tensors that a site lacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from cardionets_core.exchange.messages import Order, PackedModule, RoundName
from cardionets_core.exchange.tensors import module_digest
from cardionets_core.tasks import Task
from server.checkpoints import Checkpoint


def round_orders(
    kind: Literal["statistics", "train", "evaluate"],
    name: RoundName,
    *,
    study_json: str,
    task: Task,
    checkpoint: Checkpoint,
    holds: Mapping[int, set[str]],
    files: Mapping[str, Path] | None = None,
    shared: Mapping[str, np.ndarray] | None = None,
    split: Literal["validation", "test"] = "validation",
    measure: bool = False,
    extras: Sequence[str] = (),
) -> dict[int, Order]:
    """One order a node; nodes that lack the same modules share one order object.

    Args:
        kind: what to do.
        name: the round.
        study_json: the whole study.
        task: of the phase.
        checkpoint: the model.
        holds: node to the digests that it holds; says who is asked.
        files: newer files of some modules than the checkpoint's.
        shared: added statistics of the round.
        split: which held-out patients to measure.
        measure: whether to measure the model that is sent before training on it.
        extras: names of the tensors that the strategy sends beside the modules; zero until it remembers them.
    """
    newer = {module: path for module, path in (files or {}).items() if path != checkpoint.path(module)}
    came: dict[str, PackedModule] = {}

    def packed(module: str) -> PackedModule:
        if module not in came:
            path = newer.get(module) or checkpoint.path(module)
            came[module] = PackedModule(
                layout=checkpoint.layouts[module], values=np.fromfile(path, dtype="<f4")
            )
        return came[module]

    def digest(module: str) -> str:
        if module in newer:
            return module_digest(packed(module).layout, packed(module).values)
        return checkpoint.digests[module]

    def remembered(extra: str) -> PackedModule:
        if extra in checkpoint.digests:
            return packed(extra)
        layout = checkpoint.layouts[extra.partition(".")[0]]
        return PackedModule(layout=layout, values=np.zeros(layout.size, dtype=np.float32))

    trained = {module: digest(module) for module in task.trains}
    frozen = {module: digest(module) for module in task.reads}
    # Always by value: they are new in each round, and no other order carries them.
    beside = {extra: remembered(extra) for extra in extras}
    alike: dict[frozenset[str], Order] = {}
    orders: dict[int, Order] = {}
    for node, held in holds.items():
        missing = frozenset(m for m, wanted in {**trained, **frozen}.items() if wanted not in held)
        if missing not in alike:
            alike[missing] = Order(
                kind=kind,
                name=name,
                study_json=study_json,
                modules={m: packed(m) for m in task.trains if m in missing} | beside,
                trained=trained,
                frozen=frozen,
                frozen_modules={module: packed(module) for module in task.reads if module in missing},
                shared=shared or {},
                split=split,
                measure=measure,
            )
        orders[node] = alike[missing]
    return orders


def order_bytes(orders: Mapping[int, Order]) -> int:
    """Bytes of all tensors that go out, counted once a site."""
    total = 0
    for order in orders.values():
        packed = (*order.modules.values(), *order.frozen_modules.values())
        total += sum(module.values.nbytes for module in packed)
        total += sum(value.nbytes for value in order.shared.values())
    return total
