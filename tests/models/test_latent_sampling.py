"""The sampler of whole latents against a plain loop, guidance, seeds (arXiv 2010.02502, 2207.12598)."""

from __future__ import annotations

import math

import pytest
import torch

from cardionets_core.losses.latent_diffusion import LatentProcess
from cardionets_core.models.cmr_diffusion import CmrDiffusion
from cardionets_core.models.cmr_tokenizer import normalise_latent
from cardionets_core.models.latent_sampling import guide_noise, sample_latents

LATENT = (2, 2, 4, 4)
PROCESS = LatentProcess()
CONDITION = torch.randn(3, 5, 16, generator=torch.Generator().manual_seed(0))
SEEDS = (1, 2, 3)


@pytest.fixture(scope="module")
def model():
    model = CmrDiffusion(latent=LATENT, patch=(1, 2, 2), condition=16, width=32, depth=2, heads=2)
    draw = torch.Generator().manual_seed(9)
    model.draw_weights(draw)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=draw))
    return model.eval()


def sample(model, *, condition=CONDITION, seeds=SEEDS, steps=6, guidance=1.0, eta=0.0, **other):
    return sample_latents(
        model,
        condition_BND=condition,
        process=PROCESS,
        steps=steps,
        guidance=guidance,
        eta=eta,
        seeds=seeds,
        **other,
    )


@torch.no_grad()
def plainly(model, row: int, *, guidance: float, eta: float, steps: int = 6) -> torch.Tensor:
    """One row by equation 12 of arXiv 2010.02502, both halves by ``forward``, the null of full length."""
    signals = [1.0]
    for t in range(1000):
        signals.append(signals[-1] * (1 - (0.00085**0.5 + (0.012**0.5 - 0.00085**0.5) * t / 999) ** 2))
    times = [round(place * 999 / (steps - 1)) for place in range(steps)]
    draw = torch.Generator().manual_seed(SEEDS[row])
    condition, dropped = CONDITION[row : row + 1], torch.tensor([True])
    x = torch.randn(1, *LATENT, generator=draw)
    for place in reversed(range(steps)):
        time = torch.tensor([times[place]])
        null = model(x, time, condition, dropped)
        noise = null + guidance * (model(x, time, condition) - null)
        now, before = signals[times[place] + 1], signals[times[place - 1] + 1]
        clean = ((x - math.sqrt(1 - now) * noise) / math.sqrt(now)).clamp(-10, 10)
        if place == 0:
            break
        noise = (x - math.sqrt(now) * clean) / math.sqrt(1 - now)
        sigma = eta * math.sqrt((1 - before) / (1 - now) * (1 - now / before))
        x = math.sqrt(before) * clean + math.sqrt(1 - before - sigma**2) * noise
        if eta:
            x = x + sigma * torch.randn(1, *LATENT, generator=draw)
    return normalise_latent(clean)[0]


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("guidance", [0.0, 1.0, 1.5, 3.0])
def test_the_plain_loop_gives_the_same_latents(model, guidance, eta):
    """At a guidance of 1 the plain one still combines both halves: that is the identity of the formula."""
    found = sample(model, guidance=guidance, eta=eta)
    assert found.shape == (3, *LATENT) and found.dtype == torch.float32
    for row in range(3):
        wanted = plainly(model, row, guidance=guidance, eta=eta)
        assert float((found[row] - wanted).abs().max()) < 1e-4


def test_guidance_formula():
    noise, null = torch.tensor([1.0, 2.0]), torch.tensor([0.5, 4.0])
    assert torch.allclose(guide_noise(noise, null, guidance=1.0), noise, atol=1e-5)
    assert torch.equal(guide_noise(noise, null, guidance=0.0), null)
    assert torch.equal(guide_noise(noise, null, guidance=3.0), torch.tensor([2.0, -2.0]))
    assert guide_noise(noise, None, guidance=1.0) is noise
    assert guide_noise(None, null, guidance=0.0) is null
    with pytest.raises(ValueError, match="half"):
        guide_noise(None, None, guidance=2.0)


