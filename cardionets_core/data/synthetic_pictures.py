"""Pictures of marked synthetic frames: an animated GIF, and a PNG; both say in themselves what they are.

Comes in: grey frames that bear their mark already (``synthetic_mark``). Goes out: bytes of a file.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, PngImagePlugin

from cardionets_core.data.synthetic_nifti import DESCRIPTION


def moving_gif(pixels_FYX: np.ndarray, *, frame_ms: int, greys: int = 256) -> bytes:
    """All frames, again and again; the comment says what it is.

    Args:
        pixels_FYX: uint8, marked.
        frame_ms: time of a frame, in steps of 10.
        greys: how many are told apart; fewer make a smaller file.
    """
    coarse = pixels_FYX
    if greys < 256:
        step = 255.0 / (greys - 1)
        coarse = np.rint(np.rint(pixels_FYX / step) * step).astype(np.uint8)
    frames = [Image.fromarray(frame) for frame in coarse]
    content = io.BytesIO()
    frames[0].save(
        content,
        "GIF",
        save_all=True,
        append_images=frames[1:],
        duration=frame_ms,
        loop=0,
        comment=DESCRIPTION.encode(),
        optimize=False,
    )
    return content.getvalue()


def still_png(pixels_YX: np.ndarray) -> bytes:
    """One picture, uint8, marked; its description says what it is."""
    told = PngImagePlugin.PngInfo()
    told.add_text("Description", DESCRIPTION)
    content = io.BytesIO()
    Image.fromarray(pixels_YX).save(content, "PNG", optimize=True, pnginfo=told)
    return content.getvalue()
