"""The picture of the scale benchmark: seconds a round and memory, over the number of sites."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

DOTS_PER_INCH = 90
ROOM = 30.0


def plot_cases(cases: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Two panels with logarithmic axes, so that what grows in proportion is a line of the dotted one's slope.

    Args:
        cases: of one engine, as ``run_case`` gives them.
        path: a PNG file; replaced.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    found = sorted(cases, key=lambda case: case["sites"])
    sites = [case["sites"] for case in found]
    figure = Figure(figsize=(9.0, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    seconds, memory = figure.subplots(1, 2)
    names = {
        "round_s": "whole round, by the clock",
        "sites_processor_s": "all sites, in turn, processor",
        "server_processor_s": "server, processor",
    }
    for (name, label), style in zip(names.items(), ("o-", "s--", "^-"), strict=True):
        if all(name in case for case in found):
            seconds.plot(sites, [case[name] for case in found], style, label=label)
    # Through the largest case, where what a round costs by itself weighs least.
    each = found[-1]["round_s"] / sites[-1]
    seconds.plot(sites, [each * count for count in sites], ":", color="0.6", label="in proportion")
    seconds.set_title("seconds of one round")
    memory.plot(sites, [case["peak_bytes"] / 1e6 for case in found], "o-", label="process, peak")
    traffic = [(case["bytes_sent"] + case["bytes_received"]) / 1e6 for case in found]
    memory.plot(sites, traffic, "s--", label="orders and replies of the round")
    memory.set_title("MB")
    for axes in (seconds, memory):
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks(sites, [f"{count:,}" for count in sites])
        axes.minorticks_off()
        axes.set_xlabel("sites")
        axes.grid(alpha=0.3)
        # Room above the lines for their names.
        axes.set_ylim(top=ROOM * axes.get_ylim()[1])
        axes.legend(frameon=False, loc="upper left")
    figure.savefig(path, dpi=DOTS_PER_INCH, metadata={"Software": None})
