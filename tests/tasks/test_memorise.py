"""A generator that returns training cases is flagged, one that does not passes (SCIENCE 8.18)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import avg_pool3d

from cardionets_core.data.cohort import Cohort, empty_cohort
from cardionets_core.errors import ConfigError
from cardionets_core.evaluation import add_sums
from cardionets_core.models import MODULES, build_module
from cardionets_core.models.cmr_tokenizer import Posterior
from cardionets_core.tasks import MeasureTask, SiteView, make_task, memorise
from cardionets_core.tasks.cases import conditions_of
from cardionets_core.tasks.latents import real_latents
from cardionets_core.tasks.shapes import shape_of

NANO = shape_of("nano")
CPU = torch.device("cpu")
PEOPLE = 60


@pytest.fixture(autouse=True)
def one_thread(single_thread):
    """Small models run faster on one thread."""


class Blocks(nn.Module):
    """A tokenizer: means over blocks of pixels."""

    def encode(self, cine_BFYX: torch.Tensor) -> Posterior:
        mean = avg_pool3d(cine_BFYX[:, None], (2, 4, 4)).repeat(1, 4, 1, 1, 1)
        return Posterior(mean_BZTHW=mean, log_variance_BZTHW=torch.full_like(mean, -8.0))


def make_view(people: int, *, seed: int = 0, site: str = "a") -> SiteView:
    """Half of the people train, half are held out; each has two rows and a cine like nobody else's."""
    rng = np.random.default_rng(seed)
    rows = 2 * people
    person = np.arange(rows) // 2
    coarse = rng.integers(0, 256, (people, 8, 8)).astype(np.uint8)
    cines = np.kron(coarse, np.ones((12, 12), dtype=np.uint8))[:, None]
    cohort = Cohort(
        site=site,
        digest=f"{site}{seed}",
        ecg_counts=rng.integers(-900, 900, rows * 12 * 750).astype(np.int16),
        ecg_offsets=np.arange(rows) * 750,
        ecg_samples=np.full(rows, 750),
        cines=np.broadcast_to(cines, (people, 50, 96, 96)),
        row_patient=person,
        row_split=np.where(person < people // 2, 0, 2).astype(np.int8),
        row_ecg=np.arange(rows),
        row_cine=person,
        phenotypes=np.full((rows, 82), np.nan, dtype=np.float32),
        diseases=np.full((rows, 8), np.nan, dtype=np.float32),
    )
    return SiteView(cohort=cohort, shape=NANO, device=CPU)


def make_modules() -> dict[str, nn.Module]:
    names = ("ecg_encoder", "ecg_projection", "cmr_generator", "diffusion_head")
    return {**{name: build_module(name, "nano", seed=1) for name in names}, "cmr_tokenizer": Blocks()}


def measure(site: SiteView, monkeypatch, returned: torch.Tensor, options=None) -> dict[str, float]:
    """The verdict on a generator that returns these latents, one after the other."""
    place = 0

    def draw(modules, condition_BP, *, settings, seeds, device):
        nonlocal place
        chosen = (place + torch.arange(len(condition_BP))) % len(returned)
        place += len(condition_BP)
        return returned[chosen]

    monkeypatch.setattr(memorise, "draw_latents", draw)
    task = make_task("memorisation", options or {})
    return task.metrics(task.metric_sums(make_modules(), site, split="test", seed=0))


def test_fresh_samples_pass(monkeypatch):
    site, others = make_view(2 * PEOPLE), make_view(2 * PEOPLE, seed=9)
    fresh = real_latents(make_modules(), others, np.arange(0, 4 * PEOPLE, 2))
    found = measure(site, monkeypatch, fresh)
    assert (found["conclusive"], found["passes"]) == (1.0, 1.0)
    assert found["n_patients"] == PEOPLE
    assert found["training_share_low"] <= found["training_share"] <= found["training_share_high"]
    assert found["duplicates"] < 0.1


def test_returned_training_latents_are_flagged(monkeypatch):
    site = make_view(2 * PEOPLE)
    rows = site.rows(frozenset({"ecg", "cine"}), "train")[::2]
    copies = real_latents(make_modules(), site, rows)
    found = measure(site, monkeypatch, copies + 0.01 * torch.randn(copies.shape))
    assert (found["conclusive"], found["passes"]) == (1.0, 0.0)
    assert found["training_share"] > 0.95
    assert found["duplicates"] > 0.95
    assert found["duplicates_p"] < 1e-6


def test_few_people_do_not_pass(monkeypatch):
    site, others = make_view(20), make_view(2 * PEOPLE, seed=9)
    fresh = real_latents(make_modules(), others, np.arange(0, 80, 2))
    found = measure(site, monkeypatch, fresh)
    assert (found["conclusive"], found["passes"]) == (0.0, 0.0)


def test_latents_are_drawn_from_ecgs_of_held_out_people_and_then_of_training_people(monkeypatch):
    site, modules = make_view(2 * PEOPLE), make_modules()
    known = conditions_of(modules, site, np.arange(4 * PEOPLE))
    drawn = []

    def note(modules, condition_BP, *, settings, seeds, device):
        rows = (condition_BP[:, None] - known).abs().sum(dim=2).argmin(dim=1)
        drawn.append(site.cohort.row_split[rows.numpy()].tolist())
        assert settings.plan.steps == 2
        return torch.randn(len(condition_BP), 4, 4, 8, 8)

    monkeypatch.setattr(memorise, "draw_latents", note)
    task = make_task("memorisation", {"measured_patients": 40, "training_cases": 50, "ar_steps": 2})
    sums = task.metric_sums(modules, site, split="test", seed=0)
    assert drawn == [[2] * 32, [2] * 8, [0] * 32, [0] * 8]
    assert (sums["n_rows"], sums["held_out_cases"], sums["samples"]) == (40, 40, 40)
    with pytest.raises(ConfigError, match="between 1 and training_cases"):
        make_task("memorisation", {"measured_patients": 9, "training_cases": 8})
    with pytest.raises(ConfigError, match="temperature"):
        make_task("memorisation", {"temperature": -0.5})


def test_nano_draws_and_gives_counts_that_add():
    task = make_task("memorisation", {"ar_steps": 1, "diffusion_steps": 2})
    assert isinstance(task, MeasureTask)
    modules = make_modules()
    by_site = {
        name: task.metric_sums(modules, make_view(6, site=name), split="test", seed=0) for name in ("a", "b")
    }
    pooled = add_sums(by_site)
    assert pooled["n_patients"] == 6
    assert all((value == np.round(value)).all() for value in pooled.values()), "counts only"
    nobody = SiteView(cohort=empty_cohort(site="", phenotypes=82), shape=NANO, device=CPU)
    meta = {name: build_module(name, "nano", seed=0, device="meta") for name in MODULES}
    zero = task.metric_sums(meta, nobody, split="test", seed=0)
    assert {n: v.shape for n, v in zero.items()} == {n: v.shape for n, v in by_site["a"].items()}
    assert not any(value.any() for value in zero.values())
    assert task.metrics(zero) == {"n_rows": 0.0, "n_patients": 0.0}


def test_held_out_people_alone_give_no_verdict():
    site = make_view(4)
    site = replace(site, cohort=replace(site.cohort, row_split=np.full(8, 2, dtype=np.int8)))
    task = make_task("memorisation", {})
    found = task.metrics(task.metric_sums(make_modules(), site, split="test", seed=0))
    assert (found["n_patients"], found["passes"]) == (4.0, 0.0)
