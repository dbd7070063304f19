"""Alignment: the ECG's embedding moves to that of the cine of the same visit (SCIENCE 4, 5.2 and 5.3).

The CMR tower is frozen, and the features of a site's cines are made once and kept. A site without cines keeps
its encoder near the global model instead: it never touches the projections into the common space.

Legend: B rows of the batch, N entries of the bank, R rows, D feature's width, E width of the common space,
K phenotypes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import ClassVar, cast

import numpy as np
import torch
from torch import nn

from cardionets_core.config.generation import LATER, Parts
from cardionets_core.data.batches import Batch
from cardionets_core.data.cohort import Split
from cardionets_core.errors import ConfigError
from cardionets_core.evaluation.retrieval import FIXED_GALLERY, draw_gallery
from cardionets_core.losses import (
    batch_moments,
    cosine_distillation,
    dcco_loss,
    masked_smooth_l1,
)
from cardionets_core.models.align_scale import AlignScale
from cardionets_core.privacy.counts import DIVISOR, Counts
from cardionets_core.tasks.align_losses import ALIGN_LOSSES, Pairs
from cardionets_core.tasks.align_metrics import ALIGNMENT_COUNTS, alignment_metrics, alignment_sums
from cardionets_core.tasks.align_round import (
    EcgOnlyRound,
    PairedRound,
    coordinates,
    incoming_embeddings,
    negatives,
    open_pairs,
    paired_moments,
    phi_scale,
    positions,
)
from cardionets_core.tasks.bank import cine_bank
from cardionets_core.tasks.base import (
    GradientTask,
    Modules,
    Role,
    Scalar,
    SiteView,
    Sums,
    TaskLoss,
    count_sums,
)
from cardionets_core.tasks.features import ecg_features, encode_ecg
from cardionets_core.tasks.moment_sums import moment_sums, moments_from_sums

PAIR = frozenset({"ecg", "cine"})
PAIRED, ECG_ONLY = "paired", "ecg-only"
SMALLEST_BANK = 8
MOMENTS = "moments/"


class Align(GradientTask):
    """ECG to cine by one of five losses.

    Options:
        loss: ``infonce``, ``weighted`` (after a phase ``principal``), ``cosine`` (likewise; the only one that
            decomposes), ``sigmoid``, ``dcco``.
        temperature: T of the softmax.
        lam: weight of the off-diagonal of the cross-correlation.
        bank: entries of the bank that a step sees; 0 is all.
        ecg_only: what sites without cines do: ``distil`` from the incoming model, or ``off``.
        ecg_only_weight: share of their samples that counts.
        phenotype_weight: of a SmoothL1 on standardised phenotypes, beside the cosine loss; trains
            ``phenotype_head`` after a phase ``standardise``.
    """

    name = "align"
    private_remedy = (
        "set options: {loss: cosine}, the distance of each row to its own target in the frozen tower "
        "(after a phase principal, which needs secure_aggregation here)"
    )
    needs = PAIR
    primary = "recall@5"
    higher_is_better = True
    counts: ClassVar[Counts] = {"n": DIVISOR, MOMENTS + "n": DIVISOR, **ALIGNMENT_COUNTS}
    defaults: ClassVar[dict[str, Scalar]] = {
        "loss": "infonce",
        "temperature": 0.05,
        "lam": 5e-3,
        "bank": 0,
        "ecg_only": "distil",
        "ecg_only_weight": 0.25,
        "phenotype_weight": 0.0,
    }
    choices: ClassVar[dict[str, tuple[str, ...]]] = {
        "loss": tuple(ALIGN_LOSSES),
        "ecg_only": ("distil", "off"),
    }

    def __init__(self, options: Mapping[str, Scalar], parts: Parts = LATER) -> None:
        super().__init__(options, parts)
        self._kind = kind = ALIGN_LOSSES[str(self.options["loss"])]
        self._check_options()
        phenotypes = self._number("phenotype_weight") > 0.0
        target = () if kind.target in kind.reads else (kind.target,)
        head = ("phenotype_head",) if phenotypes else ()
        standardiser = ("phenotype_standardiser",) if phenotypes else ()
        self.trains = ("ecg_encoder", "ecg_projection", *target, *kind.trains, *head)
        self.reads = ("cmr_encoder", *kind.reads, *standardiser)
        self.decomposes = kind.decomposes
        self.shares = kind.shares
        self.minimum_batch = kind.minimum_batch
        # The bank holds what is needed of the cines; the moments are taken from the batches themselves.
        self.batch_keys = None if kind.shares else frozenset({"ecg"})

    @property
    def roles(self) -> tuple[Role, ...]:
        """Sites with pairs train everything; sites with ECGs alone train the encoder, and no projection."""
        paired = Role(name=PAIRED, needs=self.needs, trains=self.trains)
        if self.options["ecg_only"] == "off":
            return (paired,)
        ecg_only = Role(
            name=ECG_ONLY,
            needs=frozenset({"ecg"}),
            trains=("ecg_encoder",),
            weight=self._number("ecg_only_weight"),
        )
        return (paired, ecg_only)

    def open_round(self, modules: Modules, site: SiteView, role: Role) -> PairedRound | EcgOnlyRound:
        """Features of the training cines, or the incoming model's embeddings of the training ECGs.

        Raises:
            OrderRefusedError: see ``open_pairs``.
        """
        rows = site.rows(role.needs, "train")
        if role.name == ECG_ONLY:
            return incoming_embeddings(modules, site, rows)
        return open_pairs(modules, site, rows, kind=self._kind, reads=self.reads)

    def loss(self, modules: Modules, batch: Batch, state: object, *, generator: torch.Generator) -> TaskLoss:
        """The chosen loss of a batch of pairs, or the distance to the incoming model's embeddings."""
        feature_BD = encode_ecg(modules["ecg_encoder"], batch)
        ecg_BE = modules["ecg_projection"](feature_BD)
        if isinstance(state, EcgOnlyRound):
            distil_B = cosine_distillation(ecg_BE, state.target_RE[state.place_R[batch.row_B]])
            total = distil_B.mean()
            return TaskLoss(total=total, per_sample_B=distil_B, parts={"distil": float(total.detach())})
        held = cast(PairedRound, state)
        found = self.pair_loss(modules, held, ecg_BE, batch, generator=generator)
        parts = {str(self.options["loss"]): float(found.detach().mean())}
        if held.phenotype_RK is not None:
            term_B = self.phenotype_term(modules, feature_BD, held.phenotype_RK[batch.row_B])
            found = found + term_B
            parts["phenotype"] = float(term_B.detach().mean()) / self._number("phenotype_weight")
        return TaskLoss(
            total=found.mean(), per_sample_B=found if self._kind.decomposes else None, parts=parts
        )

    def pair_loss(
        self,
        modules: Modules,
        held: PairedRound,
        ecg_BE: torch.Tensor,
        batch: Batch,
        *,
        generator: torch.Generator,
    ) -> torch.Tensor:
        """The chosen loss of rows with their own cines: a scalar, or ``[B]`` where it decomposes."""
        cine_BD = held.bank.of_rows(batch.row_B)
        pairs = self._pairs(modules, ecg_BE, cine_BD=cine_BD, patient_B=batch.patient_B)
        if self._kind.banked:
            entry_B, cap = held.bank.entry_R[batch.row_B], int(self.options["bank"])
            pairs = replace(pairs, negatives=negatives(modules, held, entry_B, cap=cap, generator=generator))
        return self._kind.of(replace(pairs, total=held.total))

    def phenotype_term(
        self, modules: Modules, feature_BD: torch.Tensor, target_BK: torch.Tensor
    ) -> torch.Tensor:
        """The weighted SmoothL1 on standardised phenotypes, ``[B]``."""
        predicted_BK = modules["phenotype_head"](feature_BD)
        return self._number("phenotype_weight") * masked_smooth_l1(predicted_BK, target_BK)

    def statistics(self, modules: Modules, batches: Iterable[Batch], *, smallest_cell: int = 1) -> Sums:
        """Moments of the paired embeddings over the round's first epoch; zeros of a site without cines."""
        if not self.shares:
            return {}
        return paired_moments(modules, batches, target=self._kind.target)

    def metric_sums(self, modules: Modules, site: SiteView, *, split: Split, seed: int) -> Sums:
        """Retrieval inside the site, one row of each patient, drawn from the seed; see ``alignment_sums``.

        The loss is that of a batch of at most 256 rows without bank. The cross-correlation loss has no mean
        over rows: its moments ``moments/...`` are reported instead and pooled.
        """
        cohort = site.cohort
        rows = self._measured(site, split)
        rows = rows[draw_gallery(cohort.row_patient[rows], seed=seed)]
        width = cast(nn.Linear, modules["ecg_projection"]).out_features if self.shares else 1
        ecg_RE = cmr_RE = torch.zeros(0, width)
        loss = 0.0
        if len(rows):
            for name in (*self.trains, *self.reads):
                modules[name].eval()
            with torch.no_grad():
                pairs = self._gallery(modules, site, rows, split=split)
                ecg_RE, cmr_RE = pairs.ecg_BE, pairs.cmr_BE
                loss = float(self._kind.of(pairs.first(FIXED_GALLERY)).mean())
        moments = moment_sums(batch_moments(ecg_RE, cmr_RE)) if self.shares else {}
        return {
            **count_sums(cohort, rows),
            **alignment_sums(
                ecg_RE.double().cpu().numpy(),
                cmr_RE.double().cpu().numpy(),
                patient_R=cohort.row_patient[rows],
                seed=seed,
                loss=loss,
            ),
            **{MOMENTS + name: value for name, value in moments.items()},
        }

    def metrics(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """See ``alignment_metrics``; the cross-correlation loss is of the pooled moments."""
        found = alignment_metrics(sums)
        if self.shares and "loss" in found:
            own = {name.removeprefix(MOMENTS): value for name, value in sums.items() if MOMENTS in name}
            moments = moments_from_sums(own, device=torch.device("cpu"))
            found["loss"] = float(dcco_loss(moments, off_diagonal=self._number("lam")))
        return found

    def _measured(self, site: SiteView, split: Split) -> np.ndarray:
        """Rows that may be told of, before one of each patient is drawn."""
        return site.rows(PAIR, split)

    def _gallery(self, modules: Modules, site: SiteView, rows: np.ndarray, *, split: Split) -> Pairs:
        """Rows of a split as the evaluation sees them: mean over the windows of each ECG."""
        feature_RD = ecg_features(modules["ecg_encoder"], site, rows).float().to(site.device)
        bank = cine_bank(modules, site, rows, split=split)
        return self._pairs(
            modules,
            modules["ecg_projection"](feature_RD),
            cine_BD=bank.of_rows(torch.from_numpy(rows).to(site.device)),
            patient_B=torch.from_numpy(site.cohort.row_patient[rows].astype(np.int64)).to(site.device),
        )

    def _pairs(
        self, modules: Modules, ecg_BE: torch.Tensor, *, cine_BD: torch.Tensor, patient_B: torch.Tensor
    ) -> Pairs:
        fixed = self._kind.target == "cmr_principal"
        pairs = Pairs(
            ecg_BE=ecg_BE,
            cmr_BE=coordinates(modules, cine_BD) if fixed else modules[self._kind.target](cine_BD),
            patient_B=patient_B,
            temperature=self._number("temperature"),
            off_diagonal=self._number("lam"),
        )
        if self._kind.positioned:
            pairs = replace(pairs, phi_BP=positions(modules, cine_BD), sigma=phi_scale(modules))
        if "align_scale" in self.trains:
            learned = cast(AlignScale, modules["align_scale"])
            pairs = replace(pairs, scale=learned.scale, bias=learned.bias)
        return pairs

    def _check_options(self) -> None:
        cap, share = int(self.options["bank"]), self._number("ecg_only_weight")
        faults = {
            "temperature is above 0": self._number("temperature") > 0.0,
            "lam is 0 or more": self._number("lam") >= 0.0,
            "ecg_only_weight lies above 0 and is at most 1": 0.0 < share <= 1.0,
            "phenotype_weight is 0 or more": self._number("phenotype_weight") >= 0.0,
            "phenotype_weight goes with the loss cosine": self._number("phenotype_weight") == 0.0
            or self._kind.decomposes,
            f"bank is 0 (all) or at least {SMALLEST_BANK}": cap == 0 or cap >= SMALLEST_BANK,
            "bank goes with the losses infonce and weighted": cap == 0 or self._kind.banked,
        }
        wrong = [rule for rule, holds in faults.items() if not holds]
        if wrong:
            raise ConfigError("; ".join(wrong), where="study: phases: options of task align")
