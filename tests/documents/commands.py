"""The commands of README and docs, found in the text: what a reader would type.

A fenced block without a language, or of ``sh``, is typed; a line that ends in a backslash goes on in the
next. An inline piece of code counts as a command where it begins with one of the programs or with ``make``.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "site_configs/README.md",
    *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")),
)
PROGRAMS = ("cardionets-server", "cardionets-client", "cardionets-sim")
FENCE = re.compile(r"^```(?:sh)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ANY_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
STARTS = re.compile(r"(\.venv/bin/)?(cardionets-(server|client|sim) |make |python3?(\.11)? -m )")
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
        for text in FENCE.findall((ROOT / document).read_text(encoding="utf-8"))
        if (block := Block(document=document, text=text)).is_typed
    ]


def inline_commands() -> list[tuple[str, str]]:
    """Document and command of every inline piece of code that is one."""
    found = []
    for document in DOCUMENTS:
        text = ANY_FENCE.sub("", (ROOT / document).read_text(encoding="utf-8"))
        found += [(document, code) for code in re.findall(r"`([^`\n]+)`", text) if STARTS.match(code)]
    return found


def words_of(command: str) -> list[str]:
    """A command's words, without what the shell would do with its output and without optional brackets."""
    plain = re.sub(r"\$\(\(.*?\)\)|\$\w+", "1", command).replace("[", "").replace("]", "")
    words = shlex.split(plain)
    for sign in (">", "|", "&&"):
        if sign in words:
            words = words[: words.index(sign)]
    return words
