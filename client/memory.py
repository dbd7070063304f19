"""A site's optimiser state on its disk, one safetensors file a round (step 7 of the walk).

A round always begins from the newest state of a round before it, so a round that is asked for again begins
from where it began the first time. The files lie in ``folders.state`` and never leave the site.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from cardionets_core.audit.durable import on_disk, sync_file, sync_folder
from cardionets_core.errors import CheckpointError
from cardionets_core.training.memory import State


class DiskMemory:
    """The states of one phase of one study.

    Args:
        folder: ``optimiser`` of the site's state folder.
        study_digest: of the study.
        phase: index of the phase.
    """

    def __init__(self, folder: Path, *, study_digest: str, phase: int) -> None:
        self._folder = folder / f"{study_digest[:24]}-{phase:02d}"

    def recall(self, round_index: int) -> State | None:
        """The state after the newest round before this one, or None.

        Raises:
            CheckpointError: the file is torn.
        """
        earlier = [path for path in self._paths() if int(path.stem) < round_index]
        if not earlier:
            return None
        try:
            return load_file(earlier[-1])
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                "the optimiser's state of an earlier round is torn",
                where=str(earlier[-1]),
                remedy="remove this file: the moments begin anew",
            ) from error

    def keep(self, round_index: int, state: State) -> None:
        """Store the state after a round, whole or not at all; only the round before it is kept beside it."""
        with on_disk(self._folder, keeps="the state of the round before is whole"):
            self._folder.mkdir(parents=True, exist_ok=True)
        part = self._folder / f".{round_index:05d}.{os.getpid()}.part"
        with on_disk(self._folder, keeps="the state of the round before is whole"):
            try:
                save_file(state, part)
                sync_file(part)
                part.replace(self._folder / f"{round_index:05d}.safetensors")
                sync_folder(self._folder)
            except BaseException:
                with contextlib.suppress(OSError):
                    part.unlink(missing_ok=True)
                raise
        for path in self._paths():
            # Later rounds are those of an earlier run of the same study.
            if not round_index - 1 <= int(path.stem) <= round_index:
                path.unlink()

    def _paths(self) -> list[Path]:
        return sorted(self._folder.glob("*.safetensors"))
