"""Cines at the size of a preset, a bounded number of them in memory (step 5 of the walk).

Comes in: the packed cines, mostly a memory map, and which are wanted. Goes out: the area mean over the same
field of view. What was asked for last is kept, up to a number of bytes, so that memory does not grow with
the cohort.
"""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import torch
from torch.nn.functional import adaptive_avg_pool3d

KEPT_BYTES = 1 << 28


class CineSizes:
    """Resampled cines of one cohort.

    Args:
        kept_bytes: most bytes that are kept between two calls.
    """

    def __init__(self, kept_bytes: int = KEPT_BYTES) -> None:
        self._most = kept_bytes
        self._kept: OrderedDict[tuple[int, int, int], np.ndarray] = OrderedDict()
        self.bytes = 0

    def take(self, cines: np.ndarray, items: np.ndarray, *, frames: int, pixels: int) -> np.ndarray:
        """[len(items), frames, pixels, pixels], 0 to 255; uint8 at the packed size, else float32.

        Args:
            cines: uint8 [N, F, Y, X].
            items: int64, which of them, in any order and number.
            frames: wanted; not more than F.
            pixels: wanted rows and columns; not more than Y and X.
        """
        if cines.shape[1:] == (frames, pixels, pixels):
            return np.asarray(cines[items])
        chosen = np.empty((len(items), frames, pixels, pixels), dtype=np.float32)
        for place, item in enumerate(items):
            key = (int(item), frames, pixels)
            if key in self._kept:
                self._kept.move_to_end(key)
                chosen[place] = self._kept[key]
                continue
            stack = torch.from_numpy(np.array(cines[item], dtype=np.float32))[None]
            chosen[place] = adaptive_avg_pool3d(stack, (frames, pixels, pixels))[0].numpy()
            self._keep(key, chosen[place].copy())
        return chosen

    def _keep(self, key: tuple[int, int, int], cine: np.ndarray) -> None:
        self._kept[key] = cine
        self.bytes += cine.nbytes
        while self.bytes > self._most:
            _, dropped = self._kept.popitem(last=False)
            self.bytes -= dropped.nbytes
