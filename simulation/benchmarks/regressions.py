"""What has become better or worse since the committed figures.

Comes in: entries of two times. Goes out: a comparison a row. A ratio is compared with the same ratio, within
the margin by which it moves by chance; a figure that is no ratio is one machine's and is compared with none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

Verdict = Literal["within", "better", "worse", "new", "gone", "no ratio", "failed"]


def compare(
    now: Mapping[str, Mapping[str, Any]], before: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Every figure of the benchmarks that ran now, beside the committed one.

    Args:
        now: entry by name of the benchmark.
        before: the committed ones; benchmarks that did not run now are passed over.

    Returns:
        Rows with benchmark, what, now, before, change (times worse: above 1 is worse) and verdict.
    """
    found: list[dict[str, Any]] = []
    for name, entry in now.items():
        old = {row["what"]: row for row in before.get(name, {}).get("rows", [])}
        if entry["status"] != "done":
            found.append(_row(name, entry["fault"], None, None, None, "failed"))
        for row in entry["rows"]:
            found.append(_compared(name, row, old.pop(row["what"], None)))
        for what, row in old.items():
            # A benchmark that broke off says nothing of the figures that it did not come to.
            if entry["status"] == "done":
                found.append(_row(name, what, None, row["value"], None, "gone"))
    return found


def times_worse(now: float, before: float, *, better: str) -> float:
    """How many times worse a ratio has become; below 1 it is better.

    A ratio of 0 on both sides has not changed; of 0 on one side it is infinitely better or worse.
    """
    top, bottom = (now, before) if better == "lower" else (before, now)
    if top == bottom:
        return 1.0
    if bottom <= 0:
        return float("inf")
    return max(top, 0.0) / bottom


def judge(change: float, *, margin: float) -> Verdict:
    """Whether a change is more than chance; the margin is a factor, the same both ways."""
    if change > 1.0 + margin:
        return "worse"
    if change < 1.0 / (1.0 + margin):
        return "better"
    return "within"


def has_regressed(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether anything is worse, failed, or gone."""
    return any(row["verdict"] in ("worse", "failed", "gone") for row in rows)


def comparison_lines(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The comparison for people: what changed first, then how many stayed as they were."""
    told = [row for row in rows if row["verdict"] not in ("within", "no ratio")]
    order = ("failed", "worse", "gone", "better", "new")
    for row in sorted(told, key=lambda row: order.index(row["verdict"])):
        if row["verdict"] == "failed":
            yield f"failed  {row['benchmark']}: {row['what']}"
            continue
        figures = f"{_number(row['before'])} -> {_number(row['now'])}"
        more = f" ({row['change']:.2f} times worse)" if row["verdict"] == "worse" else ""
        yield f"{row['verdict']:7} {row['benchmark']}: {row['what']}: {figures}{more}"
    counts = {verdict: sum(row["verdict"] == verdict for row in rows) for verdict in ("within", "no ratio")}
    yield (
        f"{counts['within']} ratios are within their margins of the committed ones"
        f" · {counts['no ratio']} figures are no ratios and are not compared"
    )


def _compared(name: str, row: Mapping[str, Any], old: Mapping[str, Any] | None) -> dict[str, Any]:
    before = None if old is None else old["value"]
    if not row["baseline"]:
        return _row(name, row["what"], row["value"], before, None, "no ratio")
    if old is None or not old["baseline"]:
        return _row(name, row["what"], row["value"], before, None, "new")
    change = times_worse(float(row["value"]), float(old["value"]), better=row["better"])
    return _row(name, row["what"], row["value"], before, change, judge(change, margin=row["margin"]))


def _row(
    benchmark: str,
    what: str,
    now: float | None,
    before: float | None,
    change: float | None,
    verdict: Verdict,
) -> dict[str, Any]:
    return {
        "benchmark": benchmark,
        "what": what,
        "now": now,
        "before": before,
        "change": change,
        "verdict": verdict,
    }


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:g}"
