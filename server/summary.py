"""What a finished study shows on its test patients, in a form to be read: ``summary`` of ``result.json``.

Comes in: the history of the rounds. Goes out: for each phase that measured, its primary metric pooled, at
each site and at external sites, with intervals; values of subgroups; what the sites' AUROCs say together; and
calibration before and after. Nothing here is measured anew: every number follows from the history.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import norm

from cardionets_core.evaluation.comparison import wilson_interval
from cardionets_core.evaluation.images import IMAGE_DEFINITION
from cardionets_core.evaluation.meta_analysis import from_logit, logit_auroc, random_effects

GROUP_KINDS = ("sex-", "age-")
CALIBRATION = ("brier", "ece", "calibration_slope", "calibration_intercept")
IMAGE_METRICS = ("ssim", "psnr")

Metrics = Mapping[str, float]


def summary_of(history: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Summarise a history, which may be that of a paused study.

    Args:
        history: one entry a finished round, as in ``result.json``.

    Returns:
        ``phases`` and ``calibration``, JSON-ready but for numbers that are not finite.
    """
    measured = [entry for entry in history if entry.get("test", {}).get("pooled")]
    return {
        "phases": [_phase(entry) for entry in measured],
        "calibration": _calibration(measured),
    }


def value_rows(test: Mapping[str, Any], metric: str) -> list[dict[str, Any]]:
    """A metric of the members together, of each site and of each external site.

    Args:
        test: ``test`` of an entry of the history.
        metric: its name.

    Returns:
        Rows with ``kind`` (``pooled``, ``site`` or ``external``), ``site``, ``value``, ``low``, ``high``
        (95 %), ``interval`` (how it was made, empty where there is none) and ``patients``; only where there
        is a value.
    """
    return [
        {"kind": kind, "site": site, "value": metrics[metric], **_interval(metrics, metric)}
        | {"patients": metrics.get("n_patients")}
        for kind, site, metrics in _each(test)
        if metric in metrics
    ]


