"""How much less the transformer does when latents are sampled with reuse, for the same output.

Three ways to the same latents from the same seeds: ``reuse`` is the product's sampler; ``each-step`` runs
the whole sequence of both halves through encoder and decoder once for each autoregressive step, hidden tokens
masked out of the attention; ``each-denoising`` does the same for every denoising step. Weights are random.
The unit is one token out of one transformer block; the baseline of the ratios is ``reuse``.
``python -m simulation.benchmarks.sampling`` prints one JSON line a case.

Legend: B rows, P width of the ECG embedding, L tokens, K values of a token, W wanted tokens, S buffer
and all tokens, D width.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    import torch

    from cardionets_core.losses.diffusion import DiffusionProcess
    from cardionets_core.models.cmr_generator import CmrGenerator
    from cardionets_core.models.diffusion_head import DiffusionHead
    from cardionets_core.models.sampling import Denoising, SampledTokens, TransformerWork
    from cardionets_core.models.sizes import SamplingSize
    from cardionets_core.models.transformer import Block

SCHEDULES = ("reuse", "each-step", "each-denoising")


def main(arguments: Sequence[str] | None = None) -> None:
    """Every schedule of every preset asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--presets", nargs="+", default=["nano"])
    parser.add_argument("--schedules", nargs="+", default=list(SCHEDULES), choices=SCHEDULES)
    parser.add_argument("--rows", type=int, default=2, help="latents sampled together")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    for preset in options.presets:
        for found in measure(
            preset, rows=options.rows, device=options.device, schedules=tuple(options.schedules)
        ):
            sys.stdout.write(json.dumps({"schema_version": 1, "benchmark": "sampling", **found}) + "\n")
            sys.stdout.flush()


def measure(
    preset: str, *, rows: int, device: str = "cpu", schedules: tuple[str, ...] = SCHEDULES
) -> list[dict[str, object]]:
    """Work, seconds, and difference from the reused sampler, of every schedule; that one is always first."""
    import torch

    from cardionets_core.models.presets import get_preset
    from cardionets_core.models.sampling import sample_tokens

    sizes = get_preset(preset)
    generator, head = make_models(preset, device=device)
    noise = torch.Generator().manual_seed(0)
    condition_BP = torch.randn(rows, sizes.projection, generator=noise).to(device)
    process = make_process(sizes.diffusion.steps)
    seeds, plan = range(rows), sizes.sampling
    found: list[dict[str, object]] = []
    first: SampledTokens | None = None
    for schedule in dict.fromkeys(("reuse", *schedules)):
        begin = time.monotonic()
        if schedule == "reuse":
            sampled = sample_tokens(
                generator, head, condition_BP=condition_BP, process=process, plan=plan, seeds=seeds
            )
        else:
            sampled = sample_plainly(
                generator,
                head,
                condition_BP=condition_BP,
                process=process.respaced(plan.diffusion_steps),
                plan=plan,
                seeds=seeds,
                every_time=schedule == "each-denoising",
            )
        if device != "cpu":
            torch.cuda.synchronize()
        seconds = time.monotonic() - begin
        first = first or sampled
        difference = (sampled.tokens_BLK - first.tokens_BLK).abs().max() / first.tokens_BLK.abs().max()
        found.append(
            {
                "preset": preset,
                "schedule": schedule,
                "device": device,
                "rows": rows,
                "steps": plan.steps,
                "diffusion_steps": plan.diffusion_steps,
                "guidance": plan.guidance,
                "transformer_runs": sampled.work.runs,
                "token_blocks": sampled.work.token_blocks,
                "ratio_to_reuse": round(sampled.work.token_blocks / first.work.token_blocks, 2),
                "largest_relative_difference": float(difference),
                "seconds": round(seconds, 2),
            }
        )
    return found


def make_models(preset: str, *, device: str = "cpu") -> tuple[CmrGenerator, DiffusionHead]:
    """Generator and head in eval mode with random weights, around a head that takes a token for its noise.

    So samples are of the size of latents, and depend on z: a head as it begins would ignore it.
    """
    import torch

    from cardionets_core.models.cmr_generator import CmrGenerator
    from cardionets_core.models.diffusion_head import DiffusionHead
    from cardionets_core.models.registry import build_module

    generator = cast(CmrGenerator, build_module("cmr_generator", preset, seed=0).eval().to(device))
    head = cast(DiffusionHead, build_module("diffusion_head", preset, seed=0).eval())
    draw = torch.Generator().manual_seed(1)
    width, tokens = head.embed.weight.shape
    with torch.no_grad():
        head.embed.weight.copy_(torch.eye(width, tokens))
        head.out.weight[:tokens].copy_(torch.eye(tokens, width) * (tokens / width) ** 0.5)
        for parameter in (*head.parameters(), *generator.parameters()):
            parameter.add_((torch.randn(parameter.shape, generator=draw) * 0.04).to(parameter))
    return generator, cast(DiffusionHead, head.to(device))


def make_process(steps: int) -> DiffusionProcess:
    """The first half of the cosine process.

    Its last times multiply the rounding of a step by thirty, which only trained weights would take back.
    """
    from cardionets_core.losses.diffusion import DiffusionProcess, cosine_process

    half = steps // 2
    return DiffusionProcess(cosine_process(steps).signal_T[:half], tuple(range(half)))


