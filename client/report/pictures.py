"""ECG strips and heart frames as pictures, without a name on them (``check --picture``, the quality report).

Comes in: strips and frames. Goes out: SVG text, PNG bytes, one sheet for ``check``. What a scanner burns into
the corners of its frames may name a patient, so of a raw frame only the middle is shown.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from client.report.strips import BOX_PX, COLUMN_BOXES, GUTTER_PX, HEIGHT_PX, ROW_BOXES, ROWS, WIDTH_PX, Strip

Font = ImageFont.ImageFont | ImageFont.FreeTypeFont

INK = "#1b2733"
PAPER_LINE = "#f0c4bd"
SHOWN_SHARE = 0.6
"""Of each side of a raw frame; the heart lies in the middle, the burnt-in text at the edges."""
FRAME_PX = 128
_QUARTER = 4
_SHEET_SCALE = 2
_MARGIN = 16
_LABEL_PX = 11


def strip_svg(strip: Strip, *, label: str) -> str:
    """A strip as SVG, to stand inside HTML.

    Args:
        strip: laid out.
        label: what it shows, for readers who do not see it; plain words only, it is not escaped.
    """
    width, height = round(WIDTH_PX), round(HEIGHT_PX)
    parts = [
        f'<svg class="strip" viewBox="0 -2 {width} {height + 4}" role="img" aria-label="{label}">',
        f'<path d="{_grid_path()}" fill="none" stroke="{PAPER_LINE}" stroke-width=".7"/>',
    ]
    for line in strip.lines:
        path = "".join(_piece_path(piece) for piece in line.pieces)
        # Quarter pixels as whole numbers keep the file small.
        parts.append(
            f'<path d="{path}" transform="scale({1 / _QUARTER})" fill="none" stroke="{INK}" '
            'stroke-width="4" stroke-linejoin="round"/>'
            if path
            else f'<text x="{line.left_px + 60:.0f}" y="{line.middle_px:.0f}" class="absent">absent</text>'
        )
        parts.append(
            f'<text x="{line.left_px + 2:.0f}" y="{line.middle_px - 1.5 * BOX_PX:.0f}" class="lead">'
            f"{line.lead}</text>"
        )
    return "".join([*parts, "</svg>"])


def raw_frames(pixels: np.ndarray, *, count: int = 3) -> list[np.ndarray]:
    """Some frames of a reader's stack as uint8 [Y, X]: the middle of the middle slice, evenly in time.

    Args:
        pixels: [F, Y, X] or [F, Z, Y, X] in scanner units.
        count: how many.
    """
    plane = pixels[:, pixels.shape[1] // 2] if pixels.ndim == 4 else pixels
    rows, columns = (_middle(size) for size in plane.shape[1:])
    window = np.nan_to_num(plane[:, rows, columns].astype(np.float64), posinf=0.0, neginf=0.0)
    low, high = np.percentile(window, (0.5, 99.5))
    scaled = np.clip((window - low) / max(high - low, 1e-12) * 255, 0, 255).astype(np.uint8)
    return even_frames(scaled, count=count)


def even_frames(pixels_FYX: np.ndarray, *, count: int = 3) -> list[np.ndarray]:
    """Frames at even distances in time, the first among them."""
    return [pixels_FYX[place] for place in even_places(len(pixels_FYX), count=count)]


def even_places(frames: int, *, count: int = 3) -> list[int]:
    """Which of so many frames ``even_frames`` takes; the first is 0."""
    return [int(place * frames / count) for place in range(min(count, frames))]


def frame_png(frame: np.ndarray) -> bytes:
    """One uint8 frame as PNG, its longer side ``FRAME_PX``; carries no text chunk."""
    content = io.BytesIO()
    _frame_image(frame, FRAME_PX).save(content, "PNG", optimize=True)
    return content.getvalue()


def data_uri(png: bytes) -> str:
    """A PNG that stands inside HTML."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def sheet_png(rows: Sequence[tuple[str, Strip | list[np.ndarray] | None]]) -> bytes:
    """One sheet of several recordings, a caption above each.

    Args:
        rows: caption, and a strip, or uint8 frames, or None where there is nothing to show.
    """
    heights = [_row_height(content) for _, content in rows]
    width = round(WIDTH_PX) + 2 * _MARGIN
    size = (width * _SHEET_SCALE, (sum(heights) + _MARGIN) * _SHEET_SCALE)
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=_LABEL_PX * _SHEET_SCALE)
    top = _MARGIN
    for (caption, content), height in zip(rows, heights, strict=True):
        draw.text((_MARGIN * _SHEET_SCALE, top * _SHEET_SCALE), caption, fill=INK, font=font)
        under = top + 2 * _LABEL_PX
        if isinstance(content, Strip):
            _draw_strip(draw, content, left=_MARGIN, top=under, font=font)
        elif content is not None:
            for place, frame in enumerate(content):
                tile = _frame_image(frame, FRAME_PX * _SHEET_SCALE)
                image.paste(tile, ((_MARGIN + place * (FRAME_PX + 8)) * _SHEET_SCALE, under * _SHEET_SCALE))
        top += height
    content_bytes = io.BytesIO()
    image.save(content_bytes, "PNG", optimize=True)
    return content_bytes.getvalue()


