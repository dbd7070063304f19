"""The schedule, DDIM steps and the noise loss of whole latents (arXiv 2112.10752, 2010.02502, 2006.11239)."""

from __future__ import annotations

import math

import pytest
import torch

from cardionets_core.losses.latent_diffusion import (
    LatentDiffusionDraw,
    LatentProcess,
    draw_latent_diffusion,
    latent_diffusion_loss,
    scaled_linear_signal,
)

SHAPE = (3, 2, 2, 4, 4)
MEAN, DEVIATION = 0.7, 0.4
COUNT = 8000


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=seeded(seed))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# -- The schedule --------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [100, 1000])
def test_the_roots_of_beta_run_evenly_between_the_two_of_the_paper(steps):
    signal_T = scaled_linear_signal(steps)
    assert signal_T.dtype == torch.float64 and signal_T.shape == (steps,)
    beta_T = 1 - signal_T / torch.cat([torch.ones(1, dtype=torch.float64), signal_T[:-1]])
    assert float(beta_T[0]) == pytest.approx(0.00085, rel=1e-9)
    assert float(beta_T[-1]) == pytest.approx(0.012, rel=1e-9)
    middle = (math.sqrt(0.00085) + (math.sqrt(0.012) - math.sqrt(0.00085)) * 10 / (steps - 1)) ** 2
    assert float(beta_T[10]) == pytest.approx(middle, rel=1e-9)
    assert float(beta_T.sqrt().diff().std()) < 1e-9
    assert float(signal_T[0]) == pytest.approx(1 - 0.00085, rel=1e-12)
    assert (signal_T.diff() < 0).all() and float(signal_T[-1]) > 0


def test_the_last_of_a_thousand_times_keeps_half_a_percent_of_signal():
    """``-ln abar`` is the sum of ``-ln(1 - beta)``: by series, of ``beta + beta^2/2``, in closed form."""
    a, b, steps = math.sqrt(0.00085), math.sqrt(0.012), 1000
    roots = [a + (b - a) * place / (steps - 1) for place in range(steps)]
    expected = math.exp(-sum(r**2 + r**4 / 2 for r in roots))
    assert float(scaled_linear_signal()[-1]) == pytest.approx(expected, rel=1e-3)
    assert 0.004 < expected < 0.005


def test_respacing_keeps_the_ends_and_the_marginals():
    process = LatentProcess()
    assert process.times == tuple(range(1000))
    for count in (2, 50, 999, 1000):
        short = process.respaced(count)
        assert len(short.times) == count and (short.times[0], short.times[-1]) == (0, 999)
        assert list(short.times) == sorted(set(short.times))
        assert torch.equal(short.signal_T, process.signal_T[list(short.times)])
    assert set(process.respaced(100).respaced(10).times) <= set(process.respaced(100).times)
    for count in (1, 1001):
        with pytest.raises(ValueError, match="times"):
            process.respaced(count)


# -- Noise in, noise out -------------------------------------------------------------------------------


def test_all_values_of_a_row_share_its_time():
    process, clean, noise = LatentProcess(), normal(*SHAPE), normal(*SHAPE, seed=1)
    time_B = torch.tensor([0, 400, 999])
    found = process.add_noise(clean, noise, time_B=time_B)
    for row, time in enumerate(time_B.tolist()):
        a = float(scaled_linear_signal()[time])
        expected = math.sqrt(a) * clean[row] + math.sqrt(1 - a) * noise[row]
        assert torch.allclose(found[row], expected, atol=1e-6)
    flat = process.add_noise(clean.flatten(1), noise.flatten(1), time_B=time_B)
    assert torch.equal(flat, found.flatten(1)), "of any shape behind the rows"


@pytest.mark.parametrize(("count", "eta"), [(1000, 1.0), (50, 1.0), (50, 0.5), (50, 0.0), (2, 0.0)])
def test_with_the_true_noise_of_a_point_every_step_returns_to_it(count, eta):
    process = LatentProcess().respaced(count)
    clean, noisy = normal(*SHAPE), normal(*SHAPE, seed=1)
    for index in reversed(range(count)):
        signal = float(process.signal_T[index])
        true = (noisy - math.sqrt(signal) * clean) / math.sqrt(1 - signal)
        noisy = process.step(noisy, true, index=index, noise=normal(*SHAPE, seed=index), eta=eta)
    assert torch.allclose(noisy, clean, atol=1e-4)


def test_without_noise_a_step_is_noise_added_anew_at_the_time_before():
    process = LatentProcess().respaced(50)
    clean, noise = normal(*SHAPE), normal(*SHAPE, seed=1)
    for index in range(1, 50):
        noisy = process.add_noise(clean, noise, time_B=torch.full((3,), index))
        before = process.add_noise(clean, noise, time_B=torch.full((3,), index - 1))
        found = process.step(noisy, noise, index=index, eta=0.0)
        assert torch.allclose(found, before, atol=1e-4)


