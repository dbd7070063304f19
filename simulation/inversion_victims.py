"""What a server sees of sites with one patient each: plainly, under noise, under secure aggregation.

Comes in: a cohort of made patients. Goes out: gradients as a server reads them from real local training
(``train_locally``), from real private steps and from the real secure sum, with the true windows beside them
for the researcher. The phase is ``ecg_mae`` at the preset ``nano``, in its first round.

Legend: N windows, L leads, T samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from cardionets_core.config.study import Phase
from cardionets_core.data.cohort import SPLITS, Cohort
from cardionets_core.data.windows import InputShape
from cardionets_core.models import build_module
from cardionets_core.models.masking import PatchMask, draw_mask, visible_count
from cardionets_core.privacy.noise import SecretRandomness, public_key_of
from cardionets_core.privacy.secure_sum import Coordinator, FixedPoint, SecureSite, SessionName, Terms
from cardionets_core.tasks import SiteView, make_task
from cardionets_core.tasks.shapes import shape_of
from cardionets_core.training.local import train_locally
from cardionets_core.training.plan import plan_steps
from cardionets_core.training.private import PrivateSteps, poisson_steps
from cardionets_core.training.seeds import derive_seed
from cardionets_core.training.tensors import export_tensors
from cardionets_core.trust.keys import make_key
from simulation.inversion_attack import Seen

PRESET = "nano"
NEEDS = frozenset({"ecg"})
MASK_SHARE = 0.5
RATE = 0.05
LARGEST = 1.0
"""Of a value of an update; a larger one is refused by the fixed point."""

Vector = np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """One site's update.

    Attributes:
        change: weights before minus weights after, by module and parameter.
        truth_NLT: what the site trained on, a window a step.
        mask: which patches were hidden, ``[N, L, ...]``.
    """

    change: Mapping[tuple[str, str], np.ndarray]
    truth_NLT: np.ndarray
    mask: PatchMask

    @property
    def vector(self) -> Vector:
        """All of it, flat."""
        return np.concatenate([value.ravel() for value in self.change.values()])


def one_patient_site(cohort: Cohort, patient: int) -> SiteView:
    """A site whose only training patient is this one, with one recording."""
    split = np.full_like(cohort.row_split, SPLITS.index("test"))
    split[rows_of(cohort, patient)[0]] = SPLITS.index("train")
    alone = replace(cohort, row_split=split)
    return SiteView(cohort=alone, shape=shape_of(PRESET), device=torch.device("cpu"))


def rows_of(cohort: Cohort, patient: int) -> np.ndarray:
    """Recordings of a patient that are long enough."""
    everywhere = replace(cohort, row_split=np.zeros_like(cohort.row_split))
    rows = everywhere.rows(NEEDS, "train", shape_of(PRESET))
    return rows[cohort.row_patient[rows] == patient]


def shape_of_windows() -> InputShape:
    """Sizes of the preset."""
    return shape_of(PRESET)


def sent_modules(seed: int) -> dict[str, nn.Module]:
    """The model as the server sends it; built anew at each call."""
    return {
        name: build_module(name, PRESET, seed=derive_seed(seed, "initial", name))
        for name in make_task("ecg_mae", {}).trains
    }


def updated(site: SiteView, *, model_seed: int, seed: int, steps: int = 1) -> Update:
    """Train plainly, one window a step."""
    task, phase = make_task("ecg_mae", {"mask_share": MASK_SHARE}), _phase(steps)
    plan = plan_steps(task, site, role=task.roles[0], phase=phase, round_index=1, seed=seed)
    truth = torch.cat([next(plan).batch.ecg_BLT for _ in range(steps)])  # type: ignore[misc]
    return _trained(site, phase, model_seed=model_seed, seed=seed, truth=truth)


def privately_updated(
    site: SiteView, *, model_seed: int, seed: int, noise_multiplier: float, clip_norm: float
) -> Update:
    """Make one private step. The only patient is always in it: its chance is 1."""
    task, phase, key = make_task("ecg_mae", {}), _phase(1), public_key_of(seed, "inversion")
    draws = poisson_steps(task, site, role=task.roles[0], phase=phase, randomness=SecretRandomness(key))
    truth = next(draws).batch.ecg_BLT
    private = PrivateSteps(
        noise_multiplier=noise_multiplier, clip_norm=clip_norm, randomness=SecretRandomness(key)
    )
    assert truth is not None
    return _trained(site, phase, model_seed=model_seed, seed=seed, truth=truth, private=private)


def _phase(steps: int) -> Phase:
    optimiser = {"name": "sgd", "lr": RATE, "schedule": "constant", "weight_decay": 0.0}
    content = {"task": "ecg_mae", "rounds": 1, "local_steps": steps, "batch_size": 1}
    return Phase.model_validate(content | {"optimiser": optimiser})


def _trained(
    site: SiteView,
    phase: Phase,
    *,
    model_seed: int,
    seed: int,
    truth: torch.Tensor,
    private: PrivateSteps | None = None,
) -> Update:
    task, modules = make_task("ecg_mae", {"mask_share": MASK_SHARE}), sent_modules(model_seed)
    before = {name: export_tensors(module) for name, module in modules.items()}
    train_locally(task, modules, site, phase=phase, round_index=1, seed=seed, private=private)
    change = {
        (name, key): before[name][key] - after
        for name, module in modules.items()
        for key, after in export_tensors(module).items()
        if key != "position"  # never trained
    }
    return Update(change=change, truth_NLT=truth.numpy(), mask=_masks(seed, count=len(truth)))


def _masks(seed: int, *, count: int) -> PatchMask:
    """The masks of a round: anybody who has the study's seed can draw them."""
    generator = torch.Generator().manual_seed(derive_seed(seed, 1, "noise"))
    patches = sent_modules(0)["ecg_encoder"].patches
    visible = visible_count(int(patches), MASK_SHARE)  # type: ignore[arg-type]
    drawn = [draw_mask((1, 12), patches=int(patches), visible=visible, generator=generator)  # type: ignore[arg-type]
             for _ in range(count)]  # fmt: skip
    return PatchMask(
        visible=torch.cat([mask.visible for mask in drawn]), hidden=torch.cat([mask.hidden for mask in drawn])
    )


