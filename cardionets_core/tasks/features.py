"""Features of a site's rows from a frozen encoder, in evaluation mode.

Legend: R rows, D width of the feature.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from torch import nn

from cardionets_core.data.batches import Batch
from cardionets_core.data.windows import EVALUATION_WINDOWS, evaluation_starts
from cardionets_core.tasks.site_view import SiteView


def encode_ecg(encoder: nn.Module, batch: Batch) -> torch.Tensor:
    """What an encoder gives for the windows of a batch, and for what is told of the people where it asks."""
    if batch.covariates_BC is None:
        return cast(torch.Tensor, encoder(batch.ecg_BLT))
    return cast(torch.Tensor, encoder(batch.ecg_BLT, batch.covariates_BC))


def ecg_features(encoder: nn.Module, site: SiteView, rows: np.ndarray) -> torch.Tensor:
    """Mean feature of the evaluation windows of each row (first, middle, last; repeats count once).

    Args:
        encoder: gives ``[B, D]`` for windows ``[B, L, T]`` (see ``encode_ecg``); set to eval mode.
        site: the site; the encoder is on its device.
        rows: int64 [R], rows with an ECG.

    Returns:
        float64 ``[R, D]`` on the CPU; ``[0, 0]`` without rows.
    """
    encoder.eval()
    samples = site.cohort.ecg_samples[site.cohort.row_ecg[rows]]
    length = site.shape.ecg_samples
    windows = np.array([len(evaluation_starts(int(n), length)) for n in samples], dtype=np.int64)
    total: torch.Tensor | None = None
    with torch.no_grad():
        for window in range(EVALUATION_WINDOWS):
            places = np.flatnonzero(windows > window)
            begin = 0
            for some, batch in site.batches(rows[places], keys=frozenset({"ecg"}), window=window):
                feature_BD = encode_ecg(encoder, batch).double().cpu()
                if total is None:
                    total = torch.zeros(len(rows), feature_BD.shape[1], dtype=torch.float64)
                total[torch.from_numpy(places[begin : begin + len(some)])] += feature_BD
                begin += len(some)
    if total is None:
        return torch.zeros(0, 0, dtype=torch.float64)
    return total / torch.from_numpy(windows)[:, None]


def cmr_features(encoder: nn.Module, site: SiteView, rows: np.ndarray) -> torch.Tensor:
    """Feature of the cine of each row.

    Args:
        encoder: gives ``[B, D]`` for cines ``[B, F, Y, X]``; set to eval mode.
        site: the site; the encoder is on its device.
        rows: int64 [R], rows with a cine.

    Returns:
        float32 ``[R, D]`` on the site's device; ``[0, 0]`` without rows.
    """
    encoder.eval()
    with torch.no_grad():
        parts = [
            encoder(batch.cine_BFYX).float()
            for _, batch in site.batches(rows, keys=frozenset({"cine"}), window=0)
        ]
    return torch.cat(parts) if parts else torch.zeros(0, 0, device=site.device)
