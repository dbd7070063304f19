"""Measures the left ventricle's area in cines that have no masks: drawn by a generator, or read from a cache.

A small segmenter learns from hearts that are drawn for it alone (no patient of any hospital), with their
masks, through the same window and sizes as the data path. Its agreement with masks of further drawn hearts is
part of what it gives: a correlation found with it can be no better than that.

Legend: B cines, F frames, Y rows, X columns; areas in mm2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.functional import adaptive_avg_pool3d, binary_cross_entropy_with_logits

from cardionets_core.data.cine import PIXELS, SPACING_MM, prepare_cine, resample_time, window_weights
from cardionets_core.data.cine_plane import place_window
from cardionets_core.data.windows import InputShape
from cardionets_core.training.seeds import derive_seed
from simulation.cine import LV, DrawnCine, draw_cine
from simulation.hearts import draw_heart
from simulation.machines import Scanner

WIDTH = 8
BATCH = 64
MIX = {"cad": 0.2, "cm": 0.25, "hf": 0.2, "pc": 0.05, "ph": 0.15}


@dataclass(frozen=True, slots=True, kw_only=True)
class LvMeter:
    """A trained segmenter and how far it can be trusted.

    Attributes:
        network: ``[N, 1, Y, X]`` in [-1, 1] to logits of the cavity.
        pixel_mm2: area of a pixel at the preset's size.
        agreement: correlation of its end-diastolic areas with those of masks it has not seen.
    """

    network: nn.Module
    pixel_mm2: float
    agreement: float

    def areas(self, cine_BFYX: torch.Tensor) -> np.ndarray:
        """Cavity's area in each frame, float64 ``[B, F]`` in mm2: the sum of the pixels' probabilities."""
        batch, frames, rows, columns = cine_BFYX.shape
        found = []
        with torch.no_grad():
            for part in cine_BFYX.float().reshape(-1, 1, rows, columns).split(512):
                found.append(self.network(part).sigmoid().double().sum(dim=(1, 2, 3)))
        areas = torch.cat(found) if found else torch.zeros(0, dtype=torch.float64)
        return areas.reshape(batch, frames).numpy() * self.pixel_mm2


def train_lv_meter(
    shape: InputShape, *, seed: int, hearts: int = 80, held_out: int = 30, steps: int = 150
) -> LvMeter:
    """Draw hearts with their masks and learn to find the cavity.

    Args:
        shape: sizes of the preset; also those of the cines that will be measured.
        seed: of hearts, weights and batches.
        hearts: to learn from.
        held_out: to measure the agreement on.
        steps: of Adam.
    """
    rng = np.random.default_rng(derive_seed(seed, "lv-meter"))
    pairs = [_pair(rng, shape) for _ in range(hearts + held_out)]
    pixels = torch.stack([pair[0] for pair in pairs])
    masks = torch.stack([pair[1] for pair in pairs])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "lv-meter", "weights"))
        network = _network()
    side = shape.cine_pixels
    images, labels = pixels[:hearts].reshape(-1, 1, side, side), masks[:hearts].reshape(-1, 1, side, side)
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(steps):
        chosen = torch.from_numpy(rng.integers(0, len(images), BATCH))
        # Generated cines are smoother and of other contrast: both are varied, so that neither is relied on.
        gain = torch.from_numpy(rng.uniform(0.8, 1.2, (BATCH, 1, 1, 1)).astype(np.float32))
        shift = torch.from_numpy(rng.uniform(-0.15, 0.15, (BATCH, 1, 1, 1)).astype(np.float32))
        noise = torch.from_numpy(rng.normal(0.0, 0.05, (BATCH, 1, side, side)).astype(np.float32))
        optimiser.zero_grad(set_to_none=True)
        logits = network(images[chosen] * gain + shift + noise)
        binary_cross_entropy_with_logits(logits, labels[chosen]).backward()
        optimiser.step()
    network.eval()
    meter = LvMeter(network=network, pixel_mm2=(SPACING_MM * PIXELS / side) ** 2, agreement=float("nan"))
    measured = meter.areas(pixels[hearts:]).max(axis=1)
    true = masks[hearts:].double().sum(dim=(2, 3)).numpy().max(axis=1) * meter.pixel_mm2
    return LvMeter(
        network=network, pixel_mm2=meter.pixel_mm2, agreement=float(np.corrcoef(measured, true)[0, 1])
    )


def _network() -> nn.Module:
    layers: list[nn.Module] = []
    inputs = 1
    for dilation in (1, 2, 4, 2, 1):
        layers += [nn.Conv2d(inputs, WIDTH, 3, padding=dilation, dilation=dilation), nn.GroupNorm(2, WIDTH)]
        layers.append(nn.SiLU())
        inputs = WIDTH
    return nn.Sequential(*layers, nn.Conv2d(WIDTH, 1, 1))


def _pair(rng: np.random.Generator, shape: InputShape) -> tuple[torch.Tensor, torch.Tensor]:
    """A drawn heart's cine in [-1, 1] and the share of the cavity in each pixel, both ``[F, Y, X]``."""
    scanner = Scanner(
        spacing_mm=float(rng.uniform(1.9, 2.3)),
        pixels=90,
        frames=20,
        noise=float(rng.uniform(0.04, 0.09)),
        bias=float(rng.uniform(0.2, 0.45)),
        contrast=float(rng.uniform(0.85, 1.15)),
    )
    drawn = draw_cine(draw_heart(rng, prevalence=MIX), scanner, rng)
    cine = torch.from_numpy(prepare_cine(drawn.stack).pixels.astype(np.float32)) / 127.5 - 1.0
    size = (shape.cine_frames, shape.cine_pixels, shape.cine_pixels)
    small, mask = (adaptive_avg_pool3d(each[None], size)[0] for each in (cine, _cavity(drawn)))
    return small, mask


def _cavity(drawn: DrawnCine) -> torch.Tensor:
    """The cavity's mask through the window of the data path: float32 [50, 96, 96], shares."""
    stack = drawn.stack
    window = place_window(stack.pixels, None, spacing_mm=stack.spacing_mm, field_mm=PIXELS * SPACING_MM)
    rows, columns = stack.pixels.shape[1:]
    weights_y, _ = window_weights(rows, spacing_mm=stack.spacing_mm[0], centre=window.centre[0])
    weights_x, _ = window_weights(columns, spacing_mm=stack.spacing_mm[1], centre=window.centre[1])
    mask = (drawn.masks == LV).astype(np.float32)
    cropped = np.stack([weights_y @ frame @ weights_x.T for frame in mask])
    return torch.from_numpy(resample_time(cropped).astype(np.float32))
