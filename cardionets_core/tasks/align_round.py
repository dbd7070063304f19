"""What a site holds for one round of the align phase, and how it is made (SCIENCE 5.2b, 5.2f and 5.3).

Legend: B rows of the batch, N entries of the bank, R rows, D feature's width, E width of the common space,
P principal coordinates, K phenotypes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from torch import nn

from cardionets_core.data.batches import Batch
from cardionets_core.errors import OrderRefusedError
from cardionets_core.losses import Moments, batch_moments
from cardionets_core.models.solved import CmrPrincipal, PhenotypeStandardiser
from cardionets_core.tasks.align_losses import AlignLoss, Negatives
from cardionets_core.tasks.bank import Bank, cine_bank, draw_entries
from cardionets_core.tasks.base import Modules, SiteView, Sums
from cardionets_core.tasks.features import ecg_features, encode_ecg
from cardionets_core.tasks.moment_sums import moment_sums, moments_from_sums
from cardionets_core.tasks.principal import default_components


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedRound:
    """What a site with pairs holds for one round.

    Attributes:
        bank: features of its training cines.
        phi_NP: positions of the bank's entries, for the weighted loss.
        total: moments over all sites, for the cross-correlation loss.
        phenotype_RK: standardised, NaN where missing, of all rows of the cohort.
    """

    bank: Bank
    phi_NP: torch.Tensor | None = None
    total: Moments | None = None
    phenotype_RK: torch.Tensor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EcgOnlyRound:
    """What a site without pairs holds for one round.

    Attributes:
        target_RE: embedding of each training row by the model that came in, mean of its evaluation windows.
        place_R: int64, where each row of the cohort stands in ``target_RE``.
    """

    target_RE: torch.Tensor
    place_R: torch.Tensor


def open_pairs(
    modules: Modules, site: SiteView, rows: np.ndarray, *, kind: AlignLoss, reads: Sequence[str]
) -> PairedRound:
    """What the loss takes of the whole site.

    Args:
        modules: as they came in.
        site: with the round's statistics, where the loss shares some.
        rows: int64, its training rows.
        kind: the loss.
        reads: modules that the task reads.

    Raises:
        OrderRefusedError: principal components that were never solved, or statistics that did not come.
    """
    state = PairedRound(bank=cine_bank(modules, site, rows, split="train"))
    if "cmr_principal" in reads:
        _refuse_unsolved(cast(CmrPrincipal, modules["cmr_principal"]))
    if kind.positioned:
        state = replace(state, phi_NP=positions(modules, state.bank.feature_ND.float()))
    if kind.shares:
        if not site.shared:
            raise OrderRefusedError("the round's statistics are absent", where="order", remedy="send them")
        state = replace(state, total=moments_from_sums(site.shared, device=site.device))
    if "phenotype_standardiser" in reads:
        standardiser = cast(PhenotypeStandardiser, modules["phenotype_standardiser"])
        values_RK = torch.from_numpy(site.cohort.phenotypes.astype(np.float32)).to(site.device)
        with torch.no_grad():
            state = replace(state, phenotype_RK=standardiser.standardise(values_RK))
    return state


def incoming_embeddings(modules: Modules, site: SiteView, rows: np.ndarray) -> EcgOnlyRound:
    """The embeddings that a site without pairs holds on to; made before the round's first step.

    Args:
        modules: as they came in.
        site: the site.
        rows: int64, its training rows.
    """
    encoder = modules["ecg_encoder"]
    trained = encoder.training
    with torch.no_grad():
        feature_RD = ecg_features(encoder, site, rows).float().to(site.device)
        target_RE = modules["ecg_projection"](feature_RD).float()
    encoder.train(trained)
    place_R = torch.full((len(site.cohort.row_ecg),), -1, dtype=torch.int64)
    place_R[torch.from_numpy(rows)] = torch.arange(len(rows))
    return EcgOnlyRound(target_RE=target_RE, place_R=place_R.to(site.device))


def coordinates(modules: Modules, cine_BD: torch.Tensor) -> torch.Tensor:
    """Centred principal coordinates [B, P], in fp32 also under autocast: they are differences."""
    with torch.no_grad(), torch.autocast(cine_BD.device.type, enabled=False):
        return modules["cmr_principal"](cine_BD)


def positions(modules: Modules, cine_BD: torch.Tensor) -> torch.Tensor:
    """Positions of the weighted loss: the first ``min(128, D/2)`` coordinates."""
    return coordinates(modules, cine_BD)[:, : default_components(cine_BD.shape[1])]


def phi_scale(modules: Modules) -> float:
    """sigma of the positions, in the unit of the cine's feature."""
    return math.sqrt(float(cast(CmrPrincipal, modules["cmr_principal"]).sigma_squared.detach()))


def negatives(
    modules: Modules, held: PairedRound, entry_B: torch.Tensor, *, cap: int, generator: torch.Generator
) -> Negatives:
    """The bank as a step sees it: the projection Pc applied anew, with its gradient."""
    bank = held.bank
    chosen = draw_entries(bank, entry_B, cap=cap, generator=generator)
    some = slice(None) if chosen is None else chosen
    return Negatives(
        cmr_NE=modules["cmr_projection"](bank.feature_ND[some].float()),
        patient_N=bank.patient_N[some],
        phi_NP=None if held.phi_NP is None else held.phi_NP[some],
        drawn_from=None if chosen is None else len(bank.feature_ND),
    )


def paired_moments(modules: Modules, batches: Iterable[Batch], *, target: str) -> Sums:
    """Sums behind the moments of the paired embeddings; zeros of a site whose batches hold no cines.

    Args:
        modules: as they came in; ``ecg_projection`` gives the width of the common space.
        batches: of one epoch.
        target: the module that maps a cine's feature into the common space.
    """
    nobody = torch.zeros(0, cast(nn.Linear, modules["ecg_projection"]).out_features)
    total = moment_sums(batch_moments(nobody, nobody))
    for batch in batches:
        if batch.cine_BFYX is None:
            break
        ecg_BE = modules["ecg_projection"](encode_ecg(modules["ecg_encoder"], batch))
        # In half precision, as the bank holds the features that the steps will see.
        cine_BD = modules["cmr_encoder"](batch.cine_BFYX).half().float()
        found = moment_sums(batch_moments(ecg_BE, modules[target](cine_BD)))
        total = {name: total[name] + value for name, value in found.items()}
    return total


def _refuse_unsolved(principal: CmrPrincipal) -> None:
    """A projection that was never fitted is no target; one of features that do not vary has no scale."""
    if not bool(principal.mean.any()) or not float(principal.sigma_squared.detach()) > 0.0:
        raise OrderRefusedError(
            "the principal components were never solved, or the cine features do not vary",
            where="task align: module cmr_principal",
            remedy="train cmr_encoder, then put a phase principal before align",
        )
