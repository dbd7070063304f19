"""Audit of the private steps: a lower bound on the epsilon that they have, beside the one that is claimed.

Comes in: a claimed epsilon, a number of trainings, a folder. Goes out: ``audit.json`` and ``audit.png``. The
mechanism as it is must stay below its claim, and come near enough that the attack has any power; each
deliberately broken one must be found out: a lower bound above the claim.

Two ways of drawing patients are audited: all in each step, which is a Gaussian mechanism as a whole, so that
the tight bound holds; and a Poisson sample, for which only the bound without assumptions is given.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cardionets_core.durable import write_json
from cardionets_core.privacy.accountant import Part, noise_for
from simulation.audit_bounds import CONFIDENCE, bounds_of
from simulation.audit_canary import Claim, Variant, statistics_of, variants

SAMPLING = {"everybody": (5, 64, 2), "half of them": (20, 10, 4)}
"""By name: patients, batch size, steps of a training."""
DELTA = 1e-5
SOUND = "as it is"
FEWER = 2
"""A broken mechanism is found out with fewer trainings than it takes to come near a sound one's epsilon."""


def claims(epsilon: float, *, delta: float = DELTA) -> dict[str, Claim]:
    """A claim for each way of drawing patients, with the noise that the accountant asks for."""
    found = {}
    for name, (patients, batch_size, steps) in SAMPLING.items():
        part = Part(sample_rate=min(1.0, batch_size / patients), steps=steps)
        noise = noise_for([part], epsilon=epsilon, delta=delta)
        found[name] = Claim(
            patients=patients, batch_size=batch_size, steps=steps, noise_multiplier=noise, delta=delta
        )
    return found


def audited(
    claim: Claim, variant: Variant, *, sampling: str, trials: int, seed: int
) -> tuple[dict[str, Any], tuple[np.ndarray, np.ndarray]]:
    """A row of the result, and the statistics without and with the canary.

    Args:
        claim: what the accountant is told.
        variant: what runs.
        sampling: name of the claim.
        trials: trainings without the canary, and as many with it.
        seed: of the noise and the samples; another one gives other trainings.
    """
    torch.set_num_threads(1)
    started = time.monotonic()
    without, present = statistics_of(claim, variant, trials=trials, seed=seed)
    bounds = bounds_of(without, present, delta=claim.delta)
    gaussian = bounds.gaussian if claim.rate == 1.0 else None
    best = max(bounds.clopper_pearson, gaussian or 0.0)
    row = {
        "mechanism": variant.name,
        "sampling": sampling,
        "claimed_epsilon": claim.epsilon,
        "noise_multiplier": claim.noise_multiplier,
        "steps": claim.steps,
        "sample_rate": claim.rate,
        "lower_bound": bounds.clopper_pearson,
        "lower_bound_gaussian": gaussian,
        "share_of_claim": best / claim.epsilon,
        "found_out": best > claim.epsilon,
        "trials": trials,
        "seconds": round(time.monotonic() - started, 1),
    }
    return row, (without, present)


def run_audit(
    out: Path,
    *,
    epsilon: float,
    trials: int,
    seed: int,
    cores: int,
    progress: Callable[[str], None],
) -> dict[str, Any]:
    """Audit every mechanism, and write numbers and picture.

    Args:
        out: folder; made if absent.
        epsilon: that is claimed.
        trials: trainings of the sound mechanism without the canary, and as many with it; half of them
            of each broken one.
        seed: of all draws.
        cores: processes at a time.
        progress: told of each mechanism.
    """
    out.mkdir(parents=True, exist_ok=True)
    rows, statistics = [], dict[str, np.ndarray]()
    with ProcessPoolExecutor(cores, mp_context=multiprocessing.get_context("spawn")) as pool:
        jobs = [
            pool.submit(
                audited,
                claim,
                variant,
                sampling=name,
                trials=trials if variant.name == SOUND else -(-trials // FEWER),
                seed=seed,
            )
            for name, claim in claims(epsilon).items()
            for variant in variants(claim)
        ]
        for job in jobs:
            row, (without, present) = job.result()
            rows.append(row)
            statistics[f"{row['sampling']}: {row['mechanism']}: without"] = without
            statistics[f"{row['sampling']}: {row['mechanism']}: with"] = present
            progress(f"{row['sampling']} · {row['mechanism']} · {row['seconds']:.0f} s")
    content: dict[str, Any] = {
        "schema_version": 1,
        "experiment": "audit",
        "epsilon": epsilon,
        "delta": DELTA,
        "confidence": CONFIDENCE,
        "seed": seed,
        "mechanisms": rows,
    }
    from simulation.pictures.audit import picture_audit

    content["picture"] = picture_audit(content, statistics, out / "audit.png")
    write_json(out / "audit.json", content)
    return content
