"""What a strategy adds to the gradient of each local step, and how far plain gradients carry (step 7).

Comes in: the modules as a round begins, a proximal weight, control variates. Goes out: changed gradients, and
the two lengths by which FedNova and SCAFFOLD read a mean gradient from a site's change. Files and the wire
are unknown here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from cardionets_core.config.study import Optimiser

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pull:
    """What to add.

    Attributes:
        mu: weight of ``mu / 2 * |w - anchor|^2``; 0 adds nothing, bit for bit.
        anchor: module to its tensors; a module that is absent is drawn to where the round began.
        shift: module to tensors that are added to every gradient (SCAFFOLD's ``c - c_i``).
    """

    mu: float = 0.0
    anchor: Mapping[str, Tensors] = field(default_factory=dict)
    shift: Mapping[str, Tensors] = field(default_factory=dict)


class Pulled:
    """A pull at work in one round.

    Args:
        pull: what to add.
        modules: on their device, with the weights that the round begins with.
        trains: those of them that are trained.
    """

    def __init__(self, pull: Pull, modules: Mapping[str, nn.Module], trains: Sequence[str]) -> None:
        self._mu = pull.mu
        self._proximal: list[tuple[nn.Parameter, torch.Tensor]] = []
        self._shifted: list[tuple[nn.Parameter, torch.Tensor]] = []
        for module in trains:
            anchors, shifts = pull.anchor.get(module, {}), pull.shift.get(module, {})
            for name, parameter in modules[module].named_parameters():
                if not parameter.requires_grad:
                    continue
                if pull.mu > 0.0:
                    self._proximal.append((parameter, _copy(anchors.get(name, parameter), parameter)))
                if name in shifts:
                    self._shifted.append((parameter, _copy(shifts[name], parameter)))

    @torch.no_grad()
    def add_proximal(self) -> None:
        """Add ``mu (w - anchor)`` to the gradients: before they are clipped, as part of the objective."""
        for parameter, anchor in self._proximal:
            _add(parameter, self._mu * (parameter - anchor))

    @torch.no_grad()
    def add_shift(self) -> None:
        """Add the shift to the gradients: after they are clipped, so that all steps have the whole of it."""
        for parameter, shift in self._shifted:
            _add(parameter, shift)


class Distance:
    """How far a gradient of one at every step carries a weight, by the round's own rates.

    For SGD of rate r and momentum m the n-th step moves by ``r (1 + m + ... + m^(n-1))``, and a proximal term
    takes ``mu`` times the way that lies behind from each gradient: ``|a|_1`` of FedNova (Wang et al. 2020,
    section 4.2) is this way over the mean rate. Steps of Adam are as long as their rate whatever the
    gradient, so it counts them.

    Args:
        spec: the optimiser.
        mu: of the proximal term.
    """

    def __init__(self, spec: Optimiser, *, mu: float = 0.0) -> None:
        self._momentum = spec.momentum if spec.name == "sgd" else 0.0
        self._mu = mu if spec.name == "sgd" else 0.0
        self._velocity = 0.0
        self._rates = 0.0
        self._steps = 0
        self.way = 0.0

    def step(self, rate: float) -> None:
        """Take one step."""
        self._velocity = self._momentum * self._velocity + (1.0 - self._mu * self.way)
        self.way += rate * self._velocity
        self._rates += rate
        self._steps += 1

    @property
    def normaliser(self) -> float:
        """The way over the mean rate; the steps where nothing but the gradient moves the weights."""
        return self.way / self._rates * self._steps if self._rates > 0.0 else 0.0


def _copy(value: torch.Tensor, parameter: nn.Parameter) -> torch.Tensor:
    return value.detach().to(parameter.device, parameter.dtype, copy=True)


def _add(parameter: nn.Parameter, value: torch.Tensor) -> None:
    # A parameter that the loss did not reach has no gradient, but is drawn all the same.
    parameter.grad = value.clone() if parameter.grad is None else parameter.grad.add_(value)
