"""The numbers of a round as MLflow's points, under names that it takes.

Comes in: an entry of the history, as in ``result.json``. Goes out: name to value, in two parts: what is known
when a round ends, and what was measured, which may come with the replies of the next one.

    seconds, bytes_sent, bytes_received, attempt    the round
    SITE/train/loss, SITE/train/steps, ...          what a site told of its training
    pooled/METRIC, SITE/METRIC                      on validation patients
    test.pooled/METRIC, test.SITE/METRIC            on test patients; test.external.SITE of external sites
    personal.SITE/METRIC, test.personal.SITE/METRIC of a site's own model

The ends of an interval are METRIC_low and METRIC_high. Sites have no dot in their names, so no two meet.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from server.summary import value_rows

PENDING = "pending"
"""As ``server.measure`` marks an entry whose metrics come with the next round; a test holds them together."""
LONGEST_NAME = 250
ROUND_FACTS = ("seconds", "bytes_sent", "bytes_received", "attempt")
NOT_OF_TRAINING = frozenset({"site", "status", "code", "metrics", "measure_code"})

Points = dict[str, float]
Entry = Mapping[str, Any]


def metric_name(name: str) -> str:
    """A name of ours in the letters that MLflow takes."""
    clean = re.sub(r"[^\w./: -]", "_", name.replace("@", "_at_"), flags=re.ASCII)
    parts = [part for part in clean.split("/") if part not in ("", ".", "..")]
    return "/".join(parts)[:LONGEST_NAME] or "_"


def round_points(entry: Entry) -> Points:
    """What is known of a round as soon as it has ended."""
    found = {name: entry.get(name) for name in ROUND_FACTS}
    for row in entry["sites"]:
        told = {key: value for key, value in row.items() if key not in NOT_OF_TRAINING}
        found |= {f"{_site(row['site'])}/train/{name}": value for name, value in _numbers(told)}
    return _finite(found)


def measured_points(entry: Entry) -> Points:
    """What was measured after a round, with the ends of intervals where they are known or follow."""
    found: dict[str, Any] = {}
    test = entry.get("test", {})
    for split, part in (("", entry), ("test.", test)):
        if not part.get("pooled"):
            continue
        rows = part.get("sites", [])
        groups = {"pooled": part["pooled"]}
        groups |= {_site(row["site"]): row["metrics"] for row in rows if row.get("metrics")}
        groups |= {f"external.{site}": metrics for site, metrics in part.get("external", {}).items()}
        groups |= {f"personal.{site}": metrics for site, metrics in _personal(part)}
        for group, metrics in groups.items():
            found |= {f"{split}{group}/{name}": value for name, value in _numbers(metrics)}
        for name, value in _intervals(part, entry.get("primary", "")):
            found.setdefault(split + name, value)
    return _finite(found)


def final_points(content: Mapping[str, Any]) -> Points:
    """What a study came to: of each phase the primary metric of the last round, and totals."""
    rounds = content["rounds"]
    found: dict[str, Any] = {
        "rounds": len(rounds),
        "seconds": sum(entry.get("seconds") or 0.0 for entry in rounds),
        "bytes_sent": sum(entry.get("bytes_sent") or 0 for entry in rounds),
        "bytes_received": sum(entry.get("bytes_received") or 0 for entry in rounds),
        "sites": len(content["sites"]),
    }
    last = {entry["phase"]: entry for entry in rounds}
    for phase, entry in sorted(last.items()):
        for split, part in (("validation", entry), ("test", entry.get("test", {}))):
            for row in value_rows(part, entry.get("primary", "")) if part.get("pooled") else []:
                if row["kind"] == "pooled":
                    name = f"{phase + 1}-{entry['task']}/{split}/{entry['primary']}"
                    found |= {name: row["value"], f"{name}_low": row["low"], f"{name}_high": row["high"]}
    return _finite(found)


def _intervals(part: Entry, metric: str) -> Iterator[tuple[str, Any]]:
    names = {"pooled": "pooled", "site": "", "external": "external."}
    for row in value_rows(part, metric):
        group = names[row["kind"]] + (_site(row["site"]) if row["site"] else "")
        head, slash, tail = metric.partition("/")
        for end in ("low", "high"):
            yield f"{group}/{head}_{end}{slash}{tail}", row[end]


def _personal(part: Entry) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Metrics of the sites' own models, by site; a row of another shape tells no site and is passed over."""
    personal = part.get("personal", {})
    rows = personal.items() if isinstance(personal, Mapping) else []
    yield from ((site, metrics) for site, metrics in rows if isinstance(metrics, Mapping))


def _numbers(values: Mapping[str, Any], head: str = "") -> Iterator[tuple[str, Any]]:
    """Numbers of a mapping and of the mappings in it, by a path."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{head}{name}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{head}{name}", value


def _site(name: str) -> str:
    """A site that is called as the pool is does not take its place."""
    return "site.pooled" if name == "pooled" else name


def _finite(values: Mapping[str, Any]) -> Points:
    return {
        metric_name(name): float(value)
        for name, value in values.items()
        if value is not None and math.isfinite(value)
    }
