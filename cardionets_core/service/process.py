"""One supervised process: started, watched, started again after a pause that grows, ended.

Comes in: a command and how it is restarted. Goes out: whether it runs, since when, and why it ended last.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from cardionets_core.service.logs import open_private, tail
from cardionets_core.service.state import end_tree, identity


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSpec:
    """What to run.

    Attributes:
        name: kebab-case; of the log file too.
        command: program and arguments; run without a shell.
        environment: whole environment of the process.
        log: file that stdout and stderr are appended to.
        folder: working folder.
        first_pause_s: pause before the first restart; doubles up to the longest.
        longest_pause_s: longest pause.
        healthy_after_s: uptime after which the pauses begin anew.
        ready: says whether it does its work; a process that lives is ready by default.
        needs: names of processes that must be ready before this one is started.
        grace_s: between a polite end and a hard one.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    folder: Path
    first_pause_s: float = 1.0
    longest_pause_s: float = 60.0
    healthy_after_s: float = 60.0
    ready: Callable[[], bool] | None = None
    needs: tuple[str, ...] = ()
    grace_s: float = 15.0

    @property
    def begins(self) -> str:
        """What stands in the line of the log with which a start begins."""
        return f"{self.name} starts (restarts: "


UNANSWERED = ("Failed to initialize the connection",)
"""What Flower's processes write before they end because nobody answers at the other side."""
REFUSED = "REFUSED"
"""Of a line that tells that somebody did answer, and sent the process away."""
_LAST_LINES = 60


@dataclass(slots=True, kw_only=True)
class Watched:
    """A process under watch.

    Attributes:
        spec: what to run.
        restarts: how often it was started again.
        last_exit: code of its last end; negative for a signal; None if it never ended.
        pause_s: of the next restart.
        is_ready: as of the last look.
    """

    spec: ProcessSpec
    restarts: int = 0
    last_exit: int | None = None
    pause_s: float = 0.0
    is_ready: bool = False
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _started: float = 0.0
    _not_before: float = 0.0
    _ever_started: bool = False

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def ended_unanswered(self) -> bool:
        """Whether its last end was that the other side did not answer, by its own log since its start."""
        said = False
        for line in reversed(tail(self.spec.log, _LAST_LINES)):
            if REFUSED in line:
                return False
            said |= any(mark in line for mark in UNANSWERED)
            if line.startswith("--- ") and self.spec.begins in line:
                break
        return said

    @property
    def state(self) -> str:
        """``ready``, ``starting`` or ``waiting`` (for a restart or for others), as of the last look."""
        if self._process is not None:
            return "ready" if self.is_ready else "starting"
        return "waiting"

    def step(self, *, may_start: bool) -> bool:
        """Look once: note an end, start what is due. Returns whether anything changed."""
        if self._process is not None:
            if self._note_end():
                return True  # told before it is started again
            ready = self.spec.ready is None or self.spec.ready()
            changed = ready != self.is_ready
            self.is_ready = ready
            return changed
        if may_start and time.monotonic() >= self._not_before:
            self._start()
            return True
        return False

    def end(self) -> None:
        """End it with all that it started."""
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                end_tree(psutil.Process(self._process.pid), grace_s=self.spec.grace_s)
        if self._process is not None:
            self.last_exit = self._process.wait()
            self._process = None
        self.is_ready = False

    def describe(self) -> dict[str, Any]:
        """JSON-ready: for ``service.json`` and the health page."""
        content: dict[str, Any] = {
            "state": self.state,
            "restarts": self.restarts,
            "last_exit": self.last_exit,
            "log": str(self.spec.log),
        }
        if self.alive and self._process is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                content |= identity(self._process.pid)
                children = psutil.Process(self._process.pid).children(recursive=True)
                content["family"] = [identity(self._process.pid), *_identities(children)]
        elif self._ever_started:
            content["again_in_s"] = round(max(0.0, self._not_before - time.monotonic()), 1)
        return content

    def _note_end(self) -> bool:
        if self._process is None or (code := self._process.poll()) is None:
            return False
        self._process, self.last_exit, self.is_ready = None, code, False
        if time.monotonic() - self._started >= self.spec.healthy_after_s:
            self.pause_s = 0.0
        self.pause_s = min(self.spec.longest_pause_s, max(self.spec.first_pause_s, 2.0 * self.pause_s))
        self._not_before = time.monotonic() + self.pause_s
        return True

    def _start(self) -> None:
        self.restarts += self._ever_started
        with contextlib.ExitStack() as opened:
            log: Any = subprocess.DEVNULL
            with contextlib.suppress(OSError):  # a full disk costs the words, not the process
                log = opened.enter_context(open_private(self.spec.log))
                stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
                log.write(f"--- {stamp} {self.spec.begins}{self.restarts})\n".encode())
            self._process = subprocess.Popen(
                list(self.spec.command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(self.spec.environment),
                cwd=self.spec.folder,
                # Ctrl-C at the terminal reaches the supervisor alone, which ends the others in order.
                start_new_session=True,
            )
        self._started, self._ever_started = time.monotonic(), True


def _identities(processes: list[psutil.Process]) -> list[dict[str, float]]:
    found = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            found.append(identity(process.pid))
    return found


def send_signal(pid: int, number: signal.Signals) -> None:
    """Send a signal; a process that has ended is passed over."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
