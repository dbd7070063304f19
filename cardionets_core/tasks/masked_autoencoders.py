"""Pretraining without pairs or labels: reconstruct hidden patches of an ECG or of a cine (SCIENCE section 4).

The two tasks differ in their modules and patches only. Both losses decompose.

Legend: B rows, P patches, V visible patches, S values of a patch; ``...`` a lead axis or nothing.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np
import torch

from cardionets_core.data.batches import Batch
from cardionets_core.data.cohort import Split
from cardionets_core.errors import ConfigError
from cardionets_core.losses import masked_correlation, masked_squared_error
from cardionets_core.models.cmr_encoder import CmrEncoder
from cardionets_core.models.ecg_encoder import EcgEncoder
from cardionets_core.models.masking import draw_mask, visible_count
from cardionets_core.models.patches import patchify_cine, patchify_ecg
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


class MaskedAutoencoder(GradientTask):
    """Mean squared error on hidden patches. The encoder's position table is fixed here.

    Options:
        mask_share: share of the patches that is hidden.
    """

    decomposes = True
    primary = "correlation"
    higher_is_better = True
    defaults: ClassVar[dict[str, Scalar]] = {"mask_share": 0.75}

    def __init__(self, options: Mapping[str, Scalar]) -> None:
        super().__init__(options)
        if not 0.0 < self._number("mask_share") < 1.0:
            raise ConfigError(
                "mask_share lies between 0 and 1, exclusively",
                where=f"study: phases: options of task {self.name}",
            )

    @abstractmethod
    def reconstruct(self, modules: Modules, batch: Batch, *, generator: torch.Generator) -> Reconstruction:
        """Mask, encode and decode a batch."""

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
        """``predicted`` and ``target`` are ``[B, L, P, S]``."""
        encoder = cast(EcgEncoder, modules["ecg_encoder"])
        ecg_BLT = cast(torch.Tensor, batch.ecg_BLT)
        target = patchify_ecg(ecg_BLT, encoder.patch)
        rows, leads, patches, _ = target.shape
        visible = visible_count(patches, self._number("mask_share"))
        mask = draw_mask((rows, leads), patches=patches, visible=visible, generator=generator).to(
            ecg_BLT.device
        )
        tokens = encoder.visible_tokens(ecg_BLT, mask.visible)
        predicted = modules["ecg_decoder"](tokens, mask.visible)
        return Reconstruction(predicted=predicted, target=target, hidden=mask.hidden)


class CmrMaskedAutoencoder(MaskedAutoencoder):
    """Patches run through all frames of the cine; pixels are not normalised per patch."""

    name = "cmr_mae"
    trains = ("cmr_encoder", "cmr_decoder")
    needs = frozenset({"cine"})

    def reconstruct(self, modules: Modules, batch: Batch, *, generator: torch.Generator) -> Reconstruction:
        """``predicted`` and ``target`` are ``[B, P, S]``."""
        encoder = cast(CmrEncoder, modules["cmr_encoder"])
        cine_BFYX = cast(torch.Tensor, batch.cine_BFYX)
        target = patchify_cine(cine_BFYX, encoder.patch)
        rows, patches, _ = target.shape
        visible = visible_count(patches, self._number("mask_share"))
        mask = draw_mask((rows,), patches=patches, visible=visible, generator=generator).to(cine_BFYX.device)
        tokens = encoder.visible_tokens(cine_BFYX, mask.visible)
        predicted = modules["cmr_decoder"](tokens, mask.visible)
        return Reconstruction(predicted=predicted, target=target, hidden=mask.hidden)
