"""The sampler against a plain one that computes everything, and the identities of guidance (SCIENCE 4, 8)."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from cardionets_core.models import get_preset
from cardionets_core.models.sampling import guide, sample_tokens
from cardionets_core.models.sizes import SamplingSize
from simulation.benchmarks.sampling import main, make_models, make_process, measure, sample_plainly

NANO = get_preset("nano")
PROCESS = make_process(NANO.diffusion.steps)
CONDITION = torch.randn(3, NANO.projection, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def models():
    return make_models("nano")


def sample(models, plan, *, condition=CONDITION, seeds=(1, 2, 3)):
    return sample_tokens(*models, condition_BP=condition, process=PROCESS, plan=plan, seeds=seeds)


def plainly(models, plan, *, every_time=False):
    return sample_plainly(
        *models,
        condition_BP=CONDITION,
        process=PROCESS.respaced(plan.diffusion_steps),
        plan=plan,
        seeds=(1, 2, 3),
        every_time=every_time,
    )


def assert_same(first, second, *, tolerance=1e-5):
    assert float((first - second).abs().max() / second.abs().max()) < tolerance


@pytest.mark.parametrize("guidance", [1.0, 1.5, 3.0, 0.0])
def test_the_plain_sampler_gives_the_same_tokens(models, guidance):
    """At a guidance of 1 the plain one still combines both halves: that is the identity of the formula."""
    plan = SamplingSize(steps=4, diffusion_steps=5, guidance=guidance)
    assert_same(sample(models, plan).tokens_BLK, plainly(models, plan).tokens_BLK)


@pytest.mark.parametrize("steps", [1, 2, 32])
def test_any_number_of_steps_agrees_with_the_plain_sampler(models, steps):
    plan = SamplingSize(steps=steps, diffusion_steps=2, guidance=1.5)
    assert_same(sample(models, plan).tokens_BLK, plainly(models, plan).tokens_BLK)


def test_the_condition_and_the_null_half_both_count(models):
    plan = NANO.sampling
    first = sample(models, plan).tokens_BLK
    other = sample(models, plan, condition=CONDITION + 1.0).tokens_BLK
    unguided = sample(models, replace(plan, guidance=1.0)).tokens_BLK
    assert (first - other).abs().max() > 1e-3 * first.abs().max()
    assert (first - unguided).abs().max() > 1e-4 * first.abs().max()


def test_one_seed_gives_one_latent_whatever_its_neighbours(models):
    plan = replace(NANO.sampling, diffusion_steps=3)
    torch.manual_seed(1)
    together = sample(models, plan).tokens_BLK
    torch.manual_seed(2)
    assert torch.equal(together, sample(models, plan).tokens_BLK), "the same bytes, torch's own seed aside"
    alone = sample(models, plan, condition=CONDITION[1:2], seeds=(2,)).tokens_BLK
    assert_same(alone[0], together[1])
    other = sample(models, plan, seeds=(1, 9, 3)).tokens_BLK
    assert_same(other[0], together[0])
    assert not torch.allclose(other[1], together[1])


def test_every_token_is_made_once(models):
    made = sample(models, replace(NANO.sampling, diffusion_steps=2)).tokens_BLK
    assert made.shape == (3, 32, 32) and (made != 0).all()


def test_no_guidance_runs_no_second_half_and_repeated_runs_are_counted():
    """By hand: 32 tokens, 8 buffer tokens, 2 + 2 blocks, steps of 3, 7, 10 and 12 tokens, 2 rows."""
    kept = (8 + 0) + (8 + 3) + (8 + 10) + (8 + 20)
    half = 2 * kept + 4 * 40 + 32
    models = make_models("nano")
    plan = replace(NANO.sampling, guidance=1.0)
    unguided = sample(models, plan, condition=CONDITION[:2], seeds=(1, 2)).work
    assert (unguided.token_blocks, unguided.runs) == (2 * half, 4)
    found = {case["schedule"]: case for case in measure("nano", rows=1)}
    assert found["reuse"]["token_blocks"] == 2 * half
    assert found["each-step"]["token_blocks"] == 2 * 4 * 4 * 40
    assert found["each-denoising"]["token_blocks"] == 10 * 2 * 4 * 4 * 40
    assert all(case["largest_relative_difference"] < 1e-5 for case in found.values())
    assert found["each-denoising"]["ratio_to_reuse"] > 3


def test_the_first_null_half_is_computed_for_one_row(models):
    """Three rows: the null half of the first step costs at most the 3 x 3 tokens that any of them wants."""
    plan = replace(NANO.sampling, diffusion_steps=2)
    guided = sample(models, plan).work.token_blocks
    unguided = sample(models, replace(plan, guidance=1.0)).work.token_blocks
    first_half = 2 * 8 + 40 + 3
    saved = 2 * unguided - guided
    assert 3 * first_half - (2 * 8 + 40 + 9) <= saved <= 3 * first_half - (2 * 8 + 40 + 3)


def test_guidance_formula():
    with_ecg, without = torch.tensor([[1.0, 2.0, 5.0, 6.0]]), torch.tensor([[0.5, 4.0, 7.0, 8.0]])
    assert torch.equal(guide(with_ecg, without, guidance=1.0), with_ecg)
    assert torch.equal(guide(with_ecg, without, guidance=0.0)[:, :2], without[:, :2])
    assert torch.equal(guide(with_ecg, without, guidance=3.0), torch.tensor([[2.0, -2.0, 5.0, 6.0]]))


def test_half_precision_gives_float32_tokens_near_those_of_full_precision(models):
    plan = replace(NANO.sampling, diffusion_steps=3)
    full = sample(models, plan).tokens_BLK
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = sample(models, plan).tokens_BLK
    assert half.dtype == torch.float32
    assert_same(half, full, tolerance=0.05)


def test_the_benchmark_prints_one_line_a_case(capsys):
    main(["--presets", "nano", "--schedules", "reuse", "each-step", "--rows", "1"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["benchmark"], line["schedule"]) for line in lines] == [
        ("sampling", "reuse"),
        ("sampling", "each-step"),
    ]


def test_misuse_is_refused(models):
    generator, head = models
    with pytest.raises(ValueError, match="seeds"):
        sample(models, NANO.sampling, seeds=(1, 2))
    with pytest.raises(ValueError, match="steps"):
        sample(models, replace(NANO.sampling, steps=33))
    with pytest.raises(ValueError, match="times"):
        sample(models, replace(NANO.sampling, diffusion_steps=101))
    generator.train()
    with pytest.raises(ValueError, match="eval"):
        sample(models, NANO.sampling)
    generator.eval()
    none = sample(models, NANO.sampling, condition=CONDITION[:0], seeds=())
    assert none.tokens_BLK.shape == (0, 32, 32) and none.work.runs == 0
    assert not head.training
