"""A scenario's hospitals as they will be made, and how unevenly they share patients and diseases.

Comes in: a scenario. Goes out: plain content and a table. Hearts are drawn to count who is ill; nothing is
written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cardionets_core.data.records import DISEASES, LABEL_TITLES
from simulation.hospitals import DrawnHospital
from simulation.patients import ill_patients
from simulation.scenario import Scenario
from simulation.skew import divergence, evenness
from simulation.table_lines import table


def scenario_content(scenario: Scenario) -> dict[str, Any]:
    """Hospitals, events, and the measured skew of the drawn members."""
    sites = []
    for hospital in scenario.hospitals:
        row = hospital.model_dump(mode="json")
        if isinstance(hospital, DrawnHospital):
            row |= {"ill": ill_patients(scenario, hospital.site), "lacks": sorted(hospital.lacks)}
        sites.append(row)
    drawn = [row for row in sites if "ill" in row and not row["external"]]
    sizes = np.array([row["patients"] for row in drawn])
    skew = {}
    for name in DISEASES if drawn else ():
        cases = np.array([row["ill"][name] for row in drawn])
        skew[name] = {
            "patients": int(cases.sum()),
            "evenness": round(evenness(cases), 4),
            "divergence": round(divergence(cases, sizes), 4),
        }
    return {
        "schema_version": 1,
        "name": scenario.name,
        "study": scenario.study.name,
        "hospitals_digest": scenario.hospitals_digest,
        "hospitals": sites,
        "patients": int(sizes.sum()) if drawn else 0,
        "evenness_of_sizes": round(evenness(sizes), 4) if drawn else None,
        "labels": skew,
        "events": [event.model_dump(mode="json", exclude_none=True) for event in scenario.events],
    }


def scenario_table(content: Mapping[str, Any]) -> str:
    """The same for a person."""
    head = ["site", "layout", "patients", *DISEASES, "without", "ECG Hz", "views", "mm", "contrast", "role"]
    rows = [_site_row(row) for row in content["hospitals"]]
    lines = [
        f"{content['name']} · study {content['study']} · hospitals {content['hospitals_digest'][:16]}",
        "",
        *table(head, rows),
        "",
        "ill: " + ", ".join(f"{name} {LABEL_TITLES[name]}" for name in DISEASES),
        "without: what the site has not; mm, contrast: of its scanner's pixels; external: only measures",
    ]
    if content["labels"]:
        lines += ["", f"members together: {content['patients']} patients"]
        lines.append(
            f"evenness of sizes {content['evenness_of_sizes']:.3f} (1: all equal, 0: all at one site)"
        )
        lines += ["", *table(["disease", "patients", "evenness", "divergence"], [
            [name, str(row["patients"]), f"{row['evenness']:.3f}", f"{row['divergence']:.3f}"]
            for name, row in content["labels"].items()
        ])]  # fmt: skip
        lines.append("divergence: mean distance of a site's prevalence from that of all, by size")
    for event in content["events"]:
        words = ", ".join(f"{key} {value}" for key, value in event.items() if key != "kind")
        lines.append(f"event: {event['kind']} · {words}")
    return "\n".join(lines)


def _site_row(row: Mapping[str, Any]) -> list[str]:
    last = "external" if row["external"] else "member"
    if "ill" not in row:
        return [row["site"], row["layout"], "-", *["-"] * len(DISEASES), "-", "-", "-", "-", "-", last]
    scanner = ["-", "-", "-"] if "cmr" in row["lacks"] else [
        "+".join(row["views"]), f"{row['scanner']['spacing_mm']:.2f}", f"{row['scanner']['contrast']:.2f}"
    ]  # fmt: skip
    ill = [str(row["ill"][name]) for name in DISEASES]
    without = ", ".join(row["lacks"])
    rate = str(row["cart"]["rate_hz"])
    return [row["site"], row["layout"], str(row["patients"]), *ill, without, rate, *scanner, last]
