"""Fed-Heart-Disease as a task of a study: a logistic regression on a table, for the benchmark alone.

Comes in: a center's rows, and the order in which the protocol shows them. Goes out: what the real client
trains and measures. Neither the module nor the task is part of the product: ``plugged_in`` adds them to the
registries of this process, and lets the client open these tables in the place of prepared recordings. Orders,
local steps, gate, journal, replies, strategies and checkpoints are the product's.

Legend: B rows of a batch, R rows of a site, F features.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, cast
from unittest import mock

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from cardionets_core.config.site import read_site
from cardionets_core.data.batches import Batch
from cardionets_core.data.cohort import Cohort, Split, empty_cohort
from cardionets_core.models import MODULES
from cardionets_core.models.presets import PHENOTYPES
from cardionets_core.privacy.counts import INNER, Counts
from cardionets_core.tasks import TASKS, GradientTask, Role, SiteView, TaskLoss
from cardionets_core.tasks.base import Modules, Sums, count_sums, one
from client.site import Site
from simulation.benchmarks.heart_table import FEATURES, Center

MODULE = "heart_classifier"
TASK = "heart_disease"
BATCH = 4
Rounds = Iterator[Sequence[np.ndarray]]
"""For each round the rows of each of its steps."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Table(Cohort):
    """A center as a cohort: each row is a person with a label and no recording.

    Attributes:
        features_RF: float32, standardised as the model sees them in training.
        pooled_RF: float32, the same rows by all centers' training rows.
        labels_R: float32.
        rounds: which rows each step of a round sees; a round of training takes the next.
    """

    features_RF: torch.Tensor
    pooled_RF: torch.Tensor
    labels_R: torch.Tensor
    rounds: Rounds = field(default_factory=lambda: iter(()))


def table_of(center: Center, rounds: Rounds) -> Table:
    """A center's rows, and the order in which they are shown."""
    return make_table(
        center.name, center.features_RF, center.pooled_RF, center.labels_R, center.is_test_R, rounds
    )


