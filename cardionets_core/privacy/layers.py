"""What each row of a batch adds to the gradient of every layer, from one backward pass (step 7 of the walk).

Hooks keep the input and the output's gradient of each layer while a batch passes; autograd itself computes no
gradient of a weight. Of linear layers, which are nearly all of our weights, the norm of each row's gradient
comes from products of tokens with tokens where these are few (Goodfellow 2015, arXiv 1510.01799; Li et al.
2022, arXiv 2110.05679, 3.2), and the sum of the clipped gradients from one product over all rows (Bu et al.
2023, ICML, "book-keeping"). Other layers are Opacus's: its samplers give a gradient for each row. The only
door to Opacus's layers; its accountants have their own.

Legend: N rows, T tokens of a row, I inputs and O outputs of a layer; ``...`` the axes of a parameter.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import cast

import torch
from opacus.grad_sample.grad_sample_module import GradSampleHooks
from opacus.validators import ModuleValidator
from torch import nn

from cardionets_core.errors import ConfigError

ROUNDING = 2.0**-20
"""Relative error of a float32 product of long vectors, with room to spare."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """One use of a layer in a forward pass.

    Attributes:
        inputs: ``[N, ...]``; of a bare parameter's door, the parameter.
        gradient: of the sum of all rows' losses by the layer's output, ``[N, ...]``.
    """

    inputs: torch.Tensor
    gradient: torch.Tensor


@dataclass(slots=True)
class RowGradients:
    """Gradients of each row that are known, and those of linear layers that were never written out.

    Attributes:
        square_N: squared norm of each row's whole gradient, float32.
        slack_N: by how much rounding may have made it too small.
        known: parameter to ``[N, ...]``.
        linear: weight with its inputs ``[N, T, I]`` and output gradients ``[N, T, O]``.
        held_bytes: of all that the layers kept and of what is known.
    """

    square_N: torch.Tensor
    slack_N: torch.Tensor
    known: dict[nn.Parameter, torch.Tensor] = field(default_factory=dict)
    linear: list[tuple[nn.Parameter, torch.Tensor, torch.Tensor]] = field(default_factory=list)
    held_bytes: int = 0

    def keep(self, usable_N: torch.Tensor) -> RowGradients:
        """Those of some rows."""
        return RowGradients(
            square_N=self.square_N[usable_N],
            slack_N=self.slack_N[usable_N],
            known={parameter: value[usable_N] for parameter, value in self.known.items()},
            linear=[(p, inputs[usable_N], gradient[usable_N]) for p, inputs, gradient in self.linear],
        )

    def add_weighted(self, sums: dict[nn.Parameter, torch.Tensor], weight_N: torch.Tensor) -> None:
        """``sums[p] += sum_n weight_n * gradient_n``, of each parameter."""
        for parameter, value in self.known.items():
            sums[parameter].add_(torch.tensordot(weight_N, value, dims=1))
        for parameter, inputs, gradient in self.linear:
            scale_N11 = weight_N[:, None, None]
            if inputs.shape[2] < gradient.shape[2]:
                inputs = inputs * scale_N11
            else:
                gradient = gradient * scale_N11
            sums[parameter].addmm_(gradient.flatten(0, 1).T, inputs.flatten(0, 1))


class WatchedLayers:
    """The layers of some modules, watched while a batch passes forward and backward.

    Args:
        modules: whose parameters that ask for gradients are trained.

    Raises:
        ConfigError: a module has layers that mix the rows of a batch, such as batch norms.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        modules = list(modules)
        check_rows_apart(modules)
        self._layers = [layer for module in modules for layer in module.modules() if _is_watched(layer)]
        self._uses: dict[nn.Module, list[Use]] = {}
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._parameters = [p for module in modules for p in module.parameters() if p.requires_grad]

    def __enter__(self) -> WatchedLayers:
        self._uses = {}
        self._handles = [layer.register_forward_hook(self._keep) for layer in self._layers]
        for parameter in self._parameters:
            parameter.requires_grad_(False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        for parameter in self._parameters:
            parameter.requires_grad_(True)
        self._uses = {}

    def gradients(self, loss_N: torch.Tensor) -> RowGradients:
        """Run the backward pass of a batch that went forward in this context.

        Args:
            loss_N: each row's own loss.
        """
        rows = len(loss_N)
        if loss_N.requires_grad:
            loss_N.sum().backward()
        nothing_N = torch.zeros(rows, device=loss_N.device)
        found = RowGradients(square_N=nothing_N, slack_N=nothing_N.clone())
        for parameter in self._parameters:
            # Opacus's samplers give what asks for a gradient.
            parameter.requires_grad_(True)
        uses, self._uses = self._uses, {}
        found.held_bytes = sum(u.inputs.nbytes + u.gradient.nbytes for used in uses.values() for u in used)
        for layer, used in uses.items():
            if isinstance(layer, nn.Linear):
                _linear(found, layer, used, rows=rows)
            else:
                for use in used:
                    for parameter, value in _sampled(layer, use).items():
                        _add(found.known, parameter, value.float())
        for value in found.known.values():
            found.square_N += value.flatten(1).square().sum(dim=1)
            found.held_bytes += value.nbytes
        found.slack_N += ROUNDING * found.square_N
        return found

    def _keep(self, layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        source = inputs[0] if _is_door(layer) else inputs[0].detach()
        if _is_door(layer) and not any(source is parameter for parameter in self._parameters):
            return
        if not output.requires_grad:
            # The first layer: nothing before it is trained, and its own weights do not ask.
            output.requires_grad_(True)
        used = self._uses.setdefault(layer, [])
        output.register_hook(lambda gradient: used.append(Use(inputs=source, gradient=gradient.detach())))


def check_rows_apart(modules: Iterable[nn.Module]) -> None:
    """Refuse modules in which one row's output depends on another row.

    Raises:
        ConfigError: names the layers.
    """
    faults = [str(error) for module in modules for error in ModuleValidator.validate(module, strict=False)]
    if faults:
        raise ConfigError(
            f"a row of a batch cannot be told from the others in {'; '.join(faults)}",
            where="study: privacy.mechanism: dp_sgd",
            remedy="use layer or group norms in place of batch norms",
        )


def is_covered(modules: Sequence[nn.Module]) -> bool:
    """Whether every trained parameter belongs to a layer that can be watched, or has a door beside it."""
    for module in modules:
        for part in module.modules():
            own = [p for p in part.parameters(recurse=False) if p.requires_grad]
            if own and not _is_watched(part) and not any(_is_door(child) for child in part.children()):
                return False
    return True


def _is_door(layer: nn.Module) -> bool:
    return bool(getattr(layer, "gives_each_row_a_view", False))


def _is_watched(layer: nn.Module) -> bool:
    own = any(parameter.requires_grad for parameter in layer.parameters(recurse=False))
    return _is_door(layer) or (own and type(layer) in GradSampleHooks.GRAD_SAMPLERS)


def _sampled(layer: nn.Module, use: Use) -> dict[nn.Parameter, torch.Tensor]:
    if _is_door(layer):
        assert isinstance(use.inputs, nn.Parameter)
        return {use.inputs: use.gradient}
    sampler = GradSampleHooks.GRAD_SAMPLERS[type(layer)]
    return dict(sampler(layer, [use.inputs], use.gradient))


def _linear(found: RowGradients, layer: nn.Linear, used: Sequence[Use], *, rows: int) -> None:
    # A layer that is used several times adds up over all its tokens.
    inputs = _together([_tokens(use.inputs, rows) for use in used])
    gradient = _together([_tokens(use.gradient, rows) for use in used])
    if layer.bias is not None and layer.bias.requires_grad:
        _add(found.known, cast(nn.Parameter, layer.bias), gradient.sum(dim=1))
    weight = cast(nn.Parameter, layer.weight)
    if not weight.requires_grad:
        return
    tokens = inputs.shape[1]
    if 2 * tokens * tokens <= layer.in_features * layer.out_features:
        # |sum_t g_t a_t'|^2 = sum_st (a_s . a_t)(g_s . g_t)
        alike = torch.bmm(inputs, inputs.transpose(1, 2))
        alike *= torch.bmm(gradient, gradient.transpose(1, 2))
        found.square_N += alike.sum(dim=(1, 2)).clamp_min(0.0)
        # Terms of both signs cancel, their rounding errors do not: |a_t| |g_t| are the roots of the diagonal.
        sizes_NT = alike.diagonal(dim1=1, dim2=2).clamp_min(0.0).sqrt()
        found.slack_N += ROUNDING * sizes_NT.sum(dim=1).square()
        found.linear.append((weight, inputs, gradient))
    else:
        _add(found.known, weight, torch.bmm(gradient.transpose(1, 2), inputs))


def _together(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """All tokens of a layer's uses, float32; those of a single one are not copied."""
    return (parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=1)).float()


def _tokens(values: torch.Tensor, rows: int) -> torch.Tensor:
    return values.reshape(rows, -1, values.shape[-1])


def _add(known: dict[nn.Parameter, torch.Tensor], parameter: nn.Parameter, value: torch.Tensor) -> None:
    known[parameter] = known[parameter] + value if parameter in known else value