def sample_plainly(
    generator: CmrGenerator,
    head: DiffusionHead,
    *,
    condition_BP: torch.Tensor,
    process: Denoising,
    plan: SamplingSize,
    seeds: Sequence[int],
    every_time: bool,
) -> SampledTokens:
    """The schedule of SCIENCE section 4 as it reads: everything is computed, and always for both halves.

    Args:
        generator: in eval mode.
        head: in eval mode.
        condition_BP: ECG embeddings.
        process: at the times to visit.
        plan: autoregressive steps and guidance.
        seeds: one for each row.
        every_time: run the transformer for every denoising step.
    """
    import torch

    from cardionets_core.models.generator_masking import new_tokens
    from cardionets_core.models.sampling import SampledTokens, TransformerWork

    rows, place, work = len(seeds), condition_BP.device, TransformerWork()
    draws = [torch.Generator().manual_seed(seed) for seed in seeds]
    order_BL = torch.stack([torch.randperm(generator.tokens, generator=draw) for draw in draws]).to(place)
    tokens_BLK = torch.zeros(rows, generator.tokens, generator.token_width, device=place)
    seen_BL = torch.zeros(rows, generator.tokens, dtype=torch.bool, device=place)
    row_B1 = torch.arange(rows, device=place)[:, None]
    begin = 0
    with torch.no_grad():
        for count in new_tokens(generator.tokens, plan.steps):
            wanted_BW = order_BL[:, begin : begin + count]
            shape = (len(process.times), count, generator.token_width)
            noise_NBWK = torch.stack([torch.randn(shape, generator=draw) for draw in draws], dim=1).to(place)
            noisy_BWK = noise_NBWK[-1]
            z: list[torch.Tensor] = []
            for index in reversed(range(len(process.times))):
                if every_time or not z:
                    work.runs += 1
                    z = [
                        whole_sequence(generator, tokens_BLK, seen_BL, condition_BD=given, work=work)
                        for given in (
                            generator.condition(condition_BP),
                            generator.null_condition.expand(rows, -1),
                        )
                    ]
                time_BW = torch.full((rows, count), process.times[index], device=place)
                with_ecg, without = (head(noisy_BWK, time_BW, half[row_B1, wanted_BW]) for half in z)
                noise, logits = with_ecg.chunk(2, dim=-1)
                null_noise, _ = without.chunk(2, dim=-1)
                guided = null_noise + plan.guidance * (noise - null_noise)
                noisy_BWK = process.step(
                    noisy_BWK, torch.cat([guided, logits], dim=-1), index=index, noise=noise_NBWK[index - 1]
                )
            tokens_BLK[row_B1, wanted_BW] = noisy_BWK
            seen_BL[row_B1, wanted_BW] = True
            begin += count
    return SampledTokens(tokens_BLK=tokens_BLK, work=work)


def whole_sequence(
    generator: CmrGenerator,
    tokens_BLK: torch.Tensor,
    seen_BL: torch.Tensor,
    *,
    condition_BD: torch.Tensor,
    work: TransformerWork,
) -> torch.Tensor:
    """z of every token, ``[B, L, D]``; all go through the encoder, but the unseen are not attended to."""
    import torch

    buffer = generator.buffer
    front_BUD = condition_BD[:, None].expand(-1, buffer, -1)
    tokens_BSD = torch.cat([front_BUD, generator.embed(tokens_BLK)], dim=1) + generator.encoder_table
    tokens_BSD = generator.embed_norm(tokens_BSD)
    kept_BS = torch.cat([seen_BL.new_ones(len(seen_BL), buffer), seen_BL], dim=1)
    for block in generator.encoder:
        tokens_BSD = masked_block(cast("Block", block), tokens_BSD, kept_BS)
    bridged_BSD = generator.bridge(generator.encoder_norm(tokens_BSD))
    filled_BSD = torch.where(kept_BS[..., None], bridged_BSD, generator.hidden) + generator.decoder_table
    decoded_BSD = generator.decoder_norm(generator.decoder(filled_BSD))
    rows, length, _ = filled_BSD.shape
    work.token_blocks += rows * length * (len(generator.encoder) + len(generator.decoder))
    return decoded_BSD[:, buffer:] + generator.diffusion_table


def masked_block(block: Block, tokens_BSD: torch.Tensor, kept_BS: torch.Tensor) -> torch.Tensor:
    """A block in which only the kept tokens are attended to."""
    rows, length, width = tokens_BSD.shape
    attention = block.attention
    qkv = attention.qkv(block.norm_attention(tokens_BSD))
    query, key, value = (
        part.reshape(rows, length, attention.heads, -1).transpose(1, 2) for part in qkv.chunk(3, dim=-1)
    )
    scores = query @ key.transpose(2, 3) / (width // attention.heads) ** 0.5
    weights = scores.masked_fill(~kept_BS[:, None, None, :], float("-inf")).softmax(dim=-1)
    mixed = (weights @ value).transpose(1, 2).reshape(rows, length, width)
    tokens_BSD = tokens_BSD + attention.out(mixed)
    return tokens_BSD + block.mlp(block.norm_mlp(tokens_BSD))


if __name__ == "__main__":
    main()
