"""The privacy experiments as tables for a person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simulation.table_lines import interval, number, table

Content = Mapping[str, Any]


def audit_table(content: Content) -> list[str]:
    """A line a mechanism."""
    head = ["drawn", "mechanism", "claimed", "at least", "at least, if Gaussian", "share", "found out"]
    rows = [
        [
            row["sampling"],
            row["mechanism"],
            number(row["claimed_epsilon"]),
            number(row["lower_bound"]),
            number(row["lower_bound_gaussian"]),
            f"{row['share_of_claim']:.2f}",
            "yes" if row["found_out"] else "no",
        ]
        for row in content["mechanisms"]
    ]
    words = f"epsilon at delta {content['delta']:g}; lower bounds at {content['confidence']:.0%} confidence"
    return [*table(head, rows), words]


def inversion_table(content: Content) -> list[str]:
    """A line a case, and the null."""
    head = [
        "the server sees",
        "epsilon",
        "r",
        "r of single leads",
        "best of starts",
        "SNR dB",
        "other windows",
    ]
    rows = [
        [
            row["case"],
            f"{row['epsilon']:.3g}" if "epsilon" in row else "-",
            number(row["r"]),
            interval(min(row["r_by_lead"]), max(row["r_by_lead"])),
            number(row["r_of_the_nearest_start"]),
            f"{row['snr_db']:.1f}",
            interval(min(others), max(others)) if (others := row["r_of_windows"][1:]) else "-",
        ]
        for row in content["cases"]
    ]
    null = content["null"]
    return [
        *table(head, rows),
        f"without any update: mean ECG of others r {number(null['mean_ecg'])}; ECGs of {null['people']:.0f} "
        f"others median {number(null['median'])}, 95th percentile {number(null['percentile_95'])}, "
        f"best {number(null['best'])}",
        "the sum less what the other sites know of it is the update, up to a share of "
        f"{content['sum_less_known_others']:.1e}",
    ]


def utility_table(content: Content) -> list[str]:
    """A line a point."""
    head = ["curve", "epsilon", content["metric"], "range over seeds", "seeds", "training patients", "tested"]
    rows = [
        [
            row["curve"],
            "none" if row["epsilon"] is None else f"{row['epsilon']:g}",
            number(row["mean"]),
            interval(row["lowest"], row["highest"]),
            str(len(row["by_seed"])),
            "+".join(str(count) for count in row["training_patients"]),
            str(row["test_patients"]),
        ]
        for row in content["points"]
    ]
    return table(head, rows)
