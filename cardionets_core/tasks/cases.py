"""Whom a generative task draws for, and from what: people, their ECG embeddings and their seeds.

A condition is what a generator sees of an ECG. For the masked autoregressive one it is an embedding: the
projection of the mean feature of the evaluation windows, never that of a random crop, not normalised (SCIENCE
3 and 5.4). For latent diffusion it is that feature and the tokens behind it.

Legend: R rows, P width of the ECG embedding; N ECG tokens of width D, the feature first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import torch

from cardionets_core.data.cohort import Cohort, Split
from cardionets_core.models import get_preset
from cardionets_core.tasks.base import Modules, SiteView
from cardionets_core.tasks.ecg_tokens import ecg_tokens, row_tokens
from cardionets_core.tasks.features import ecg_features
from cardionets_core.tasks.generators import generator_kind
from cardionets_core.tasks.row_features import mean_features


def choose_cases(cohort: Cohort, rows: np.ndarray, *, most: int, seed: int) -> np.ndarray:
    """One row of each of at most ``most`` people, in an order drawn from the seed; int64."""
    order = np.random.default_rng(seed).permutation(rows)
    _, first = np.unique(cohort.row_patient[order], return_index=True)
    return order[np.sort(first)][:most]


def row_seeds(seed: int, rows: Iterable[int], *, site: str) -> list[int]:
    """A 63-bit seed for each row, which depends on nothing but the arguments and the row."""
    return [
        int.from_bytes(hashlib.sha256(f"{seed}/{site}/{int(row)}".encode()).digest()[:8], "big") >> 1
        for row in rows
    ]


def conditions_of(modules: Modules, site: SiteView, rows: np.ndarray) -> torch.Tensor:
    """Conditions of some rows, float32 on the site's device; at least one row.

    Returns:
        Embeddings ``[R, P]``, or tokens ``[R, N, D]``, as the generator takes them.
    """
    if _takes_tokens(site):
        with torch.autocast(site.device.type, enabled=False):
            return row_tokens(modules, site, rows, with_feature=True).to(site.device)
    return _project(modules, site, ecg_features(modules["ecg_encoder"], site, rows).float())


def kept_conditions(modules: Modules, site: SiteView, *, needs: frozenset[str], split: Split) -> torch.Tensor:
    """Conditions of ``site.rows(needs, split)``, from features or tokens that are made once and kept.

    float32, as ``conditions_of``; tokens are float16 on the CPU, of which a table takes what a step needs. At
    least one row. Encoder and projection are frozen.
    """
    if _takes_tokens(site):
        return ecg_tokens(modules, site, needs=needs, split=split, with_feature=True)
    return _project(modules, site, mean_features(modules, site, needs=needs, split=split, frozen=True))


def _takes_tokens(site: SiteView) -> bool:
    return generator_kind(get_preset(site.shape.preset).parts).takes_tokens


def _project(modules: Modules, site: SiteView, feature_RD: torch.Tensor) -> torch.Tensor:
    projection = modules["ecg_projection"].eval()
    with torch.no_grad(), torch.autocast(site.device.type, enabled=False):
        return projection(feature_RD.to(site.device))
