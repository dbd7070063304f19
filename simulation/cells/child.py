"""The process of one cell: does the work, writes the result, or why there is none.

All that it prints goes to ``cell.log`` in the cell's folder: many cells speak at once.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import threading
import time
import traceback
from dataclasses import dataclass, replace
from pathlib import Path

from cardionets_core.durable import write_json
from cardionets_core.errors import CardioNetsError
from simulation.cells.cell import RESULT, Cell, save_result

BEGUN = "begun.json"
FAILURE = "failure.json"
LOG = "cell.log"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a cell gave nothing.

    Attributes:
        code: of the error tree; ``bug`` for any other error, ``killed`` for a process that was ended.
        text: what a person is told.
    """

    code: str
    text: str


def run_cell(cell: Cell, folder: Path) -> None:
    """Entry point of the process; ends it with 1 where the work failed."""
    # Ctrl-C reaches the whole group of processes; the parent ends its cells itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _clear(cell, folder)
    with (folder / LOG).open("ab", buffering=0) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    # A core a cell: for a torch that is loaded later, and for one that came with the work.
    os.environ["OMP_NUM_THREADS"] = "1"
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)
    started = time.monotonic()
    try:
        result = cell.work.run(folder)
    except CardioNetsError as error:
        write_json(folder / FAILURE, {"code": error.code, "text": str(error)})
        raise SystemExit(1) from None
    except Exception as error:  # whatever it is, the other cells go on
        traceback.print_exc()
        text = f"{type(error).__name__}: {error} (see {folder / LOG})"
        write_json(folder / FAILURE, {"code": "bug", "text": text})
        raise SystemExit(1) from None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    seconds = round(time.monotonic() - started, 2)
    save_result(folder, replace(result, seconds=seconds, peak_bytes=peak), digest=cell.digest)


def _end_with_parent() -> None:
    """End with a parent that was killed: two tries of a cell must not meet in a folder."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def failure_of(folder: Path, exit_code: int | None) -> Failure:
    """What a process that gave no result died of."""
    try:
        found = json.loads((folder / FAILURE).read_text(encoding="utf-8"))
        return Failure(code=str(found["code"]), text=str(found["text"]))
    except (OSError, ValueError, KeyError):
        pass
    if exit_code is not None and exit_code < 0:
        text = f"its process was ended by {signal.Signals(-exit_code).name}"
        if exit_code == -signal.SIGKILL:
            text += "; the machine may have run out of memory: try fewer --jobs"
        return Failure(code="killed", text=text)
    return Failure(code="bug", text=f"its process ended with {exit_code}; see {folder / LOG}")


def _clear(cell: Cell, folder: Path) -> None:
    """Keep what an earlier try of this very cell left, and nothing else."""
    begun = folder / BEGUN
    try:
        same = json.loads(begun.read_text(encoding="utf-8"))["digest"] == cell.digest
    except (OSError, ValueError, KeyError):
        same = False
    if folder.exists() and (not same or cell.work.starts_anew):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(begun, {"digest": cell.digest, "name": cell.name})
    for name in (FAILURE, RESULT):
        (folder / name).unlink(missing_ok=True)
