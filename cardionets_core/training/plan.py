"""Which rows each step sees, with which windows (step 5 of the walk), and batches made ahead of their step.

The plan follows from (seed, round, epoch) alone. Making batches ahead in a thread changes when they are made,
never what is in them: the plan is walked in order by one thread.

Legend: B rows.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from cardionets_core.config.study import Phase
from cardionets_core.data.batches import Batch
from cardionets_core.tasks.base import Role, SiteView, Task
from cardionets_core.training.seeds import derive_seed


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one step sees: int64 rows, and their tensors on the CPU."""

    rows: np.ndarray
    batch: Batch


def plan_steps(
    task: Task,
    site: SiteView,
    *,
    role: Role,
    phase: Phase,
    round_index: int,
    seed: int,
    epochs: int | None = None,
) -> Iterator[Step]:
    """Batches of one epoch after the other, each epoch in an order of its own.

    Args:
        task: gives the smallest batch, and what a batch loads.
        site: whose training rows.
        role: says what a row must hold.
        phase: gives the batch size.
        round_index: from 1.
        seed: differs between runs, phases and sites.
        epochs: ends after so many; None goes on for ever (an empty site yields nothing).
    """
    rows = site.rows(role.row_needs, "train")
    keys = role.row_needs if task.batch_keys is None else task.batch_keys
    epoch = 0
    while len(rows) >= max(task.minimum_batch, 1) and (epochs is None or epoch < epochs):
        generator = np.random.default_rng(derive_seed(seed, round_index, epoch))
        order = generator.permutation(rows)
        for begin in range(0, len(order), phase.batch_size):
            chunk = order[begin : begin + phase.batch_size]
            if len(chunk) >= task.minimum_batch:
                batch = site.cohort.batch(chunk, keys=keys, shape=site.shape, generator=generator)
                yield Step(rows=chunk, batch=batch)
        epoch += 1


def ahead(steps: Iterator[Step], *, count: int, device: torch.device) -> Generator[Step, None, None]:
    """The same steps in the same order, up to ``count`` of them made in a thread before they are asked for.

    Args:
        steps: any number of them; only as many as are asked for, and ``count`` more, are made.
        count: 0 makes each when it is asked for.
        device: for a GPU the tensors are pinned, so that their copy overlaps with the step before.
    """
    if count == 0:
        yield from steps
        return
    ready: queue.Queue[Step | BaseException | None] = queue.Queue(maxsize=count)
    stop = threading.Event()

    def offer(item: Step | BaseException | None) -> None:
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def work() -> None:
        try:
            for step in steps:
                batch = step.batch.pinned() if device.type == "cuda" else step.batch
                offer(Step(rows=step.rows, batch=batch))
                if stop.is_set():
                    return
            offer(None)
        except BaseException as error:  # it is raised again where the step is asked for
            offer(error)

    worker = threading.Thread(target=work, name="batches", daemon=True)
    worker.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        worker.join()
