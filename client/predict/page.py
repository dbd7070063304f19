"""Predictions as one page that loads nothing: no script, no font, no picture from elsewhere.

Comes in: the JSON-ready content and the predictions with their pictures. Goes out: HTML in light or dark,
which can be printed and read on a phone. Text is escaped by jinja2; only the SVG that this project draws goes
in as it is.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from cardionets_core.data.cohort import ECG_MV_PER_COUNT, ECG_RATE_HZ
from client.predict.bars import probability_svg, range_svg
from client.predict.cine import cine_gif, sheet_png
from client.predict.content import parts_lacking
from client.predict.explain_picture import cells_svg
from client.predict.lines import PART_WORDS, percent, plain
from client.predict.prediction import Prediction
from client.report.pictures import data_uri, strip_svg
from client.report.strips import Strip, lay_out
from client.wording import DISEASES, flag_words

TEMPLATES = Path(__file__).with_name("templates")
PAGE = "prediction.html"
GROUPS = (
    ("Left ventricle", ("LV end", "LV stroke", "LV ejection", "LV cardiac", "LV myocardial")),
    ("Right ventricle", ("RV",)),
    ("Atria", ("LA", "RA")),
    ("Aorta", ("Ascending", "Descending")),
    ("Wall thickness of the left ventricle", ("LV mean",)),
    ("Circumferential strain", ("LV circumferential",)),
    ("Radial strain", ("LV radial",)),
    ("Longitudinal strain", ("LV longitudinal",)),
)
"""Headings of the phenotypes, and how their titles begin."""


def render_page(content: Mapping[str, Any], pictures: Sequence[Mapping[str, Any]], *, made_on: str) -> str:
    """The whole page.

    Args:
        content: of ``prediction_content``.
        pictures: of ``pictures_of``, one a recording, in the same order.
        made_on: date of the page.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "svg": Markup,
        "plain": plain,
        "percent": percent,
        "range": lambda found: Markup(range_svg(found)),
        "probability": lambda found: Markup(probability_svg(found)),
    }
    return environment.get_template(PAGE).render(
        content,
        made_on=made_on,
        shown=[
            {"found": found, **drawn} for found, drawn in zip(content["recordings"], pictures, strict=True)
        ],
        lacking=[
            (PART_WORDS[part], content["model"]["not_in_this_model"][part]) for part in parts_lacking(content)
        ],
        flag_words=flag_words,
        subtype_words={name: DISEASES[name][0] for name in ("rcm", "dcm", "hcm")},
    )


def pictures_of(found: Mapping[str, Any], prediction: Prediction) -> dict[str, Any]:
    """What is drawn of one recording; nothing where it was refused.

    Args:
        found: of ``recording_content``.
        prediction: the same recording.
    """
    if prediction.heard.counts is None:
        return {}
    strip = _strip(prediction.heard.counts)
    cine = prediction.cine
    return {
        "strip": strip_svg(strip, label="12-lead ECG, filtered"),
        "scale": strip.scale,
        "groups": _groups(found["phenotypes"] or ()),
        "gif": None if cine is None else _gif_uri(cine_gif(cine)),
        "sheet": None if cine is None else data_uri(sheet_png(cine)),
        "explained": [
            (told, cells_svg(each, strip), sorted(told["lead_shares"].items(), key=lambda item: -item[1]))
            for told, each in zip(found["explained"], prediction.explained, strict=True)
        ],
    }


def _groups(phenotypes: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Mapping[str, Any]]]]:
    """Phenotypes under their headings; headings without any are left out."""
    found = [
        (title, [each for each in phenotypes if each["title"].startswith(begins)]) for title, begins in GROUPS
    ]
    return [(title, rows) for title, rows in found if rows]


def _strip(counts: np.ndarray) -> Strip:
    return lay_out(counts.astype(np.float32) * ECG_MV_PER_COUNT, fs_hz=ECG_RATE_HZ)


def _gif_uri(gif: bytes) -> str:
    return "data:image/gif;base64," + base64.b64encode(gif).decode("ascii")
