"""A site's optimiser state from one round to the next (SCIENCE 5.6). It never leaves the site.

The state is named by parameter, so that it can lie in a safetensors file and go into a fresh optimiser.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import nn

State = dict[str, torch.Tensor]


class Memory(Protocol):
    """Where the state of the rounds lies."""

    def recall(self, round_index: int) -> State | None:
        """The state after the newest round before this one, or None."""

    def keep(self, round_index: int, state: State) -> None:
        """Store the state after a round."""


class InProcess:
    """A memory in this process: the central run's, and that of tests."""

    def __init__(self) -> None:
        self._states: dict[int, State] = {}

    def recall(self, round_index: int) -> State | None:
        """See ``Memory``."""
        earlier = [number for number in self._states if number < round_index]
        return self._states[max(earlier)] if earlier else None

    def keep(self, round_index: int, state: State) -> None:
        """See ``Memory``; the newest state before this one stays: a round may be asked for again."""
        earlier = [number for number in self._states if number < round_index]
        self._states = {n: self._states[n] for n in earlier if n == max(earlier)} | {round_index: state}


def export_state(
    optimiser: torch.optim.Optimizer, modules: Mapping[str, nn.Module], trains: Sequence[str]
) -> State:
    """``module/parameter/key`` to a tensor: moments and step counts of every parameter that moved."""
    found: State = {}
    for module in trains:
        for name, parameter in modules[module].named_parameters():
            for key, value in optimiser.state.get(parameter, {}).items():
                if value is not None:
                    tensor = value if isinstance(value, torch.Tensor) else torch.tensor(float(value))
                    found[f"{module}/{name}/{key}"] = tensor.detach().cpu().clone().contiguous()
    return found


def import_state(
    optimiser: torch.optim.Optimizer,
    modules: Mapping[str, nn.Module],
    trains: Sequence[str],
    *,
    state: Mapping[str, torch.Tensor],
) -> None:
    """Put a state back; parameters that it does not name begin anew."""
    entries: dict[int, dict[str, torch.Tensor]] = {}
    places = {
        id(parameter): place
        for place, parameter in enumerate(p for group in optimiser.param_groups for p in group["params"])
    }
    for module in trains:
        for name, parameter in modules[module].named_parameters():
            prefix = f"{module}/{name}/"
            mine = (key for key in state if key.startswith(prefix))
            found = {key.removeprefix(prefix): _laid_out_as(parameter, state[key]) for key in mine}
            if found and id(parameter) in places:
                entries[places[id(parameter)]] = found
    content = optimiser.state_dict()
    content["state"] = entries
    optimiser.load_state_dict(content)


def _laid_out_as(parameter: nn.Parameter, value: torch.Tensor) -> torch.Tensor:
    """A copy; one of the parameter's shape lies in memory as the parameter does, as a fused step expects."""
    if value.shape != parameter.shape:
        return value.clone()
    return torch.empty_like(parameter, dtype=value.dtype, device=value.device).copy_(value).detach()
