"""Starts the processes that answer orders from one that has its libraries loaded already.

Flower starts a program ``flwr-clientapp`` for every message; loading torch and the like costs it several
seconds each time. ``python -m client.warm FOLDER`` loads them once and waits on a socket in the folder. A
program of the same name, written by ``write_starter`` and found first on the SuperNode's PATH, hands its
arguments and outputs over; a fork of the waiting process then is Flower's ``flwr-clientapp``, every word of
its work unchanged: it installs and imports the bundle anew. Where nobody waits, the starter runs Flower's.

Only libraries stay loaded. The project's own modules are dropped before waiting, since those of the approved
bundle are to run, not those that are installed. No tensor is made before a fork, so no thread is lost by it.
"""

from __future__ import annotations

import array
import contextlib
import importlib
import json
import os
import random
import selectors
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

SOCKET = "warm.sock"
PROGRAM = "flwr-clientapp"
OWN = ("cardionets_core", "client", "server", "strategies", "simulation")
MOST_ARGUMENT_BYTES = 65_536
PRELOADED = ("flwr.supernode.cli.flwr_clientapp", "client.round", "client.app", "torch._dynamo")

STARTER = """#!{python} -IS
import array, json, os, socket, sys
folder, program = {folder!r}, {program!r}
try:
    os.chdir(folder)  # a socket's path may have 107 bytes only
    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    line.connect({name!r})
    outputs = array.array("i", [1, 2])
    word = json.dumps(sys.argv[1:]).encode() + b"\\n"
    line.sendmsg([word], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, outputs)])
except OSError:
    os.execv(program, [program, *sys.argv[1:]])
# From here on the work is begun; it must not be begun again if the one who waited has died.
raise SystemExit(int(line.recv(16) or b"1"))
"""


def write_starter(folder: Path) -> Path:
    """Write the program that hands over to the waiting process.

    Args:
        folder: where the socket is; the program lies in ``folder/bin``.

    Returns:
        The folder to put first on the SuperNode's PATH.
    """
    programs = folder / "bin"
    programs.mkdir(parents=True, exist_ok=True)
    # Whoever could write here could be called in the place of Flower's program.
    for place in (folder, programs):
        place.chmod(0o700)
    path = programs / PROGRAM
    real = Path(sys.executable).with_name(PROGRAM)
    path.write_text(
        STARTER.format(python=sys.executable, folder=str(folder), program=str(real), name=SOCKET),
        encoding="utf-8",
    )
    path.chmod(0o700)
    return programs


def wait_for_work(folder: Path) -> NoReturn:
    """Load the libraries, then fork one Flower process for each call of the starter, until SIGTERM."""
    _preload()
    os.chdir(folder)
    Path(SOCKET).unlink(missing_ok=True)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    server.bind(SOCKET)
    Path(SOCKET).chmod(0o600)
    server.listen(8)
    server.setblocking(False)
    wake, told = socket.socketpair()
    told.setblocking(False)
    wake.setblocking(False)
    signal.set_wakeup_fd(told.fileno())
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.signal(signal.SIGTERM, _leave)
    lines: dict[int, socket.socket] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(server, selectors.EVENT_READ)
        selector.register(wake, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is wake:
                    with contextlib.suppress(BlockingIOError):
                        wake.recv(4096)
                    _reap(lines)
                else:
                    _serve(server, lines)


def is_waiting(folder: Path) -> bool:
    """Whether a process waits for work in the folder."""
    return (folder / SOCKET).exists()


def _preload() -> None:
    for name in PRELOADED:
        importlib.import_module(name)
    for name in list(sys.modules):
        if name.partition(".")[0] in OWN and name != "__main__":
            del sys.modules[name]
    importlib.invalidate_caches()


def _serve(server: socket.socket, lines: dict[int, socket.socket]) -> None:
    """Take one call and fork."""
    with contextlib.suppress(BlockingIOError):
        line, _ = server.accept()
        line.settimeout(5.0)
        try:
            arguments, outputs = _received(line)
        except (OSError, ValueError):
            line.close()
            return
        child = os.fork()
        if child == 0:
            server.close()
            _become(arguments, outputs)
        for descriptor in outputs:
            os.close(descriptor)
        lines[child] = line


def _received(line: socket.socket) -> tuple[list[str], list[int]]:
    """The arguments, and stdout and stderr of the starter.

    Raises:
        ValueError: it is no call of a starter.
    """
    outputs = array.array("i")
    word, more, _, _ = line.recvmsg(MOST_ARGUMENT_BYTES, socket.CMSG_LEN(2 * outputs.itemsize))
    for level, kind, content in more:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            outputs.frombytes(content[: len(content) - len(content) % outputs.itemsize])
    while word and not word.endswith(b"\n") and len(word) < MOST_ARGUMENT_BYTES:
        word += line.recv(MOST_ARGUMENT_BYTES)
    arguments = json.loads(word)
    if len(outputs) != 2 or not all(isinstance(item, str) for item in arguments):
        raise ValueError("not a call of the starter")
    return list(arguments), list(outputs)


def _become(arguments: Sequence[str], outputs: Sequence[int]) -> NoReturn:
    """In the fork: be Flower's program."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for target, descriptor in zip((1, 2), outputs, strict=True):
            os.dup2(descriptor, target)
            os.close(descriptor)
        # Every fork would draw the same numbers otherwise.
        random.seed()
        sys.argv = [PROGRAM, *arguments]
        program = importlib.import_module("flwr.supernode.cli.flwr_clientapp")
        program.flwr_clientapp()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _reap(lines: dict[int, socket.socket]) -> None:
    """Tell the starters of the forks that have ended."""
    while lines:
        try:
            child, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if child == 0:
            return
        line = lines.pop(child, None)
        if line is not None:
            code = os.waitstatus_to_exitcode(status)
            with contextlib.suppress(OSError):
                line.sendall(str(code if code >= 0 else 128 - code).encode())
            line.close()


def _leave(number: int, frame: FrameType | None) -> None:
    Path(SOCKET).unlink(missing_ok=True)
    os._exit(0)


if __name__ == "__main__":
    wait_for_work(Path(sys.argv[1]))
