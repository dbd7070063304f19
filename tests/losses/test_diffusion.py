"""Schedules, closed forms and a toy problem of the diffusion loss (SCIENCE 4, 8.5; arXiv 2102.09672)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from cardionets_core.losses import cosine_process, diffusion_loss, draw_diffusion
from cardionets_core.losses.diffusion import DiffusionDraw, gaussian_divergence, variational_bound
from cardionets_core.models.diffusion_head import DiffusionHead


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("steps", [100, 1000])
def test_the_schedule_begins_clean_and_ends_as_noise(steps):
    process = cosine_process(steps)
    assert process.times == tuple(range(steps))
    assert float(process.signal_T[0]) > 0.999
    assert float(process.signal_T[-1]) < 1e-4
    assert (process.signal_T.diff() < 0).all()
    assert float(process.beta_T.min()) > 0 and float(process.beta_T.max()) == pytest.approx(0.999)
    half = steps // 2 - 1
    f = [math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2 for t in (0.0, 0.5)]
    assert float(process.signal_T[half]) == pytest.approx(f[1] / f[0], rel=1e-9)


def test_noise_is_added_as_the_formula_says_and_keeps_the_variance():
    process = cosine_process(100)
    clean, noise = normal(20_000, 1), normal(20_000, 1, seed=1)
    for time in (0, 40, 99):
        found = process.add_noise(clean, noise, time=torch.full((20_000,), time))
        a = float(process.signal_T[time])
        assert torch.allclose(found, math.sqrt(a) * clean + math.sqrt(1 - a) * noise, atol=1e-6)
        assert float(found.var()) == pytest.approx(1.0, abs=0.03)


def test_posterior_equals_bayes_rule():
    """q(x_{t-1} | x_t, x_0) from the product of two Gaussians, in double precision."""
    process = cosine_process(100)
    clean, noise = 0.7, -1.3
    for time in range(1, 100):
        before, now = (float(process.signal_T[t]) for t in (time - 1, time))
        alpha, beta = now / before, 1 - now / before
        noisy = math.sqrt(now) * clean + math.sqrt(1 - now) * noise
        precision = alpha / beta + 1 / (1 - before)
        mean = (math.sqrt(alpha) * noisy / beta + math.sqrt(before) * clean / (1 - before)) / precision
        index = torch.tensor([time])
        found = process.mean_before(torch.tensor([[noisy]]), torch.tensor([[noise]]), time=index)
        assert float(found) == pytest.approx(mean, rel=1e-4, abs=1e-5)
        variance = float(process.log_variance(torch.tensor([[-1.0]]), time=index).exp())
        assert variance == pytest.approx(1 / precision, rel=1e-4)
        assert float(process.log_variance(torch.tensor([[1.0]]), time=index).exp()) == pytest.approx(
            beta, rel=1e-4
        )


def test_respacing_keeps_the_ends_and_the_marginals():
    process = cosine_process(1000)
    for count in (2, 50, 100, 999):
        short = process.respaced(count)
        assert len(short.times) == count and (short.times[0], short.times[-1]) == (0, 999)
        assert list(short.times) == sorted(set(short.times))
        assert torch.equal(short.signal_T, process.signal_T[list(short.times)])
        assert torch.allclose((1 - short.beta_T).cumprod(0), short.signal_T, rtol=1e-9)
    same = process.respaced(1000)
    assert same.times == process.times and torch.allclose(same.beta_T, process.beta_T, rtol=1e-9)
    twice = process.respaced(100).respaced(10)
    assert set(twice.times) <= set(process.respaced(100).times)
    for count in (1, 1001):
        with pytest.raises(ValueError, match="times"):
            process.respaced(count)


@pytest.mark.parametrize("count", [100, 10])
def test_with_the_true_noise_of_a_point_every_step_returns_to_it(count):
    process = cosine_process(100).respaced(count)
    clean, noisy = normal(2, 3, 4), normal(2, 3, 4, seed=1)
    for index in reversed(range(count)):
        signal = float(process.signal_T[index])
        true = (noisy - math.sqrt(signal) * clean) / math.sqrt(1 - signal)
        prediction = torch.cat([true, torch.zeros_like(true)], dim=-1)
        noisy = process.step(noisy, prediction, index=index, noise=normal(2, 3, 4, seed=index))
    assert torch.allclose(noisy, clean, atol=1e-4)


def test_the_last_step_adds_no_noise_and_the_others_scale_it_by_their_variance():
    process = cosine_process(100).respaced(10)
    noisy, prediction, noise = normal(1, 2, 3), normal(1, 2, 6, seed=1), normal(1, 2, 3, seed=2)
    for index in range(10):
        still = process.step(noisy, prediction, index=index, noise=torch.zeros_like(noise))
        moved = process.step(noisy, prediction, index=index, noise=noise)
        logits = prediction[..., 3:]
        log_variance = process.log_variance(logits, time=torch.full((1, 2), index))
        expected = 0 * noise if index == 0 else (0.5 * log_variance).exp() * noise
        assert torch.allclose(moved - still, expected, atol=1e-4)


def test_gaussian_divergence_equals_torch_and_is_zero_for_equal_gaussians():
    mean, log_variance, other, other_log = (normal(50, seed=seed) for seed in range(4))
    reference = kl_divergence(
        Normal(mean, (0.5 * log_variance).exp()), Normal(other, (0.5 * other_log).exp())
    )
    found = gaussian_divergence(mean, log_variance, other_mean=other, other_log_variance=other_log)
    assert torch.allclose(found, reference, rtol=1e-4, atol=1e-5)
    same = gaussian_divergence(mean, log_variance, other_mean=mean, other_log_variance=log_variance)
    assert not same.any()


def test_the_bound_is_zero_for_the_true_step():
    process = cosine_process(100)
    clean = normal(2, 99, 3)
    time = torch.arange(1, 100).expand(2, 99)
    draw = DiffusionDraw(time_BN=time, noise_BNK=normal(2, 99, 3, seed=1))
    bound = variational_bound(
        process,
        clean=clean,
        noisy=process.add_noise(clean, draw.noise_BNK, time=time),
        draw=draw,
        predicted=draw.noise_BNK,
        logits=torch.full((2, 99, 3), -1.0),
    )
    assert float(bound.abs().max()) < 1e-6


def test_at_time_zero_the_bound_is_a_negative_log_density_in_bits():
    process = cosine_process(100)
    clean, noise, predicted = normal(1, 4, 3), normal(1, 4, 3, seed=1), normal(1, 4, 3, seed=2)
    time = torch.zeros(1, 4, dtype=torch.int64)
    draw = DiffusionDraw(time_BN=time, noise_BNK=noise)
    noisy = process.add_noise(clean, noise, time=time)
    logits = normal(1, 4, 3, seed=3)
    found = variational_bound(
        process, clean=clean, noisy=noisy, draw=draw, predicted=predicted, logits=logits
    )
    deviation = (0.5 * process.log_variance(logits, time=time)).exp()
    reference = -Normal(process.mean_before(noisy, predicted, time=time), deviation).log_prob(clean)
    assert torch.allclose(found, reference.mean(-1) / math.log(2), rtol=1e-4)


def test_the_loss_equals_a_loop_and_its_rows_are_independent():
    process = cosine_process(100)
    torch.manual_seed(0)
    layer = torch.nn.Linear(3 + 1 + 2, 6)

    def head(noisy, time, z):
        return layer(torch.cat([noisy, time[..., None] / 100, z], dim=-1))

    tokens, z = normal(2, 5, 3), normal(2, 5, 2, seed=1)
    draw = draw_diffusion((2, 5, 3), process=process, generator=seeded())
    assert draw.time_BN.shape == (2, 20), "four repeats"
    found = diffusion_loss(head, tokens, z, process=process, draw=draw)
    assert torch.allclose(found.total_B, found.noise_error_B + found.bound_B)
    for row in range(2):
        errors = []
        for repeat in range(4):
            for token in range(5):
                place = 5 * repeat + token
                t, noise = draw.time_BN[row, place], draw.noise_BNK[row, place]
                noisy = process.add_noise(tokens[row, token], noise, time=t)
                predicted = head(noisy, t, z[row, token])[:3]
                errors.append(float((noise - predicted).detach().square().mean()))
        assert float(found.noise_error_B[row].detach()) == pytest.approx(np.mean(errors), rel=1e-5)
    one = DiffusionDraw(time_BN=draw.time_BN[1:], noise_BNK=draw.noise_BNK[1:])
    alone = diffusion_loss(head, tokens[1:], z[1:], process=process, draw=one)
    assert torch.allclose(alone.total_B[0], found.total_B[1], rtol=1e-5)


def test_the_head_sees_the_time_of_training():
    seen: list[torch.Tensor] = []

    def head(noisy, time, z):
        seen.append(time)
        return torch.cat([noisy, noisy], dim=-1)

    process = cosine_process(100).respaced(3)
    draw = draw_diffusion((1, 50, 2), process=process, generator=seeded())
    diffusion_loss(head, normal(1, 50, 2), normal(1, 50, 2), process=process, draw=draw)
    assert set(seen[0].unique().tolist()) == set(process.times)


def test_the_bound_trains_the_variance_alone():
    process = cosine_process(100)
    output = torch.nn.Parameter(normal(2, 20, 6))
    draw = draw_diffusion((2, 5, 3), process=process, generator=seeded())
    found = diffusion_loss(
        lambda noisy, time, z: output, normal(2, 5, 3), normal(2, 5, 1), process=process, draw=draw
    )
    (gradient,) = torch.autograd.grad(found.bound_B.sum(), output, retain_graph=True)
    assert not gradient[..., :3].any() and gradient[..., 3:].any()
    (gradient,) = torch.autograd.grad(found.noise_error_B.sum(), output)
    assert gradient[..., :3].any() and not gradient[..., 3:].any()


def test_draws_repeat_with_the_seed_and_cover_all_times():
    process = cosine_process(100)
    first, again = (draw_diffusion((3, 200, 2), process=process, generator=seeded(7)) for _ in range(2))
    assert torch.equal(first.time_BN, again.time_BN) and torch.equal(first.noise_BNK, again.noise_BNK)
    assert set(first.time_BN.unique().tolist()) == set(range(100))


SHARES = torch.tensor([0.3, 0.7])
CENTRES = torch.tensor([[-1.4, 1.1], [0.6, -0.5]])
DEVIATION = 0.3


def mixture(count: int, generator: torch.Generator) -> torch.Tensor:
    """Two Gaussians in the plane, together of mean 0 and SD about 1 as the tokens of a normalised latent."""
    side = (torch.rand(count, generator=generator) > SHARES[0]).long()
    return CENTRES[side] + DEVIATION * torch.randn(count, 2, generator=generator)


def assert_like_the_mixture(samples: torch.Tensor) -> None:
    mean = SHARES @ CENTRES
    deviation = (DEVIATION**2 + SHARES @ (CENTRES - mean).square()).sqrt()
    assert torch.allclose(samples.mean(0), mean, atol=0.1 * float(deviation.max()))
    assert torch.allclose(samples.std(0), deviation, rtol=0.1)
    assert float((samples[:, 0] < -0.4).float().mean()) == pytest.approx(0.3, abs=0.05)


@pytest.mark.parametrize(("steps", "count"), [(100, 100), (100, 20), (1000, 50)])
def test_with_the_exact_noise_the_samples_are_the_mixture(steps, count):
    """The best prediction is known in closed form here, so only the steps themselves can be wrong."""
    process = cosine_process(steps).respaced(count)
    noisy, generator = normal(8000, 2), seeded(1)
    for index in reversed(range(count)):
        signal = float(process.signal_T[index])
        variance = signal * DEVIATION**2 + 1 - signal
        away = noisy[:, None] - math.sqrt(signal) * CENTRES
        weight = (-0.5 * away.square().sum(-1) / variance + SHARES.log()).softmax(-1)
        predicted = math.sqrt(1 - signal) * (weight[..., None] * away).sum(1) / variance
        prediction = torch.cat([predicted, torch.zeros_like(predicted)], dim=-1)
        noise = torch.randn(noisy.shape, generator=generator)
        noisy = process.step(noisy, prediction, index=index, noise=noise)
    assert_like_the_mixture(noisy)


def test_the_loss_falls_on_a_toy_mixture_and_samples_match_it():
    process, generator = cosine_process(100), seeded()
    head = DiffusionHead(token_width=2, condition=4, width=64, depth=2, times=1000)
    head.draw_weights(generator)
    optimiser = torch.optim.Adam(head.parameters())
    z, losses, steps = torch.zeros(1, 128, 4), [], 200
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 8e-3 * 0.5 * (1 + math.cos(math.pi * step / steps))
        draw = draw_diffusion((1, 128, 2), process=process, generator=generator)
        loss = diffusion_loss(head, mixture(128, generator)[None], z, process=process, draw=draw)
        optimiser.zero_grad()
        loss.total_B.mean().backward()
        optimiser.step()
        losses.append(float(loss.total_B.detach()))
    assert np.mean(losses[-50:]) < 0.5 * np.mean(losses[:20])

    short, noisy = process.respaced(20), torch.randn(1, 4000, 2, generator=generator)
    with torch.no_grad():
        given = head.condition(torch.zeros(1, 1, 4))
        for index in reversed(range(20)):
            time = head.time(torch.tensor(short.times[index]))
            noise = torch.randn(1, 4000, 2, generator=generator)
            noisy = short.step(noisy, head.predict(noisy, given + time), index=index, noise=noise)
    assert_like_the_mixture(noisy[0])


def test_the_implied_clean_token_is_bounded():
    process = cosine_process(1000)
    noisy = torch.full((1, 1, 1), 3.0)
    wrong = torch.cat([torch.zeros(1, 1, 1), torch.zeros(1, 1, 1)], dim=-1)
    found = process.step(noisy, wrong, index=999, noise=torch.zeros(1, 1, 1))
    assert abs(float(found)) < 4.0, "without a bound it is 3 / sqrt(.001) = 95"
