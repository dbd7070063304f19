"""Which patches a masked autoencoder sees: equal counts, named by index, drawn from a passed generator.

Indices instead of boolean masks keep every shape independent of the values (needed by ``vmap``).

Legend: P patches, V visible patches, H hidden patches; ``...`` any leading axes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchMask:
    """A partition of the patches of each sequence.

    Attributes:
        visible: int64 ``[..., V]``, ascending.
        hidden: int64 ``[..., H]``, ascending; V + H = P.
    """

    visible: torch.Tensor
    hidden: torch.Tensor

    def to(self, device: torch.device) -> PatchMask:
        """The same partition on a device."""
        return PatchMask(visible=self.visible.to(device), hidden=self.hidden.to(device))


def visible_count(patches: int, mask_share: float) -> int:
    """Patches that stay visible: ``int((1 - mask_share) * patches)``, at least one, and not all."""
    return min(max(int((1.0 - mask_share) * patches), 1), patches - 1)


def draw_mask(
    leading: tuple[int, ...], *, patches: int, visible: int, generator: torch.Generator
) -> PatchMask:
    """Draw ``visible`` of ``patches`` uniformly and independently for each sequence.

    Args:
        leading: leading axes: (B, L) to mask each lead on its own, (B,) for a cine.
        patches: P.
        visible: V, in 1 to P - 1.
        generator: a CPU generator; the draw does not depend on the device of the model.
    """
    if not 0 < visible < patches:
        raise ValueError(f"{visible} visible patches of {patches}")
    order = torch.rand(*leading, patches, generator=generator).argsort(dim=-1)
    return PatchMask(
        visible=order[..., :visible].sort(dim=-1).values, hidden=order[..., visible:].sort(dim=-1).values
    )


def gather_patches(values: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """``[..., P, S]`` at ``[..., V]`` gives ``[..., V, S]``."""
    return values.gather(-2, index[..., None].expand(*index.shape, values.shape[-1]))


def scatter_tokens(
    visible: torch.Tensor, index: torch.Tensor, *, blank: torch.Tensor, patches: int
) -> torch.Tensor:
    """Put ``[..., V, D]`` back to their places among P copies of ``blank``: ``[..., P, D]``.

    ``blank`` is ``[D]``, or any shape that broadcasts to the result.
    """
    width = visible.shape[-1]
    full = blank.to(visible.dtype).expand(*index.shape[:-1], patches, width)
    return full.scatter(-2, index[..., None].expand(*index.shape, width), visible)
