"""Image encoders of masked autoencoders as our ``cmr_encoder`` (arXiv 2111.06377); the names are timm's.

A cine is an image whose channels are its frames, so a checkpoint that was trained on cines fits as it is. One
that was trained on RGB images fits only when it is adapted: its channels are spread over the frames, and its
position table is resampled to our grid.
"""

from __future__ import annotations

import math

import torch
from torch.nn.functional import interpolate

from cardionets_core.models.presets import get_preset
from cardionets_core.models.published.translation import (
    Mended,
    Named,
    Recipe,
    Shape,
    Source,
    Translation,
    module_shapes,
    require_part,
    translate,
    unwrap,
)

MODULE = "cmr_encoder"
DECODER = "belongs to the decoder of the pretraining"
HEAD = "the head of the publisher's task"
SPARE = {"decoder_": DECODER, "mask_token": DECODER, "head.": HEAD}
BLOCK = {
    "norm_attention": "norm1",
    "attention.qkv": "attn.qkv",
    "attention.out": "attn.proj",
    "norm_mlp": "norm2",
    "mlp.0": "mlp.fc1",
    "mlp.2": "mlp.fc2",
}


def block_names(ours: str, theirs: str, *, depth: int) -> dict[str, str]:
    """Names of the linear maps and norms of ``depth`` blocks, ours to those of timm.

    Args:
        ours: what stands before the block's number here.
        theirs: what stands before it in the checkpoint.
        depth: number of blocks.
    """
    return {
        f"{ours}.{index}.{part}": f"{theirs}.{index}.{name}"
        for index in range(depth)
        for part, name in BLOCK.items()
    }


def translate_mae_vit(tensors: Named, *, preset: str, adapt: bool = False) -> Translation:
    """Read the encoder of an image MAE, or a timm ViT.

    Images were normalised by the mean and SD of ImageNet before they reached it; cines here lie in [-1, 1].

    Args:
        tensors: a state dict, with or without the decoder.
        preset: its sizes; the heads cannot be told from the shapes and are the preset's.
        adapt: let ``inflate_channels`` and ``resample_positions`` change what does not fit.

    Raises:
        CheckpointError: tensors are absent, unknown, of another shape, not floats or not finite.
        UnknownNameError: there is no such preset.
    """
    require_part(preset, "cmr_encoder", name="vit")
    names = block_names("blocks", "blocks", depth=get_preset(preset).cmr_encoder.depth)
    names |= {"embed": "patch_embed.proj", "norm": "norm"}
    sources = {
        f"{ours}.{part}": Source(keys=(f"{theirs}.{part}",))
        for ours, theirs in names.items()
        for part in ("weight", "bias")
    }
    sources["cls"] = Source(keys=("cls_token",), ones=2)
    sources["position"] = Source(keys=("pos_embed",), ones=1)
    return translate(
        unwrap(tensors),
        Recipe(
            shapes=module_shapes((MODULE,), preset=preset),
            sources={MODULE: sources},
            spare=SPARE,
            mend=_mend if adapt else None,
        ),
    )


def inflate_channels(kernel_DCYX: torch.Tensor, frames: int) -> torch.Tensor:
    """Spread a patch kernel evenly over frames: each gets the mean over channels times channels / frames.

    A cine that stands still then embeds as the grey image embeds whose channels are all its frame.

    Args:
        kernel_DCYX: width, channels, rows, columns.
        frames: channels of the result.
    """
    channels = kernel_DCYX.shape[1]
    mean = kernel_DCYX.mean(dim=1, keepdim=True) * (channels / frames)
    return mean.expand(-1, frames, -1, -1).contiguous()


def resample_positions(table_PD: torch.Tensor, side: int) -> torch.Tensor:
    """A position table for a grid of ``side x side``: bicubic and anti-aliased; the first row, of CLS, stays.

    Args:
        table_PD: CLS and a square grid, row by row.
        side: patches in a row of the result.

    Raises:
        ValueError: the grid is not square.
    """
    old = math.isqrt(table_PD.shape[0] - 1)
    if old * old != table_PD.shape[0] - 1:
        raise ValueError(f"{table_PD.shape[0] - 1} positions are not a square grid")
    grid = table_PD[1:].T.reshape(1, -1, old, old)
    resized = interpolate(grid, size=(side, side), mode="bicubic", align_corners=False, antialias=True)
    return torch.cat([table_PD[:1], resized.flatten(2)[0].T])


def _mend(name: str, value: torch.Tensor, shape: Shape) -> Mended | None:
    """Fit a kernel with other channels or a table of another square grid; everything else is refused."""
    found = tuple(value.shape)
    if name == f"{MODULE}.embed.weight" and len(found) == 4:
        if 0 in found or (found[0], *found[2:]) != (shape[0], *shape[2:]):
            return None
        return Mended(
            value=inflate_channels(value, shape[1]),
            note=f"{shape[1]} frames with the mean of {found[1]} channels each, times {found[1]}/{shape[1]}",
        )
    if name == f"{MODULE}.position" and len(found) == 3:
        old = math.isqrt(max(found[1] - 1, 0))
        if found[0] != 1 or found[2] != shape[1] or old < 1 or old * old != found[1] - 1:
            return None
        side = math.isqrt(shape[0] - 1)
        return Mended(
            value=resample_positions(value[0], side),
            note=f"a grid of {old} x {old} resampled to {side} x {side}, bicubic with anti-aliasing",
        )
    return None
