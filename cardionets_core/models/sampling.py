"""Sampling of latents: an autoregressive loop of denoising loops, nothing computed twice (SCIENCE section 4).

Comes in: ECG embeddings and one seed a row. Goes out: tokens of latents, and how much the transformer did.

What is reused without changing the result: the generator runs once for each autoregressive step, not for each
denoising step; its encoder takes the buffer and the visible tokens only; its last block yields the wanted
tokens only; the unconditional half of the first step, in which nothing is visible, is the same for all rows
and is computed once; the diffusion head's part of time is computed once, its part of z once for each step.
Both halves follow one trajectory of a token: they share the start noise and the noise of each step.

Legend: B rows, P width of the ECG embedding, L tokens, K values of a token, W wanted tokens, V visible
tokens, N denoising steps, D width of z.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from cardionets_core.models.cmr_generator import CmrGenerator
from cardionets_core.models.diffusion_head import DiffusionHead
from cardionets_core.models.generator_masking import new_tokens
from cardionets_core.models.masking import gather_patches
from cardionets_core.models.sizes import SamplingSize


class Denoising(Protocol):
    """The diffusion process that the head was trained on."""

    @property
    def times(self) -> tuple[int, ...]:
        """The training process's time of each of its times, ascending."""

    def respaced(self, count: int) -> Denoising:
        """The same process at fewer times."""

    def step(
        self, noisy: torch.Tensor, prediction: torch.Tensor, *, index: int, noise: torch.Tensor
    ) -> torch.Tensor:
        """From the time of an index to the one before."""


@dataclass(slots=True, kw_only=True)
class TransformerWork:
    """What the generator's transformer did.

    Attributes:
        token_blocks: tokens that came out of a block, summed over blocks, rows and runs.
        runs: runs of encoder and decoder; both halves together are one.
    """

    token_blocks: int = 0
    runs: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledTokens:
    """Tokens of sampled latents.

    Attributes:
        tokens_BLK: float32.
        work: of the transformer.
    """

    tokens_BLK: torch.Tensor
    work: TransformerWork


@torch.no_grad()
def sample_tokens(
    generator: CmrGenerator,
    head: DiffusionHead,
    *,
    condition_BP: torch.Tensor,
    process: Denoising,
    plan: SamplingSize,
    seeds: Sequence[int],
) -> SampledTokens:
    """Sample one latent for each ECG.

    A row's randomness follows from its seed alone, so a row does not depend on the others.

    Args:
        generator: in eval mode.
        head: in eval mode.
        condition_BP: ECG embeddings, not normalised.
        process: of training.
        plan: autoregressive steps, denoising steps, and guidance: ``noise = unconditional + guidance
            (conditional - unconditional)``; a guidance of 1 skips the unconditional half. The temperature
            scales the noise of each denoising step (arXiv 2406.11838), not that of the start.
        seeds: one for each row.

    Raises:
        ValueError: a module is in training mode, there is not one seed for each row, or the steps do not fit.
    """
    if generator.training or head.training:
        raise ValueError("sampling needs both modules in eval mode")
    rows = len(condition_BP)
    if len(seeds) != rows:
        raise ValueError(f"{len(seeds)} seeds for {rows} rows")
    process = process.respaced(plan.diffusion_steps)
    sampler = _Sampler(generator, head, process=process, plan=plan)
    place = condition_BP.device
    tokens_BLK = torch.zeros(rows, generator.tokens, generator.token_width, device=place)
    if rows == 0:
        return SampledTokens(tokens_BLK=tokens_BLK, work=sampler.work)
    draws = [torch.Generator().manual_seed(seed) for seed in seeds]
    order_BL = torch.stack([torch.randperm(generator.tokens, generator=draw) for draw in draws]).to(place)
    condition_BD = generator.condition(condition_BP)
    begin = 0
    for count in new_tokens(generator.tokens, plan.steps):
        visible_BV, wanted_BW = order_BL[:, :begin], order_BL[:, begin : begin + count]
        z = sampler.look(tokens_BLK, visible_BV, wanted_BW=wanted_BW, condition_BD=condition_BD)
        shape = (len(process.times), count, generator.token_width)
        noise_NBWK = torch.stack([torch.randn(shape, generator=draw) for draw in draws], dim=1).to(place)
        made_BWK = sampler.denoise(noise_NBWK, z)
        tokens_BLK.scatter_(1, wanted_BW[..., None].expand_as(made_BWK), made_BWK)
        begin += count
    return SampledTokens(tokens_BLK=tokens_BLK, work=sampler.work)


