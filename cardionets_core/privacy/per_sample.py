"""Gradients of single patients, each clipped, and their sum (step 7 of the walk).

Comes in: a loss that gives each row its own value, one row a patient. Goes out: the sum of the rows' clipped
gradients, of which adding or removing one patient changes the norm by at most the bound. Two ways, the same
sums: ``layers`` (one pass for many rows, see ``layers``) and ``loop`` (a pass a row, which serves any model).
Nothing here draws noise.

Legend: B rows of a batch, N rows of a part of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch import nn

from cardionets_core.privacy.layers import WatchedLayers, check_rows_apart, is_covered

Mode = Literal["layers", "loop"]
LossOf = Callable[[int, int], torch.Tensor]
"""Losses of the rows from the first to before the second: ``[N]``, each of its own row alone."""
FIRST_ROWS = 8
PART_BYTES = 500_000_000
"""Inputs and gradients of the layers of rows that pass at once: many short rows, or few long ones. More costs
memory and hardly saves time (``simulation.benchmarks.private_steps --part-bytes``)."""


class ClippedSums:
    """Adds up clipped gradients, one batch after the other.

    Args:
        modules: by name; trained are their parameters that ask for gradients.
        clip_norm: C, the largest norm of a row's gradient over all parameters.
        mode: how gradients of single rows are taken.
        part_bytes: that the rows that pass at once may hold in the mode ``layers``; one row passes always.
        first_rows: that pass at once before it is known what a row holds.

    Raises:
        ConfigError: a module mixes the rows of a batch.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        *,
        clip_norm: float,
        mode: Mode = "layers",
        part_bytes: int = PART_BYTES,
        first_rows: int = FIRST_ROWS,
    ) -> None:
        if not clip_norm > 0.0:
            raise ValueError(f"a clip of {clip_norm} leaves nothing; it lies above 0")
        self._modules = list(modules.values())
        check_rows_apart(self._modules)
        self.parameters = [p for module in self._modules for p in module.parameters() if p.requires_grad]
        self.clip_norm = clip_norm
        self.mode = mode
        self._part_bytes = part_bytes
        self._first_rows = first_rows
        self._row_bytes = 0
        self.sums = {parameter: torch.zeros_like(parameter) for parameter in self.parameters}
        self.unusable = 0

    def add(self, loss_of: LossOf, *, rows: int) -> torch.Tensor:
        """Add the clipped gradients of a batch.

        A row whose gradient is not finite adds nothing: an error would tell that it was there.

        Args:
            loss_of: losses of some rows of the batch; asked once for each.
            rows: B; 0 is legal.

        Returns:
            Norm of each row's gradient before it is clipped, float32 ``[B]``; NaN where it was unusable.
        """
        add = self._by_layers if self.mode == "layers" else self._by_rows
        found: list[torch.Tensor] = []
        begin = 0
        while begin < rows:
            end = begin + self._part(rows - begin)
            found.append(add(loss_of, begin, end))
            begin = end
        return torch.cat(found) if found else torch.zeros(0)

    def take(self) -> list[torch.Tensor]:
        """The sums so far, in the order of ``parameters``; they begin anew from zero."""
        taken = [self.sums[parameter] for parameter in self.parameters]
        self.sums = {parameter: torch.zeros_like(parameter) for parameter in self.parameters}
        return taken

    def _part(self, left: int) -> int:
        """How many of the rows that are left pass next: as many as fit, in parts of like size."""
        if self.mode == "loop":
            return 1
        most = max(1, self._part_bytes // self._row_bytes) if self._row_bytes else self._first_rows
        parts = -(-left // most)
        return -(-left // parts)

    def _by_layers(self, loss_of: LossOf, begin: int, end: int) -> torch.Tensor:
        with WatchedLayers(self._modules) as watched:
            gradients = watched.gradients(_checked(loss_of(begin, end), end - begin))
            self._row_bytes = gradients.held_bytes // (end - begin)
            norm_N, bound_N = gradients.square_N.sqrt(), (gradients.square_N + gradients.slack_N).sqrt()
            usable_N = torch.isfinite(bound_N)
            if not bool(usable_N.all()):
                # 0 times a value that is not finite is not 0, so such rows are cut out.
                self.unusable += int((~usable_N).sum())
                norm_N = torch.where(usable_N, norm_N, torch.nan)
                gradients, bound_N = gradients.keep(usable_N), bound_N[usable_N]
            gradients.add_weighted(self.sums, self._scale(bound_N))
        return norm_N

    def _by_rows(self, loss_of: LossOf, begin: int, end: int) -> torch.Tensor:
        loss_N = _checked(loss_of(begin, end), end - begin)
        found: Sequence[torch.Tensor | None] = [None] * len(self.parameters)
        if loss_N.requires_grad:
            found = torch.autograd.grad(loss_N.sum(), self.parameters, allow_unused=True)
        pairs = [(p, g) for p, g in zip(self.parameters, found, strict=True) if g is not None]
        norms = [torch.linalg.vector_norm(gradient.float()) for _, gradient in pairs]
        norm = torch.linalg.vector_norm(torch.stack(norms)) if norms else torch.zeros(())
        if not bool(torch.isfinite(norm)):
            self.unusable += 1
            return torch.full((1,), torch.nan)
        scale = float(self._scale(norm))
        for parameter, gradient in pairs:
            self.sums[parameter].add_(gradient, alpha=scale)
        return norm[None]

    def _scale(self, norm: torch.Tensor) -> torch.Tensor:
        # A norm of 0 gives infinity, and 1 after the clamp.
        return (self.clip_norm / norm).clamp_max(1.0)


def choose_mode(modules: Mapping[str, nn.Module], *, compiled: bool) -> Mode:
    """``layers`` where every trained parameter can be watched and no compiler hides the layers.

    Convolutions over volumes go by rows: Opacus unfolds them, at many times the memory of the volume
    (``simulation.benchmarks.phase_steps --private`` shows both).

    Args:
        modules: the trained ones.
        compiled: whether their blocks are compiled.
    """
    parts = [part for module in modules.values() for part in module.modules()]
    volumes = any(isinstance(part, nn.Conv3d) for part in parts)
    return "loop" if compiled or volumes or not is_covered(list(modules.values())) else "layers"


def _checked(loss_N: torch.Tensor, rows: int) -> torch.Tensor:
    if loss_N.shape != (rows,):
        raise ValueError(f"a loss of shape {tuple(loss_N.shape)} for {rows} rows: each row needs its own")
    return loss_N
