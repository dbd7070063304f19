"""Pretraining of two CMR towers: a masked autoencoder for each view, and the two views drawn together.

The phase ``cmr_mae`` of the earlier generation. A site takes part with what it holds: rows with both views
train both towers and their projections, a site with one view trains that view's tower alone.

The pose (crop, rotation) is drawn once for both views of a row, and hearts are never mirrored. The mask is
drawn once a batch. The projections see whole cines, as the align phase will: a target made of half-hidden
cines would be another one.

Legend: B rows, F frames, Y rows and X columns of pixels, P patches, S values of a patch, H hidden patches, E
width of the common space.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, cast

import numpy as np
import torch
from torch import nn

from cardionets_core.config.generation import LATER, Parts
from cardionets_core.data.batches import Batch
from cardionets_core.data.cohort import Split
from cardionets_core.errors import ConfigError
from cardionets_core.evaluation.retrieval import FIXED_GALLERY, draw_gallery
from cardionets_core.losses import cosine_distillation, info_nce, masked_correlation, masked_squared_error
from cardionets_core.models.masking import draw_mask, visible_count
from cardionets_core.models.swin import CmrSwin
from cardionets_core.models.two_view_augmentation import draw_pose, pose_cine
from cardionets_core.privacy.counts import DIVISOR, Counts, under
from cardionets_core.tasks.align_metrics import ALIGNMENT_COUNTS, alignment_metrics, alignment_sums
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
from cardionets_core.tasks.masked_autoencoders import Reconstruction
from cardionets_core.tasks.short_axis import LONG_AXIS, SHORT_AXIS
from cardionets_core.tasks.thin_views import without_thin_kinds
from cardionets_core.tasks.view_rows import VIEWS, ViewRows, projected, reconstruction, view_rows

PAIRS, BACK = "views/", "4ch_to_sax"
SMALLEST_CONTRAST = 8
MEASURED = ("n", "masked_mse", "correlation")
EITHER, BOTH = frozenset({"cmr"}), frozenset({"cine", "sax"})


class TwoViewPretraining(GradientTask):
    """``MSE_4ch + MSE_sax + contrast``, each over the rows that have what it takes.

    Options:
        mask_share: share of the patches that is hidden.
        contrast: how a row's two views are drawn together: ``clip`` (against the other rows of the batch),
            ``cosine`` (row by row; it decomposes, and pushes nobody apart), ``off``.
        temperature: T of ``clip``.
        augment: crop, resize and rotate in training.
    """

    name = "cmr_mae"
    private_remedy = (
        "set options: {contrast: cosine}, which draws the two views of a row together and looks at no other"
    )
    trains: tuple[str, ...] = (
        "cmr_encoder",
        "cmr_decoder",
        "cmr_projection",
        "sax_encoder",
        "sax_decoder",
        "sax_projection",
    )
    needs = EITHER
    primary = "correlation"
    higher_is_better = True
    defaults: ClassVar[dict[str, Scalar]] = {
        "mask_share": 0.75,
        "contrast": "clip",
        "temperature": 0.1,
        "augment": True,
    }
    choices: ClassVar[dict[str, tuple[str, ...]]] = {"contrast": ("clip", "cosine", "off")}
    counts: ClassVar[Counts] = {
        **{f"{view}/n": DIVISOR for view in VIEWS},
        f"{PAIRS}n_rows": DIVISOR,
        f"{PAIRS}n_patients": DIVISOR,
        **under(PAIRS, ALIGNMENT_COUNTS),
    }

    def __init__(self, options: Mapping[str, Scalar], parts: Parts = LATER) -> None:
        super().__init__(options, parts)
        where = f"study: phases: options of task {self.name}"
        if not 0.0 < self._number("mask_share") < 1.0:
            raise ConfigError("mask_share lies between 0 and 1, exclusively", where=where)
        if not self._number("temperature") > 0.0:
            raise ConfigError("temperature is above 0", where=where)
        self.decomposes = self.options["contrast"] != "clip"
        self.minimum_batch = 1 if self.decomposes else SMALLEST_CONTRAST
        if self.options["contrast"] == "off":
            # Never trained here: so no phase after this one may take them for targets.
            self.trains = tuple(name for name in self.trains if not name.endswith("projection"))

    @property
    def roles(self) -> tuple[Role, ...]:
        """With both views; with the 4-chamber view alone; with the short axis alone."""
        return (
            Role(name="both-views", needs=BOTH, takes=EITHER, trains=self.trains),
            Role(name="long-axis", needs=frozenset({"cine"}), trains=("cmr_encoder", "cmr_decoder")),
            Role(name="short-axis", needs=frozenset({"sax"}), trains=("sax_encoder", "sax_decoder")),
        )

    def rows_behind(self, module: str, site: SiteView, rows: np.ndarray) -> np.ndarray:
        """Rows that have the module's view; of a projection those that have both, if they make a contrast.

        All rows where the others are of fewer people than the site tells of.
        """
        has = {view: site.cohort.items(view)[rows] >= 0 for view in VIEWS}
        chosen = has[SHORT_AXIS if module.startswith("sax_") else LONG_AXIS]
        if module.endswith("projection"):
            chosen = has[LONG_AXIS] & has[SHORT_AXIS]
            if chosen.sum() < self.minimum_batch:
                return rows[:0]
        others = site.cohort.patients(rows[~chosen])
        return rows if 0 < others < site.smallest_cell else rows[chosen]

    def loss(self, modules: Modules, batch: Batch, state: object, *, generator: torch.Generator) -> TaskLoss:
        """Reconstruct each view's hidden patches; bring the views of a row together."""
        views = self._posed(modules, batch, generator=generator)
        hidden_H = self._mask(views, generator=generator)
        total_B = torch.zeros(batch.size, device=batch.patient_B.device)
        parts = {}
        for name, view in views.items():
            error_B = self._errors(view, hidden_H)["masked_mse"] * view.known_B
            total_B = total_B + error_B
            parts[f"masked_mse_{name}"] = float(error_B.detach().sum() / view.known_B.sum().clamp_min(1))
        coupled, alone_B = self._contrast(views, batch.patient_B)
        total_B = total_B + alone_B
        if self.options["contrast"] != "off" and len(views) == len(VIEWS):
            parts[str(self.options["contrast"])] = float(coupled.detach() + alone_B.detach().mean())
        total = total_B.mean() + coupled
        return TaskLoss(total=total, per_sample_B=total_B if self.decomposes else None, parts=parts)

    def reconstruct(self, modules: Modules, batch: Batch, *, generator: torch.Generator) -> Reconstruction:
        """What the tower of the 4-chamber view makes of its cines with hidden patches, in its own pixels."""
        view = view_rows(modules, batch)[LONG_AXIS]
        hidden_BH = self._mask({LONG_AXIS: view}, generator=generator).expand(batch.size, -1)
        return reconstruction(view, hidden_BH)

    def metric_sums(self, modules: Modules, site: SiteView, *, split: Split, seed: int) -> Sums:
        """For each view ``VIEW/n``, ``VIEW/masked_mse`` and ``VIEW/correlation``; ``views/...`` of both.

        The latter are ``alignment_sums`` of the two projections, from the short axis to the 4-chamber view,
        over one row with both views of each patient.
        """
        rows = without_thin_kinds(site, site.rows(EITHER, split))
        generator = torch.Generator().manual_seed(seed)
        for name in self.trains:
            modules[name].eval()
        sums = {f"{view}/{name}": one(0.0) for view in VIEWS for name in MEASURED}
        with torch.no_grad():
            for _, batch in site.batches(rows, keys=EITHER, window=0):
                views = view_rows(modules, batch)
                hidden_H = self._mask(views, generator=generator)
                for name, view in views.items():
                    found = {"n": view.known_B.double(), **self._errors(view, hidden_H)}
                    for kind, value_B in found.items():
                        key = f"{name}/{kind}"
                        sums[key] = sums[key] + float((value_B.double() * view.known_B).sum())
        return {**count_sums(site.cohort, rows), **sums, **self._pair_sums(modules, site, rows, seed=seed)}

    def metrics(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """``masked_mse`` and ``correlation``, means over the views' means, each also of a view by itself.

        ``views/recall@5`` and so on: how well a patient's 4-chamber view is found from the short axis.
        """
        found = {"n_rows": float(sums["n_rows"][0]), "n_patients": float(sums["n_patients"][0])}
        for kind in ("masked_mse", "correlation"):
            means = {
                view: float(sums[f"{view}/{kind}"][0]) / float(sums[f"{view}/n"][0])
                for view in VIEWS
                if float(sums[f"{view}/n"][0]) > 0
            }
            found |= {f"{kind}_{view}": value for view, value in means.items()}
            if means:
                found[kind] = float(np.mean(list(means.values())))
        pairs = {name.removeprefix(PAIRS): value for name, value in sums.items() if name.startswith(PAIRS)}
        if pairs and float(pairs["n_rows"][0]) > 0:
            measured = alignment_metrics(pairs).items()
            found |= {PAIRS + name.replace("cmr_to_ecg", BACK): value for name, value in measured}
        return found

    def _posed(self, modules: Modules, batch: Batch, *, generator: torch.Generator) -> dict[str, ViewRows]:
        views = view_rows(modules, batch)
        if not self.options["augment"]:
            return views
        pose = draw_pose(batch.size, generator=generator)
        return {
            name: ViewRows(
                modules=view.modules, cine_BFYX=pose_cine(view.cine_BFYX, pose), known_B=view.known_B
            )
            for name, view in views.items()
        }

    def _mask(self, views: Mapping[str, ViewRows], *, generator: torch.Generator) -> torch.Tensor:
        """The hidden patches of the batch, int64 [H]; both towers cut a cine into as many."""
        tower = cast(CmrSwin, next(iter(views.values())).modules["cmr_encoder"])
        visible = visible_count(tower.patches, self._number("mask_share"))
        return draw_mask((), patches=tower.patches, visible=visible, generator=generator).hidden

    @staticmethod
    def _errors(view: ViewRows, hidden_H: torch.Tensor) -> dict[str, torch.Tensor]:
        """``masked_mse`` and ``correlation`` of each row, [B]."""
        hidden_BH = hidden_H.to(view.cine_BFYX.device).expand(len(view.cine_BFYX), -1)
        made = reconstruction(view, hidden_BH)
        found = {"masked_mse": masked_squared_error(made.predicted, made.target, hidden=made.hidden)}
        if not torch.is_grad_enabled():
            found["correlation"] = masked_correlation(made.predicted, made.target, hidden=made.hidden)
        return found

    def _contrast(
        self, views: Mapping[str, ViewRows], patient_B: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What couples the rows, a scalar, and what is of each row alone, [B]; one of them is 0."""
        none, none_B = (
            torch.zeros((), device=patient_B.device),
            torch.zeros(len(patient_B), device=patient_B.device),
        )
        if self.options["contrast"] == "off" or len(views) < len(VIEWS):
            return none, none_B
        known_B = views[LONG_AXIS].known_B & views[SHORT_AXIS].known_B
        row_N = known_B.nonzero()[:, 0]
        if not len(row_N) or (self.options["contrast"] == "clip" and len(row_N) < SMALLEST_CONTRAST):
            return none, none_B
        # All rows pass the towers, so that the gradient of a row can be told from those of the others.
        long_NE, short_NE = (projected(views[name])[row_N] for name in VIEWS)
        if self.options["contrast"] == "clip":
            patient_N = patient_B[row_N]
            return (
                info_nce(
                    short_NE,
                    long_NE,
                    temperature=self._number("temperature"),
                    same_patient_BB=patient_N[:, None] == patient_N[None, :],
                ),
                none_B,
            )
        pulled_N = 0.5 * (cosine_distillation(short_NE, long_NE) + cosine_distillation(long_NE, short_NE))
        return none, none_B.index_add(0, row_N, pulled_N)

    def _pair_sums(self, modules: Modules, site: SiteView, rows: np.ndarray, *, seed: int) -> Sums:
        if self.options["contrast"] == "off":
            return {}
        cohort = site.cohort
        rows = rows[(cohort.items(LONG_AXIS)[rows] >= 0) & (cohort.items(SHORT_AXIS)[rows] >= 0)]
        rows = rows[draw_gallery(cohort.row_patient[rows], seed=seed)]
        width = cast(nn.Linear, modules["cmr_projection"]).out_features
        found: dict[str, list[torch.Tensor]] = {view: [torch.zeros(0, width)] for view in VIEWS}
        with torch.no_grad():
            for _, batch in site.batches(rows, keys=BOTH, window=0):
                for name, view in view_rows(modules, batch).items():
                    found[name].append(projected(view).float().cpu())
        long_RE, short_RE = (torch.cat(found[view]) for view in VIEWS)
        loss = 0.0
        if len(rows):
            first = slice(FIXED_GALLERY)
            temperature = self._number("temperature")
            loss = float(info_nce(short_RE[first], long_RE[first], temperature=temperature))
        sums = {
            **count_sums(cohort, rows),
            **alignment_sums(
                short_RE.double().numpy(),
                long_RE.double().numpy(),
                patient_R=cohort.row_patient[rows],
                seed=seed,
                loss=loss,
            ),
        }
        return {PAIRS + name: value for name, value in sums.items()}