def _row_height(content: Strip | list[np.ndarray] | None) -> int:
    if content is None:
        return 3 * _LABEL_PX
    return 3 * _LABEL_PX + _MARGIN + (round(HEIGHT_PX) if isinstance(content, Strip) else FRAME_PX)


def _draw_strip(draw: ImageDraw.ImageDraw, strip: Strip, *, left: int, top: int, font: Font) -> None:
    shift = np.array([left, top])
    for begin, end in _grid_lines():
        draw.line(
            [tuple((shift + begin) * _SHEET_SCALE), tuple((shift + end) * _SHEET_SCALE)], fill=PAPER_LINE
        )
    for line in strip.lines:
        for piece in line.pieces:
            points = [tuple(point) for point in (piece + shift) * _SHEET_SCALE]
            if len(points) > 1:
                draw.line(points, fill=INK, width=_SHEET_SCALE, joint="curve")
        place = (
            (left + line.left_px + 2) * _SHEET_SCALE,
            (top + line.middle_px - 2.4 * BOX_PX) * _SHEET_SCALE,
        )
        draw.text(place, line.lead, fill=INK, font=font, stroke_width=2 * _SHEET_SCALE, stroke_fill="white")


def _frame_image(frame: np.ndarray, side_px: int) -> Image.Image:
    image = Image.fromarray(np.ascontiguousarray(frame))
    scale = side_px / max(frame.shape)
    size = (max(1, round(frame.shape[1] * scale)), max(1, round(frame.shape[0] * scale)))
    return image.resize(size, Image.Resampling.BILINEAR)


def _middle(size: int) -> slice:
    kept = max(1, round(size * SHOWN_SHARE))
    start = (size - kept) // 2
    return slice(start, start + kept)


def _grid_lines() -> list[tuple[np.ndarray, np.ndarray]]:
    """Both ends of every line of the paper."""
    lines = []
    wide, high = COLUMN_BOXES * BOX_PX, ROWS * ROW_BOXES * BOX_PX
    for left in (0.0, wide + GUTTER_PX):
        for box in range(int(COLUMN_BOXES) + 1):
            x = left + box * BOX_PX
            lines.append((np.array([x, 0.0]), np.array([x, high])))
        for box in range(ROWS * ROW_BOXES + 1):
            lines.append((np.array([left, box * BOX_PX]), np.array([left + wide, box * BOX_PX])))
    return lines


def _grid_path() -> str:
    return "".join(f"M{a[0]:.0f} {a[1]:.0f}L{b[0]:.0f} {b[1]:.0f}" for a, b in _grid_lines())


def _piece_path(piece: np.ndarray) -> str:
    whole = np.rint(piece * _QUARTER).astype(int)
    if len(whole) == 1:
        return f"M{whole[0, 0]} {whole[0, 1]}h1"
    steps = np.diff(whole, axis=0)
    moves = "".join(f"{dx}{'' if dy < 0 else ' '}{dy} " for dx, dy in steps).strip()
    return f"M{whole[0, 0]} {whole[0, 1]}l{moves}"
