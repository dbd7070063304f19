"""The tokenizer's phase: an autoencoder of cines with latents near a standard normal (SCIENCE section 4).

Without an adversary the loss decomposes. With one it does not: the adversary's weight couples the batch.

Legend: B rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, cast

import numpy as np
import torch

from cardionets_core.config.generation import LATER, Parts
from cardionets_core.data.batches import Batch
from cardionets_core.data.cohort import Split
from cardionets_core.errors import ConfigError
from cardionets_core.losses.tokenizer import KL_WEIGHT, TokenizerLoss, kl_to_standard, tokenizer_loss
from cardionets_core.models.cmr_tokenizer import CmrTokenizer, Posterior
from cardionets_core.privacy.counts import DIVISOR, Counts
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
from cardionets_core.tasks.drawing import preset_of
from cardionets_core.tasks.image_terms import add_images, metrics_of_images, no_images
from cardionets_core.tasks.latents import TOKENIZER_BATCH
from cardionets_core.tasks.short_axis import VIEW_CHOICE, VIEW_OPTION
from cardionets_core.tasks.tokenizer_adversary import Adversary

LATENT_SUMS = ("l1", "kl_per_dimension", "latent_mean", "latent_square")


class Tokenizer(GradientTask):
    """``mean|x - xhat| + kl_weight KL + peaks``, and the adversary where the options say so.

    Options:
        kl_weight: weight of the divergence, which is summed over the latent.
        adversarial: a discriminator learns beside the tokenizer. A study turns it on in a later phase of the
            same task, once the reconstruction is good (the authors: after 10,000 steps).
        adversarial_weight: of its penalty.
        discriminator_rate: learning rate of the discriminator.
        discriminator_alone: steps at the beginning of each round in which only the discriminator learns of
            the other; it begins every round anew.
        view: of the cines, ``4ch`` or ``sax``; each view has a tokenizer of its own.
    """

    name = "tokenizer"
    private_remedy = "set options: {adversarial: false}"
    trains = ("cmr_tokenizer",)
    needs = frozenset({"cine"})
    primary = "ssim"
    higher_is_better = True
    counts: ClassVar[Counts] = {"*/n": DIVISOR}
    defaults: ClassVar[dict[str, Scalar]] = {
        "kl_weight": KL_WEIGHT,
        "adversarial": False,
        "adversarial_weight": 0.05,
        "discriminator_rate": 1e-5,
        "discriminator_alone": 0,
        **VIEW_OPTION,
    }
    choices: ClassVar[dict[str, tuple[str, ...]]] = VIEW_CHOICE

    def __init__(self, options: Mapping[str, Scalar], parts: Parts = LATER) -> None:
        super().__init__(options, parts)
        self.decomposes = not self.options["adversarial"]
        numbers = [name for name, default in self.defaults.items() if type(default) in (int, float)]
        if min(map(self._number, numbers)) < 0:
            raise ConfigError("an option is below 0", where="study: phases: options of task tokenizer")

    def open_round(self, modules: Modules, site: SiteView, role: Role) -> Adversary | None:
        """The round's discriminator, if there is to be one."""
        if not self.options["adversarial"]:
            return None
        return Adversary(
            preset_of(site.shape).name,
            rate=self._number("discriminator_rate"),
            alone=int(self._number("discriminator_alone")),
            device=site.device,
        )

    def loss(self, modules: Modules, batch: Batch, state: object, *, generator: torch.Generator) -> TaskLoss:
        """Encode, draw a latent, decode, compare."""
        tokenizer = cast(CmrTokenizer, modules["cmr_tokenizer"])
        cine_BFYX = cast(torch.Tensor, batch.cine_BFYX)
        posterior = tokenizer.encode(cine_BFYX)
        made_BFYX = tokenizer.decode(tokenizer.draw(posterior, generator=generator))
        found = tokenizer_loss(
            made_BFYX,
            cine_BFYX,
            mean_BZTHW=posterior.mean_BZTHW,
            log_variance_BZTHW=posterior.log_variance_BZTHW,
            kl_weight=self._number("kl_weight"),
        )
        total = found.total_B.mean()
        if state is None:
            return TaskLoss(total=total, per_sample_B=found.total_B, parts=_parts(found))
        adversary = cast(Adversary, state)
        parts = {**_parts(found), "discriminator": adversary.learn(cine_BFYX, made_BFYX)}
        if adversary.speaks:
            penalty = adversary.penalty(made_BFYX, reconstruction=total, last_weight=tokenizer.last_weight)
            total = total + self._number("adversarial_weight") * penalty
            parts["adversarial"] = float(penalty.detach())
        return TaskLoss(total=total, parts=parts)

    def metric_sums(self, modules: Modules, site: SiteView, *, split: Split, seed: int) -> Sums:
        """Sums over cines of SSIM and PSNR, of L1, of KL for each latent value, and the latent's moments.

        The latent is drawn as in training; its moments are those before normalisation.
        """
        rows = site.rows(self.needs, split)
        sums = {**count_sums(site.cohort, rows), **no_images("reconstructed")}
        sums.update({name: one(0.0) for name in LATENT_SUMS})
        if not len(rows):
            return sums
        tokenizer = cast(CmrTokenizer, modules["cmr_tokenizer"].eval())
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for _, batch in site.batches(rows, keys=self.needs, window=0, size=TOKENIZER_BATCH):
                cine_BFYX = cast(torch.Tensor, batch.cine_BFYX)
                posterior = tokenizer.encode(cine_BFYX)
                made_BFYX = tokenizer.decode(tokenizer.draw(posterior, generator=generator))
                add_images(sums, "reconstructed", made_BFYX=made_BFYX, real_BFYX=cine_BFYX)
                error_B = (made_BFYX.double() - cine_BFYX.double()).abs().flatten(1).mean(dim=1)
                sums["l1"] = sums["l1"] + float(error_B.sum())
                for name, value_B in _latent_terms(posterior).items():
                    sums[name] = sums[name] + float(value_B.double().sum())
        return sums

    def metrics(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """``ssim`` and ``psnr`` with their SDs, ``l1``, ``kl_per_dimension``, and moments of the latent.

        ``latent_mean`` and ``latent_sd`` are over all values of all latents, before normalisation; ``l1`` is
        in units of the model's pixels, -1 to 1.
        """
        rows = float(sums["n_rows"][0])
        found = {"n_rows": rows, "n_patients": float(sums["n_patients"][0])}
        if rows <= 0:
            return found
        mean = {name: float(sums[name][0]) / rows for name in LATENT_SUMS}
        spread = mean.pop("latent_square") - mean["latent_mean"] ** 2
        return {
            **found,
            **metrics_of_images(sums, "reconstructed"),
            **mean,
            "latent_sd": float(np.sqrt(max(spread, 0.0))),
        }


def _parts(found: TokenizerLoss) -> dict[str, float]:
    named = {"l1": found.l1_B, "kl": found.kl_B, "peaks": found.peaks_B}
    return {name: float(value_B.detach().mean()) for name, value_B in named.items()}


def _latent_terms(posterior: Posterior) -> dict[str, torch.Tensor]:
    """Of each row, the means over the latent's values."""
    mean, log_variance = posterior.mean_BZTHW, posterior.log_variance_BZTHW
    return {
        "kl_per_dimension": kl_to_standard(mean, log_variance) / mean[0].numel(),
        "latent_mean": mean.flatten(1).mean(dim=1),
        "latent_square": (mean.square() + log_variance.exp()).flatten(1).mean(dim=1),
    }
