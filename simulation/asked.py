"""What was typed, checked before anything is made: the folder to write to, and given weights.

Comes in: options of ``run``, ``compare`` and ``sweep``. Goes out: nothing, or one error with its remedy.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from pathlib import Path

from cardionets_core.config.study import Study
from cardionets_core.errors import CardioNetsError, FolderMissingError, UsageError
from cardionets_core.models import get_preset
from server.aggregation import strategy_of
from server.phase_order import tasks_of


def refuse_file(out: Path) -> None:
    """Refuse a path that cannot become a folder, since it, or what it lies in, is a file.

    Raises:
        UsageError: with the file.
    """
    for path in (out, *out.parents):
        if path.is_dir():
            return
        if path.exists():
            raise UsageError(f"{path} is a file", where=str(out), remedy="give a folder")


def ready_folder(out: Path, *, ours: Collection[str] = ()) -> None:
    """Make the folder for everything that will be written, unless it is there.

    Args:
        out: the folder.
        ours: what an earlier call has put into it: where it is not empty, one of these must be there.

    Raises:
        UsageError: it is a file, holds other things, cannot be made, or cannot be written to.
    """
    refuse_file(out)
    held = {path.name for path in out.iterdir()} if ours and os.access(out, os.R_OK) else set()
    if held and held.isdisjoint(ours):
        raise UsageError(
            f"the folder holds other things, such as {min(held)}",
            where=str(out),
            remedy="give a new folder, or that of a call which was broken off",
        )
    remedy = "give another folder, or one in which you may write"
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UsageError(f"the folder cannot be made: {reason}", where=str(out), remedy=remedy) from None
    if not os.access(out, os.W_OK | os.X_OK):
        raise UsageError("the folder cannot be written to", where=str(out), remedy=remedy)


def in_one_line(error: CardioNetsError) -> str:
    """An error inside a list of errors: what, where in brackets, and what to do."""
    lines = [line.strip(" -") for line in error.what.splitlines()]
    # Of a document's faults, head and remedy say nothing that the list around them does not.
    where = f" ({error.where})" if error.where else ""
    if lines[1:]:
        return f"{'; '.join(lines[1:])}{where}"
    return f"{lines[0]}{where}{f': {error.remedy}' if error.remedy else ''}"


def check_study(study: Study) -> None:
    """Check what a server would refuse of a study before its first round.

    Raises:
        ConfigError: a name or an option does not exist, or the parts do not fit each other.
    """
    get_preset(study.models)
    strategy_of(study, tasks_of(study))


def check_initial(studies: Iterable[Study], initial: Path | None) -> None:
    """Check the folder of given weights against the studies, each of which must name what is in it.

    Raises:
        UsageError: no study names initial weights, and a folder of them was given.
        FolderMissingError: there is no such folder.
        CheckpointError: a study names weights, and none or others were given.
    """
    asked = {(study.models, tuple(sorted(study.initial.items()))) for study in studies}
    if initial is not None and not any(wanted for _, wanted in asked):
        raise UsageError(
            "the study names no initial weights, but a folder of them was given",
            where="--initial",
            remedy="name module and digest in the study under initial, or leave --initial out",
        )
    if initial is not None and not initial.is_dir():
        raise FolderMissingError(
            f"there is no folder {initial}",
            where="--initial",
            remedy="give the folder of the weights",
        )
    if any(wanted for _, wanted in asked):
        from server.given_model import given_modules

        for preset, wanted in sorted(asked):
            given_modules(dict(wanted), initial, preset=preset)
