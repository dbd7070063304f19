"""Which study the coordinator approved last, and what has changed since.

Comes in: a workspace and a study. Goes out: what differs; an approval as one line of a hash-chained
journal, beside the study itself under its digest. The sites approve for themselves, elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from cardionets_core.audit import journal
from cardionets_core.config.changes import change_words, study_changes
from cardionets_core.config.study import Study, study_from_json
from cardionets_core.config.workspace import Workspace
from cardionets_core.errors import CardioNetsError, DataError
from cardionets_core.plain_json import parse_json
from cardionets_core.trust.secret_files import make_secret_folder, write_file

JOURNAL = "plans.jsonl"
FOLDER = "plans"
EVENT = "plan-approved"
ABSENT = "(absent)"


def approve_plan(workspace: Workspace, study: Study) -> bool:
    """Record that this study is the approved one.

    Returns:
        Whether anything was recorded; False where it was the approved one already.
    """
    if (earlier := last_approved(workspace)) is not None and earlier.digest == study.digest:
        return False
    folder = workspace.state / FOLDER
    make_secret_folder(folder)
    write_file(folder / f"{study.digest}.json", study.to_json().encode() + b"\n", secret=False)
    journal.append(workspace.state / JOURNAL, EVENT, {"study": study.name, "digest": study.digest})
    return True


def last_approved(workspace: Workspace) -> Study | None:
    """The study of the newest approval; None where nothing was approved yet.

    Raises:
        DataError: journal or study were changed by another hand, or are gone.
    """
    path = workspace.state / JOURNAL
    if not path.exists():
        return None
    try:
        journal.verify(path)
        lines = [parse_json(line.partition(" ")[2]) for line in path.read_text("utf-8").splitlines()]
        digest = [line["digest"] for line in lines if line["event"] == EVENT][-1]
        text = (workspace.state / FOLDER / f"{digest}.json").read_text("utf-8").removesuffix("\n")
        return study_from_json(text, digest=digest)
    except (OSError, ValueError, TypeError, AttributeError, LookupError, CardioNetsError) as error:
        raise DataError(
            "what was approved last cannot be read, or was changed by another hand",
            where=str(path),
            remedy="restore the folder state from its backup, or move plans.jsonl away and approve again",
        ) from error


def changes(earlier: Study, study: Study) -> list[dict[str, Any]]:
    """What differs, the weightiest first, as ``config.changes`` tells it.

    Returns:
        ``key`` as ``phases.1.rounds``, ``was`` and ``is``; an absent value is ``(absent)``.
    """
    return [
        {
            "key": change.key,
            "was": ABSENT if change.was is None else change.was,
            "is": ABSENT if change.now is None else change.now,
        }
        for change in study_changes(json.loads(earlier.to_json()), json.loads(study.to_json()))
    ]


def comparison(workspace: Workspace, study: Study) -> dict[str, Any]:
    """JSON-ready: whether this study is the approved one, and what changed since."""
    earlier = last_approved(workspace)
    return {
        "digest": earlier.digest if earlier else None,
        "is_this": earlier is not None and earlier.digest == study.digest,
        "changes": changes(earlier, study) if earlier else [],
    }


def comparison_lines(found: dict[str, Any]) -> Iterator[str]:
    """``comparison`` for people."""
    if found["digest"] is None:
        yield "not approved yet: cardionets-server plan DIR --approve"
    elif found["is_this"]:
        yield "approved, unchanged"
    else:
        yield f"changed since the approved plan {found['digest']}:"
        yield from (f"  {words}" for words in changes_words(found))


def changes_words(found: dict[str, Any]) -> list[str]:
    """A line for each change of a ``comparison``, in its order."""
    return [
        change_words(each["key"], *(None if each[side] == ABSENT else each[side] for side in ("was", "is")))
        for each in found["changes"]
    ]
