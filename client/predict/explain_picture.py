"""The attribution of one output as coloured cells, to lie under the strip of the same ECG.

Comes in: an attribution on the time axis of a recording. Goes out: SVG in the proportions of ``strip_svg``:
red raises the output, blue lowers it, and the strongest cell has the full colour.
"""

from __future__ import annotations

import numpy as np

from cardionets_core.data.cohort import ECG_RATE_HZ
from client.predict.explain import BIN_SAMPLES, Explained
from client.report.strips import BOX_PX, BOX_S, HEIGHT_PX, SECONDS, WIDTH_PX, Strip

RAISES, LOWERS = "#d9480f", "#1971c2"
FAINTEST = 0.04
"""Share of the full colour under which a cell is not drawn."""
_OPACITY = 0.75
_CELL_BOXES = 4.4
"""Of the five boxes that a lead has."""


def cells_svg(explained: Explained, strip: Strip) -> str:
    """The cells of the first ten seconds.

    Args:
        explained: of the recording that the strip shows from its beginning.
        strip: laid out; gives each lead its place.
    """
    shown_LS = explained.map_LS[:, : int(SECONDS * ECG_RATE_HZ / BIN_SAMPLES)]
    most = float(np.abs(explained.map_LS).max()) or 1.0
    width = BIN_SAMPLES / ECG_RATE_HZ / BOX_S * BOX_PX
    height = _CELL_BOXES * BOX_PX
    parts = [
        f'<svg class="cells" viewBox="0 -2 {round(WIDTH_PX)} {round(HEIGHT_PX) + 4}" aria-hidden="true">'
    ]
    for line, share_S in zip(strip.lines, shown_LS / most, strict=True):
        for place in np.flatnonzero(np.abs(share_S) >= FAINTEST):
            share = float(share_S[place])
            parts.append(
                f'<rect x="{line.left_px + place * width:.1f}" y="{line.middle_px - height / 2:.1f}" '
                f'width="{width:.1f}" height="{height:.1f}" fill="{RAISES if share > 0 else LOWERS}" '
                f'fill-opacity="{_OPACITY * abs(share):.2f}"/>'
            )
    return "".join([*parts, "</svg>"])
