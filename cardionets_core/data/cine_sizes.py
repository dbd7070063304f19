"""Cines at the size of a preset, a bounded number of them in memory (step 5 of the walk).

Comes in: the packed cines, mostly a memory map, and which are wanted. Goes out: the area mean over the view's
field: all that is kept, or the middle of it for a short axis. What was asked for last is kept, up to a number
of bytes, so that memory does not grow with the cohort.
"""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import torch
from torch.nn.functional import adaptive_avg_pool3d

from cardionets_core.data.records import SAX_FIELD_PIXELS
from cardionets_core.data.windows import InputShape, ShownView

_Key = tuple[ShownView, int, int, int]

KEPT_BYTES = 1 << 28


class CineSizes:
    """Resampled cines of one cohort.

    Args:
        kept_bytes: most bytes that are kept between two calls.
    """

    def __init__(self, kept_bytes: int = KEPT_BYTES) -> None:
        self._most = kept_bytes
        self._kept: OrderedDict[_Key, np.ndarray] = OrderedDict()
        self.bytes = 0

    def load(
        self, cines: np.ndarray, items: np.ndarray, *, shape: InputShape, view: ShownView
    ) -> torch.Tensor:
        """Float32 [len(items), F, Y, X] in [-1, 1], at a preset's size of a view.

        A 4-chamber cine is scaled as it was packed; a short axis by its own least and greatest value, and one
        that is constant gives zeros.

        Raises:
            ValueError: the shape has no size for a short axis.
        """
        pixels = shape.sax_pixels if view == "sax" else shape.cine_pixels
        if pixels < 1:
            raise ValueError(f"the shape has no size for the view {view}")
        chosen = self.take(cines, items, frames=shape.cine_frames, pixels=pixels, view=view)
        if view == "4ch":
            return torch.from_numpy(chosen.astype(np.float32) / 127.5 - 1.0)
        return torch.from_numpy(_stretched(chosen))

    def take(
        self, cines: np.ndarray, items: np.ndarray, *, frames: int, pixels: int, view: ShownView = "4ch"
    ) -> np.ndarray:
        """[len(items), frames, pixels, pixels], 0 to 255; uint8 at the packed size, else float32.

        Args:
            cines: uint8 [N, F, Y, X].
            items: int64, which of them, in any order and number.
            frames: wanted; not more than F.
            pixels: wanted rows and columns; not more than the field has.
            view: of a short axis only the middle of Y and X is shown.
        """
        rim = (cines.shape[-1] - SAX_FIELD_PIXELS) // 2 if view == "sax" else 0
        field = slice(rim, cines.shape[-1] - rim)
        if (cines.shape[1], field.stop - field.start) == (frames, pixels):
            return np.asarray(cines[items][:, :, field, field])
        chosen = np.empty((len(items), frames, pixels, pixels), dtype=np.float32)
        for place, item in enumerate(items):
            key = (view, int(item), frames, pixels)
            if key in self._kept:
                self._kept.move_to_end(key)
                chosen[place] = self._kept[key]
                continue
            stack = torch.from_numpy(np.array(cines[item][:, field, field], dtype=np.float32))[None]
            chosen[place] = adaptive_avg_pool3d(stack, (frames, pixels, pixels))[0].numpy()
            self._keep(key, chosen[place].copy())
        return chosen

    def _keep(self, key: _Key, cine: np.ndarray) -> None:
        self._kept[key] = cine
        self.bytes += cine.nbytes
        while self.bytes > self._most:
            _, dropped = self._kept.popitem(last=False)
            self.bytes -= dropped.nbytes


def _stretched(cines: np.ndarray) -> np.ndarray:
    """Each cine from its least value, -1, to its greatest, 1; float32."""
    values = cines.astype(np.float32)
    low, high = (end(axis=(1, 2, 3), keepdims=True) for end in (values.min, values.max))
    share = np.divide(values - low, high - low, out=np.full_like(values, 0.5), where=high > low)
    return 2 * share - 1
