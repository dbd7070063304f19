"""One study over many sites in this process: seconds of the server's parts and of the sites, and memory.

Comes in: the documents of the sites and a number of rounds. Goes out: what the last but one round took, by
whom. The real server and the real sites work one after the other over an in-process grid, or on Flower's
engine; the clocks are laid around their functions and change nothing of them.
"""

from __future__ import annotations

import contextlib
import resource
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from cardionets_core.config.study import Study
from cardionets_core.errors import StudyPausedError
from cardionets_core.plain_json import read_json
from server.link.wanted import RESULT
from server.pause import PAUSE_REQUEST
from server.progress import Event, silent

ROUNDS = 3
TOLD_ROUND = 2
"""It measures nothing, and everything is loaded by then. In this process the study is paused after it."""
PARTS = {
    "sites": "simulation.local_grid.LocalGrid._answer",
    "send": "server.question.Question.send",
    "judge": "server.collect.Collector._judge_training",
    "store": "server.round_store.RoundStore.accept",
    "journal": "cardionets_core.audit.journal.append",
    "list-replies": "server.round_store.RoundStore.sites",
    "status": "server.status.StatusBoard._write",
    "combine": "server.round_run.combine_replies",
    "checkpoint": "server.checkpoints.CheckpointStore.write",
}
"""What is timed: name to function. None of them runs within another of them."""


def study_content(sites: int) -> dict[str, Any]:
    """One phase of one step a round on one ECG, with the smallest model, for all sites."""
    return {
        "name": "scale",
        "seed": 1,
        "preset": "nano",
        "sites": {"minimum": sites, "deadline_s": 36_000, "attempts": 1},
        "evaluation": {"every_rounds": ROUNDS},
        "phases": [
            {
                "task": "ecg_mae",
                "rounds": ROUNDS,
                "local_steps": 1,
                "batch_size": 1,
                "optimiser": {"name": "sgd", "lr": 1e-4},
            }
        ],
    }


def run_case(paths: Sequence[Path], run: Path, *, engine: str, cores: int = 1) -> dict[str, Any]:
    """Run the study on some sites.

    Args:
        paths: of their documents; what they remember of earlier studies is removed.
        run: folder of the run; removed.
        engine: ``local`` or ``flower``.
        cores: of Flower's engine.

    Returns:
        ``round_s`` of the told round, and of ``local`` seconds by part, ``sites_s`` and ``server_s``; bytes
        both ways; peak and resident memory of this process.
    """
    # A run that was broken off would be taken up, with sites that no longer know of it.
    for folder in (run, *(path.parent / "state" for path in paths)):
        shutil.rmtree(folder, ignore_errors=True)
    study = Study.model_validate(study_content(len(paths)))
    start, before = time.perf_counter(), peak_bytes()
    clock = Clock()
    try:
        if engine == "flower":
            from simulation.flower import run_on_flower

            result = run_on_flower(study, paths, folder=run, progress=silent, track=False, cores=cores)
        else:
            from simulation.flower import run_locally

            def told(event: Event) -> None:
                clock.rounds(event)
                if event.kind == "round" and event.round == TOLD_ROUND:
                    # The last round would measure the model: that is another question.
                    (run / PAUSE_REQUEST).parent.mkdir(exist_ok=True)
                    (run / PAUSE_REQUEST).touch()

            with clock.laid_around(PARTS), contextlib.suppress(StudyPausedError):
                run_locally(study, paths, folder=run, progress=told, track=False)
            result = read_json(run / RESULT)
    finally:
        shutil.rmtree(run, ignore_errors=True)
    entry = result["rounds"][TOLD_ROUND - 1]
    found = {
        "engine": engine,
        "sites": len(paths),
        "counted": sum(row["status"] == "trained" for row in entry["sites"]),
        "round_s": round(entry["seconds"], 3),
        "study_s": round(time.perf_counter() - start, 2),
        "bytes_sent": entry["bytes_sent"],
        "bytes_received": entry["bytes_received"],
        "peak_bytes": peak_bytes(),
        "grown_bytes": peak_bytes() - before,
    }
    if engine == "local":
        # The checkpoint and the status of a round are written when the study's own clock has stopped.
        parts = clock.of_round(TOLD_ROUND)
        for kind in ("s", "processor_s"):
            whole, sites = parts[kind]["round"], parts[kind]["sites"]
            found |= {
                f"round_{kind}": round(whole, 3),
                f"sites_{kind}": round(sites, 3),
                f"server_{kind}": round(whole - sites, 3),
                f"server_parts_{kind}": _of_server(parts[kind]),
            }
        found["server_calls"] = {name: int(count) for name, count in _of_server(parts["calls"]).items()}
    return found


def _of_server(parts: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in parts.items() if name not in ("round", "sites")}


class Clock:
    """Seconds, seconds of the processor, and calls of some functions, round by round.

    The processor's seconds are this process's own, whatever else the machine does; waits for the disk are
    in the others alone.
    """

    def __init__(self) -> None:
        self._spent: Counter[str] = Counter()
        self._calls: Counter[str] = Counter()
        self._running = False
        self._ends = {0: self._now()}

    def rounds(self, event: Event) -> None:
        """Notes the end of a round."""
        if event.kind == "round":
            self._ends[event.round] = self._now()

    def of_round(self, number: int) -> dict[str, dict[str, float]]:
        """``s``, ``processor_s`` and ``calls`` by part between the end of the round before and of this one.

        The part ``round`` is all of it.
        """
        before, after = self._ends[number - 1], self._ends[number]
        return {
            kind: {name: after[kind].get(name, 0) - before[kind].get(name, 0) for name in ("round", *PARTS)}
            for kind in after
        }

    def _now(self) -> dict[str, dict[str, float]]:
        spent = {name: value / 1e9 for name, value in self._spent.items()}
        return {
            "s": {name.removeprefix("s/"): value for name, value in spent.items() if name.startswith("s/")}
            | {"round": time.perf_counter_ns() / 1e9},
            "processor_s": {
                name.removeprefix("p/"): value for name, value in spent.items() if name.startswith("p/")
            }
            | {"round": time.process_time_ns() / 1e9},
            "calls": {name: float(count) for name, count in self._calls.items()},
        }

    @contextlib.contextmanager
    def laid_around(self, parts: dict[str, str]) -> Iterator[None]:
        """While it lasts, the functions are timed; one within another counts as the outer one's."""
        with contextlib.ExitStack() as exits:
            for name, place in parts.items():
                module, _, function = place.rpartition(".")
                original = _found(place)
                exits.enter_context(mock.patch(f"{module}.{function}", self._timed(name, original)))
            yield

    def _timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **keywords: Any) -> Any:
            if self._running:
                return function(*arguments, **keywords)
            self._running = True
            start, processor = time.perf_counter_ns(), time.process_time_ns()
            try:
                return function(*arguments, **keywords)
            finally:
                self._running = False
                self._spent[f"s/{name}"] += time.perf_counter_ns() - start
                self._spent[f"p/{name}"] += time.process_time_ns() - processor
                self._calls[name] += 1

        return timed


def _found(place: str) -> Callable[..., Any]:
    import importlib

    names = place.split(".")
    for split in range(len(names) - 1, 0, -1):
        with contextlib.suppress(ModuleNotFoundError):
            found: Any = importlib.import_module(".".join(names[:split]))
            for name in names[split:]:
                found = getattr(found, name)
            return found  # type: ignore[no-any-return]
    raise ModuleNotFoundError(place)


def peak_bytes() -> int:
    """The most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
