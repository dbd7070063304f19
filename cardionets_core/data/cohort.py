"""An opened cache: what training and evaluation see of a site (between steps 4 and 5 of the walk).

Comes in: packed arrays (memory maps or plain arrays) and the columns of the manifest. Goes out: rows of a
split, and batches of those rows. No identifier is left here: a person is a number.

Legend: R rows, L leads, T samples, F frames, Y rows and X columns of pixels, K phenotypes, D labels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch

from cardionets_core.data.batches import Batch
from cardionets_core.data.cine_sizes import CineSizes
from cardionets_core.data.covariates import covariates_of
from cardionets_core.data.records import DISEASES, LABELS, LEADS, VIEWS
from cardionets_core.data.window_kinds import windows_of
from cardionets_core.data.windows import InputShape, ShownView, evaluation_starts

ECG_RATE_HZ = 250.0
ECG_MV_PER_COUNT = 0.001
CINE_FRAMES = 50
CINE_PIXELS = 96
SPLITS: tuple[str, ...] = ("train", "validation", "test")
SEXES: tuple[str, ...] = ("F", "M")

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Cohort:
    """Everything of one site that may be trained on.

    A row is one recording: an ECG with the cine of the same visit (if there is one), or a cine alone.

    Attributes:
        site: name of the site.
        digest: SHA-256 of the cache's manifest; two caches with one digest hold the same bytes.
        ecg_counts: int16, flat; record i is ``[L, ecg_samples[i]]``, stored at ``L * ecg_offsets[i]``.
        ecg_offsets: int64 [records], in samples; in any order, and with gaps between the records.
        ecg_samples: int64 [records].
        cines: uint8 [items, 50, 96, 96]; an item that no row names may be blank.
        row_patient: int64 [R].
        row_split: int8 [R], index into ``SPLITS``.
        row_ecg: int64 [R], index of the record, or -1.
        row_cine: int64 [R], item of the cine, or -1: of the 4-chamber one, unless ``of_view`` chose another.
        phenotypes: float32 [R, K], NaN where missing.
        diseases: float32 [R, D] in the order of ``LABELS``: five diseases, NaN where not assessed, and three
            subtypes of cardiomyopathy, one of them 1 or all NaN.
        refusals: reason of refusal to number of records, for the report.
        row_views: other views that the site keeps, each int64 [R], item or -1; that of ``row_cine`` may be
            among them.
        row_age_years: float32 [R] at the visit, NaN where unknown.
        row_sex: int8 [R], index into ``SEXES``, -1 where unknown.
    """

    site: str
    digest: str
    ecg_counts: np.ndarray
    ecg_offsets: np.ndarray
    ecg_samples: np.ndarray
    cines: np.ndarray
    row_patient: np.ndarray
    row_split: np.ndarray
    row_ecg: np.ndarray
    row_cine: np.ndarray
    phenotypes: np.ndarray
    diseases: np.ndarray
    refusals: dict[str, int] = field(default_factory=dict)
    row_views: dict[str, np.ndarray] = field(default_factory=dict)
    row_age_years: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.float32))
    row_sex: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int8))
    _sizes: CineSizes = field(default_factory=CineSizes, repr=False)

    def __post_init__(self) -> None:
        """Nothing is known of people of whom nothing was given."""
        rows = len(self.row_patient)
        if len(self.row_age_years) != rows:
            object.__setattr__(self, "row_age_years", np.full(rows, np.nan, dtype=np.float32))
        if len(self.row_sex) != rows:
            object.__setattr__(self, "row_sex", np.full(rows, -1, dtype=np.int8))

    def rows(self, needs: frozenset[str], split: Split, shape: InputShape) -> np.ndarray:
        """Rows of a split that hold all that is needed.

        Args:
            needs: any of ``ecg``, ``cine`` (of ``row_cine``), ``sax`` (a short-axis cine), ``cmr`` (a
                4-chamber or a short-axis cine), ``phenotypes`` (any value known), ``labels`` (any of the five
                diseases known), ``subtype`` (known). Without ``ecg``, each cine appears once: with ``cmr``
                each pair of a 4-chamber and a short-axis cine.
            split: ``train``, ``validation`` or ``test``.
            shape: recordings shorter than its window are left out.

        Returns:
            int64, ascending.
        """
        keep = self.row_split == SPLITS.index(split)
        if "ecg" in needs:
            keep &= self.row_ecg >= 0
            if len(self.ecg_samples):
                keep &= np.where(
                    self.row_ecg >= 0,
                    self.ecg_samples[np.maximum(self.row_ecg, 0)] >= shape.ecg_samples,
                    False,
                )
        if "cine" in needs:
            keep &= self.row_cine >= 0
        if "sax" in needs:
            keep &= self.items("sax") >= 0
        if "cmr" in needs:
            keep &= (self.items("4ch") >= 0) | (self.items("sax") >= 0)
        if "phenotypes" in needs:
            keep &= ~np.isnan(self.phenotypes).all(axis=1)
        if "labels" in needs:
            keep &= ~np.isnan(self.diseases[:, : len(DISEASES)]).all(axis=1)
        if "subtype" in needs:
            keep &= ~np.isnan(self.diseases[:, len(DISEASES) :]).all(axis=1)
        rows = np.flatnonzero(keep)
        shown = [self.row_cine] if "cine" in needs else []
        shown += [self.items("4ch")] if "cmr" in needs else []
        shown += [self.items("sax")] if needs & {"sax", "cmr"} else []
        if "ecg" not in needs and shown:
            _, first = np.unique(np.stack(shown, axis=1)[rows], axis=0, return_index=True)
            rows = rows[np.sort(first)]
        return rows

    def items(self, view: str) -> np.ndarray:
        """Item of a view's cine of each row, int64 [R]; -1 where there is none or it is not kept."""
        if view in self.row_views:
            return self.row_views[view]
        return self.row_cine if view == "4ch" else np.full(len(self.row_patient), -1, dtype=np.int64)

    def of_view(self, view: str) -> Cohort:
        """The same cohort with a view's cines in ``row_cine``; all -1 where the site does not keep it.

        Digest and resampled cines are shared. The 4-chamber cines of another view stay in ``row_views``.
        """
        others = {name: items for name, items in self.row_views.items() if name != "4ch"}
        if view != "4ch":
            others["4ch"] = self.items("4ch")
        return replace(self, row_cine=self.items(view), row_views=others)

    def patients(self, rows: np.ndarray) -> int:
        """Number of different people among the rows."""
        return len(np.unique(self.row_patient[rows]))

    def batch(
        self,
        rows: np.ndarray,
        *,
        keys: frozenset[str],
        shape: InputShape,
        generator: np.random.Generator | None = None,
        window: int | None = None,
    ) -> Batch:
        """Tensors of some rows.

        Args:
            rows: int64 [B]; B = 0 is legal.
            keys: what to load: any of ``ecg``, ``cine`` (of ``row_cine``, which show ``shape.view``), ``sax``
                (the short axis), ``cmr`` (the 4-chamber view as ``cine_BFYX``, the short axis, and which
                rows have which), ``phenotypes``, ``labels``.
            shape: sizes of the tensors.
            generator: draws a uniform random window for each ECG (training).
            window: index of the evaluation window (0 to 2); a recording with fewer gives its last.
                Exactly one of ``generator`` and ``window`` is needed where ``ecg`` is asked for.
        """
        rows = np.asarray(rows, dtype=np.int64)
        ecg = covariates = cine = sax = phenotypes = labels = None
        known: dict[str, torch.Tensor] = {}
        if "ecg" in keys:
            if (generator is None) == (window is None):
                raise ValueError("an ECG batch needs exactly one of generator and window")
            records = self.row_ecg[rows]
            totals = self.ecg_samples[records]
            starts = [self._start(int(total), shape.ecg_samples, generator, window) for total in totals]
            windows = windows_of(
                shape,
                self.ecg_counts,
                len(LEADS) * self.ecg_offsets[records],
                totals,
                np.array(starts, dtype=np.int64),
                generator=generator,
            )
            ecg = torch.from_numpy(windows)
            if shape.covariates:
                told = covariates_of(self.row_age_years[rows], self.row_sex[rows])
                covariates = torch.from_numpy(told)
        if "cine" in keys and "cmr" not in keys:
            cine = self._sizes.load(self.cines, self.row_cine[rows], shape=shape, view=shape.view)
        if keys & {"sax", "cmr"}:
            sax, known["sax"] = self._shown(rows, shape=shape, view="sax")
        if "cmr" in keys:
            cine, known["cine"] = self._shown(rows, shape=shape, view="4ch")
        if "phenotypes" in keys:
            phenotypes = torch.from_numpy(self.phenotypes[rows].astype(np.float32))
        if "labels" in keys:
            labels = torch.from_numpy(self.diseases[rows].astype(np.float32))
        return Batch(
            patient_B=torch.from_numpy(self.row_patient[rows].astype(np.int64)),
            row_B=torch.from_numpy(rows.copy()),
            ecg_BLT=ecg,
            covariates_BC=covariates,
            cine_BFYX=cine,
            sax_BFYX=sax,
            phenotypes_BK=phenotypes,
            labels_BD=labels,
            cine_known_B=known["cine"] if "cmr" in keys else None,
            sax_known_B=known["sax"] if "cmr" in keys else None,
        )

    def _shown(
        self, rows: np.ndarray, *, shape: InputShape, view: ShownView
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Cines of a view, zeros where a row has none, and bool [B], which have one."""
        items = self.items(view)[rows]
        known = torch.from_numpy(items >= 0)
        found = self._sizes.load(self.cines, items[items >= 0], shape=shape, view=view)
        cines = found.new_zeros((len(rows), *found.shape[1:]))
        cines[known] = found
        return cines, known

    @staticmethod
    def _start(total: int, length: int, generator: np.random.Generator | None, window: int | None) -> int:
        if generator is not None:
            return int(generator.integers(0, total - length + 1))
        starts = evaluation_starts(total, length)
        return starts[min(window or 0, len(starts) - 1)]

    def ecg_mv(self, record: int, start: int = 0, samples: int | None = None) -> np.ndarray:
        """Float32 [L, T] in mV at 250 Hz: the filtered recording, or a window of it."""
        total = int(self.ecg_samples[record])
        begin = len(LEADS) * int(self.ecg_offsets[record])
        counts = self.ecg_counts[begin : begin + len(LEADS) * total].reshape(len(LEADS), total)
        stop = total if samples is None else start + samples
        return counts[:, start:stop].astype(np.float32) * np.float32(ECG_MV_PER_COUNT)


def empty_cohort(*, site: str, phenotypes: int) -> Cohort:
    """A cohort of nobody; ``phenotypes`` is the number of columns."""
    none = np.zeros(0, dtype=np.int64)
    return Cohort(
        site=site,
        digest="",
        ecg_counts=np.zeros(0, dtype=np.int16),
        ecg_offsets=none,
        ecg_samples=none,
        cines=np.zeros((0, CINE_FRAMES, CINE_PIXELS, CINE_PIXELS), dtype=np.uint8),
        row_patient=none,
        row_split=none.astype(np.int8),
        row_ecg=none,
        row_cine=none,
        phenotypes=np.zeros((0, phenotypes), dtype=np.float32),
        diseases=np.zeros((0, len(LABELS)), dtype=np.float32),
    )


def concatenate(cohorts: Sequence[Cohort], *, site: str) -> Cohort:
    """One cohort of all rows of several, in their order, each person kept apart and in the same split."""
    ecg_shift = np.cumsum([0] + [len(c.ecg_counts) // len(LEADS) for c in cohorts])
    record_shift = np.cumsum([0] + [len(c.ecg_samples) for c in cohorts])
    cine_shift = np.cumsum([0] + [len(c.cines) for c in cohorts])
    patient_shift = np.cumsum([0] + [int(c.row_patient.max(initial=-1)) + 1 for c in cohorts])

    def joined(parts: Sequence[np.ndarray], shifts: np.ndarray) -> np.ndarray:
        return np.concatenate([np.where(p >= 0, p + s, -1) for p, s in zip(parts, shifts, strict=False)])

    refusals: Counter[str] = Counter()
    for cohort in cohorts:
        refusals.update(cohort.refusals)
    views = [name for name in VIEWS if any(name in c.row_views for c in cohorts)]
    return Cohort(
        site=site,
        digest="+".join(c.digest for c in cohorts),
        # A file may end within a record that nobody shows any more; every part begins at a whole sample.
        ecg_counts=np.concatenate(
            [c.ecg_counts[: len(c.ecg_counts) // len(LEADS) * len(LEADS)] for c in cohorts]
        ),
        ecg_offsets=joined([c.ecg_offsets for c in cohorts], ecg_shift),
        ecg_samples=np.concatenate([c.ecg_samples for c in cohorts]),
        cines=np.concatenate([c.cines for c in cohorts]),
        row_patient=joined([c.row_patient for c in cohorts], patient_shift),
        row_split=np.concatenate([c.row_split for c in cohorts]),
        row_ecg=joined([c.row_ecg for c in cohorts], record_shift),
        row_cine=joined([c.row_cine for c in cohorts], cine_shift),
        phenotypes=np.concatenate([c.phenotypes for c in cohorts]),
        diseases=np.concatenate([c.diseases for c in cohorts]),
        refusals=dict(refusals),
        row_views={name: joined([c.items(name) for c in cohorts], cine_shift) for name in views},
        row_age_years=np.concatenate([c.row_age_years for c in cohorts]),
        row_sex=np.concatenate([c.row_sex for c in cohorts]),
    )
