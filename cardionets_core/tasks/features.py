"""Features of a site's rows from a frozen encoder, in evaluation mode.

Legend: R rows, D width of the feature.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from cardionets_core.data.cohort import Cohort
from cardionets_core.data.windows import EVALUATION_WINDOWS, InputShape, evaluation_starts
from cardionets_core.tasks.base import EVALUATION_BATCH


def ecg_features(
    encoder: nn.Module, cohort: Cohort, rows: np.ndarray, *, shape: InputShape, device: torch.device
) -> torch.Tensor:
    """Mean feature of the evaluation windows of each row (first, middle, last; repeats count once).

    Args:
        encoder: gives ``[B, D]`` for windows ``[B, L, T]``; set to eval mode.
        cohort: the site.
        rows: int64 [R], rows with an ECG.
        shape: sizes of the preset.
        device: where the encoder is.

    Returns:
        float64 ``[R, D]`` on the CPU; ``[0, 0]`` without rows.
    """
    encoder.eval()
    samples = cohort.ecg_samples[cohort.row_ecg[rows]]
    windows = np.array([len(evaluation_starts(int(n), shape.ecg_samples)) for n in samples], dtype=np.int64)
    total: torch.Tensor | None = None
    with torch.no_grad():
        for window in range(EVALUATION_WINDOWS):
            places = np.flatnonzero(windows > window)
            for begin in range(0, len(places), EVALUATION_BATCH):
                some = places[begin : begin + EVALUATION_BATCH]
                batch = cohort.batch(rows[some], keys=frozenset({"ecg"}), shape=shape, window=window).to(
                    device
                )
                feature_BD = encoder(batch.ecg_BLT).double().cpu()
                if total is None:
                    total = torch.zeros(len(rows), feature_BD.shape[1], dtype=torch.float64)
                total[torch.from_numpy(some)] += feature_BD
    if total is None:
        return torch.zeros(0, 0, dtype=torch.float64)
    return total / torch.from_numpy(windows)[:, None]


def cmr_features(
    encoder: nn.Module, cohort: Cohort, rows: np.ndarray, *, shape: InputShape, device: torch.device
) -> torch.Tensor:
    """Feature of the cine of each row.

    Args:
        encoder: gives ``[B, D]`` for cines ``[B, F, Y, X]``; set to eval mode.
        cohort: the site.
        rows: int64 [R], rows with a cine.
        shape: sizes of the preset.
        device: where the encoder is.

    Returns:
        float32 ``[R, D]`` on ``device``; ``[0, 0]`` without rows.
    """
    encoder.eval()
    parts: list[torch.Tensor] = []
    with torch.no_grad():
        for begin in range(0, len(rows), EVALUATION_BATCH):
            some = rows[begin : begin + EVALUATION_BATCH]
            batch = cohort.batch(some, keys=frozenset({"cine"}), shape=shape).to(device)
            parts.append(encoder(batch.cine_BFYX).float())
    return torch.cat(parts) if parts else torch.zeros(0, 0, device=device)
