"""A journal held against the heads that the other side has written down (after rows 9 and 11).

Comes in: a journal, and a file of heads as ``journal export-heads`` of the other side prints it. Goes out:
how many of them lie on the journal's chain, or an error that names the first that does not. A chain that was
rewritten from some line on, with all its hashes, or cut off, is whole by itself; the other side's heads are
not its own to change. Whether a head was signed by the journal's owner is for the caller to say: an unsigned
one accuses nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cardionets_core.audit.journal import GENESIS, verify
from cardionets_core.errors import DataError
from cardionets_core.plain_json import parse_json

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Witnessed:
    """A head of a journal, as the other side has written it down.

    Attributes:
        journal: whose: ``site/NAME`` or ``server/STUDY``.
        lines: number of its lines then.
        hash: of the last of them.
        signature: hexadecimal, or empty.
        key: OpenSSH form of the key that signed, or empty.
        time_s: when it was written down, seconds since 1970.
    """

    journal: str
    lines: int
    hash: str
    signature: str = ""
    key: str = ""
    time_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What came of a comparison in which nothing contradicted.

    Attributes:
        lines: of the journal.
        heads: of this journal in the file.
        signed: of them, by the journal's owner.
    """

    lines: int
    heads: int
    signed: int


def heads_json(heads: Iterable[Witnessed], *, holder: str) -> dict[str, Any]:
    """The file of heads: those of others' journals that stand in the holder's own."""
    return {"schema_version": SCHEMA_VERSION, "holder": holder, "heads": [asdict(head) for head in heads]}


def read_heads(path: Path) -> list[Witnessed]:
    """The heads in a file.

    Raises:
        DataError: the file is not there, or holds something else.
    """
    try:
        content = parse_json(path.read_bytes())
        if content["schema_version"] != SCHEMA_VERSION:
            raise ValueError("another version")
        found = [Witnessed(**row) for row in content["heads"]]
        fits = all(
            type(head.lines) is int
            and head.lines > 0
            and all(isinstance(word, str) for word in (head.journal, head.hash, head.signature, head.key))
            and type(head.time_s) in (int, float)
            for head in found
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _unreadable(path) from error
    if not fits:
        raise _unreadable(path)
    return found


def verify_against(
    path: Path, heads: Iterable[Witnessed], *, journal: str, proves: Callable[[Witnessed], bool]
) -> Compared:
    """Check the whole chain, and that every head of this journal lies on it.

    Args:
        path: the journal.
        heads: as the other side has written them down; those of other journals are passed over.
        journal: the name of this one.
        proves: whether a head bears the signature of this journal's owner.

    Raises:
        DataError: the chain is broken, or names the first head that does not lie on it.
    """
    lines = verify(path) if path.exists() else 0
    own = sorted((head for head in heads if head.journal == journal), key=lambda head: head.lines)
    hashes = [GENESIS, *_hashes(path)]
    signed = 0
    for head in own:
        proven = proves(head)
        signed += proven
        if head.lines > lines:
            what = f"the journal ends with line {lines}, but the other side knew line {head.lines}"
        elif hashes[head.lines] != head.hash:
            what = (
                f"line {head.lines} is not the one that the other side knew: it or one before was rewritten"
            )
        else:
            continue
        words = "signed by this journal's owner" if proven else "without a signature of this journal's owner"
        raise DataError(
            f"{what} (a head {words})",
            where=f"{path}:{head.lines}",
            remedy="keep both files; an earlier copy of the journal shows what was changed"
            if proven
            else "keep both files, and ask the other side where it has this head from",
        )
    return Compared(lines=lines, heads=len(own), signed=signed)


def _hashes(path: Path) -> list[str]:
    if not path.exists():
        return []
    return [
        line.partition(b" ")[0].decode("ascii", errors="replace") for line in path.read_bytes().splitlines()
    ]


def _unreadable(path: Path) -> DataError:
    return DataError(
        "the file of heads cannot be read",
        where=str(path),
        remedy="ask the other side for what its `journal export-heads` prints",
    )
