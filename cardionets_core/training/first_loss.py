"""The loss of the model that a site was sent, before its first step: q-FedAvg weighs the sites by it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn

from cardionets_core.config.study import Phase
from cardionets_core.errors import NonFiniteLossError
from cardionets_core.tasks.base import GradientTask, Role, SiteView
from cardionets_core.training.numerics import Numerics
from cardionets_core.training.plan import plan_steps
from cardionets_core.training.seeds import derive_seed


def first_loss(
    task: GradientTask,
    modules: Mapping[str, nn.Module],
    site: SiteView,
    *,
    phase: Phase,
    round_index: int,
    seed: int,
    role: Role | None = None,
    numerics: Numerics | None = None,
) -> float:
    """Mean loss of the modules over the first epoch that ``train_locally`` will show, without a step.

    One more pass over the training rows. Masks and noise follow from (seed, round); torch's own generator is
    left as it was. Arguments as those of ``train_locally``.

    Returns:
        0 for a site without usable rows.

    Raises:
        NonFiniteLossError: the loss is not finite.
    """
    role, numerics = role or task.roles[0], numerics or Numerics()
    task.prepare_modules(modules, role)
    noise_seed = derive_seed(seed, round_index, "first loss")
    noise = torch.Generator().manual_seed(noise_seed)
    total, rows = 0.0, 0
    devices = [site.device] if site.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.no_grad(), numerics.autocast(site.device):
        torch.manual_seed(noise_seed)
        plan = plan_steps(task, site, role=role, phase=phase, round_index=round_index, seed=seed, epochs=1)
        state = task.open_round(modules, site, role)
        for step in plan:
            batch = step.batch.to(site.device)
            for part in batch.parts(phase.accumulate):
                found = task.loss(modules, part, state, generator=noise)
                total += float(found.total) * part.size
                rows += part.size
    if not math.isfinite(total):
        raise NonFiniteLossError(
            f"the loss of task {task.name} is not finite on the model that was sent",
            where=f"round {round_index}, before step 1",
            remedy="lower the learning rate, lengthen the warm-up, or set clip_norm",
        )
    return total / rows if rows else 0.0
