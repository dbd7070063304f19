"""Pretraining without pairs or labels: reconstruct hidden patches of an ECG or of a cine (SCIENCE section 4).

The two tasks differ in their modules and patches only. Both losses decompose.

Legend: B rows, P patches, V visible patches, S values of a patch; ``...`` a lead axis or nothing.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol, cast

import numpy as np
import torch
from torch import nn

from cardionets_core.config.generation import LATER, Parts
from cardionets_core.data.batches import Batch
from cardionets_core.data.cohort import Split
from cardionets_core.errors import ConfigError
from cardionets_core.losses import masked_correlation, masked_squared_error
from cardionets_core.models.masking import draw_mask, visible_count
from cardionets_core.tasks.base import (
    GradientTask,
    Modules,
    Role,
    Scalar,
    SiteView,
    Sums,
    TaskLoss,
    count_sums,
    one,
)
from cardionets_core.tasks.short_axis import VIEW_CHOICE, VIEW_OPTION

MIDDLE_WINDOW = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconstruction:
    """What a masked autoencoder makes of a batch.

    Attributes:
        predicted: ``[B, ..., P, S]``.
        target: ``[B, ..., P, S]``.
        hidden: int64 ``[B, ..., H]``, the patches that count.
    """

    predicted: torch.Tensor
    target: torch.Tensor
    hidden: torch.Tensor


class Patched(Protocol):
    """An encoder that sees a recording in patches, some of them hidden."""

    def patches_of(self, recorded: torch.Tensor) -> torch.Tensor:
        """All patches, in the sequences in which they are hidden: ``[B, ..., P, S]``."""

    def visible_tokens(self, recorded: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
        """Tokens of the visible patches, whose indices are int64 ``[B, ..., V]``."""


class MaskedAutoencoder(GradientTask):
    """Mean squared error on hidden patches. The encoder's position table is fixed here.

    Options:
        mask_share: share of the patches that is hidden.
    """

    decomposes = True
    primary = "correlation"
    higher_is_better = True
    defaults: ClassVar[dict[str, Scalar]] = {"mask_share": 0.75}

    def __init__(self, options: Mapping[str, Scalar], parts: Parts = LATER) -> None:
        super().__init__(options, parts)
        self.mask_share = self._number("mask_share")
        if not 0.0 < self.mask_share < 1.0:
            raise ConfigError(
                "mask_share lies between 0 and 1, exclusively",
                where=f"study: phases: options of task {self.name}",
            )

    @abstractmethod
    def reconstruct(self, modules: Modules, batch: Batch, *, generator: torch.Generator) -> Reconstruction:
        """Mask, encode and decode a batch."""

    def _masked(
        self, encoder: nn.Module, decoder: nn.Module, recorded: torch.Tensor, generator: torch.Generator
    ) -> Reconstruction:
        """Hide patches as the encoder counts them: each sequence of them as many."""
        target = cast(Patched, encoder).patches_of(recorded)
        leading, patches = tuple(target.shape[:-2]), target.shape[-2]
        visible = visible_count(patches, self.mask_share)
        mask = draw_mask(leading, patches=patches, visible=visible, generator=generator).to(recorded.device)
        tokens = cast(Patched, encoder).visible_tokens(recorded, mask.visible)
        return Reconstruction(predicted=decoder(tokens, mask.visible), target=target, hidden=mask.hidden)

    def prepare_modules(self, modules: Modules, role: Role | None = None) -> None:
        """As every task; and the sine-cosine position table of the encoder stays as it is."""
        super().prepare_modules(modules, role)
        position = cast(torch.nn.Parameter, modules[self.trains[0]].position)
        position.requires_grad_(False)

    def loss(self, modules: Modules, batch: Batch, state: object, *, generator: torch.Generator) -> TaskLoss:
        """Mean of the rows' masked squared errors."""
        made = self.reconstruct(modules, batch, generator=generator)
        per_sample_B = masked_squared_error(made.predicted, made.target, hidden=made.hidden)
        total = per_sample_B.mean()
        return TaskLoss(total=total, per_sample_B=per_sample_B, parts={"masked_mse": float(total.detach())})

    def metric_sums(self, modules: Modules, site: SiteView, *, split: Split, seed: int) -> Sums:
        """Sums over rows of masked squared error and of correlation; the middle window of each ECG."""
        rows = site.rows(self.needs, split)
        generator = torch.Generator().manual_seed(seed)
        for name in self.trains:
            modules[name].eval()
        error = correlation = 0.0
        with torch.no_grad():
            for _, batch in site.batches(rows, keys=self.needs, window=MIDDLE_WINDOW):
                made = self.reconstruct(modules, batch, generator=generator)
                error += float(
                    masked_squared_error(made.predicted, made.target, hidden=made.hidden).double().sum()
                )
                correlation += float(
                    masked_correlation(made.predicted, made.target, hidden=made.hidden).sum()
                )
        return {**count_sums(site.cohort, rows), "masked_mse": one(error), "correlation": one(correlation)}

    def metrics(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """``masked_mse`` and ``correlation``, means over rows."""
        rows = float(sums["n_rows"][0])
        found = {"n_rows": rows, "n_patients": float(sums["n_patients"][0])}
        if rows > 0:
            found["masked_mse"] = float(sums["masked_mse"][0]) / rows
            found["correlation"] = float(sums["correlation"][0]) / rows
        return found


class EcgMaskedAutoencoder(MaskedAutoencoder):
    """Patches are hidden in every lead independently, in equal number (after ST-MEM)."""

    name = "ecg_mae"
    trains = ("ecg_encoder", "ecg_decoder")
    needs = frozenset({"ecg"})

    def reconstruct(self, modules: Modules, batch: Batch, *, generator: torch.Generator) -> Reconstruction:
        """``predicted`` and ``target`` are ``[B, L, P, S]``; of the image transformer ``[B, L P, S]``."""
        return self._masked(
            modules["ecg_encoder"], modules["ecg_decoder"], cast(torch.Tensor, batch.ecg_BLT), generator
        )


class EcgImageAutoencoder(EcgMaskedAutoencoder):
    """The ``ecg_mae`` of the earlier generation: more patches are hidden, in all leads together."""

    defaults: ClassVar[dict[str, Scalar]] = {"mask_share": 0.8}


class CmrMaskedAutoencoder(MaskedAutoencoder):
    """Patches run through all frames of the cine; pixels are not normalised per patch.

    Options:
        mask_share: share of the patches that is hidden.
        view: of the cines, ``4ch`` or ``sax``; each view has an encoder of its own.
    """

    name = "cmr_mae"
    trains = ("cmr_encoder", "cmr_decoder")
    needs = frozenset({"cine"})
    defaults: ClassVar[dict[str, Scalar]] = {**MaskedAutoencoder.defaults, **VIEW_OPTION}
    choices: ClassVar[dict[str, tuple[str, ...]]] = VIEW_CHOICE

    def reconstruct(self, modules: Modules, batch: Batch, *, generator: torch.Generator) -> Reconstruction:
        """``predicted`` and ``target`` are ``[B, P, S]``."""
        return self._masked(
            modules["cmr_encoder"], modules["cmr_decoder"], cast(torch.Tensor, batch.cine_BFYX), generator
        )
