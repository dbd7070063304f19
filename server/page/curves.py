"""Charts of a study: each phase's loss and metric, and what a round costs in bytes and seconds.

Comes in: the history of the rounds. Goes out: figures. Every number is one of ``result.json``; an interval is
there where the summary can make one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from cardionets_core.pages.bars import bar_chart
from cardionets_core.pages.charts import Series, line_chart
from cardionets_core.pages.intervals import Interval, interval_chart
from server.page.facts import RunFacts
from server.summary import value_rows

MOST_ROWS = 30
"""Sites of one chart of intervals; the pool is always there."""
CHANCE = {"auroc": 0.5, "auroc_mean": 0.5}
POOLED = "pooled"
PART = "part/"
HELD = "Nothing was sent in a round whose sites held the model already."
UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "bytes"))

Rows = Sequence[Mapping[str, Any]]


def phase_figures(facts: RunFacts, index: int, names: Sequence[str]) -> list[Markup]:
    """Charts of one phase; empty before its first round ended.

    Args:
        facts: of the run.
        index: of the phase.
        names: of the sites, whose places give them their colours.
    """
    rounds = [entry for entry in facts.history if entry.get("phase") == index]
    if not rounds:
        return []
    phase, key = facts.study.phases[index], f"p{index + 1}"
    figures = []
    losses = _by_site(rounds, names, lambda row: row.get("loss"))
    if losses and facts.study.secure_aggregation is not None:
        # All rows of a sum say the same.
        together = [_whole("all sites together", losses[0])]
        caption = "mean over the sites of a secure sum: no site's own is known"
        figures.append(
            line_chart(f"{key}-loss", together, title="Training loss", caption=caption, last=phase.rounds)
        )
    elif losses:
        kinds = _kinds_of_loss(rounds)
        for number, kind in enumerate(sorted({kinds[series.name] for series in losses})):
            alike = [series for series in losses if kinds[series.name] == kind]
            title = "Training loss" if len(alike) == len(losses) else f"Training loss: {kind or 'other'}"
            caption = "mean of its local steps, as each site told it"
            at = f"{key}-loss-{number + 1}" if number else f"{key}-loss"
            figures.append(line_chart(at, alike, title=title, caption=caption, last=phase.rounds))
    metric = str(rounds[-1].get("primary") or "")
    figures += _held_out(rounds, names, metric, key=key, last=phase.rounds)
    tested = [entry for entry in rounds if (entry.get("test") or {}).get("pooled")]
    if tested:
        figures += _tested(tested[-1], metric, key=key)
    return figures


def cost_figures(facts: RunFacts) -> list[Markup]:
    """Seconds and bytes of every round."""
    rounds = facts.history
    if not rounds:
        return []
    names = [f"{entry['phase'] + 1}.{entry['round']}" for entry in rounds]
    starts = [
        (place + 1, str(entry["phase"] + 1))
        for place, entry in enumerate(rounds)
        if not place or rounds[place - 1]["phase"] != entry["phase"]
    ]
    divisions = starts if len(starts) <= 24 else []
    about = "Rounds of all phases one after the other; dotted lines: a phase begins."
    moved = [(int(entry.get("bytes_sent") or 0), int(entry.get("bytes_received") or 0)) for entry in rounds]
    held = any(came and not sent for sent, came in moved)
    most = max((sum(each) for each in moved), default=0)
    size, unit = next((each for each in UNITS if most >= each[0]), UNITS[-1])
    return [
        bar_chart(
            "seconds",
            names,
            [("seconds", [float(entry.get("seconds") or 0.0) for entry in rounds])],
            title="Seconds of a round",
            caption=about,
            unit="s",
            divisions=divisions,
        ),
        bar_chart(
            "bytes",
            names,
            [
                (f"sent to the sites, {unit}", [sent / size for sent, _ in moved]),
                (f"received from them, {unit}", [came / size for _, came in moved]),
            ],
            title="Bytes of a round",
            caption=f"{about} {HELD}" if held else about,
            unit=unit,
            divisions=divisions,
        ),
    ]


def _by_site(rounds: Rows, names: Sequence[str], value: Any) -> list[Series]:
    numbers = {name: number for number, name in enumerate(names)}
    found: dict[str, dict[int, float | None]] = {}
    for entry in rounds:
        for row in entry.get("sites", ()):
            told = value(row)
            if told is not None:
                found.setdefault(row["site"], {})[int(entry["round"])] = float(told)
    xs = tuple(int(entry["round"]) for entry in rounds)
    return [
        Series(name=site, x=xs, y=tuple(found[site].get(x) for x in xs), number=numbers.get(site, 0))
        for site in sorted(found)
    ]


def _kinds_of_loss(rounds: Rows) -> dict[str, str]:
    """Site to the parts of its loss; sites without pairs train by another one, on another scale."""
    parts: dict[str, set[str]] = {}
    for entry in rounds:
        for row in entry.get("sites", ()):
            told = {key.removeprefix(PART) for key in row if key.startswith(PART)}
            parts.setdefault(row["site"], set()).update(told)
    return {site: " + ".join(sorted(found)) for site, found in parts.items()}


def _whole(name: str, series: Series) -> Series:
    return Series(name=name, x=series.x, y=series.y, whole=True)


def _held_out(rounds: Rows, names: Sequence[str], metric: str, *, key: str, last: int) -> list[Markup]:
    """The primary metric on validation patients, round by round."""
    known = [entry for entry in rounds if (entry.get("pooled") or {}).get(metric) is not None]
    if not known or last == 1:
        return []  # of one round there is no course; its test patients tell more
    pooled = []
    for entry in known:
        rows = value_rows({"pooled": entry["pooled"]}, metric)
        pooled.append(rows[0])
    xs = tuple(int(entry["round"]) for entry in known)
    has_interval = any(row["low"] is not None for row in pooled)
    whole = Series(
        name=POOLED,
        x=xs,
        y=tuple(row["value"] for row in pooled),
        low=tuple(row["low"] for row in pooled) if has_interval else (),
        high=tuple(row["high"] for row in pooled) if has_interval else (),
        whole=True,
    )
    sites = _by_site(known, names, lambda row: (row.get("metrics") or {}).get(metric))
    way = "higher" if known[-1].get("higher_is_better") else "lower"
    caption = f"validation patients, {way} is better" + ("; band: 95 % interval" if has_interval else "")
    return [
        line_chart(f"{key}-metric", [*sites, whole], title=f"Held-out {metric}", caption=caption, last=last)
    ]


def _tested(entry: Mapping[str, Any], metric: str, *, key: str) -> list[Markup]:
    """The primary metric on test patients, with intervals."""
    rows = [row for row in value_rows(entry["test"], metric) if _finite(row["value"])]
    if not rows:
        return []
    kinds = sorted({row["interval"] for row in rows if row["interval"]})
    caption = f"test patients after round {entry['round']}"
    caption += f"; lines: 95 % intervals ({', '.join(kinds)})" if kinds else ""
    shown = [
        Interval(
            name={"pooled": POOLED, "site": row["site"], "external": f"{row['site']} *"}[row["kind"]],
            value=row["value"],
            low=row["low"] if _finite(row["low"]) else None,
            high=row["high"] if _finite(row["high"]) else None,
            whole=row["kind"] == "pooled",
            note=f"{row['patients']:.0f} patients" if row["patients"] else "",
        )
        for row in rows[: MOST_ROWS + 1]
    ]
    if any(row["kind"] == "external" for row in rows):
        caption += "; * never trained"
    if len(rows) > MOST_ROWS + 1:
        caption += f"; the first {MOST_ROWS} of {len(rows) - 1} sites"
    head = metric.partition("/")[0]
    return [
        interval_chart(
            f"{key}-test",
            shown,
            title=f"Test {metric}",
            caption=caption,
            reference=CHANCE.get(head, 0.0 if head.startswith("r2") else None),
            reference_name="chance" if head in CHANCE else "no better than the mean",
        )
    ]


def _finite(value: Any) -> bool:
    return value is not None and math.isfinite(value)
