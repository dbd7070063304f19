"""One order while it is answered, opened and checked, and what it comes to before the gate (steps 5 to 8)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from cardionets_core.config.study import Phase, Study
from cardionets_core.exchange.messages import Order, Reply
from cardionets_core.tasks import Role, SiteView, Task
from cardionets_core.training.local_rule import LocalRule
from cardionets_core.training.seeds import derive_seed
from client.local_tensors import LocalTensors
from client.personal import Personal
from client.site import Site
from client.spending import Spending


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """All that one order is answered with.

    Attributes:
        order: with the tensors of all trained modules where the strategy's rule needs them as they were sent.
        site: that answers.
        study: of the order.
        task: of its phase.
        role: in which the site takes part.
        modules: filled, with the site's local tensors laid over.
        view: the site's data, and what the round shares.
        rule: what the study's strategy asks of the sites.
        local: the site's local tensors.
        personal: the site's personal modules.
        spending: of the privacy that the answer costs; None where the study has none, or nothing trains.
    """

    order: Order
    site: Site
    study: Study
    task: Task
    role: Role
    modules: Mapping[str, torch.nn.Module]
    view: SiteView
    rule: LocalRule
    local: LocalTensors
    personal: Personal
    spending: Spending | None = None

    @property
    def phase(self) -> Phase:
        """The phase of the order."""
        return self.study.phases[self.order.name.phase]

    @property
    def seed(self) -> int:
        """Of the round at this site."""
        return derive_seed(
            self.study.seed, "train", self.order.name.phase, self.order.name.round, self.site.name
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A reply that has not passed the gate yet, and the rows behind it."""

    reply: Reply
    rows: np.ndarray