@pytest.mark.parametrize("count", [1000, 25])
def test_an_eta_of_one_is_the_posterior_of_ddpm(count):
    """Bayes's rule in double precision: the product of two Gaussians has the mean and variance of a step."""
    process = LatentProcess().respaced(count)
    noise, fresh = torch.tensor([-1.3], dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    clean = 0.7
    for index in range(1, count):
        before, now = (float(process.signal_T[place]) for place in (index - 1, index))
        alpha, beta = now / before, 1 - now / before
        noisy = math.sqrt(now) * clean + math.sqrt(1 - now) * noise
        precision = alpha / beta + 1 / (1 - before)
        mean = (math.sqrt(alpha) * noisy / beta + math.sqrt(before) * clean / (1 - before)) / precision
        still = process.step(noisy, noise, index=index, noise=0 * fresh, eta=1.0)
        moved = process.step(noisy, noise, index=index, noise=fresh, eta=1.0)
        assert float(still) == pytest.approx(float(mean), rel=1e-6, abs=1e-6)
        assert float(moved - still) ** 2 == pytest.approx(1 / precision, rel=1e-6)
        half = process.step(noisy, noise, index=index, noise=fresh, eta=0.5)
        none = process.step(noisy, noise, index=index, noise=0 * fresh, eta=0.5)
        assert float(half - none) == pytest.approx(float(moved - still) / 2, rel=1e-6)


def test_a_bounded_clean_latent_leaves_the_posterior_s_mean():
    """Where the bound bites, an eta of 1 is still the mean that the bounded latent has by Bayes's rule."""
    process = LatentProcess()
    noisy, wrong = torch.tensor([3.0], dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    before, now = (float(process.signal_T[place]) for place in (998, 999))
    assert float(noisy) / math.sqrt(now) > 40, "far beyond the bound of 10"
    alpha, beta = now / before, 1 - now / before
    precision = alpha / beta + 1 / (1 - before)
    mean = (math.sqrt(alpha) * float(noisy) / beta + math.sqrt(before) * 10.0 / (1 - before)) / precision
    found = process.step(noisy, wrong, index=999, noise=0 * noisy, eta=1.0)
    assert float(found) == pytest.approx(mean, rel=1e-9)
    assert float(process.step(noisy, wrong, index=999, eta=0.0).abs()) < 4.0


def test_from_time_zero_a_step_gives_the_clean_latent_and_needs_no_noise():
    process, clean, noise = LatentProcess(), normal(*SHAPE), normal(*SHAPE, seed=1)
    noisy = process.add_noise(clean, noise, time_B=torch.zeros(3, dtype=torch.int64))
    found = process.step(noisy, noise, index=0, eta=1.0)
    assert torch.allclose(found, clean, atol=1e-5)
    assert torch.equal(found, process.step(noisy, noise, index=0, noise=normal(*SHAPE, seed=2), eta=1.0))


def test_steps_refuse_what_they_cannot_do():
    process, noisy = LatentProcess(), normal(*SHAPE)
    for eta in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="eta"):
            process.step(noisy, noisy, index=5, noise=noisy, eta=eta)
    with pytest.raises(ValueError, match="noise"):
        process.step(noisy, noisy, index=5, eta=0.5)
    with pytest.raises(ValueError, match="two times"):
        LatentProcess(torch.tensor([0.5], dtype=torch.float64))


# -- Samplers on a Gaussian, whose best prediction is known ---------------------------------------------


def best_noise(noisy: torch.Tensor, signal: float) -> torch.Tensor:
    """``E[noise | noisy]`` for ``x_0 ~ N(MEAN, DEVIATION^2)``."""
    variance = signal * DEVIATION**2 + 1 - signal
    return math.sqrt(1 - signal) * (noisy - math.sqrt(signal) * MEAN) / variance


def by_steps(count: int, *, eta: float, seed: int = 1) -> torch.Tensor:
    process, generator, noisy = LatentProcess().respaced(count), seeded(seed), normal(COUNT)
    for index in reversed(range(count)):
        predicted = best_noise(noisy, float(process.signal_T[index]))
        noise = torch.randn(COUNT, generator=generator)
        noisy = process.step(noisy, predicted, index=index, noise=noise, eta=eta)
    return noisy


def by_ancestors() -> torch.Tensor:
    """Algorithm 2 of arXiv 2006.11239 with the posterior's variance, written from its betas."""
    betas = [(0.00085**0.5 + (0.012**0.5 - 0.00085**0.5) * t / 999) ** 2 for t in range(1000)]
    products = [1.0]
    for beta in betas:
        products.append(products[-1] * (1 - beta))
    generator, x = seeded(2), normal(COUNT, seed=3)
    for t in reversed(range(1000)):
        kept, before = products[t + 1], products[t]
        z = torch.randn(COUNT, generator=generator) if t else torch.zeros(COUNT)
        x = (x - betas[t] / math.sqrt(1 - kept) * best_noise(x, kept)) / math.sqrt(1 - betas[t])
        x = x + math.sqrt(betas[t] * (1 - before) / (1 - kept)) * z
    return x


def test_an_eta_of_one_at_all_times_samples_as_ddpm_does():
    ours, theirs = by_steps(1000, eta=1.0), by_ancestors()
    error = DEVIATION / math.sqrt(COUNT)
    for samples in (ours, theirs):
        assert float(samples.mean()) == pytest.approx(MEAN, abs=5 * error)
        assert float(samples.std()) == pytest.approx(DEVIATION, rel=0.04)
    assert float(ours.mean()) == pytest.approx(float(theirs.mean()), abs=6 * error)
    assert float(ours.std()) == pytest.approx(float(theirs.std()), rel=0.05)


def by_hand(count: int) -> tuple[float, float]:
    """Mean and SD after steps without noise, which are affine here: in closed form from a standard normal."""
    signals = LatentProcess().respaced(count).signal_T.tolist()
    mean, deviation = 0.0, 1.0
    for before, now in reversed(list(zip([1.0, *signals[:-1]], signals, strict=True))):
        variance = now * DEVIATION**2 + 1 - now
        slope = math.sqrt(before * now) * DEVIATION**2 + math.sqrt((1 - before) * (1 - now))
        away = slope / variance * (mean - math.sqrt(now) * MEAN)
        mean, deviation = math.sqrt(before) * MEAN + away, slope / variance * deviation
    return mean, deviation


@pytest.mark.parametrize(("count", "rel"), [(50, 0.08), (1000, 0.01)])
def test_steps_without_noise_repeat_and_sample_the_gaussian(count, rel):
    """Fewer steps are a coarser path: too narrow by the sum of what each step cuts off, known by hand."""
    first, again = by_steps(count, eta=0.0), by_steps(count, eta=0.0, seed=9)
    assert torch.equal(first, again), "no noise but that of the start"
    assert not torch.equal(first, by_steps(count, eta=1.0))
    mean, deviation = by_hand(count)
    start = normal(COUNT)
    assert float(first.mean()) == pytest.approx(mean + deviation * float(start.mean()), abs=1e-4)
    assert float(first.std()) == pytest.approx(deviation * float(start.std()), rel=1e-4)
    assert mean == pytest.approx(MEAN, abs=0.05) and deviation == pytest.approx(DEVIATION, rel=rel)


# -- The loss ------------------------------------------------------------------------------------------


def test_a_perfect_prediction_costs_nothing_and_none_costs_one():
    process, latent = LatentProcess(), normal(4, 4, 4, 8, 8)
    draw = draw_latent_diffusion(tuple(latent.shape), process=process, generator=seeded())

    def perfect(noisy, time):
        signal = process.signal_T[time].float()[:, None, None, None, None]
        return (noisy - signal.sqrt() * latent) / (1 - signal).sqrt()

    found = latent_diffusion_loss(perfect, latent, process=process, draw=draw)
    assert found.shape == (4,) and float(found.max()) < 1e-6
    none = latent_diffusion_loss(lambda noisy, _: 0 * noisy, latent, process=process, draw=draw)
    assert torch.allclose(none, torch.ones(4), atol=0.2)
    assert torch.allclose(none, draw.noise_BZTHW.square().mean(dim=(1, 2, 3, 4)))


def test_rows_of_the_loss_are_independent_and_none_is_legal():
    process, latent = LatentProcess(), normal(*SHAPE)
    draw = draw_latent_diffusion(SHAPE, process=process, generator=seeded())

    def predict(noisy, time):
        return noisy * (1 + time[:, None, None, None, None] / 1000)

    together = latent_diffusion_loss(predict, latent, process=process, draw=draw)
    one = LatentDiffusionDraw(time_B=draw.time_B[1:2], noise_BZTHW=draw.noise_BZTHW[1:2])
    alone = latent_diffusion_loss(predict, latent[1:2], process=process, draw=one)
    assert torch.allclose(alone[0], together[1])
    none = LatentDiffusionDraw(time_B=draw.time_B[:0], noise_BZTHW=draw.noise_BZTHW[:0])
    assert latent_diffusion_loss(predict, latent[:0], process=process, draw=none).shape == (0,)


def test_the_model_sees_the_time_of_training():
    seen: list[torch.Tensor] = []

    def predict(noisy, time):
        seen.append(time)
        return noisy

    process = LatentProcess().respaced(3)
    draw = draw_latent_diffusion((50, 1, 1, 2, 2), process=process, generator=seeded())
    latent_diffusion_loss(predict, normal(50, 1, 1, 2, 2), process=process, draw=draw)
    assert seen[0].shape == (50,) and set(seen[0].tolist()) == {0, *process.times[1:]}


def test_draws_repeat_with_the_seed_and_cover_all_times():
    process = LatentProcess().respaced(20)
    first, again = (
        draw_latent_diffusion((500, 1, 1, 2, 2), process=process, generator=seeded(7)) for _ in range(2)
    )
    assert torch.equal(first.time_B, again.time_B) and torch.equal(first.noise_BZTHW, again.noise_BZTHW)
    assert first.time_B.dtype == torch.int64 and set(first.time_B.tolist()) == set(range(20))
    moved = first.to(torch.device("cpu"))
    assert torch.equal(moved.time_B, first.time_B) and torch.equal(moved.noise_BZTHW, first.noise_BZTHW)
