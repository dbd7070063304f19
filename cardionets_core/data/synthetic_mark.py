"""The mark that a synthetic cine bears in its pixels, so that no frame of it can pass for an acquisition.

Comes in: frames as the model draws them. Goes out: larger frames with a band of words at two edges. Small
frames are enlarged first, or the words could not be read; what is enlarged holds no more than before.

Legend: F frames, Y rows, X columns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

MARK = "SYNTHETIC"
ORIGIN = "CardioNets - not an acquisition"
LEAST_PX = 256
"""Side from which on the words can be read."""
_BAND_SHARE = 0.085
"""Height of a band; the heart lies in the middle of the frame."""
_TEXT_SHARE = 0.72


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkedCine:
    """Frames with their mark.

    Attributes:
        pixels: uint8 [F, Y, X].
        enlarged: how many times each side was enlarged.
    """

    pixels: np.ndarray
    enlarged: int


def mark_cine(cine_FYX: np.ndarray, *, least_px: int = LEAST_PX) -> MarkedCine:
    """Scale to grey values, enlarge and mark every frame.

    Args:
        cine_FYX: in [-1, 1].
        least_px: shortest side of what is given back.
    """
    grey_FYX = np.rint((np.clip(cine_FYX, -1.0, 1.0) + 1.0) * 127.5).astype(np.uint8)
    rows, columns = grey_FYX.shape[1:]
    enlarged = max(1, math.ceil(least_px / min(rows, columns)))
    size = (columns * enlarged, rows * enlarged)
    top, bottom = (_band(words, width=size[0], height=size[1]) for words in (MARK, ORIGIN))
    marked = np.stack(
        [np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC)) for frame in grey_FYX]
    )
    marked[:, : len(top)] = top
    marked[:, -len(bottom) :] = bottom
    return MarkedCine(pixels=marked, enlarged=enlarged)


def _band(words: str, *, width: int, height: int) -> np.ndarray:
    """White words in the middle of a black band, uint8 [rows, width]; they never touch its ends."""
    rows = math.ceil(height * _BAND_SHARE)
    band = Image.new("L", (width, rows), 0)
    size = rows * _TEXT_SHARE
    font = ImageFont.load_default(size=size)
    if (length := font.getlength(words)) > 0.94 * width:
        font = ImageFont.load_default(size=size * 0.94 * width / length)
    ImageDraw.Draw(band).text((width / 2, rows / 2), words, fill=255, font=font, anchor="mm")
    return np.asarray(band)
