"""Sizes of the parts of the earlier generation, by preset (SCIENCE section 1; see ``presets``)."""

from __future__ import annotations

from cardionets_core.models.sizes import EarlierSizes, SamplingSize, SwinSize, TransformerSize

EARLIER_SIZES: dict[str, EarlierSizes] = {
    "nano": EarlierSizes(
        ecg_samples=1000,
        ecg_patch=100,
        ecg_encoder=TransformerSize(width=256, depth=3, heads=4),
        swin=SwinSize(pixels=32, patch=4, width=128, depths=(1, 1), heads=(2, 4), window=4),
        diffusion_steps=1000,
        sampling=SamplingSize(steps=1, diffusion_steps=20, guidance=1.5, temperature=0.0),
    ),
    "small": EarlierSizes(
        ecg_samples=5000,
        ecg_patch=100,
        ecg_encoder=TransformerSize(width=384, depth=3, heads=6),
        swin=SwinSize(pixels=112, patch=4, width=96, depths=(2, 2, 4), heads=(3, 6, 12), window=7),
        diffusion_steps=1000,
        sampling=SamplingSize(steps=1, diffusion_steps=50, guidance=3.0, temperature=0.0),
    ),
    "paper": EarlierSizes(
        ecg_samples=5000,
        ecg_patch=100,
        ecg_encoder=TransformerSize(width=1024, depth=24, heads=16),
        swin=SwinSize(pixels=224, patch=4, width=128, depths=(2, 2, 18, 2), heads=(4, 8, 16, 32), window=7),
        diffusion_steps=1000,
        sampling=SamplingSize(steps=1, diffusion_steps=50, guidance=9.0, temperature=0.0),
    ),
}
