"""What lasts at a site from round to round of a phase, on its disk, one safetensors file a round (step 7).

Optimiser moments, control variates, local tensors, personal models. A round always begins from the state of a
round before it, so a round that is asked for again begins from where it began the first time, and advances
nothing twice. The files lie in ``folders.state`` and never leave the site.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from cardionets_core.durable import on_disk, sync_file, sync_folder
from cardionets_core.errors import CheckpointError
from cardionets_core.training.memory import State

_NAME = re.compile(r"\d{5,10}\.safetensors")


class DiskMemory:
    """The states of one phase of one study.

    Args:
        folder: of one kind of state, such as ``optimiser``, in the site's state folder.
        study_digest: of the study.
        phase: index of the phase.
        counts: whether the state of a round counts; all do by default.
    """

    def __init__(
        self,
        folder: Path,
        *,
        study_digest: str,
        phase: int,
        counts: Callable[[int], bool] = lambda number: True,
    ) -> None:
        self._kind = folder.name
        self._folder = folder / f"{study_digest[:24]}-{phase:02d}"
        self._counts = counts

    def recall(self, round_index: int) -> State | None:
        """The state after the newest round before this one that counts, or None.

        Raises:
            CheckpointError: the file is torn.
        """
        earlier = self._before(round_index)
        if earlier is None:
            return None
        try:
            return load_file(earlier)
        # Of a type that torch does not have, the library makes a KeyError or an AttributeError.
        except (SafetensorError, OSError, KeyError, AttributeError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"the {self._kind} state of an earlier round is torn",
                where=str(earlier),
                remedy="remove this file: this state begins anew",
            ) from error

    def keep(self, round_index: int, state: State) -> None:
        """Store the state after a round, whole or not at all; beside it stays that of its beginning."""
        part = self._folder / f".{round_index:05d}.{os.getpid()}.part"
        target = self._folder / f"{round_index:05d}.safetensors"
        with on_disk(self._folder, keeps="the state of the round before is whole"):
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                save_file(state, part)
                sync_file(part)
                part.replace(target)
                sync_folder(self._folder)
            except BaseException:
                with contextlib.suppress(OSError):
                    part.unlink(missing_ok=True)
                raise
        earlier = self._before(round_index)
        for path in self._paths():
            # Later rounds are those of an earlier run of the same study.
            if path not in (target, earlier):
                path.unlink()

    def _before(self, round_index: int) -> Path | None:
        found = [p for p in self._paths() if int(p.stem) < round_index and self._counts(int(p.stem))]
        return found[-1] if found else None

    def _paths(self) -> list[Path]:
        """Ours alone: another file may lie beside them."""
        return sorted(path for path in self._folder.glob("*.safetensors") if _NAME.fullmatch(path.name))
