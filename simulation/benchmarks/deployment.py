"""Seconds a round of real processes: CardioNets' exchange beside bare Flower's FedAvg on the same machine.

Both run on loopback with TLS, node authentication and a database on disk, and train nothing. The baseline of
each line is Flower 1.41 by its own programs and defaults with the same model, sites and rounds.
``python -m simulation.benchmarks.deployment`` prints one JSON line a case; the two sides take turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from typing import Any

from cardionets_core.errors import ServiceDownError
from simulation.benchmarks.exchange.case import run_case

MB = 1_000_000
QUICK = (100 * MB, 100, 2)
FULL = (
    (MB, 100, 2), (MB, 100, 4), (100 * MB, 100, 2), (100 * MB, 100, 4), (100 * MB, 4, 2), (100 * MB, 100, 8),
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the cases, or a single one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="the whole table; 25 minutes to an hour")
    parser.add_argument("--repeat", type=int, default=1, help="turns of each side")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--reply", choices=("same", "changed"), default="same")
    parser.add_argument("--side", choices=("flower", "cardionets"), help="one side only")
    parser.add_argument(
        "--patient", action="store_true",
        help="bare Flower's SuperLink waits for its database for minutes, not for 5 s that may end the run",
    )  # fmt: skip
    parser.add_argument("--model-bytes", type=int, help="a single case, like --arrays and --sites")
    parser.add_argument("--arrays", type=int)
    parser.add_argument("--sites", type=int)
    options = parser.parse_args(arguments)
    single = (options.model_bytes, options.arrays, options.sites)
    if options.full and any(single):
        parser.error("--full has cases of its own: leave --model-bytes, --arrays and --sites out")
    cases = FULL if options.full else (_single(*single),)
    for model_bytes, arrays, sites in cases:
        seconds: dict[str, list[float]] = {}
        for _ in range(options.repeat):
            for side in (options.side,) if options.side else ("flower", "cardionets"):
                facts = {"model_bytes": model_bytes, "arrays": arrays, "sites": sites}
                try:
                    found = run_case(
                        side, **facts, rounds=options.rounds, reply=options.reply, patient=options.patient
                    )
                except ServiceDownError as error:
                    _write({"side": side, **facts, "reply": options.reply, "failed": str(error)})
                    continue
                seconds.setdefault(side, []).append(found["round_s"])
                _write(found)
        if len(seconds) == 2:
            medians = {side: statistics.median(times) for side, times in seconds.items()}
            _write({
                "model_bytes": model_bytes, "arrays": arrays, "sites": sites, "reply": options.reply,
                "median_round_s": medians,
                "ratio_to_flower": round(medians["cardionets"] / medians["flower"], 3),
            })  # fmt: skip


def _single(*asked: int | None) -> tuple[int, ...]:
    """The quick case, but for what is asked."""
    return tuple(value or usual for value, usual in zip(asked, QUICK, strict=True))


def _write(content: dict[str, Any]) -> None:
    """One JSON line on stdout."""
    sys.stdout.write(json.dumps({"schema_version": 1, "benchmark": "deployment", **content}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
