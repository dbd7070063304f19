"""Noised counts at a small site, and the gate that judges counts."""

from __future__ import annotations

import numpy as np
import torch

from cardionets_core.data.cohort import Cohort, empty_cohort
from cardionets_core.data.windows import InputShape
from cardionets_core.errors import DisclosureRefusedError
from cardionets_core.exchange.messages import Order, RoundName
from cardionets_core.privacy.counts import check_counts
from cardionets_core.privacy.noise import SecretRandomness, public_key_of
from cardionets_core.tasks import SiteView, make_task
from cardionets_core.training.local_rule import LocalRule
from cardionets_core.training.private_sums import private_sums
from client.permitted import permitted


def site_of(people: int) -> SiteView:
    """Ten per cent have each disease, nobody has a known subtype."""
    none = empty_cohort(site="a", phenotypes=82)
    diseases = np.full((people, none.diseases.shape[1]), np.nan, dtype=np.float32)
    diseases[:, :5] = (np.arange(people) % 10 == 0)[:, None]
    cohort = Cohort(
        site="a",
        digest="a",
        ecg_counts=np.zeros(people * 12 * 10, dtype=np.int16),
        ecg_offsets=np.arange(people) * 10,
        ecg_samples=np.full(people, 10),
        cines=none.cines,
        row_patient=np.arange(people),
        row_split=np.zeros(people, dtype=np.int8),
        row_ecg=np.arange(people),
        row_cine=np.full(people, -1),
        phenotypes=np.full((people, 82), np.nan, dtype=np.float32),
        diseases=diseases,
    )
    shape = InputShape(ecg_samples=10, cine_frames=1, cine_pixels=1)
    return SiteView(cohort=cohort, shape=shape, device=torch.device("cpu"), smallest_cell=5)


def is_refused(*, is_noised: bool) -> list[bool]:
    """Of some releases of the noised counts, whether the gate would refuse each."""
    site, task = site_of(80), make_task("prevalence", {})
    name = RoundName(study_digest="a" * 64, phase=0, round=1, attempt=1)
    order = Order(kind="train", name=name, study_json="{}")
    allowed = permitted(order, task, preset="nano", role=task.roles[0], rule=LocalRule(), is_noised=is_noised)
    found = []
    for trial in range(20):
        noise = SecretRandomness(public_key_of("counts", trial))
        sums = private_sums(task, {}, site, noise_multiplier=4.0, randomness=noise)
        assert {key: value.shape for key, value in sums.items()} == allowed.sums
        try:
            check_counts(sums, allowed.counts, minimum=site.smallest_cell)
        except DisclosureRefusedError:
            found.append(True)
        else:
            found.append(False)
    return found


def test_noise_alone_lets_no_site_be_refused():
    """Nobody has a subtype here: what is told of them is noise, which hides whoever there might be."""
    assert not any(is_refused(is_noised=True))
    assert any(is_refused(is_noised=False))
