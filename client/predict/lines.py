"""Predictions as lines for a terminal, and as a table of one quantity a line (CSV).

Comes in: the JSON-ready content. Goes out: text. Nothing is computed here.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Any

from client.predict.content import RESEARCH_ONLY, parts_lacking
from client.wording import disease_title, flag_words

PART_WORDS = {"phenotypes": "phenotypes", "screening": "screening", "cine": "synthetic cine"}
COLUMNS = (
    *("use", "argument", "record", "verdict", "reason", "flags", "kind", "name", "field", "unit", "value"),
    *("low", "high", "reference_low", "reference_high", "held_out_rmse", "held_out_r2", "better_than_mean"),
    *("calibrated", "prevalence", "threshold", "above_threshold", "held_out_auroc", "held_out_ece"),
    "model_digest",
)
_USE = "research use only"


def prediction_lines(content: Mapping[str, Any]) -> Iterator[str]:
    """All recordings, for people."""
    model = content["model"]
    yield RESEARCH_ONLY
    yield f"model {model['digest'][:16]} of study {model['study']}, preset {model['preset']}"
    if content["meaning"]["covariates"]:
        yield content["meaning"]["covariates"]
    for part in parts_lacking(content):
        yield f"{PART_WORDS[part]}: not in this model (no {', '.join(model['not_in_this_model'][part])})"
    for name in model["not_explained"]:
        yield f"{name}: not in this model, so there is nothing to explain"
    for found in content["recordings"]:
        yield ""
        yield from _recording_lines(found)
    if any(found.get("phenotypes") for found in content["recordings"]):
        yield ""
        yield f"in brackets the {content['meaning']['interval']};"
        yield f"range: {content['meaning']['reference']}, not a clinical normal range"
    if any(found.get("cine") for found in content["recordings"]):
        yield content["meaning"]["cine"]


def _recording_lines(found: Mapping[str, Any]) -> Iterator[str]:
    number, what = f"{found['argument']}.{found['record']}", found["format"] or "unknown"
    if found["verdict"] == "refused":
        yield f"{number}  {what}: refused, {found['reason']}: {found['sentence']}"
        return
    yield f"{number}  {what}: {found['seconds']:g} s at {found['rate_hz']:g} Hz"
    for flag in found["flags"]:
        yield f"      {flag}: {flag_words(flag)}"
    if found["shorter_than_window"]:
        yield "      shorter than the model's window: the study measured no such recording"
    if (screening := found["screening"]) is not None:
        for disease in screening["diseases"]:
            yield f"      {_disease_line(disease)}"
        yield from _left_out(screening["diseases_untrained"], "disease")
        if screening["subtypes_given_cm"]:
            told = ", ".join(f"{name} {percent(p)}" for name, p in screening["subtypes_given_cm"].items())
            yield f"      were it a cardiomyopathy: {told}"
    for phenotype in found["phenotypes"] or ():
        yield f"      {_phenotype_line(phenotype)}"
    yield from _left_out(found["phenotypes_untrained"] or 0, "phenotype")
    if found["cine"] is not None:
        names = ", ".join(found["cine"]["files"]) or "on the page"
        yield f"      synthetic cine, seed {found['cine']['seed']}: {names}"
    for explained in found["explained"]:
        leads = sorted(explained["lead_shares"].items(), key=lambda item: -item[1])[:3]
        told = ", ".join(f"{lead} {percent(share)}" for lead, share in leads)
        yield f"      {explained['name']} looks most at {told}"


def _disease_line(found: Mapping[str, Any]) -> str:
    held = found["held_out"]
    told = f"{disease_title(found['disease'], ''):26} {percent(found['probability']):>7}"
    told += f"  study {percent(found['prevalence'])}"
    if found["threshold"] is not None:
        side = "above" if found["above_threshold"] else "below"
        told += f", {side} threshold {percent(found['threshold'])}"
    told += ", calibrated" if found["calibrated"] else ", not calibrated"
    auroc = "not tested" if held["auroc"] is None else f"{held['auroc']:.2f}"
    return f"{told}, held-out AUROC {auroc}" + ("" if held["ece"] is None else f", ECE {held['ece']:.3f}")


def _phenotype_line(found: Mapping[str, Any]) -> str:
    unit = found["unit"]
    told = f"{found['title']:42} {plain(found['value']):>7} {unit}"
    if found["low"] is not None:
        told += f" [{plain(found['low'])} to {plain(found['high'])}]"
    if found["reference_low"] is not None:
        told += f", range {plain(found['reference_low'])} to {plain(found['reference_high'])}"
    if found["held_out_r2"] is None:
        return f"{told}, not tested"
    worse = "" if found["better_than_mean"] else ", not predicted better than the mean"
    return f"{told}, held-out R2 {found['held_out_r2']:.2f}{worse}"


def _left_out(count: int, what: str) -> Iterator[str]:
    if count:
        yield f"      {count} {what}{'' if count == 1 else 's'} left out: never trained in this model"


def prediction_csv(content: Mapping[str, Any]) -> str:
    """One line a quantity, one line a refused recording; the columns of ``COLUMNS``."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=COLUMNS, lineterminator="\n")
    writer.writeheader()
    for found in content["recordings"]:
        head = {name: found[name] for name in ("argument", "record", "verdict", "reason")}
        head |= {"use": _USE, "flags": " ".join(found["flags"]), "model_digest": content["model"]["digest"]}
        if found["verdict"] == "refused":
            writer.writerow(head)
            continue
        for row in _rows(found):
            writer.writerow(head | row)
    return text.getvalue()


def _rows(found: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for phenotype in found["phenotypes"] or ():
        yield {"kind": "phenotype"} | {name: value for name, value in phenotype.items() if name in COLUMNS}
    screening = found["screening"] or {"diseases": (), "subtypes_given_cm": {}}
    for disease in screening["diseases"]:
        yield {
            "kind": "probability",
            "name": disease["disease"],
            "value": disease["probability"],
            "held_out_auroc": disease["held_out"]["auroc"],
            "held_out_ece": disease["held_out"]["ece"],
        } | {name: disease[name] for name in ("calibrated", "prevalence", "threshold", "above_threshold")}
    for name, probability in screening["subtypes_given_cm"].items():
        yield {"kind": "probability given cm", "name": name, "value": probability}


def plain(value: float) -> str:
    """Three digits, without an exponent: 61.2, 1,042, 0.84."""
    size = abs(value)
    return f"{value:,.0f}" if size >= 99.95 else f"{value:.1f}" if size >= 9.995 else f"{value:.2f}"


def percent(share: float) -> str:
    """With a digit behind the point where a share is small or large; nearly all is not all."""
    value = 100.0 * share
    if 0.0 < value < 0.05 or 99.95 <= value < 100.0:
        return "under 0.1 %" if value < 50.0 else "over 99.9 %"
    return f"{value:.0f} %" if 9.95 <= value <= 90.05 else f"{value:.1f} %"
