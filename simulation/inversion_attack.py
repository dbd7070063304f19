"""Recordings out of gradients: the attack of a server that is honest but curious (row 8 of the walk).

Comes in: the gradient that a server reads from an update, the model that it sent, the masks (they follow from
the study's public seed) and ECGs of other people. Goes out: windows whose gradient would be much the same.

Gradients are matched as by Zhu et al. ("Deep Leakage from Gradients", NeurIPS 2019), each tensor by its own
share as far as that helps. What Geiping et al. (NeurIPS 2020) did for images with a total variation, ECGs of
other people do here: eight leads make twelve, few directions of the leads hold nearly all, and of the signal
there is nothing above 40 Hz. The attack begins from several drawn windows and goes on with that which fits
the gradient best, which needs no truth.

Legend: N windows, L leads, T samples, R independent leads, K frequencies, V visible patches of a lead.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from scipy.fft import idct
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from cardionets_core.data.records import LEADS
from cardionets_core.models.masking import PatchMask
from cardionets_core.models.patches import patchify_ecg

INDEPENDENT = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
HIGHEST_HZ = 40.0
FEW = 4
"""Directions of the leads that are sought first."""
SHARE = 0.75
"""1 would let each tensor count alike, 0 each value."""
PRIOR_WEIGHT = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a server has of one update, or of a sum of several.

    Attributes:
        gradient: by module and parameter, what it takes for the mean gradient of all windows.
        mask: visible and hidden patches, ``[N, L, V]``.
    """

    gradient: Mapping[tuple[str, str], torch.Tensor]
    mask: PatchMask


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How long the attack tries: windows to begin with, steps with each, steps with the best of them."""

    starts: int = 6
    scouting: int = 200
    steps: int = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Guess:
    """Windows ``[N, L, T]``, and how far their gradient is from the one that was seen."""

    windows: np.ndarray
    misfit: float


class Prior:
    """What ECGs of other people look like: how leads go together, and how much of each frequency there is.

    Args:
        others_NLT: standardised windows.
        rate_hz: of their samples.
    """

    def __init__(self, others_NLT: torch.Tensor, *, rate_hz: float) -> None:
        samples = others_NLT.shape[-1]
        count = int(2 * HIGHEST_HZ / rate_hz * samples)
        self._wave_TK = torch.from_numpy(idct(np.eye(samples), norm="ortho", axis=0)[:, :count].copy())
        self._twelve_LR = _twelve()
        places = [LEADS.index(lead) for lead in INDEPENDENT]
        found_NRK = others_NLT.double()[:, places] @ self._wave_TK
        power_K = found_NRK.square().mean(dim=(0, 1))
        self._size_K = nn.functional.avg_pool1d(power_K[None, None], 9, 1, 4, count_include_pad=False)[0, 0]
        self._size_K = self._size_K.sqrt()
        white = found_NRK / self._size_K
        together = torch.einsum("nik,njk->ij", white, white) / (len(white) * count)
        values, directions = torch.linalg.eigh(together)
        self._mix_RR = (directions * values.clamp_min(0.0).sqrt()).flip(1)
        self.shape = (len(INDEPENDENT), count + 1)

    def windows(self, code_NRK: torch.Tensor) -> torch.Tensor:
        """Windows ``[N, L, T]`` of codes, which are standard normal for ECGs like the others'."""
        directions = code_NRK.shape[1]
        waves = (code_NRK[..., :-1] * self._size_K) @ self._wave_TK.T
        # One offset a window: it was standardised as a whole.
        offset = 0.1 * code_NRK[..., -1].mean(dim=1)
        return self._twelve_LR @ (self._mix_RR[:, :directions] @ waves) + offset[:, None, None]


