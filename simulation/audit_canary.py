"""Trainings with and without a canary patient, and what an adversary reads out of their updates.

Comes in: a mechanism as the accountant was told of it, and how the one that runs departs from it. Goes out:
one number a training, larger for the canary. What runs is the real local training with real private steps.

The worst case: the adversary knows every patient, the model and whether the canary may be there, and sees the
model after each step. The canary's gradient is far over the clip and of a known direction; nobody else's
points there. Without the canary, a patient without a gradient stands in its place: how many patients a site
has is told anyway, and is not what is audited.

Legend: P patients, R recordings, D values of the model, N trainings, T steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from cardionets_core.config.study import Phase
from cardionets_core.data.batches import Batch
from cardionets_core.data.cohort import Cohort, Split, empty_cohort
from cardionets_core.data.windows import InputShape
from cardionets_core.privacy.accountant import Mechanism, epsilon_of
from cardionets_core.privacy.noise import SecretRandomness, public_key_of
from cardionets_core.tasks.base import GradientTask, Modules, SiteView, Sums, TaskLoss, count_sums
from cardionets_core.training.local import train_locally
from cardionets_core.training.private import PrivateSteps, sample_rate

VALUES = 8
CANARY_SIZE = 20.0
"""Of its gradient, in clips."""
RECORDINGS = 5
CLIP = 1.0


class Slope(GradientTask):
    """The smallest task: a patient's loss is a product of the model with the patient's values."""

    name = "slope"
    trains = ("slope",)
    needs = frozenset({"phenotypes"})
    decomposes = True
    primary = "slope"
    higher_is_better = True
    defaults: ClassVar[dict[str, bool | int | float | str]] = {}

    def loss(self, modules: Modules, batch: Batch, state: object, *, generator: torch.Generator) -> TaskLoss:
        """Linear in the model, so a patient's gradient is the same in each step."""
        assert batch.phenotypes_BK is not None  # the task needs them
        per_sample_B = modules["slope"](batch.phenotypes_BK)[:, 0]
        return TaskLoss(total=per_sample_B.mean(), per_sample_B=per_sample_B)

    def metric_sums(self, modules: Modules, site: SiteView, *, split: Split, seed: int) -> Sums:
        """Counts alone."""
        return count_sums(site.cohort, site.rows(self.needs, split))

    def metrics(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """None."""
        return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What the accountant is told.

    Attributes:
        patients: of the site.
        batch_size: expected patients of a step; all of them in each where it is not below ``patients``.
        steps: of one training.
        noise_multiplier: noise over clip.
        delta: of epsilon.
    """

    patients: int
    batch_size: int
    steps: int
    noise_multiplier: float
    delta: float = 1e-5

    @property
    def phase(self) -> Phase:
        """The phase of a training."""
        optimiser = {"name": "sgd", "lr": 1.0, "schedule": "constant", "weight_decay": 0.0}
        content = {"task": "slope", "rounds": 1, "local_steps": self.steps, "batch_size": self.batch_size}
        return Phase.model_validate(content | {"optimiser": optimiser})

    @property
    def expected(self) -> int:
        """Patients of a step."""
        return min(self.batch_size, self.patients)

    @property
    def rate(self) -> float:
        """A patient's chance to be in a step."""
        return sample_rate(self.phase, patients=self.patients)

    @property
    def epsilon(self) -> float:
        """What the accountant says."""
        mechanism = Mechanism(noise_multiplier=self.noise_multiplier, sample_rate=self.rate, steps=self.steps)
        return epsilon_of([mechanism], delta=self.delta)


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """How the mechanism that runs departs from the claim.

    Attributes:
        name: as in the table.
        noise_times: its noise over the claimed one.
        clip_times: its clip over the claimed one, with the noise as it was.
        by_recording: each recording is sampled and clipped as if it were a patient.
        public_seed: the noise follows from a seed that the adversary knows.
    """

    name: str
    noise_times: float = 1.0
    clip_times: float = 1.0
    by_recording: bool = False
    public_seed: bool = False


def variants(claim: Claim) -> list[Variant]:
    """The mechanism as it should be, and ways to break it."""
    return [
        Variant(name="as it is"),
        Variant(name="no noise", noise_times=0.0),
        Variant(name="a tenth of the noise", noise_times=0.1),
        Variant(name="no clip", clip_times=1e6),
        Variant(name="noise of a mean, added to a sum", noise_times=1.0 / claim.expected),
        Variant(name="clipped by recording", by_recording=True),
        Variant(name="noise of a public seed", public_seed=True),
    ]


def statistics_of(claim: Claim, variant: Variant, *, trials: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The adversary's numbers of trainings without and with the canary, ``[N]`` each."""
    found = []
    for present in (False, True):
        site = audit_site(claim, present=present, by_recording=variant.by_recording)
        blank = audit_site(claim, present=False, by_recording=variant.by_recording)
        numbers = np.empty(trials)
        for trial in range(trials):
            key = public_key_of("audit", seed, variant.name, int(present), trial)
            pushes_T = observed(claim, variant, site, key=key)
            if variant.public_seed:
                # Who can draw the noise again trains without the canary and compares.
                pushes_T = CLIP * claim.steps * (pushes_T - observed(claim, variant, blank, key=key))
            numbers[trial] = log_odds(pushes_T, claim)
        found.append(numbers)
    return found[0], found[1]


def observed(claim: Claim, variant: Variant, site: SiteView, *, key: bytes) -> np.ndarray:
    """How far each step pushed the model in the canary's direction, in clips, ``[T]``."""
    phase, model = claim.phase, nn.Linear(VALUES, 1, bias=False)
    nn.init.zeros_(model.weight)
    private = PrivateSteps(
        noise_multiplier=variant.noise_times * claim.noise_multiplier / variant.clip_times,
        clip_norm=variant.clip_times * CLIP,
        randomness=SecretRandomness(key),
    )
    places = [0.0]

    def note(step: int, steps: int, loss: float) -> None:
        places.append(float(model.weight.detach()[0, 0]))

    train_locally(
        Slope({}), {"slope": model}, site, phase=phase, round_index=1, seed=0, private=private, progress=note
    )
    people = site.cohort.patients(site.rows(Slope.needs, "train"))
    return -np.diff(places) * min(claim.batch_size, people) / CLIP


def log_odds(pushes_T: np.ndarray, claim: Claim) -> float:
    """Log-likelihood ratio of the canary's presence, if the mechanism were as claimed: the best statistic."""
    spread = claim.noise_multiplier**2
    present_T = np.log(claim.rate) + (pushes_T - 0.5) / spread
    return float(np.logaddexp(np.log1p(-claim.rate) if claim.rate < 1.0 else -np.inf, present_T).sum())


def audit_site(claim: Claim, *, present: bool, by_recording: bool = False) -> SiteView:
    """A site without signals: one canary (or a patient with zeros) of five recordings, others of one."""
    owner_R = np.concatenate([np.zeros(RECORDINGS, dtype=np.int64), np.arange(1, claim.patients)])
    values_RD = np.random.default_rng(0).normal(size=(len(owner_R), VALUES)).astype(np.float32)
    values_RD[:, 0] = 0.0
    values_RD[:RECORDINGS] = 0.0
    if present:
        values_RD[:RECORDINGS, 0] = CANARY_SIZE * CLIP
    if by_recording:
        owner_R = np.arange(len(owner_R))
    rows = len(owner_R)
    none = empty_cohort(site="audit", phenotypes=VALUES)
    cohort = Cohort(
        site="audit",
        digest="audit",
        ecg_counts=none.ecg_counts,
        ecg_offsets=none.ecg_offsets,
        ecg_samples=none.ecg_samples,
        cines=none.cines,
        row_patient=owner_R,
        row_split=np.zeros(rows, dtype=np.int8),
        row_ecg=np.full(rows, -1),
        row_cine=np.full(rows, -1),
        phenotypes=values_RD,
        diseases=np.full((rows, none.diseases.shape[1]), np.nan, dtype=np.float32),
    )
    shape = InputShape(ecg_samples=1, cine_frames=1, cine_pixels=1)
    return SiteView(cohort=cohort, shape=shape, device=torch.device("cpu"))