def seen(updates: Sequence[Update], change: Vector | None = None) -> Seen:
    """What a server makes of the mean of some updates, each of as many windows.

    Args:
        updates: of the sites; only shapes and masks are read where ``change`` is given.
        change: the flat vector that the server has; the mean of the updates by default.
    """
    windows = [len(update.truth_NLT) for update in updates]
    if change is None:
        change = np.mean([update.vector for update in updates], axis=0)
    # After few small steps the change is nearly their number of mean gradients.
    flat = torch.from_numpy(np.asarray(change, dtype=np.float64)) / (RATE * windows[0])
    gradient, place = {}, 0
    for key, value in updates[0].change.items():
        gradient[key] = flat[place : place + value.size].view(value.shape)
        place += value.size
    mask = PatchMask(
        visible=torch.cat([update.mask.visible for update in updates]),
        hidden=torch.cat([update.mask.hidden for update in updates]),
    )
    return Seen(gradient=gradient, mask=mask)


def summed_securely(updates: Sequence[Update]) -> tuple[list[Vector], Vector]:
    """Play the real protocol. Gives what the server sees: the masked vectors, as numbers, and the sum."""
    count = len(updates)
    names = [f"site-{number:02d}" for number in range(count)]
    keys = {name: make_key() for name in names}
    session = SessionName(study_digest="0" * 64, phase=0, round=1, attempt=1, purpose="update")
    roster = {name: key.public_key() for name, key in keys.items()}
    terms = Terms(session=session, threshold=2 * count // 3 + 1, roster=roster)
    form = FixedPoint.finest(32, largest=LARGEST, parties=count)
    server = Coordinator(terms)
    sites = {name: SecureSite.begin(terms, site=name, identity=keys[name]) for name in names}
    for site in sites.values():
        server.add_advert(site.advertise())
    participants = server.close_adverts()
    for site in sites.values():
        server.add_bundle(site.share(participants))
    deliveries = server.close_bundles()
    masked = {
        name: sites[name].mask(deliveries[name], form.encode(update.vector, name="update"))
        for name, update in zip(names, updates, strict=True)
    }
    survivors = server.close_masked(names)
    for name, site in sites.items():
        server.add_confirmation(site.confirm(survivors, identity=keys[name]))
    request = server.unmask_request()
    for site in sites.values():
        server.add_reply(site.unmask(request))
    return [form.decode(vector) for vector in masked.values()], form.decode(server.total(masked.items()))
