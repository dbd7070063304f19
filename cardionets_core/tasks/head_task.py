"""A head on the ECG feature that is trained by steps: what the phenotype and the screening task share.

The encoder is frozen, or trained along. A frozen one sees a new random window of each recording in each
epoch, or its mean features over the evaluation windows are made once and kept, which is far cheaper.

Legend: B rows, R rows of a split, D width of the feature.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, cast

import torch

from cardionets_core.config.generation import LATER, Parts
from cardionets_core.data.batches import Batch
from cardionets_core.data.cohort import Split
from cardionets_core.errors import ConfigError
from cardionets_core.tasks.base import GradientTask, Modules, Role, Scalar, SiteView
from cardionets_core.tasks.features import encode_ecg
from cardionets_core.tasks.row_features import RowTable, mean_features

ENCODER = "ecg_encoder"


class HeadTask(GradientTask):
    """Trains a head, and the encoder where the options say so.

    Options:
        train_encoder: the encoder is trained too.
        windows: ``random``, a new window in each epoch; ``mean``, the mean feature of the evaluation windows
            (the encoder is then frozen).
        bootstrap_replicates: of people, in the metrics.

    Attributes:
        head: the module that is trained.
        solved: the module of numbers over all sites that the loss reads.
    """

    head: ClassVar[str]
    solved: ClassVar[str]
    decomposes = True
    defaults: ClassVar[dict[str, Scalar]] = {
        "train_encoder": False,
        "windows": "random",
        "bootstrap_replicates": 1000,
    }
    choices: ClassVar[dict[str, tuple[str, ...]]] = {"windows": ("random", "mean")}

    def __init__(self, options: Mapping[str, Scalar], parts: Parts = LATER) -> None:
        super().__init__(options, parts)
        where = f"study: phases: options of task {self.name}"
        self._frozen = not self.options["train_encoder"]
        self._random = self.options["windows"] == "random"
        if not (self._frozen or self._random):
            raise ConfigError(
                "windows is mean, but the encoder is trained: its features change with every step",
                where=where,
                remedy="set windows to random, or train_encoder to false",
            )
        if self._number("bootstrap_replicates") < 1:
            raise ConfigError("bootstrap_replicates is at least 1", where=where)
        self.trains = (self.head,) if self._frozen else (self.head, ENCODER)
        self.reads = (ENCODER, self.solved) if self._frozen else (self.solved,)

    def open_round(self, modules: Modules, site: SiteView, role: Role) -> RowTable | None:
        """The kept mean features of the training rows, where the steps use those."""
        if self._random:
            return None
        feature_RD = mean_features(modules, site, needs=self.needs, split="train", frozen=True)
        rows = site.rows(self.needs, "train")
        return RowTable(feature_RD, rows, total=len(site.cohort.row_patient))

    def feature(self, modules: Modules, batch: Batch, state: object) -> torch.Tensor:
        """Feature of each row of a batch, ``[B, D]``."""
        if state is not None:
            return cast(RowTable, state).take(batch.row_B)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self._frozen):
            return encode_ecg(modules[ENCODER], batch)

    def evaluated(self, modules: Modules, site: SiteView, *, split: Split) -> torch.Tensor:
        """The head's float64 output for the mean feature of each row of a split, on the CPU.

        For a linear head that is the mean of its outputs over the evaluation windows.
        """
        feature_RD = mean_features(modules, site, needs=self.needs, split=split, frozen=self._frozen)
        return apply_head(modules[self.head], feature_RD.to(site.device))


def apply_head(head: torch.nn.Module, feature_RD: torch.Tensor) -> torch.Tensor:
    """A head's output in eval mode without gradient, float64 on the CPU."""
    head.eval()
    with torch.no_grad():
        return head(feature_RD).double().cpu()
