"""The tokenizer's adversary for one round: a discriminator that learns on the site and never leaves it.

It begins every round from the same weights, for a site keeps no module that the study does not know. So it
learns alone first; only then does it speak.
"""

from __future__ import annotations

from typing import cast

import torch

from cardionets_core.losses.tokenizer import adaptive_weight, discriminator_hinge, generator_hinge
from cardionets_core.models import build_module
from cardionets_core.models.tokenizer_discriminator import TokenizerDiscriminator

SEED = 0
BETAS = (0.5, 0.9)


class Adversary:
    """A discriminator, its optimiser, and how many steps it has learned in this round.

    Args:
        preset: gives its size.
        rate: its learning rate; Adam(.5, .9).
        alone: steps of the round in which it learns and does not speak yet.
        device: where it computes.
    """

    def __init__(self, preset: str, *, rate: float, alone: int, device: torch.device) -> None:
        module = build_module("tokenizer_discriminator", preset, seed=SEED, device=device)
        self.discriminator = cast(TokenizerDiscriminator, module)
        self.discriminator.requires_grad_(False)
        self._optimiser = torch.optim.Adam(self.discriminator.parameters(), lr=rate, betas=BETAS)
        self._alone = alone
        self.steps = 0

    @property
    def speaks(self) -> bool:
        """Whether the tokenizer hears it yet."""
        return self.steps > self._alone

    def learn(self, cine_BFYX: torch.Tensor, made_BFYX: torch.Tensor) -> float:
        """One step of the discriminator on real and reconstructed cines; its hinge loss before the step."""
        self.discriminator.requires_grad_(True)
        real, made = self.discriminator(cine_BFYX), self.discriminator(made_BFYX.detach())
        loss = discriminator_hinge(real, made)
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self._optimiser.step()
        self.discriminator.requires_grad_(False)
        self.steps += 1
        return float(loss.detach())

    def penalty(
        self, made_BFYX: torch.Tensor, *, reconstruction: torch.Tensor, last_weight: torch.Tensor
    ) -> torch.Tensor:
        """``w (-mean D(made))``, w the ratio of gradient norms at the tokenizer's last layer; a scalar."""
        hinge = generator_hinge(self.discriminator(made_BFYX))
        return adaptive_weight(reconstruction, hinge, last_weight=last_weight) * hinge
