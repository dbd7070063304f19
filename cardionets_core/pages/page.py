"""Pages that load nothing: one file with its style, and a policy under which a browser fetches nothing else.

Comes in: a folder of templates, and what they show. Goes out: HTML. Text is escaped by jinja2; only what this
package draws goes in as it is. A page that is served may hold one script, which asks its own server alone and
is named in the policy by its digest.

Templates extend ``base.html`` (blocks ``title``, ``look``, ``header``, ``main``, ``footer``).
"""

from __future__ import annotations

import base64
import hashlib
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from cardionets_core.pages.own_files import own_folder

SHARED = "templates"
QUIET_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
)
"""Of a page on disk: no script, nothing from elsewhere."""


def templates_in(folder: Path) -> Environment:
    """Templates of a room beside the shared ones, escaped, with the filters that pages have in common.

    Args:
        folder: of the room's own templates.
    """
    shared = own_folder("cardionets_core.pages", SHARED)
    environment = Environment(
        loader=FileSystemLoader([folder, shared]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "whole": lambda value: f"{value:,}",
        "short": short_number,
        "bytes": byte_words,
        "seconds": second_words,
        "clock": clock,
        "moment": moment,
    }
    return environment


def render(environment: Environment, name: str, content: Mapping[str, Any], *, live: bool = False) -> str:
    """The whole page.

    Args:
        environment: of ``templates_in``.
        name: of the template.
        content: what it shows.
        live: whether it is served, and asks its server for its main part.
    """
    script = live_script() if live else ""
    return environment.get_template(name).render(
        content, live=live, script=script, policy=live_policy() if live else QUIET_POLICY
    )


def live_script() -> str:
    """The script of a served page: puts in a new main part, and says when its server is lost."""
    return (own_folder("cardionets_core.pages", SHARED) / "live.js").read_text(encoding="utf-8")


def live_policy() -> str:
    """The policy of a served page: that script, and its own server."""
    digest = base64.b64encode(hashlib.sha256(live_script().encode()).digest()).decode()
    return f"{QUIET_POLICY}; script-src 'sha256-{digest}'; connect-src 'self'"


def short_number(value: float | None, digits: int = 4) -> str:
    """A measured number in few digits; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    if value == round(value) and abs(value) < 1e9:
        return f"{value:,.0f}"
    if abs(value) < 10.0 ** -(digits - 1):
        return f"{value:.2g}"
    whole = len(str(int(abs(value))))
    return f"{value:.{max(0, digits - whole)}f}" if abs(value) < 1 or whole < digits else f"{value:,.0f}"


def byte_words(count: float | None) -> str:
    """A number of bytes as people read it, in powers of 1000."""
    if count is None:
        return "–"
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(count) >= size:
            return f"{count / size:.3g} {unit}" if count < 999.5 * size else f"{count / size:,.0f} {unit}"
    return f"{count:.0f} bytes"


def second_words(seconds: float | None) -> str:
    """A duration as people read it."""
    if seconds is None:
        return "–"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 90:
        return f"{whole} s"
    if whole < 5400:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(whole / 60)
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"


def clock(moment_s: float | None) -> str:
    """A Unix time as the time of day here."""
    return "–" if moment_s is None else time.strftime("%H:%M:%S", time.localtime(moment_s))


def moment(moment_s: float | None) -> str:
    """A Unix time as date and time here, with the zone."""
    return "–" if moment_s is None else time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(moment_s))
