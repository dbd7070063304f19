"""Latents of a site's cines: the posterior of the frozen tokenizer, made once and kept (SCIENCE 5.4(1)).

Mean and log variance are kept, not draws: each training step draws anew. The file names the digest of the
tokenizer; one of another tokenizer is refused (``CacheForeignError``). Values are float32, or float16 on
demand: half the space, and a mean that is off by at most one in 2,000.

Legend: B rows, R rows of a split, N cines; Z channels, T frames, H rows and W columns of a latent.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import torch

from cardionets_core.data.cohort import Cohort
from cardionets_core.models.cmr_tokenizer import CmrTokenizer, Posterior, normalise_latent
from cardionets_core.tasks.base import Modules, SiteView

CINE = frozenset({"cine"})
TOKENIZER_BATCH = 8


class LatentTable:
    """Posteriors by row of the cohort.

    Args:
        tensors: ``item`` int64 [N], and ``mean``, ``log_variance`` ``[N, Z, T, H, W]``.
        cohort: says which cine a row shows.
    """

    def __init__(self, tensors: dict[str, torch.Tensor], cohort: Cohort) -> None:
        self.posterior_N = Posterior(mean_BZTHW=tensors["mean"], log_variance_BZTHW=tensors["log_variance"])
        place = torch.full((len(cohort.cines) + 1,), -1, dtype=torch.int64)
        place[tensors["item"]] = torch.arange(len(tensors["item"]))
        # A row without a cine names item -1, which is the last place: it stays empty.
        self._place_R = place[torch.from_numpy(cohort.row_cine.astype(np.int64))]

    def take(self, row_B: torch.Tensor) -> Posterior:
        """Posteriors of some rows, float32 on the device of ``row_B``.

        Raises:
            IndexError: a row has no latent here.
        """
        place_B = self._place_R[row_B.cpu()]
        if (place_B < 0).any():
            raise IndexError("a row of the batch has no latent in this table")
        found = self.posterior_N
        return Posterior(
            mean_BZTHW=found.mean_BZTHW[place_B].to(row_B.device).float(),
            log_variance_BZTHW=found.log_variance_BZTHW[place_B].to(row_B.device).float(),
        )


def training_latents(modules: Modules, site: SiteView, *, half: bool = False) -> LatentTable:
    """The posterior of every training cine of the site, each once.

    Args:
        modules: with a frozen ``cmr_tokenizer``.
        site: the site; at least one training cine.
        half: keep float16.

    Raises:
        CacheForeignError: the kept file was made with another tokenizer.
    """
    rows = site.rows(CINE, "train")
    precision = torch.float16 if half else torch.float32

    def make() -> dict[str, torch.Tensor]:
        found = encode_rows(cast(CmrTokenizer, modules["cmr_tokenizer"]), site, rows)
        return {
            "item": torch.from_numpy(site.cohort.row_cine[rows].astype(np.int64)),
            "mean": found.mean_BZTHW.to(precision),
            "log_variance": found.log_variance_BZTHW.to(precision),
        }

    settings = "training cines, float16" if half else "training cines, float32"
    tensors = site.kept.of("latents", modules, ("cmr_tokenizer",), make, settings=settings)
    return LatentTable(tensors, site.cohort)


def encode_rows(tokenizer: CmrTokenizer, site: SiteView, rows: np.ndarray) -> Posterior:
    """Posteriors of the cines of some rows, float32 on the CPU, in their order; at least one row.

    Made in full precision whatever the steps use, for they outlast a round.
    """
    tokenizer.eval()
    means, log_variances = [], []
    with torch.no_grad(), torch.autocast(site.device.type, enabled=False):
        for _, batch in site.batches(rows, keys=CINE, window=0, size=TOKENIZER_BATCH):
            found = tokenizer.encode(cast(torch.Tensor, batch.cine_BFYX))
            means.append(found.mean_BZTHW.cpu())
            log_variances.append(found.log_variance_BZTHW.cpu())
    return Posterior(mean_BZTHW=torch.cat(means), log_variance_BZTHW=torch.cat(log_variances))


def real_latents(modules: Modules, site: SiteView, rows: np.ndarray) -> torch.Tensor:
    """Normalised posterior means of some rows, float32 ``[R, Z, T, H, W]`` on the CPU: without noise."""
    return normalise_latent(encode_rows(cast(CmrTokenizer, modules["cmr_tokenizer"]), site, rows).mean_BZTHW)
