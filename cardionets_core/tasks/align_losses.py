"""The losses that the align phase chooses from, by the name of its option ``loss`` (SCIENCE 4 and 5.2).

Each takes a batch of pairs as embedded, with the bank where there is one; without a bank it is the loss of
the batch alone, which is what an evaluation reports.

Legend: B rows of the batch, N entries of the bank, E width of the common space, P positions of phi.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from cardionets_core.losses import (
    Moments,
    bank_info_nce,
    bank_weighted_info_nce,
    batch_moments,
    cosine_distillation,
    dcco_loss,
    distance_weights,
    info_nce,
    share_moments,
    sigmoid_loss,
    weighted_info_nce,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Negatives:
    """The bank as one step sees it.

    Attributes:
        cmr_NE: embeddings.
        patient_N: int64.
        phi_NP: positions, for the weighted loss.
        drawn_from: entries of the bank that these were drawn from; None where they are all.
    """

    cmr_NE: torch.Tensor
    patient_N: torch.Tensor
    phi_NP: torch.Tensor | None = None
    drawn_from: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """A batch of pairs, embedded.

    Attributes:
        ecg_BE: of the ECGs.
        cmr_BE: of the own cines; for the cosine loss the fixed target.
        patient_B: int64.
        temperature: T.
        off_diagonal: lambda of the cross-correlation loss.
        negatives: the bank.
        phi_BP: positions, for the weighted loss.
        sigma: their scale.
        total: moments over all sites, for the cross-correlation loss.
        scale: a of the sigmoid loss.
        bias: b of the sigmoid loss.
    """

    ecg_BE: torch.Tensor
    cmr_BE: torch.Tensor
    patient_B: torch.Tensor
    temperature: float
    off_diagonal: float
    negatives: Negatives | None = None
    phi_BP: torch.Tensor | None = None
    sigma: float = 1.0
    total: Moments | None = None
    scale: torch.Tensor | None = None
    bias: torch.Tensor | None = None

    def first(self, count: int) -> Pairs:
        """The first rows, without what is of a bank or of other sites."""
        some = slice(count)
        return replace(
            self,
            ecg_BE=self.ecg_BE[some],
            cmr_BE=self.cmr_BE[some],
            patient_B=self.patient_B[some],
            phi_BP=None if self.phi_BP is None else self.phi_BP[some],
            negatives=None,
            total=None,
        )

    def same_patient(self, patient_N: torch.Tensor) -> torch.Tensor:
        """Bool [B, N], true where an entry is of the row's patient."""
        return self.patient_B[:, None] == patient_N[None, :]


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignLoss:
    """One of the losses, and what it asks of the task.

    Attributes:
        of: pairs to a scalar, or to one value a row [B] where the loss decomposes.
        target: the module that maps the cine's feature into the common space; trained unless it is
            ``cmr_principal``.
        trains: further modules that it trains.
        reads: further modules that it reads.
        banked: it takes negatives from the bank.
        positioned: it takes positions phi.
        decomposes: as of ``Task``.
        shares: as of ``GradientTask``.
        minimum_batch: as of ``Task``.
    """

    of: Callable[[Pairs], torch.Tensor]
    target: str = "cmr_projection"
    trains: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    banked: bool = False
    positioned: bool = False
    decomposes: bool = False
    shares: bool = False
    minimum_batch: int = 8


def _info_nce(pairs: Pairs) -> torch.Tensor:
    same_BB = pairs.same_patient(pairs.patient_B)
    if pairs.negatives is None:
        return info_nce(pairs.ecg_BE, pairs.cmr_BE, temperature=pairs.temperature, same_patient_BB=same_BB)
    return bank_info_nce(
        pairs.ecg_BE,
        pairs.cmr_BE,
        bank_NE=pairs.negatives.cmr_NE,
        same_patient_BN=pairs.same_patient(pairs.negatives.patient_N),
        temperature=pairs.temperature,
        same_patient_BB=same_BB,
        drawn_from=pairs.negatives.drawn_from,
    )


def _weighted(pairs: Pairs) -> torch.Tensor:
    phi_BP, bank = _given(pairs.phi_BP), pairs.negatives
    weight_BB = distance_weights(
        phi_BP, phi_BP, sigma=pairs.sigma, same_patient_BN=pairs.same_patient(pairs.patient_B)
    )
    if bank is None:
        return weighted_info_nce(
            pairs.ecg_BE, pairs.cmr_BE, weight_BB=weight_BB, temperature=pairs.temperature
        )
    return bank_weighted_info_nce(
        pairs.ecg_BE,
        pairs.cmr_BE,
        bank_NE=bank.cmr_NE,
        weight_BN=distance_weights(
            phi_BP,
            _given(bank.phi_NP),
            sigma=pairs.sigma,
            same_patient_BN=pairs.same_patient(bank.patient_N),
        ),
        weight_BB=weight_BB,
        temperature=pairs.temperature,
        drawn_from=bank.drawn_from,
    )


def _cosine(pairs: Pairs) -> torch.Tensor:
    return cosine_distillation(pairs.ecg_BE, pairs.cmr_BE)


def _sigmoid(pairs: Pairs) -> torch.Tensor:
    return sigmoid_loss(
        pairs.ecg_BE,
        pairs.cmr_BE,
        scale=_given(pairs.scale),
        bias=_given(pairs.bias),
        same_patient_BB=pairs.same_patient(pairs.patient_B),
    )


def _dcco(pairs: Pairs) -> torch.Tensor:
    own = batch_moments(pairs.ecg_BE, pairs.cmr_BE)
    moments = own if pairs.total is None else share_moments(own, pairs.total)
    return dcco_loss(moments, off_diagonal=pairs.off_diagonal)


def _given(value: torch.Tensor | None) -> torch.Tensor:
    if value is None:
        raise ValueError("the pairs lack what this loss takes")
    return value


ALIGN_LOSSES: dict[str, AlignLoss] = {
    "infonce": AlignLoss(of=_info_nce, banked=True),
    "weighted": AlignLoss(of=_weighted, reads=("cmr_principal",), banked=True, positioned=True),
    "cosine": AlignLoss(
        of=_cosine, target="cmr_principal", reads=("cmr_principal",), decomposes=True, minimum_batch=1
    ),
    "sigmoid": AlignLoss(of=_sigmoid, trains=("align_scale",)),
    "dcco": AlignLoss(of=_dcco, shares=True),
}
