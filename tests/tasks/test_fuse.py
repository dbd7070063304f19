"""Fusion of an ECG and the cine drawn from it: drawn once, frozen below, the ECG alone beside it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from cardionets_core.config.study import Optimiser, Phase
from cardionets_core.data.cohort import empty_cohort
from cardionets_core.errors import CacheForeignError, ConfigError
from cardionets_core.evaluation import add_sums
from cardionets_core.losses import disease_loss
from cardionets_core.models import MODULES, build_module
from cardionets_core.tasks import SiteView, drawn_tokens, make_task
from cardionets_core.tasks.cases import conditions_of, row_seeds
from cardionets_core.tasks.drawing import draw_cines, drawing_settings, preset_of
from cardionets_core.tasks.kept import Kept
from cardionets_core.tasks.shapes import shape_of
from cardionets_core.training.local import train_locally
from cardionets_core.training.tensors import export_tensors

NANO = shape_of("nano")
CPU = torch.device("cpu")
OPTIONS = {"ar_steps": 1, "diffusion_steps": 2, "bootstrap_replicates": 20}


@pytest.fixture(autouse=True)
def one_thread(single_thread):
    """Bytes repeat with a fixed number of threads."""


class Stretch(nn.Module):
    """A decoder of latents that is instant."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def decode(self, latent_BZTHW: torch.Tensor) -> torch.Tensor:
        return self.scale * nn.functional.interpolate(latent_BZTHW[:, :1], scale_factor=(2, 4, 4))[:, 0]


@pytest.fixture
def modules() -> dict[str, nn.Module]:
    task = make_task("fuse", {})
    found = {name: build_module(name, "nano", seed=1) for name in (*task.trains, *task.reads)}
    found["screening_prior"].logit.data = torch.tensor([-1.0, 0.5, 0.0, -2.0, 1.0])
    nn.init.normal_(found["diffusion_head"].out.weight, std=0.3, generator=torch.Generator().manual_seed(1))
    found["cmr_tokenizer"] = Stretch()
    return found


@pytest.fixture
def people(make_people):
    return make_people(30, site="a", seed=0)


def view(cohort, folder=None) -> SiteView:
    return SiteView(cohort=cohort, shape=NANO, device=CPU, kept=Kept(folder, cohort=cohort.digest))


def open_and_load(task, modules, site):
    task.prepare_modules(modules)
    state = task.open_round(modules, site, task.roles[0])
    return state, site.cohort.batch(site.rows(task.needs, "train"), keys=task.batch_keys, shape=NANO)


