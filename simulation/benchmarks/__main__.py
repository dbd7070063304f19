"""``python -m simulation.benchmarks``: run the benchmarks in their short forms, compare, and write them down.

Each benchmark runs in a process of its own, one after the other; one that fails is told and stops no other.
What they print lies under ``--runs``; a run that was broken off goes on from there when it is begun again.
When all are done, their ratios are compared with the committed ones in ``docs/benchmarks.json``, that file
and the table of ``docs/benchmarks.md`` are written anew, and the next run begins from nothing. stdout is the
comparison, stderr progress. Run it with nothing beside it: ratios move less than seconds, but they move.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from cardionets_core.errors import CardioNetsError
from simulation.benchmarks.bench_page import in_order, read_committed, write_committed, write_page
from simulation.benchmarks.catalogue import CATALOGUE, names
from simulation.benchmarks.gather import gather
from simulation.benchmarks.regressions import compare, comparison_lines, has_regressed

SCHEMA_VERSION = 1
REGRESSED = 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, compare, write; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m simulation.benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="benchmarks: " + ", ".join(names()),
    )
    parser.add_argument(
        "--only", nargs="+", choices=names(), metavar="NAME",
        help="run these alone; the committed figures of all others stay",
    )  # fmt: skip
    parser.add_argument(
        "--data", type=Path, help="folder of the public data; without it, what needs it is left out"
    )
    parser.add_argument("--note", default="", help="what ran beside them, for the reader of the page")
    parser.add_argument(
        "--fresh", action="store_true", help="run again what a run that was broken off has done already"
    )
    parser.add_argument("--dry-run", action="store_true", help="compare, and write nothing into docs")
    parser.add_argument("--strict", action="store_true", help="exit 1 where a ratio is worse than its margin")
    parser.add_argument("--runs", type=Path, default=Path("runs/bench"), help="folder of what they print")
    parser.add_argument("--committed", type=Path, default=Path("docs/benchmarks.json"))
    parser.add_argument("--page", type=Path, default=Path("docs/benchmarks.md"))
    parser.add_argument("--format", choices=("table", "json"), default="table")
    options = parser.parse_args(arguments)
    try:
        return _run(options)
    except CardioNetsError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code


def _run(options: argparse.Namespace) -> int:
    committed = read_committed(options.committed)
    chosen = [each for each in CATALOGUE if options.only is None or each.name in options.only]
    if options.fresh:
        for each in chosen:
            (options.runs / f"{each.name}.json").unlink(missing_ok=True)
    found = gather(chosen, options.runs, data=_heart_data(options.data), note=options.note, tell=_tell)
    rows = compare(found, committed)
    if options.format == "json":
        content = {"schema_version": SCHEMA_VERSION, "regressed": has_regressed(rows), "rows": rows}
        sys.stdout.write(json.dumps(content, indent=1) + "\n")
    else:
        sys.stdout.writelines(f"{line}\n" for line in comparison_lines(rows))
    if not options.dry_run:
        # What failed now leaves the figures that were committed before.
        kept = {
            name: entry for name, entry in found.items() if entry["status"] == "done" or name not in committed
        }
        entries = {**committed, **kept}
        write_committed(options.committed, entries)
        write_page(options.page, entries)
        _tell(f"{len(in_order(entries))} benchmarks stand in {options.committed} and {options.page}")
        for name in found:
            (options.runs / f"{name}.json").unlink(missing_ok=True)
    return REGRESSED if options.strict and has_regressed(rows) else 0


def _heart_data(folder: Path | None) -> Path | None:
    """The tables of Fed-Heart-Disease lie in a folder of the public data, or are the folder."""
    if folder is None:
        return None
    inside = folder / "fed_heart_disease"
    return inside if inside.is_dir() else folder


def _tell(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
