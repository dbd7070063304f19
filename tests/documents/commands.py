"""The commands of README and docs, found in the text: what a reader would type.

A fenced block without a language, or of ``sh``, is typed; a line that ends in a backslash goes on in the
next. An inline piece of code counts as a command where it begins with one of the programs or with ``make``.
"""

from __future__ import annotations

import contextlib
import os
import pty
import re
import shlex
import signal
import subprocess
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

LONGEST_S = 3000.0
ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "site_configs/README.md",
    *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")),
)
PROGRAMS = ("cardionets-server", "cardionets-client", "cardionets-sim")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ANY_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
STARTS = re.compile(
    r"(\.venv/bin/)?(cardionets-(server|client|sim) |make |mlflow |python3?(\.11)? -m [\w.]*\w(?!\S))"
)
LOOP = re.compile(r"^(for \w+ in [^;]*; )?do |; done$|^do |^done$|^for \w+ in .*$")


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block of commands.

    Attributes:
        document: path in the checkout.
        text: as it stands there.
    """

    document: str
    text: str

    @property
    def lines(self) -> tuple[str, ...]:
        """Commands without comments, continued lines joined, loops opened."""
        joined = self.text.replace("\\\n", " ")
        found = []
        for line in joined.splitlines():
            line = " ".join(without_comment(line).split())
            while (shorter := LOOP.sub("", line).strip()) != line:
                line = shorter
            found.append(line)
        return tuple(line for line in found if line)

    @property
    def is_typed(self) -> bool:
        """Whether it holds a command at all, and no output or sketch of files."""
        return any(STARTS.match(line) or line.startswith("flwr ") for line in self.lines)


def without_comment(line: str) -> str:
    """The line up to a ``#`` that begins a comment."""
    return re.sub(r"(^|\s)#\s.*$", "", line)


def blocks() -> list[Block]:
    """All blocks of commands, document by document."""
    return [
        block
        for document in DOCUMENTS
        for language, text in FENCE.findall((ROOT / document).read_text(encoding="utf-8"))
        if language in ("", "sh") and (block := Block(document=document, text=text)).is_typed
    ]


def inline_commands() -> list[tuple[str, str]]:
    """Document and command of every inline piece of code that is one."""
    found = []
    for document in DOCUMENTS:
        text = ANY_FENCE.sub("", (ROOT / document).read_text(encoding="utf-8"))
        found += [(document, code) for code in re.findall(r"`([^`\n]+)`", text) if STARTS.match(code)]
    return found


def blocks_of(walk: Iterable[tuple[str, str]]) -> list[Block]:
    """Blocks that have a line with one of the beginnings, in the order of the walk.

    Args:
        walk: documents, and the beginning of a line of a block of theirs.

    Raises:
        AssertionError: a beginning stands in no block.
    """
    found: list[Block] = []
    for document, beginning in walk:
        fitting = [
            block
            for block in blocks()
            if block.document == document and any(line.startswith(beginning) for line in block.lines)
        ]
        assert fitting, f"{document} has no block with {beginning!r}"
        found += [block for block in fitting if block not in found]
    return found


def words_of(command: str) -> list[str]:
    """A command's words, without what the shell would do with its output and without optional brackets."""
    plain = re.sub(r"\$\(\(.*?\)\)|\$\w+", "1", command).replace("[", "").replace("]", "")
    words = shlex.split(plain)
    for sign in (">", "|", "&&"):
        if sign in words:
            words = words[: words.index(sign)]
    return words


class Reader:
    """Somebody who types what the documents say, in a shell, and forgets no line of it.

    Args:
        documents: blocks that are to be typed, whole.
        folder: where the shell stands.
        environment: of the shell.
    """

    def __init__(self, documents: list[Block], *, folder: Path, environment: dict[str, str]) -> None:
        self.left = [(block.document, line) for block in documents for line in block.lines]
        self.names: dict[str, str] = {}
        self.folder = folder
        self.environment = environment

    def take(self, beginning: str) -> str:
        """The next line that begins so, with the reader's own names in it.

        Raises:
            AssertionError: the documents have no such line that was not typed yet.
        """
        for place in self.left:
            if place[1].startswith(beginning):
                self.left.remove(place)
                return self.said(place[1])
        raise AssertionError(f"no document says {beginning!r}; left: {self.left}")

    def said(self, line: str) -> str:
        """A line with the reader's own names for what stands in capitals or belongs to an example."""
        for name in sorted(self.names, key=len, reverse=True):
            line = line.replace(name, self.names[name])
        return line

    def type(self, beginning: str, *, answer: str = "", code: int = 0) -> str:
        """Type the next line that begins so; returns what it printed.

        Args:
            beginning: of a line.
            answer: what is typed after it; then it has a terminal, and asks.
            code: with which it ends.

        Raises:
            AssertionError: it ended with another code, or there is no such line.
        """
        line = self.take(beginning)
        if answer:
            ended, said = self._on_a_terminal(line, answer)
        else:
            done = subprocess.run(
                ["bash", "-c", line], cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=LONGEST_S, check=False,
            )  # fmt: skip
            ended, said = done.returncode, done.stdout
        assert ended == code, f"{line}\n{said[-4000:]}"
        return said

    def _on_a_terminal(self, line: str, answer: str) -> tuple[int, str]:
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            ["bash", "-c", line], cwd=self.folder, env=self.environment,
            stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        os.write(ours, answer.encode())
        said = b""
        with contextlib.suppress(OSError):  # Linux's way to say that nobody holds the other end
            while more := os.read(ours, 65536):
                said += more
        os.close(ours)
        return process.wait(LONGEST_S), said.decode(errors="replace")

    @contextlib.contextmanager
    def running(self, beginning: str, *, more: str = "") -> Iterator[subprocess.Popen[str]]:
        """Type a line that does not end by itself; inside the block it runs, after it its processes are gone.

        Args:
            beginning: of a line.
            more: options after it, such as a free port.
        """
        with subprocess.Popen(
            ["bash", "-c", f"exec {self.take(beginning)} {more}"], cwd=self.folder, env=self.environment,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        ) as process:  # fmt: skip
            try:
                yield process
            finally:
                os.killpg(process.pid, signal.SIGINT)
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)

    def page(self, beginning: str, *, more: str = "--port 0") -> str:
        """Type a line that serves a page, and look at it: its HTML."""
        with self.running(beginning, more=more) as process:
            address = next(word for line in process.stdout for word in line.split() if "http://" in word)
            browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
            with browser.open(address[address.index("http") :].rstrip(".,"), timeout=120) as answer:
                return str(answer.read().decode())
