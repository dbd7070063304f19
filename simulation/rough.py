"""A wire that can be cut or slowed, and a disk that can be filled: real ones, for system tests.

A network namespace holds the far end of the wire; the disk is a file system in memory. Both need root and
Linux, and are gone when their block ends.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

FAR = "eth0"


class Wire:
    """A pair of network interfaces between this machine and a network namespace.

    Args:
        name: of the interface here and of the namespace.
        network: the first three numbers of the addresses.

    Attributes:
        host: the address of this machine on the wire.
    """

    def __init__(self, name: str, *, network: str = "10.203.77") -> None:
        self.name = name
        self.host, self._far = f"{network}.1", f"{network}.2"

    @contextlib.contextmanager
    def up(self) -> Iterator[None]:
        """The wire, whole and fast.

        Raises:
            CalledProcessError: this machine has no network namespaces, or this user may not make them.
        """
        _run(["ip", "netns", "del", self.name], check=False)
        _run(["ip", "netns", "add", self.name])
        try:
            here = ["ip", "link", "add", self.name, "type", "veth", "peer", "name", FAR, "netns", self.name]
            _run(here)
            _run(["ip", "addr", "add", f"{self.host}/30", "dev", self.name])
            _run(["ip", "link", "set", self.name, "up"])
            far = ["ip", "-n", self.name]
            _run([*far, "addr", "add", f"{self._far}/30", "dev", FAR])
            _run([*far, "link", "set", FAR, "up"])
            _run([*far, "link", "set", "lo", "up"])
            yield
        finally:
            _run(["ip", "netns", "del", self.name])

    def inside(self, command: Sequence[str]) -> list[str]:
        """The command line that runs a command at the far end."""
        return ["ip", "netns", "exec", self.name, *command]

    def cut(self) -> None:
        """No packet passes; nobody is told."""
        _run(["ip", "link", "set", self.name, "down"])

    def slow(self, rate: str) -> None:
        """Each direction passes so much and no more, for example ``2mbit`` a second."""
        shape = ["root", "tbf", "rate", rate, "burst", "16kb", "latency", "800ms"]
        _run(["tc", "qdisc", "replace", "dev", self.name, *shape])
        _run(["tc", "-n", self.name, "qdisc", "replace", "dev", FAR, *shape])

    def mend(self) -> None:
        """Whole and fast again."""
        _run(["ip", "link", "set", self.name, "up"])
        _run(["tc", "qdisc", "del", "dev", self.name, "root"], check=False)
        _run(["tc", "-n", self.name, "qdisc", "del", "dev", FAR, "root"], check=False)


@contextlib.contextmanager
def small_disk(folder: Path, *, megabytes: int) -> Iterator[None]:
    """A file system of little room in a new folder."""
    folder.mkdir(parents=True)
    _run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)])
    try:
        yield
    finally:
        _run(["umount", "--lazy", str(folder)])


def fill(folder: Path) -> Path:
    """Leave not one byte on the disk of a folder; returns the file to delete."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as handle:
        for size in (1 << 20, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while handle.write(bytes(size)) == size:
                    pass
    return filler


def _run(command: list[str], *, check: bool = True) -> None:
    subprocess.run(command, check=check, capture_output=True)
