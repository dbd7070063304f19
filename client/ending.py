"""How the program ends: with a known error, stopped from outside, or because nobody reads its output.

Comes in: the whole program as a function. Goes out: the exit code of docs/exit-codes.md, and one line for
people where there is something to say. Knows no command.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn

from cardionets_core.errors import CardioNetsError

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SIGNAL_BASE = 128
"""Unix adds the number of the signal to it: 130 for Ctrl-C, 143 for a plain kill, 141 for a closed pipe."""
CLOSED_PIPE = SIGNAL_BASE + signal.SIGPIPE
REPEATS_S = 1.0
"""Terminals and schedulers may send a signal twice; only a later one is a person who will not wait."""


class Stopped(BaseException):
    """SIGINT or SIGTERM; no handler of errors may take it for one.

    Args:
        number: of the signal.

    Attributes:
        exit_code: 128 and the number of the signal.
        told: what a person reads; whoever knows more about the state of the work says it here.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = SIGNAL_BASE + number
        self.told = ""


def run_program(program: Callable[[], object]) -> NoReturn:
    """Run a program to its end.

    Raises:
        SystemExit: always, with the exit code.
    """
    code: Any = 0
    output = _second_handle()
    try:
        with _stoppable():
            try:
                program()
            except CardioNetsError as error:
                tell_error(error)
                code = error.exit_code
            except SystemExit as ended:
                code = ended.code
    except Stopped as stopped:
        with contextlib.suppress(OSError):
            sys.stderr.write(f"{stopped.told or 'stopped'}\n")
        code = stopped.exit_code
    raise SystemExit(_flushed(code, output))


def tell_error(error: CardioNetsError) -> None:
    """The error on stderr: what, where, what to do."""
    sys.stderr.write(f"error [{error.code}]: {error}\n")


def error_json(error: CardioNetsError) -> dict[str, Any]:
    """The error for programs; ``check`` lists its problems in this shape."""
    return {
        "code": error.code,
        "exit_code": error.exit_code,
        "what": error.what,
        "where": error.where,
        "remedy": error.remedy,
    }


def _flushed(code: Any, output: int | None) -> Any:
    """The exit code once everything is written, or that of a reader who has gone away."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # The interpreter flushes once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = CLOSED_PIPE
    if output is not None:
        # typer and rich meet a closed pipe before anybody else, and make it the code of a bug.
        if code == 1 and _reader_is_gone(output):
            code = CLOSED_PIPE
        os.close(output)
    return code


def _second_handle() -> int | None:
    """Stdout as it was when the program began: rich puts another file in its place when a pipe is closed."""
    try:
        return os.dup(sys.stdout.fileno())
    except (OSError, ValueError):
        return None


def _reader_is_gone(handle: int) -> bool:
    """Whether it is a pipe or socket that nobody reads any more."""
    looked = select.poll()
    looked.register(handle, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in looked.poll(0))


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """Signals raise ``Stopped`` in here; outside of a program's main thread nothing is changed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    begun_s: list[float] = []

    def stop(number: int, frame: FrameType | None) -> None:
        if begun_s:
            if time.monotonic() - begun_s[0] > REPEATS_S:
                os._exit(SIGNAL_BASE + number)
            return
        begun_s.append(time.monotonic())
        # Whoever waits for workers would wait until they have read what they have in hand.
        for worker in multiprocessing.active_children():
            worker.terminate()
        raise Stopped(number)

    earlier = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