def meta_analysis(test: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Random-effects meta-analysis of the members' AUROCs, one row a disease.

    On the logit scale with DeLong's variances, given back as AUROCs; ``tau2`` stays on the logit scale. A
    site whose AUROC is 0 or 1, or has no variance, cannot take part and is named in ``left_out``: with such
    sites the estimate is drawn towards one half.

    Args:
        test: ``test`` of an entry of the history.

    Returns:
        ``disease``, ``sites``, ``left_out``, ``auroc``, ``low``, ``high``, ``predicted_low``,
        ``predicted_high`` (a new site's true AUROC; NaN with fewer than three sites), ``tau2``, ``i2``,
        ``q``, ``q_p``; empty where nobody has an AUROC.
    """
    members = {site: metrics for kind, site, metrics in _each(test) if kind == "site"}
    diseases = [name.removeprefix("auroc/") for name in test["pooled"] if _is_disease(name)]
    found = []
    for disease in diseases:
        estimated = {site: metrics for site, metrics in members.items() if f"auroc/{disease}" in metrics}
        auroc = np.array([metrics[f"auroc/{disease}"] for metrics in estimated.values()], dtype=np.float64)
        error = [metrics.get(f"auroc_se/{disease}", np.nan) for metrics in estimated.values()]
        value, variance = logit_auroc(auroc, np.array(error, dtype=np.float64) ** 2)
        together = random_effects(value, variance)
        if not together.sites:
            continue
        used = np.isfinite(value) & np.isfinite(variance) & (variance > 0)
        found.append(
            {
                "disease": disease,
                "sites": together.sites,
                "left_out": [site for site, good in zip(estimated, used, strict=True) if not good],
                "auroc": from_logit(together.estimate),
                "low": from_logit(together.low),
                "high": from_logit(together.high),
                "predicted_low": from_logit(together.predicted_low),
                "predicted_high": from_logit(together.predicted_high),
                "tau2": together.tau2,
                "i2": together.i2,
                "q": together.q,
                "q_p": together.q_p_value,
            }
        )
    return found


def _phase(entry: Mapping[str, Any]) -> dict[str, Any]:
    test = entry["test"]
    found: dict[str, Any] = {
        "phase": entry["phase"],
        "task": entry["task"],
        "metric": entry["primary"],
        "higher_is_better": entry["higher_is_better"],
        "values": value_rows(test, entry["primary"]),
        "groups": _groups(test),
        "meta_analysis": meta_analysis(test),
    }
    if any(name in test["pooled"] for name in IMAGE_METRICS):
        found["image_metrics"] = IMAGE_DEFINITION
    return found


def _each(test: Mapping[str, Any]) -> Iterator[tuple[str, str, Metrics]]:
    """Kind, site and metrics: the pool, the members, the external sites."""
    external = test.get("external", {})
    yield "pooled", "", test["pooled"]
    for row in test.get("sites", []):
        if row.get("metrics"):
            yield "site", row["site"], row["metrics"]
    for site in sorted(external):
        yield "external", site, external[site]


def _interval(metrics: Metrics, name: str) -> dict[str, Any]:
    """``low``, ``high`` and ``interval``: as the metrics bring it, or as they allow it to be made.

    Of a share of queries Wilson's; of a mean over cases the normal one, from their SD.
    """
    head, slash, tail = name.partition("/")
    low, high = (metrics.get(f"{head}_{end}{slash}{tail}") for end in ("low", "high"))
    if low is not None and high is not None:
        return {"low": low, "high": high, "interval": "bootstrap over people"}
    cases = metrics.get("n_rows", 0.0)
    if name.startswith("recall@") and metrics.get("queries", 0.0) > 0:
        queries = metrics["queries"]
        low, high = wilson_interval(metrics[name] * queries, queries)
        return {"low": low, "high": high, "interval": "Wilson"}
    if f"{name}_sd" in metrics and cases > 1:
        half = float(norm.isf(0.025)) * metrics[f"{name}_sd"] / float(np.sqrt(cases))
        return {"low": metrics[name] - half, "high": metrics[name] + half, "interval": "normal, over cases"}
    return {"low": None, "high": None, "interval": ""}


def _groups(test: Mapping[str, Any]) -> list[dict[str, Any]]:
    """``metric``, ``group`` (such as ``age-55-64``), ``pooled``, and by name ``sites`` and ``external``."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for kind, site, metrics in _each(test):
        for name, value in metrics.items():
            metric, _, group = name.rpartition("/")
            if not group.startswith(GROUP_KINDS):
                continue
            new: dict[str, Any] = {
                "metric": metric,
                "group": group,
                "pooled": None,
                "sites": {},
                "external": {},
            }
            row = rows.setdefault((metric, group), new)
            if kind == "pooled":
                row["pooled"] = value
            else:
                row["sites" if kind == "site" else "external"][site] = value
    return list(rows.values())


def _calibration(measured: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each disease before and after ``calibrate``, with the pool, the sites and the external sites.

    Before is ``screening``'s own measurement on the same test patients.
    """
    last = {entry["task"]: entry["test"] for entry in measured}
    if not {"screening", "calibrate"} <= set(last):
        return []
    before = {(kind, site): metrics for kind, site, metrics in _each(last["screening"])}
    found = []
    for kind, site, metrics in _each(last["calibrate"]):
        earlier = before.get((kind, site), {})
        for name in metrics:
            head, _, disease = name.partition("/")
            if head != "brier" or not disease:
                continue
            sides = {"before": earlier, "after": metrics}
            found.append(
                {"disease": disease, "kind": kind, "site": site, "n": metrics.get(f"n/{disease}")}
                | {
                    side: {key: values.get(f"{key}/{disease}") for key in CALIBRATION}
                    for side, values in sides.items()
                }
            )
    return found


def _is_disease(name: str) -> bool:
    """Whether a metric is the AUROC of one disease over everybody."""
    head, _, tail = name.partition("/")
    return head == "auroc" and bool(tail) and "/" not in tail