class _Sampler:
    """What stays the same from step to step. With guidance the unconditional rows stand behind the others."""

    def __init__(
        self, generator: CmrGenerator, head: DiffusionHead, *, process: Denoising, plan: SamplingSize
    ) -> None:
        self.generator = generator
        self.head = head
        self.process = process
        self.guidance = plan.guidance
        self.temperature = plan.temperature
        self.guided = plan.guidance != 1.0
        self.work = TransformerWork()
        place = generator.null_condition.device
        self.time_NE = head.time(torch.tensor(process.times, device=place))

    def look(
        self,
        tokens_BLK: torch.Tensor,
        visible_BV: torch.Tensor,
        *,
        wanted_BW: torch.Tensor,
        condition_BD: torch.Tensor,
    ) -> torch.Tensor:
        """z of the wanted tokens, ``[B, W, D]``, or ``[2 B, W, D]`` with guidance."""
        self.work.runs += 1
        visible_BVK = gather_patches(tokens_BLK, visible_BV)
        if not self.guided:
            return self._run(visible_BVK, visible_BV, wanted_BW=wanted_BW, condition_BD=condition_BD)
        null_1D = self.generator.null_condition[None].to(condition_BD.dtype)
        if visible_BV.shape[1] == 0:
            with_ecg = self._run(visible_BVK, visible_BV, wanted_BW=wanted_BW, condition_BD=condition_BD)
            anyones = wanted_BW.unique()
            without = self._run(
                visible_BVK[:1], visible_BV[:1], wanted_BW=anyones[None], condition_BD=null_1D
            )
            return torch.cat([with_ecg, without[0][torch.searchsorted(anyones, wanted_BW.contiguous())]])
        return self._run(
            visible_BVK.repeat(2, 1, 1),
            visible_BV.repeat(2, 1),
            wanted_BW=wanted_BW.repeat(2, 1),
            condition_BD=torch.cat([condition_BD, null_1D.expand_as(condition_BD)]),
        )

    def denoise(self, noise_NBWK: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """Tokens from noise: the last of N is the start, the others are added on the way. ``[B, W, K]``."""
        given = self.head.condition(z)
        noisy_BWK = noise_NBWK[-1]
        for index in reversed(range(len(noise_NBWK))):
            twice = noisy_BWK.repeat(2, 1, 1) if self.guided else noisy_BWK
            prediction = self.head.predict(twice, given + self.time_NE[index])
            if self.guided:
                prediction = guide(*prediction.chunk(2), guidance=self.guidance)
            noise = self.temperature * noise_NBWK[index - 1]
            noisy_BWK = self.process.step(noisy_BWK, prediction, index=index, noise=noise)
        return noisy_BWK

    def _run(
        self,
        visible_BVK: torch.Tensor,
        visible_BV: torch.Tensor,
        *,
        wanted_BW: torch.Tensor,
        condition_BD: torch.Tensor,
    ) -> torch.Tensor:
        generator = self.generator
        encoded = generator.encode(visible_BVK, visible_BV, condition_BD=condition_BD)
        filled = generator.fill(encoded, visible_BV)
        rows, kept = encoded.shape[:2]
        inner = (len(generator.decoder) - 1) * filled.shape[1]
        self.work.token_blocks += rows * (len(generator.encoder) * kept + inner + wanted_BW.shape[1])
        return generator.decode_some(filled, wanted_BW)


def guide(with_ecg: torch.Tensor, without: torch.Tensor, *, guidance: float) -> torch.Tensor:
    """Noise ``without + guidance (with_ecg - without)``, variances as with the ECG; all ``[..., 2 K]``."""
    noise, logits = with_ecg.chunk(2, dim=-1)
    null_noise = without.chunk(2, dim=-1)[0]
    return torch.cat([null_noise + guidance * (noise - null_noise), logits], dim=-1)
