"""Keeps a set of processes running until it is told to end, and says how they are.

Comes in: the processes in the order of their start, and jobs that are done now and then. Goes out:
``service.json`` after every change, a health page on loopback, and an orderly end in reverse order. It does
not print; events go to a function. A disk that takes nothing stops none of it: words and states are then
lost, the processes are not.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import Any

from cardionets_core.durable import write_json
from cardionets_core.errors import CardioNetsError
from cardionets_core.logs.events import Value
from cardionets_core.logs.log import EventLog
from cardionets_core.logs.own_words import kind_of
from cardionets_core.service.health import HealthPage, require_free
from cardionets_core.service.logs import rotate
from cardionets_core.service.process import ProcessSpec, Watched
from cardionets_core.service.state import SCHEMA_VERSION, STATE, end_leftovers, identity, only_one

LOOK_S = 0.25
ROTATE_S = 5.0
REFRESH_S = 5.0
NO_PORTS: Mapping[str, tuple[str, int]] = MappingProxyType({})

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Something that is done again and again beside the processes, in a thread of its own.

    Attributes:
        name: for the log.
        every_s: pause between two times.
        work: does it; an exception is told, and it is tried again.
        when_ready: only while every process does its work.
    """

    name: str
    every_s: float
    work: Callable[[], None]
    when_ready: bool = True