def make_table(
    site: str,
    features_RF: np.ndarray,
    pooled_RF: np.ndarray,
    labels_R: np.ndarray,
    is_test_R: np.ndarray,
    rounds: Rounds,
) -> Table:
    """Rows as a cohort."""
    rows, nobody = len(labels_R), empty_cohort(site=site, phenotypes=PHENOTYPES)
    diseases = np.full((rows, nobody.diseases.shape[1]), np.nan, dtype=np.float32)
    diseases[:, 0] = labels_R
    return Table(
        site=site,
        digest="",
        ecg_counts=nobody.ecg_counts,
        ecg_offsets=nobody.ecg_offsets,
        ecg_samples=nobody.ecg_samples,
        cines=nobody.cines,
        row_patient=np.arange(rows),
        row_split=np.where(is_test_R, 2, 0).astype(np.int8),
        row_ecg=np.full(rows, -1),
        row_cine=np.full(rows, -1),
        phenotypes=np.full((rows, PHENOTYPES), np.nan, dtype=np.float32),
        diseases=diseases,
        features_RF=torch.from_numpy(features_RF),
        pooled_RF=torch.from_numpy(pooled_RF),
        labels_R=torch.from_numpy(labels_R),
        rounds=rounds,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opened:
    table: Table
    steps: Iterator[np.ndarray]


class HeartDisease(GradientTask):
    """Binary cross-entropy of a linear map of 13 features.

    The batches are the protocol's own, so what the trainer offers is only counted by.
    """

    name = TASK
    trains = (MODULE,)
    needs = frozenset({"labels"})
    decomposes = True
    batch_keys = frozenset()
    primary = "accuracy"
    higher_is_better = True
    counts: ClassVar[Counts] = {"correct": INNER, "correct_pooled": INNER}

    def open_round(self, modules: Modules, site: SiteView, role: Role) -> _Opened:
        """The rows of this round's steps."""
        table = cast(Table, site.cohort)
        return _Opened(table=table, steps=iter(next(table.rounds)))

    def loss(self, modules: Modules, batch: Batch, state: object, *, generator: torch.Generator) -> TaskLoss:
        """Of the rows that are next by the protocol."""
        opened = cast(_Opened, state)
        rows = torch.from_numpy(next(opened.steps))
        logits_B = modules[MODULE](opened.table.features_RF[rows])[:, 0]
        per_sample_B = nn.functional.binary_cross_entropy_with_logits(
            logits_B, opened.table.labels_R[rows], reduction="none"
        )
        return TaskLoss(total=per_sample_B.mean(), per_sample_B=per_sample_B)

    def metric_sums(self, modules: Modules, site: SiteView, *, split: Split, seed: int) -> Sums:
        """Rows that are told rightly, standardised by the center and by all of them."""
        rows = site.rows(self.needs, split)
        correct = pooled = 0
        if len(rows):
            table = cast(Table, site.cohort)
            correct = hits(modules[MODULE], table.features_RF[rows], table.labels_R[rows])
            pooled = hits(modules[MODULE], table.pooled_RF[rows], table.labels_R[rows])
        return {**count_sums(site.cohort, rows), "correct": one(correct), "correct_pooled": one(pooled)}

    def metrics(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Shares of the rows."""
        rows = float(sums["n_rows"][0])
        found = {"n_rows": rows, "n_patients": float(sums["n_patients"][0])}
        if rows > 0:
            found["accuracy"] = float(sums["correct"][0]) / rows
            found["accuracy_pooled_scale"] = float(sums["correct_pooled"][0]) / rows
        return found


def hits(classifier: nn.Module, features_RF: torch.Tensor, labels_R: torch.Tensor) -> int:
    """How many rows a classifier tells rightly, at a probability of one half."""
    with torch.no_grad():
        told_R = classifier(features_RF)[:, 0] > 0
    return int((told_R == (labels_R > 0.5)).sum())


def initial_weights(seed: int) -> nn.Linear:
    """The classifier that the protocol begins with: torch's own draw after its seed is set."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Linear(FEATURES, 1)


def batch_rounds(rows: Sequence[np.ndarray], *, rounds: int, steps: int, seed: int) -> list[Rounds]:
    """The batches of every site, as shuffling loaders give them that share torch's generator.

    A loader begins anew when its rows are through, and goes on in the next round where it was. All sites draw
    from one generator, the sites in turn, so their batches are drawn for the whole run at once.

    Args:
        rows: of each site, those that it trains on.
        rounds: of the run.
        steps: of a site in a round.
        seed: set before the first draw.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        loaders = [_Endless(places) for places in rows]
        drawn = [[[loader.take() for _ in range(steps)] for loader in loaders] for _ in range(rounds)]
    return [iter([each[site] for each in drawn]) for site in range(len(rows))]


class _Endless:
    def __init__(self, rows: np.ndarray) -> None:
        self._loader: DataLoader[Any] = DataLoader(
            cast(Any, rows.astype(np.int64)), batch_size=BATCH, shuffle=True
        )
        self._batches = iter(self._loader)

    def take(self) -> np.ndarray:
        try:
            batch = next(self._batches)
        except StopIteration:
            self._batches = iter(self._loader)
            batch = next(self._batches)
        found: np.ndarray = batch.numpy()
        return found


@contextmanager
def plugged_in(tables: Mapping[Path, Table]) -> Iterator[None]:
    """While it lasts, the task and its module exist, and each site document opens its table."""

    def open_table(path: Path, *, check: str = "full") -> Site:
        return Site(config=read_site(path), cohort=tables[path], device=torch.device("cpu"))

    with (
        mock.patch.dict(MODULES, {MODULE: lambda preset: nn.Linear(FEATURES, 1)}),
        mock.patch.dict(TASKS, {TASK: HeartDisease}),
        mock.patch("client.round.open_site", open_table),
    ):
        yield
