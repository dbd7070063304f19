"""Sums of a closed-form phase under noise (step 7 of the walk).

Each patient's part of each sum is clipped to a bound that was told before any data was seen, the parts are
added, and noise is added once: one Gaussian mechanism on all patients. Comes in: a noise multiplier that
somebody else has accounted for. Goes out: sums as the task's own, which may leave.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from cardionets_core.errors import ConfigError
from cardionets_core.privacy.noise import SecretRandomness
from cardionets_core.tasks.base import ClosedFormTask, Modules, SiteView, Sums
from cardionets_core.tasks.kept import Kept


def private_sums(
    task: ClosedFormTask,
    modules: Modules,
    site: SiteView,
    *,
    noise_multiplier: float,
    randomness: SecretRandomness,
) -> Sums:
    """The task's sums, each patient's part bounded, under noise.

    With K sums of bounds ``c_k`` a patient moves the vector of all ``s_k / c_k`` by at most ``sqrt(K)``; so
    the noise of sum k has the deviation ``noise_multiplier * c_k * sqrt(K)``.

    Args:
        task: with ``private_bounds``.
        modules: that it reads.
        site: whose training patients.
        noise_multiplier: over the bound of a patient's whole part; 0 adds none, for tests.
        randomness: draws the noise.

    Raises:
        ConfigError: the task offers no bounds.
    """
    check_bounded(task)
    bounds = task.private_bounds
    total: Sums = {}
    for part in _parts(task, modules, site):
        if set(part) != set(bounds):
            raise ValueError(f"bounds for {sorted(bounds)}, but sums {sorted(part)}")
        for name, value in part.items():
            size = float(np.linalg.norm(value))
            clipped = value * min(1.0, bounds[name] / size) if size > 0.0 else value
            # A part that is not finite adds nothing: an error would tell that it was there.
            clipped = clipped if np.isfinite(clipped).all() else np.zeros_like(value)
            total[name] = total[name] + clipped if name in total else clipped
    spread = noise_multiplier * len(bounds) ** 0.5
    for name, value in sorted(total.items()):
        noise = randomness.normal(value.size).numpy().reshape(value.shape)
        total[name] = value + spread * bounds[name] * noise
    return task.repair(total)


def _parts(task: ClosedFormTask, modules: Modules, site: SiteView) -> Iterator[Sums]:
    """The sums of each training patient alone; at first those of nobody, which have the right shapes."""
    cohort = site.cohort
    nobody = np.full(len(cohort.row_split), -1, dtype=cohort.row_split.dtype)
    training = site.rows(task.needs, "train")

    def of(rows: np.ndarray) -> Sums:
        split = nobody.copy()
        split[rows] = cohort.row_split[rows]
        alone = replace(site, cohort=replace(cohort, row_split=split), kept=Kept(), smallest_cell=1)
        return task.sums(modules, alone)

    yield of(np.zeros(0, dtype=np.int64))
    for patient in np.unique(cohort.row_patient[training]):
        yield of(training[cohort.row_patient[training] == patient])


def check_bounded(task: ClosedFormTask) -> None:
    """Refuse a task of whose sums nothing would be left.

    Raises:
        ConfigError: names the task, and what to do instead.
    """
    if not task.private_bounds:
        raise ConfigError(
            f"task {task.name} sends exact sums, to which one patient may add much: noise that hides that "
            "would leave nothing of them",
            where=f"study: phases: {task.name}, with privacy.mechanism: dp_sgd",
            remedy="set secure_aggregation, so that sums are added in secret; or leave the phase out and "
            "give its module as initial, with the frozen module that it was solved for",
        )
