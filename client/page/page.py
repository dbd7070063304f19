"""The status page as HTML: what ``content`` holds, in the look that all pages share.

Comes in: one look at a site. Goes out: the page to be served or written, with its numbers as they are and no
other. It reads no file but its templates. Words and colours are here and in the template; nothing is drawn
that is not in ``status --format json``.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from cardionets_core.pages.bars import bar_chart
from cardionets_core.pages.own_files import own_folder
from cardionets_core.pages.page import render, templates_in
from cardionets_core.pages.serve import Shown
from client.page.left import KINDS

KIND_WORDS = {
    "train": "model updates",
    "evaluate": "metric sums",
    "statistics": "sums for training",
    "census": "counts of the site",
    "secure": "messages of secure sums",
    "refusal": "codes alone",
}
LINK_LOOKS = {"connected": "good", "working": "good", "not connected yet": "warn"}
JOURNAL_WORDS = {
    "absent": ("empty", "", "There is no journal yet: it begins with the first answer."),
    "whole": ("whole", "good", "Every line continues the chain of hashes."),
    "checking": ("being checked", "warn", "It is long: it is checked a part at a time."),
    "torn": (
        "its last line is torn",
        "warn",
        "A crash or a power cut tore it; the next answer sets the torn piece aside and says so in a line.",
    ),
    "broken": (
        "broken",
        "bad",
        "A line was changed, removed or moved. What to do:",
    ),
    "unreadable": ("cannot be read", "bad", "Look at the rights of the file."),
}
_FEW_DAYS, _LITTLE = 45, 50_000_000


def show(content: Mapping[str, Any]) -> Shown:
    """The page as it is served, and what its main part holds."""
    told = _told(content)
    environment = _environment()
    page = render(environment, "status.html", told, live=True)
    part = environment.get_template("status_main.html").render(told, live=True)
    return Shown(page=page, part=part)


def page_file(content: Mapping[str, Any]) -> str:
    """The page as it is written to a file: without a script."""
    return render(_environment(), "status.html", _told(content), live=False)


@cache
def _environment() -> Environment:
    environment = templates_in(own_folder("client.page", "templates"))
    environment.filters["day"] = lambda text: text[5:].replace("-", "/")
    return environment


def _told(content: Mapping[str, Any]) -> dict[str, Any]:
    words, look, about = JOURNAL_WORDS[content["journal"]["state"]] if content["journal"] else ("", "", "")
    return {
        **content,
        "said": said(content),
        "state_look": "good" if content["service"] == "running" else "bad",
        "link_look": LINK_LOOKS.get(content["link"], "bad") if content["service"] == "running" else "",
        "kind_words": KIND_WORDS,
        "journal_words": words,
        "journal_look": look,
        "journal_about": about,
        "days_drawn": _days(content),
        "budget_unused": _is_unused(content["budget"]),
        "budget_in_parts": _has_parts((content["budget"] or {}).get("studies", [])),
        "budget_bar": _budget_bar(content["budget"]),
        "order_words": _order_words(content),
        "study_names": _study_names(content),
        "few_days": _FEW_DAYS,
        "little_bytes": _LITTLE,
    }


def said(content: Mapping[str, Any]) -> str:
    """The page in one sentence, for those who hear it."""
    order = content["order"]
    doing = "works on an order" if order and order["state"] == "in hand" else "waits for orders"
    journal = content["journal"]
    broken = " The journal is broken." if journal and journal["state"] == "broken" else ""
    if content["service"] != "running":
        return f"The service of {content['site']} is not running.{broken}"
    return f"{content['site']} is running, link {content['link']}; it {doing}.{broken}"


def _study_names(content: Mapping[str, Any]) -> dict[str, str]:
    return {each["digest"]: each["name"] for each in content["approvals"]["studies"] if each["name"]}


def _order_words(content: Mapping[str, Any]) -> str:
    """Where in its study the last order stands."""
    order = content["order"]
    if not order or "phase" not in order:
        return ""
    study = next((s for s in content["approvals"]["studies"] if s["digest"] == order.get("study")), None)
    phases = study["phases"] if study else []
    place = int(order["phase"])
    known = phases[place] if 0 <= place < len(phases) else None
    words = f"phase {place + 1}" + (f" of {len(phases)}, {known['task']}" if known else "")
    if order.get("kind") == "census":
        return f"{words}: counts of the site are asked for"
    return f"{words}: round {order.get('round', 0)}" + (f" of {known['rounds']}" if known else "")


def _days(content: Mapping[str, Any]) -> Markup | str:
    """Bytes by day and kind; nothing where nothing left."""
    left = content["left"]
    if left is None or not left["week"]["bytes"]:
        return ""
    unit, size = next(
        (unit, size)
        for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("bytes", 1.0))
        if max(sum(day["bytes"].values()) for day in left["days"]) >= size
    )
    kinds = [kind for kind in KINDS if any(kind in day["bytes"] for day in left["days"])]
    return bar_chart(
        "days",
        [_short_day(day["date"]) for day in left["days"]],
        [(KIND_WORDS[kind], [day["bytes"].get(kind, 0) / size for day in left["days"]]) for kind in kinds],
        title=f"What left by day, {unit}",
        caption=f"{left['days'][0]['date']} to {left['days'][-1]['date']}",
        x_name="day",
        unit=unit,
        named=True,
    )


def _short_day(date: str) -> str:
    """``2026-11-28`` as ``28 Nov``; the caption names the year."""
    return f"{datetime.date.fromisoformat(date):%-d %b}"


def _is_unused(budget: Mapping[str, Any] | None) -> bool:
    """Whether a figure of what is left would read as a protection that nobody has had."""
    return budget is not None and budget["spent"] == 0.0 and not budget["reserved"] and not budget["studies"]


def _has_parts(studies: Sequence[Mapping[str, Any]]) -> bool:
    """Whether what was spent is of several studies or phases, whose epsilons do not add up."""
    return len(studies) > 1 or any(len(study["phases"]) > 1 for study in studies)


def _budget_bar(budget: Mapping[str, Any] | None) -> dict[str, float] | None:
    """Shares of the limit, in percent of the bar."""
    if budget is None or budget["spent"] is None:
        return None
    limit = budget["limit"]["epsilon"]
    spent = min(1.0, budget["spent"] / limit)
    whole = min(1.0, (budget["spent"] + budget["reserved"]) / limit)
    return {"spent": 100 * spent, "reserved": 100 * (whole - spent)}