def test_tokens_are_those_of_the_frozen_encoders(modules, people):
    task, site = make_task("fuse", OPTIONS), view(people)
    state, batch = open_and_load(task, modules, site)
    assert batch.ecg_BLT is None
    row = site.rows(task.needs, "train")[[4]]
    starts = len({0, (people.ecg_samples[row[0]] - 750) // 2, people.ecg_samples[row[0]] - 750})
    windows = [
        people.batch(row, keys=frozenset({"ecg"}), shape=NANO, window=w).ecg_BLT for w in range(starts)
    ]
    with torch.no_grad():
        tokens = torch.stack([modules["ecg_encoder"].tokens(each).mean(dim=1) for each in windows]).mean(
            dim=0
        )
        cine = draw_cines(
            modules,
            conditions_of(modules, site, row),
            settings=drawing_settings(preset_of(NANO), steps=1, diffusion_steps=2),
            seeds=row_seeds(drawn_tokens.DRAWING_SEED, row, site="a"),
            device=CPU,
        )
        seen = modules["cmr_encoder"].tokens(cine)
    place = torch.from_numpy(row)
    assert torch.allclose(state.ecg.take(place).float(), tokens, rtol=2e-3, atol=2e-3)
    assert torch.allclose(state.cmr.take(place).float(), seen, rtol=2e-3, atol=4e-3)
    assert state.ecg.take(place).dtype == state.cmr.take(place).dtype == torch.float16
    assert state.cmr.take(place).shape == (1, 17, 64)


def test_a_cine_is_drawn_once_for_each_row_and_never_of_another_generator(
    modules, people, tmp_path, monkeypatch
):
    drawn = []

    def counted(modules, condition_BP, **rest):
        drawn.append(len(condition_BP))
        return draw_cines(modules, condition_BP, **rest)

    monkeypatch.setattr(drawn_tokens, "draw_cines", counted)
    task, site = make_task("fuse", OPTIONS), view(people, tmp_path)
    first, batch = open_and_load(task, modules, site)
    assert drawn == [20]
    second, _ = open_and_load(task, modules, view(people, tmp_path))
    assert drawn == [20]
    assert torch.equal(first.cmr.take(batch.row_B), second.cmr.take(batch.row_B))
    (own,) = tmp_path.glob("drawn-tokens-*")
    modules["cmr_generator"] = build_module("cmr_generator", "nano", seed=2)
    open_and_load(task, modules, view(people, tmp_path))
    assert drawn == [20, 20]
    (other,) = set(tmp_path.glob("drawn-tokens-*")) - {own}
    own.rename(other)
    with pytest.raises(CacheForeignError):
        open_and_load(task, modules, view(people, tmp_path))


def test_the_loss_is_a_mean_of_rows_on_adjusted_logits_and_unknown_labels_train_nothing(modules, people):
    task = make_task("fuse", OPTIONS)
    people.diseases[:, 3] = np.nan
    state, batch = open_and_load(task, modules, view(people))
    modules["fusion_head"].eval()
    found = task.loss(modules, batch, state, generator=torch.Generator())
    logit = modules["fusion_head"](state.ecg.take(batch.row_B).float(), state.cmr.take(batch.row_B).float())
    expected = disease_loss(logit + modules["screening_prior"].logit, batch.labels_BD[:, :5])
    assert torch.allclose(found.per_sample_B, expected)
    assert torch.allclose(found.per_sample_B.mean(), found.total)
    found.total.backward()
    gradient = modules["fusion_head"].out.weight.grad
    assert not gradient[3].any()
    assert gradient[[0, 1, 2, 4]].any(dim=1).all()


def test_frozen_modules_keep_every_byte_and_the_head_moves(modules, people):
    task, site = make_task("fuse", OPTIONS), view(people)
    before = {name: export_tensors(module) for name, module in modules.items()}
    optimiser = Optimiser(name="adamw", lr=1e-3)
    phase = Phase(task="fuse", rounds=1, local_epochs=1, batch_size=8, optimiser=optimiser)
    result = train_locally(task, modules, site, phase=phase, round_index=1, seed=0)
    assert (result.samples, result.steps) == (20, 3)
    for name in (*task.trains, *task.reads):
        after = export_tensors(modules[name])
        same = all(np.array_equal(value, before[name][key]) for key, value in after.items())
        assert same == (name in task.reads), name


def test_the_ecg_alone_is_measured_as_the_screening_task_does(modules, people):
    site = view(people)
    task = make_task("fuse", OPTIONS)
    sums = task.metric_sums(modules, site, split="test", seed=5)
    screening = make_task("screening", {"bootstrap_replicates": 20})
    alone = screening.metric_sums(modules, site, split="test", seed=5)
    compared = [name.removeprefix("ecg_only/") for name in sums if name.startswith("ecg_only/")]
    assert len(compared) > 10
    for name in compared:
        assert np.allclose(sums[f"ecg_only/{name}"], alone[name]), name
    found = task.metrics(sums)
    assert task.primary in found
    assert found["ecg_only/auroc_mean"] == pytest.approx(screening.metrics(alone)["auroc_mean"])
    assert found["auroc_gain_mean"] == pytest.approx(found["auroc_mean"] - found["ecg_only/auroc_mean"])


def test_sums_of_sites_add_and_nobody_runs_no_module(modules, make_people):
    task = make_task("fuse", OPTIONS)
    by_site = {
        name: task.metric_sums(modules, view(make_people(18, site=name, seed=seed)), split="test", seed=0)
        for name, seed in (("a", 0), ("b", 1))
    }
    pooled = task.metrics(add_sums(by_site))
    assert pooled["n_rows"] == 24
    assert all(np.isfinite(value) for value in pooled.values())
    nobody = SiteView(cohort=empty_cohort(site="", phenotypes=82), shape=NANO, device=CPU)
    meta = {name: build_module(name, "nano", seed=0, device="meta") for name in MODULES}
    zero = task.metric_sums(meta, nobody, split="test", seed=0)
    assert {n: v.shape for n, v in zero.items()} == {n: v.shape for n, v in by_site["a"].items()}
    assert not any(value.any() for value in zero.values())
    assert task.primary not in task.metrics(zero)


def test_the_head_learns_what_the_ecg_shows(modules, make_people):
    """The tokens hold the slow wave that the labels follow; a held-out half is ranked by it."""
    task, site = make_task("fuse", OPTIONS), view(make_people(120, site="a", seed=0))
    optimiser = Optimiser(name="adamw", lr=1e-3, weight_decay=0.0)
    phase = Phase(task="fuse", rounds=1, local_epochs=15, batch_size=16, optimiser=optimiser)
    before = task.metrics(task.metric_sums(modules, site, split="test", seed=0))["auroc_mean"]
    train_locally(task, modules, site, phase=phase, round_index=1, seed=0)
    after = task.metrics(task.metric_sums(modules, site, split="test", seed=0))["auroc_mean"]
    assert after > max(0.6, before + 0.1)


def test_wrong_options_are_refused(modules, people):
    for options in ({"guidance": -1.0}, {"temperature": -1.0}, {"bootstrap_replicates": 0}):
        with pytest.raises(ConfigError):
            make_task("fuse", options)
    with pytest.raises(ConfigError, match="1 to 32"):
        open_and_load(make_task("fuse", {"ar_steps": 40}), modules, replace(view(people)))
