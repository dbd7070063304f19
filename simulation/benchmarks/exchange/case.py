"""One case of the benchmark: start a federation, run its rounds, read the marks, end everything."""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cardionets_core.errors import ServiceDownError
from simulation.benchmarks.exchange.bundle import Side, make_bundle
from simulation.benchmarks.exchange.processes import federation
from simulation.benchmarks.exchange.synthetic import forget_peak, memory, read_marks

LIMIT_S = 1200.0
PARTS = ("orders", "pushed", "answered", "pulled", "checked", "stored", "combined", "kept")


def run_case(
    side: Side,
    *,
    model_bytes: int,
    arrays: int,
    sites: int,
    rounds: int,
    reply: str = "same",
    patient: bool = False,
) -> dict[str, Any]:
    """Run one case.

    Args:
        side: ``flower`` (the baseline) or ``cardionets``.
        model_bytes: of the model.
        arrays: natural tensors that it consists of.
        sites: SuperNodes.
        rounds: the first is start-up and is not counted.
        patient: whether bare Flower's SuperLink waits for its database longer than by default.
        reply: ``same`` gives the model back as it came, ``changed`` gives other values at each site.

    Returns:
        Seconds a round, peak memory in models, and where the time went.
    """
    begun = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="exchange-", ignore_cleanup_errors=True) as name,
        federation(side, Path(name), sites=sites, patient=patient) as made,
    ):
        marks = Path(name) / "marks.jsonl"
        link = made.running["superlink"].pid
        before = memory(link)
        forget_peak(link)
        run = made.control.submit(
            make_bundle(side, Path(name)),
            {
                "rounds": rounds, "sites": sites, "model-bytes": model_bytes, "arrays": arrays,
                "reply": reply, "marks": str(marks), "out": str(Path(name) / "out"),
            },
        )  # fmt: skip
        end = time.monotonic() + LIMIT_S
        asked, spent = time.monotonic(), made.processor_s()
        counting = False
        while not (found := read_marks(marks)) or found[-1]["what"] != "end":
            made.check()
            if not counting and any(line["what"] == "round" and line["round"] == 1 for line in found):
                counting, spent = True, made.processor_s()
            if time.monotonic() - asked > 20.0:
                asked = time.monotonic()
                if made.control.run_status(run).startswith("finished"):
                    time.sleep(1.0)
                    if read_marks(marks)[-1:] and read_marks(marks)[-1]["what"] == "end":
                        break
                    raise ServiceDownError(f"the run failed:\n{made.log('superexec', 60)}")
            if time.monotonic() > end:
                raise ServiceDownError(f"not done within {LIMIT_S:.0f} s:\n{made.log('superexec')}")
            time.sleep(0.2)
        after, processor = memory(link), made.processor_s()
        found = read_marks(marks)
    facts = {"side": side, "model_bytes": model_bytes, "arrays": arrays, "sites": sites, "rounds": rounds,
             "reply": reply, "patient": patient}  # fmt: skip
    return {
        **facts,
        **figures(found, model_bytes=model_bytes),
        "processor_s": {
            name: round((processor[name] - spent[name]) / max(1, rounds - 1), 2) for name in processor
        },
        "superlink_models": round((after["peak_bytes"] - before["now_bytes"]) / model_bytes, 2),
        "case_s": round(time.monotonic() - begun, 1),
    }


def figures(marks: Sequence[Mapping[str, Any]], *, model_bytes: int) -> dict[str, Any]:
    """Seconds a round, memory and parts, from the marks of a case.

    The first round holds the start of all processes and is left out where there is another.
    """
    ends = [float(line["at_s"]) for line in marks if line["what"] == "round"]
    spans = [after - before for before, after in itertools.pairwise(ends)]
    counted = spans[1:] or spans
    (first,) = [line for line in marks if line["what"] == "begin"]
    last = [line for line in marks if line["what"] in ("round", "end")][-1]
    begin = ends[1] if len(spans) > 1 else ends[0]
    parts = {
        name: round(sum(times) / len(counted), 3)
        for name in PARTS
        if (times := [line["seconds"] for line in marks if line["what"] == name and line["at_s"] > begin])
    }
    return {
        "round_s": round((ends[-1] - begin) / len(counted), 3),
        "round_median_s": round(statistics.median(counted), 3),
        "first_round_s": round(spans[0], 3),
        "server_models": round((last["peak_bytes"] - first["now_bytes"]) / model_bytes, 2),
        "parts_s": parts,
    }