class Attack:
    """One attack.

    Args:
        modules: ``ecg_encoder`` and ``ecg_decoder`` as the server sent them; copies, which become double.
        seen: what came back.
        prior: of the windows.
    """

    def __init__(self, modules: Mapping[str, nn.Module], seen: Seen, *, prior: Prior) -> None:
        self._modules = {name: module.double().eval() for name, module in modules.items()}
        named = {
            (name, key): parameter
            for name, module in self._modules.items()
            for key, parameter in module.named_parameters()
        }
        self._parameters = [named[key].requires_grad_(True) for key in seen.gradient]
        self._wanted = [value.double() for value in seen.gradient.values()]
        squares = [float(value.square().sum()) for value in self._wanted]
        self._weights = [1.0 / (square**SHARE + 1e-9 * sum(squares) + 1e-300) for square in squares]
        whole = sum(weight * square for weight, square in zip(self._weights, squares, strict=True))
        self._weights = [weight / max(whole, 1e-300) for weight in self._weights]
        self._mask = seen.mask
        self._prior = prior

    def run(self, effort: Effort, *, seed: int) -> list[Guess]:
        """Guesses, the first with the best fit; all others are starts that were given up."""
        generator = torch.Generator().manual_seed(seed)
        count = len(self._mask.visible)
        rows, columns = self._prior.shape
        with sdpa_kernel(SDPBackend.MATH):  # the others have no second derivative
            scouts = []
            for _ in range(effort.starts):
                code = torch.randn(count, FEW, columns, generator=generator, dtype=torch.float64)
                scouts.append(self._descend(code, steps=effort.scouting))
            scouts.sort(key=lambda scout: scout[1])
            code, _ = self._descend(scouts[0][0], steps=effort.steps // 2)
            rest = torch.zeros(count, rows - FEW, columns, dtype=torch.float64)
            best = self._descend(torch.cat([code, rest], dim=1), steps=effort.steps - effort.steps // 2)
        return [self._guess(*found) for found in (best, *scouts)]

    def _guess(self, code: torch.Tensor, misfit: float) -> Guess:
        return Guess(windows=self._prior.windows(code).float().numpy(), misfit=misfit)

    def _descend(self, code: torch.Tensor, *, steps: int) -> tuple[torch.Tensor, float]:
        code = code.clone().requires_grad_(True)
        optimiser = torch.optim.LBFGS(
            [code],
            max_iter=steps,
            max_eval=2 * steps,
            history_size=100,
            line_search_fn="strong_wolfe",
            tolerance_grad=0.0,
            tolerance_change=0.0,
        )
        best = (code.detach().clone(), math.inf)

        def closure() -> torch.Tensor:
            nonlocal best
            misfit = self._misfit(code)
            if float(misfit.detach()) < best[1]:
                best = (code.detach().clone(), float(misfit.detach()))
            loss = misfit + PRIOR_WEIGHT * code.square().mean()
            (code.grad,) = torch.autograd.grad(loss, [code])
            return loss.detach()

        optimiser.step(closure)
        return best

    def _misfit(self, code: torch.Tensor) -> torch.Tensor:
        encoder, decoder = self._modules["ecg_encoder"], self._modules["ecg_decoder"]
        windows_NLT = self._prior.windows(code)
        tokens = encoder.visible_tokens(windows_NLT, self._mask.visible)  # type: ignore[operator]
        made = decoder(tokens, self._mask.visible)
        target = patchify_ecg(windows_NLT, int(encoder.patch))  # type: ignore[arg-type]
        # The loss of the task rounds to float32, which the line search would feel.
        index = self._mask.hidden[..., None].expand(*self._mask.hidden.shape, target.shape[-1])
        loss = (made.gather(-2, index) - target.gather(-2, index)).square().mean()
        found = torch.autograd.grad(loss, self._parameters, create_graph=True)
        parts = zip(self._weights, found, self._wanted, strict=True)
        return torch.stack([weight * (got - want).square().sum() for weight, got, want in parts]).sum()


def _twelve() -> torch.Tensor:
    """All leads of the independent ones (Einthoven, Goldberger): ``[L, R]``."""
    of = {lead: np.eye(len(INDEPENDENT))[place] for place, lead in enumerate(INDEPENDENT)}
    first, second = of["I"], of["II"]
    of |= {"III": second - first, "aVR": -(first + second) / 2}
    of |= {"aVL": first - second / 2, "aVF": second - first / 2}
    return torch.from_numpy(np.stack([of[lead] for lead in LEADS]))
