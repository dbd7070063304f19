"""Alignment with two views: the ECG moves to the embeddings of both cines of the visit.

The phase ``align`` of the earlier generation. Each row contributes a term for each view that it has. Towers
and projections are frozen: the targets are those that the phase ``cmr_mae`` has made, never new ones. A site
without any cine keeps its encoder near the global model, as in ``align``.

Legend: B rows, N rows that have a view, E width of the common space.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch

from cardionets_core.config.generation import LATER, Parts
from cardionets_core.data.batches import Batch
from cardionets_core.data.cohort import Split
from cardionets_core.privacy.counts import DIVISOR, Counts, under
from cardionets_core.tasks.align import ECG_ONLY, PAIR, Align
from cardionets_core.tasks.align_round import (
    EcgOnlyRound,
    PairedRound,
    incoming_embeddings,
    open_pairs,
    paired_moments,
)
from cardionets_core.tasks.base import Modules, Role, Scalar, SiteView, Sums, TaskLoss, count_sums
from cardionets_core.tasks.features import encode_ecg
from cardionets_core.tasks.short_axis import (
    LONG_AXIS,
    SHORT_AXIS,
    short_axis_modules,
    short_axis_name,
    short_axis_site,
)
from cardionets_core.tasks.thin_views import without_thin_kinds

VIEWS = (LONG_AXIS, SHORT_AXIS)


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoViewRound:
    """What a site with cines holds for one round: of each view that it has.

    Attributes:
        of_view: view to its bank, positions and moments.
    """

    of_view: Mapping[str, PairedRound]


class TwoViewAlign(Align):
    """ECG to both cines, the sum of a term a view.

    Options: as ``Align``; the temperature is .1 by default.
    """

    needs = frozenset({"ecg", "cmr"})
    defaults: ClassVar[dict[str, Scalar]] = {**Align.defaults, "temperature": 0.1}
    counts: ClassVar[Counts] = {
        name: count
        for view in VIEWS
        for name, count in under(
            f"{view}/", {**Align.counts, "n_rows": DIVISOR, "n_patients": DIVISOR}
        ).items()
    }

    def __init__(self, options: Mapping[str, Scalar], parts: Parts = LATER) -> None:
        super().__init__(options, parts)
        target = self._kind.target
        self._reads_of_view = tuple(dict.fromkeys((*self.reads, target)))
        self.trains = tuple(name for name in self.trains if name != target)
        self.reads = tuple(dict.fromkeys((*self._reads_of_view, *map(short_axis_name, self._reads_of_view))))
        if self.shares:
            self.batch_keys = frozenset({"ecg", "cmr"})

    def open_round(self, modules: Modules, site: SiteView, role: Role) -> TwoViewRound | EcgOnlyRound:  # type: ignore[override]
        """What ``Align`` holds, of each view that the site has.

        Raises:
            OrderRefusedError: see ``open_pairs``.
        """
        if role.name == ECG_ONLY:
            return incoming_embeddings(modules, site, site.rows(role.needs, "train"))
        held = {}
        for view in VIEWS:
            there = _site_of(view, site)
            rows = there.rows(PAIR, "train")
            # A view of a few people would have its own loss told, which is theirs.
            if site.cohort.patients(rows) >= max(site.smallest_cell, 1):
                own = _modules_of(view, modules)
                held[view] = open_pairs(own, there, rows, kind=self._kind, reads=self._reads_of_view)
        return TwoViewRound(of_view=held)

    def loss(self, modules: Modules, batch: Batch, state: object, *, generator: torch.Generator) -> TaskLoss:
        """The sum over the views of the chosen loss of the rows that have the view.

        Where the loss couples its rows, a view that fewer rows of the batch have than the loss takes gives no
        term. Where it decomposes, each row has the sum of its own terms.
        """
        if not isinstance(state, TwoViewRound):
            return super().loss(modules, batch, state, generator=generator)
        feature_BD = encode_ecg(modules["ecg_encoder"], batch)
        ecg_BE = modules["ecg_projection"](feature_BD)
        # A batch in which no view has enough rows still has a gradient, of 0.
        total, total_B = ecg_BE.sum() * 0.0, ecg_BE.sum(dim=1) * 0.0
        parts = {}
        for view, held in state.of_view.items():
            row_N = (held.bank.entry_R[batch.row_B] >= 0).nonzero()[:, 0]
            if len(row_N) < self.minimum_batch:
                continue
            some = Batch(patient_B=batch.patient_B[row_N], row_B=batch.row_B[row_N])
            own = _modules_of(view, modules)
            found = self.pair_loss(own, held, ecg_BE[row_N], some, generator=generator)
            parts[f"{self.options['loss']}_{view}"] = float(found.detach().mean())
            if self.decomposes:
                total_B = total_B.index_add(0, row_N, found)
            else:
                total = total + found
        phenotypes = [held.phenotype_RK for held in state.of_view.values() if held.phenotype_RK is not None]
        if phenotypes:
            term_B = self.phenotype_term(modules, feature_BD, phenotypes[0][batch.row_B])
            total_B = total_B + term_B
            parts["phenotype"] = float(term_B.detach().mean()) / self._number("phenotype_weight")
        return TaskLoss(
            total=total + total_B.mean(), per_sample_B=total_B if self.decomposes else None, parts=parts
        )

    def statistics(self, modules: Modules, batches: Iterable[Batch], *, smallest_cell: int = 1) -> Sums:
        """Moments of each view's paired embeddings, ``VIEW/...``.

        Zeros of a view that no row has, and of one that too few people have, or lack, to be told of.
        """
        if not self.shares:
            return {}
        everybody: set[int] = set()
        seen: dict[str, set[int]] = {view: set() for view in VIEWS}
        own = {view: _modules_of(view, modules) for view in VIEWS}
        total = {view: paired_moments(own[view], (), target=self._kind.target) for view in VIEWS}
        for batch in batches:
            everybody |= set(batch.patient_B.tolist())
            for view in VIEWS:
                some = _rows_with(view, batch)
                if some is not None:
                    seen[view] |= set(some.patient_B.tolist())
                    found = paired_moments(own[view], (some,), target=self._kind.target)
                    total[view] = {name: total[view][name] + value for name, value in found.items()}
        for view, people in seen.items():
            if any(0 < count < smallest_cell for count in (len(people), len(everybody) - len(people))):
                total[view] = {name: np.zeros_like(value) for name, value in total[view].items()}
        return {f"{view}/{name}": value for view, sums in total.items() for name, value in sums.items()}

    def metric_sums(self, modules: Modules, site: SiteView, *, split: Split, seed: int) -> Sums:
        """Those of ``Align`` for each view, as ``VIEW/...``, over rows that have it."""
        rows = without_thin_kinds(site, site.rows(self.needs, split))
        sums = count_sums(site.cohort, rows)
        for view in VIEWS:
            own, there = _modules_of(view, modules), _site_of(view, site)
            found = super().metric_sums(own, there, split=split, seed=seed)
            sums |= {f"{view}/{name}": value for name, value in found.items()}
        return sums

    def _measured(self, site: SiteView, split: Split) -> np.ndarray:
        rows = site.rows(PAIR, split)
        return rows[np.isin(rows, without_thin_kinds(site, site.rows(self.needs, split)))]

    def metrics(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Those of ``Align``: means over the views that anybody has, and each view's as ``..._VIEW``."""
        found = {"n_rows": float(sums["n_rows"][0]), "n_patients": float(sums["n_patients"][0])}
        views = {}
        for view in VIEWS:
            own = {n.removeprefix(f"{view}/"): value for n, value in sums.items() if n.startswith(f"{view}/")}
            if float(own["n_rows"][0]) > 0:
                views[view] = super().metrics(own)
        for name in next(iter(views.values()), {}):
            if name not in found:
                found[name] = float(np.mean([of_view[name] for of_view in views.values() if name in of_view]))
        for view, of_view in views.items():
            found |= {f"{name}_{view}": value for name, value in of_view.items()}
        return found