@pytest.mark.parametrize(("guidance", "predictions", "nulls"), [(1.0, 4, 0), (0.0, 4, 1), (2.0, 8, 1)])
def test_a_half_that_does_not_count_is_never_run(model, monkeypatch, guidance, predictions, nulls):
    ran, asked = [], []
    predict, null_tokens = model.predict, model.null_tokens
    monkeypatch.setattr(model, "predict", lambda *a, **k: ran.append(1) or predict(*a, **k))
    monkeypatch.setattr(model, "null_tokens", lambda *a: asked.append(1) or null_tokens(*a))
    sample(model, steps=4, guidance=guidance)
    assert (len(ran), len(asked)) == (predictions, nulls)


def test_without_a_condition_only_the_seed_counts(model):
    found = sample(model, guidance=3.0, conditional=False)
    assert torch.equal(found, sample(model, guidance=0.0)), "guidance of 0 is the null condition alone"
    assert torch.equal(found, sample(model, condition=CONDITION + 5.0, conditional=False))
    assert not torch.allclose(found, sample(model), atol=1e-3)
    twins = sample(model, seeds=(4, 4, 4), conditional=False)
    assert torch.allclose(twins[0], twins[1], atol=1e-5)


def test_condition_guidance_and_eta_all_count(model):
    first = sample(model)
    for other in (
        sample(model, condition=CONDITION.roll(1, dims=0)),
        sample(model, guidance=2.0),
        sample(model, eta=1.0),
        sample(model, steps=12),
    ):
        assert not torch.allclose(first, other, atol=1e-3)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_one_seed_gives_one_latent_whatever_its_neighbours(model, eta):
    torch.manual_seed(1)
    together = sample(model, guidance=1.5, eta=eta)
    torch.manual_seed(2)
    assert torch.equal(together, sample(model, guidance=1.5, eta=eta)), "torch's own seed aside"
    alone = sample(model, guidance=1.5, eta=eta, condition=CONDITION[1:2], seeds=(2,))
    assert torch.allclose(alone[0], together[1], atol=1e-5)
    other = sample(model, guidance=1.5, eta=eta, seeds=(1, 9, 3))
    assert torch.allclose(other[0], together[0], atol=1e-5)
    assert not torch.allclose(other[1], together[1], atol=1e-3)


def test_samples_are_normalised_as_the_decoder_knows_latents(model):
    found = sample(model, guidance=1.5).flatten(1)
    assert torch.allclose(found.mean(dim=1), torch.zeros(3), atol=1e-5)
    assert torch.allclose(found.var(dim=1, correction=0), torch.ones(3), atol=1e-3)


def test_a_model_that_knows_its_latents_draws_them(model):
    """The exact noise of one latent a row leads there from any start, at any eta."""
    wanted = normalise_latent(torch.randn(3, *LATENT, generator=torch.Generator().manual_seed(7)))

    class Knowing(CmrDiffusion):
        def predict(self, noisy_BZTHW, time_B, *, reads):
            signal = PROCESS.signal_T[time_B].float()[:, None, None, None, None]
            return (noisy_BZTHW - signal.sqrt() * wanted) / (1 - signal).sqrt()

    knowing = Knowing(latent=LATENT, patch=(1, 2, 2), condition=16, width=32, depth=2, heads=2).eval()
    for eta in (0.0, 1.0):
        assert torch.allclose(sample(knowing, steps=20, guidance=2.0, eta=eta), wanted, atol=1e-3)


def test_misuse_is_refused_and_no_rows_are_legal(model):
    with pytest.raises(ValueError, match="seeds"):
        sample(model, seeds=(1, 2))
    for steps in (1, 1001):
        with pytest.raises(ValueError, match="times"):
            sample(model, steps=steps)
    with pytest.raises(ValueError, match="eta"):
        sample(model, eta=1.5)
    model.train()
    with pytest.raises(ValueError, match="eval"):
        sample(model)
    model.eval()
    assert sample(model, condition=CONDITION[:0], seeds=(), guidance=2.0).shape == (0, *LATENT)