class Supervisor:
    """Runs processes.

    Args:
        processes: in the order of their start; ended in reverse.
        folder: of ``service.json`` and the lock.
        health_port: on loopback.
        facts: what the health page and ``service.json`` also say.
        jobs: done beside the processes; most of them once all are ready.
        ports: key of the document that names it, to host and port on which a process is going to listen.
        maximum_log_bytes: of one log.
        keep_logs: older logs of each.
        tell: told in plain lines what happens.
        log: gets the same as events.
    """

    def __init__(
        self,
        processes: Sequence[ProcessSpec],
        *,
        folder: Path,
        health_port: int,
        facts: dict[str, Any],
        jobs: Sequence[Job] = (),
        ports: Mapping[str, tuple[str, int]] = NO_PORTS,
        maximum_log_bytes: int = 10_000_000,
        keep_logs: int = 5,
        tell: Tell = lambda text: None,
        log: EventLog | None = None,
    ) -> None:
        self._watched = {spec.name: Watched(spec=spec) for spec in processes}
        self._folder = folder
        self._health_port = health_port
        self._facts = facts
        self._jobs = jobs
        self._ports = ports
        self._maximum_log_bytes = maximum_log_bytes
        self._keep_logs = keep_logs
        self._teller = tell
        self._log = log
        self._ending = threading.Event()
        self._told: dict[str, tuple[str, int]] = {}
        self._started: dict[str, int] = {}
        self._unwritten = ""

    def run(self) -> None:
        """Run until SIGTERM, SIGINT or ``end``.

        Raises:
            UsageError: another service runs in this folder, or a port is taken.
        """
        with only_one(self._folder):
            for name in end_leftovers(self._folder):
                self._tell(f"{name} of an earlier, killed service was ended")
                self._note("leftover-ended", process=name)
            for key, (host, port) in self._ports.items():
                require_free(host, port, key=key)
            page = HealthPage(self._health_port, self.describe)
            earlier = self._take_signals()
            workers = [threading.Thread(target=self._repeat, args=(job,), daemon=True) for job in self._jobs]
            try:
                page.start()
                self._note("service-started", **dict(self._facts.get("versions", {})))
                for worker in workers:
                    worker.start()
                self._watch()
            finally:
                self._end_all()
                for worker in workers:
                    worker.join(timeout=10.0)
                page.stop()
                (self._folder / STATE).unlink(missing_ok=True)
                self._note("service-ended")
                for number, handler in earlier.items():
                    signal.signal(number, handler)

    def end(self) -> None:
        """Ask for the end; returns at once."""
        self._ending.set()

    @property
    def ready(self) -> bool:
        """Whether every process does its work."""
        return all(watched.is_ready for watched in self._watched.values())

    def describe(self) -> dict[str, Any]:
        """JSON-ready: what ``service.json`` and the health page say."""
        return {
            "schema_version": SCHEMA_VERSION,
            "status": "ending" if self._ending.is_set() else "ok" if self.ready else "degraded",
            "supervisor": identity(os.getpid()),
            "health_port": self._health_port,
            "processes": {name: watched.describe() for name, watched in self._watched.items()},
            **self._facts,
        }

    def _tell(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._teller(text)

    def _note(self, event: str, **fields: Value) -> None:
        if self._log is not None:
            self._log.write(event, **fields)

    def _write_state(self) -> None:
        try:
            write_json(self._folder / STATE, self.describe())
            self._unwritten = ""
        except OSError as error:
            if str(error) != self._unwritten:
                self._unwritten = str(error)
                self._tell(f"{STATE} cannot be written, the processes go on: {error}")
                self._note("state-unwritten")

    def _watch(self) -> None:
        rotated = refreshed = 0.0
        while not self._ending.is_set():
            changed = False
            for watched in self._watched.values():
                may_start = all(self._watched[name].is_ready for name in watched.spec.needs)
                changed |= watched.step(may_start=may_start)
            now = time.monotonic()
            if changed or now - refreshed > REFRESH_S:
                self._write_state()
                refreshed = now
            if changed:
                self._tell_changes()
            if now - rotated > ROTATE_S:
                for watched in self._watched.values():
                    with contextlib.suppress(OSError):
                        rotate(watched.spec.log, maximum_bytes=self._maximum_log_bytes, keep=self._keep_logs)
                rotated = now
            self._ending.wait(LOOK_S)

    def _tell_changes(self) -> None:
        for name, watched in self._watched.items():
            now = (watched.state, watched.restarts)
            if self._told.get(name) == now:
                continue
            self._told[name] = now
            if watched.state == "waiting" and watched.last_exit is not None:
                why = "the other side does not answer: " if watched.ended_unanswered else ""
                self._tell(
                    f"{why}{name} ended with {watched.last_exit}; again in {watched.pause_s:.0f} s"
                    f" · log {watched.spec.log}"
                )
                event = "process-unanswered" if watched.ended_unanswered else "process-ended"
                self._note(event, process=name, exit=watched.last_exit, again_s=round(watched.pause_s, 1))
            elif watched.state != "waiting":
                self._tell(f"{name}: {watched.state}")
                if watched.is_ready:
                    self._note("process-ready", process=name, restarts=watched.restarts)
                elif self._started.get(name) != watched.restarts:  # else it is busy again, and not new
                    self._started[name] = watched.restarts
                    self._note("process-started", process=name, restarts=watched.restarts)

    def _repeat(self, job: Job) -> None:
        while not self._ending.is_set():
            if self.ready or not job.when_ready:
                try:
                    job.work()
                except Exception as error:  # whatever it is, the service goes on and says so
                    self._tell(f"{job.name}: {type(error).__name__}: {error}")
                    code = error.code if isinstance(error, CardioNetsError) else ""
                    self._note("job-failed", job=job.name, code=code, error=kind_of(error))
            self._ending.wait(job.every_s)

    def _end_all(self) -> None:
        self._ending.set()
        for watched in reversed(list(self._watched.values())):
            if watched.alive:
                self._tell(f"{watched.spec.name} is being ended")
                self._note("process-stopped", process=watched.spec.name)
            watched.end()

    def _take_signals(self) -> dict[signal.Signals, Any]:
        if threading.current_thread() is not threading.main_thread():
            return {}

        def stop(number: int, frame: FrameType | None) -> None:
            self._ending.set()

        numbers = (signal.SIGTERM, signal.SIGINT)
        return {number: signal.signal(number, stop) for number in numbers}