def _modules_of(view: str, modules: Modules) -> Modules:
    """All modules, those of the view under the names of the 4-chamber view."""
    return modules if view == LONG_AXIS else short_axis_modules(modules)


def _site_of(view: str, site: SiteView) -> SiteView:
    """The site as a task of that view alone would see it."""
    there = site if view == LONG_AXIS else short_axis_site(site)
    before = f"{view}/"
    shared = {name.removeprefix(before): v for name, v in site.shared.items() if name.startswith(before)}
    return replace(there, shared=shared)


def _rows_with(view: str, batch: Batch) -> Batch | None:
    """The rows of a batch that have a view, whose cines stand as those of the 4-chamber view."""
    cine, known = (
        (batch.cine_BFYX, batch.cine_known_B) if view == LONG_AXIS else (batch.sax_BFYX, batch.sax_known_B)
    )
    if cine is None or known is None or batch.ecg_BLT is None or not bool(known.any()):
        return None
    row_N = known.nonzero()[:, 0]
    return Batch(
        patient_B=batch.patient_B[row_N],
        row_B=batch.row_B[row_N],
        ecg_BLT=batch.ecg_BLT[row_N],
        covariates_BC=None if batch.covariates_BC is None else batch.covariates_BC[row_N],
        cine_BFYX=cine[row_N],
    )
