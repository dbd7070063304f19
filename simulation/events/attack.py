"""What an attacker makes of its own honest reply. Pure: tensors in, tensors out.

Comes in: an honest reply, and the model that it started from. Goes out: the reply that is sent in its place.
What a strategy asks for beside the modules, counts, sums and scalars stay as they were.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from cardionets_core.exchange.messages import Reply
from cardionets_core.training.seeds import derive_seed
from simulation.events.schedule import Attack

Values = Mapping[str, np.ndarray]
"""Module to its flat float32 values."""


def attacked(reply: Reply, attack: Attack, *, start: Values, first: Values, seed: int) -> Reply:
    """The reply that an attacker sends.

    Args:
        reply: what it honestly trained.
        attack: what it does.
        start: the model that the order brought.
        first: the modules of its first reply of the phase, for ``replay``.
        seed: of the scenario.
    """
    modules = dict(reply.modules)
    for name in reply.samples:
        honest = modules[name].values
        modules[name] = replace(
            modules[name],
            values=_changed(
                honest,
                attack,
                start=start[name],
                first=first.get(name, honest),
                seed=derive_seed(seed, "attack", reply.site, reply.name.phase, reply.name.round, name),
            ),
        )
    return replace(reply, modules=modules)


def _changed(
    honest: np.ndarray, attack: Attack, *, start: np.ndarray, first: np.ndarray, seed: int
) -> np.ndarray:
    update = honest.astype(np.float64) - start
    if attack.kind == "nan":
        spoilt = honest.copy()
        spoilt[len(spoilt) // 2] = np.nan
        return spoilt
    if attack.kind == "replay":
        return first.copy()
    if attack.kind == "noise":
        noise = np.random.default_rng(seed).standard_normal(len(update))
        # Of a length, not of a spread: the same in a large module as in a small one.
        noise *= attack.strength * np.linalg.norm(update) / max(float(np.linalg.norm(noise)), 1e-300)
        return np.asarray((honest + noise).astype(np.float32))
    factor = -attack.strength if attack.kind == "sign_flip" else attack.strength
    return np.asarray((start + factor * update).astype(np.float32))
