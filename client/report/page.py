"""The quality report as one page that loads nothing: no script, no font, no picture from elsewhere.

Comes in: the report's content and its pictures. Goes out: HTML that can be printed, mailed inside the house,
and read on a phone. Text is escaped by jinja2; only the SVG that this package draws goes in as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from client.report.histograms import Histogram, bars_svg
from client.wording import VIEWS, note_words

TEMPLATES = Path(__file__).with_name("templates")
PAGE = "quality.html"


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A picture of one recording.

    Attributes:
        caption: what to see.
        svg: a strip drawn by this package; empty for frames.
        frames: data URIs of PNGs.
    """

    caption: str
    svg: str = ""
    frames: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Examples under one heading.

    Attributes:
        title: the heading.
        sentence: what they have in common.
        examples: a few.
    """

    title: str
    sentence: str
    examples: tuple[Example, ...]


def render_page(
    content: Mapping[str, Any],
    *,
    made_on: str,
    histograms: Mapping[str, Histogram],
    accepted: Sequence[Group],
    refused: Sequence[Group],
) -> str:
    """The whole page.

    Args:
        content: of ``report_content``.
        made_on: date of the report.
        histograms: drawn in this order.
        accepted: pictures of accepted recordings.
        refused: pictures of recordings that were left out, a group a reason.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["svg"] = Markup
    environment.filters["whole"] = lambda value: f"{value:,}"
    environment.filters["percent"] = _percent
    environment.filters["plain"] = lambda value: f"{value:g}"
    listed = sum(counts["listed"] for counts in content["recordings"].values())
    return environment.get_template(PAGE).render(
        content,
        made_on=made_on,
        drawn=[(found, bars_svg(found)) for found in histograms.values()],
        accepted_groups=accepted,
        refused_groups=refused,
        listed=listed,
        views={view: VIEWS[view] for view in content["splits"]["train"]["views"]},
        used=sum(counts["accepted"] for counts in content["recordings"].values()),
        refused_most=max((row["count"] for row in content["left_out"]), default=1),
        note_words={note: note_words(note) for note in content["notes"]},
        blocks=_phenotype_blocks(content["phenotypes"]),
    )


def _percent(part: float | None) -> str:
    """Nearly all is not all, and nearly none is not none."""
    if part is None:
        return "unknown"
    if 0 < part < 0.0005 or 0.9995 <= part < 1:
        return "under 0.1 %" if part < 0.5 else "over 99.9 %"
    return f"{100 * part:.1f} %" if 0 < part < 0.1 or 0.9 < part < 1 else f"{100 * part:.0f} %"


def _phenotype_blocks(phenotypes: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The 82 phenotypes in groups of one organ or measure, by the first two words of their titles."""
    blocks: dict[str, list[int]] = {}
    for entry in phenotypes["fields"]:
        words = entry["title"].split()
        name = " ".join(words[:1]) if words[0] in ("LA", "RA", "RV") else " ".join(words[:2])
        if words[0] == "LV" and words[1] not in ("mean", "circumferential", "radial", "longitudinal"):
            name = "LV"
        blocks.setdefault(_BLOCKS.get(name, name), []).append(entry["known"])
    return [
        {"title": title, "fields": len(known), "least": min(known), "most": max(known)}
        for title, known in blocks.items()
    ]


_BLOCKS = {
    "LV": "left ventricle: volumes, function, mass",
    "RV": "right ventricle",
    "LA": "left atrium",
    "RA": "right atrium",
    "Ascending aorta": "ascending aorta",
    "Descending aorta": "descending aorta",
    "LV mean": "wall thickness",
    "LV circumferential": "circumferential strain",
    "LV radial": "radial strain",
    "LV longitudinal": "longitudinal strain",
}
