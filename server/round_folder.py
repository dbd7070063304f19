"""All that one round keeps on disk until its checkpoint is safe: the replies, and what the server decided.

A server that was killed opens the folder again and goes on where it stopped: the sites that were drawn stay
drawn, what was asked and counted stays counted, and no site is asked for a reply that lies here. A round that
starts from another model is another round: then what lies here is removed.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from cardionets_core.durable import on_disk, write_json
from cardionets_core.exchange.messages import RoundName
from cardionets_core.plain_json import read_json
from server.round_store import RoundStore

FACTS = "round.json"
Part = Literal["statistics", "train", "validation", "test"]
PARTS: tuple[Part, ...] = ("statistics", "train", "validation", "test")
MEASURED: frozenset[Part] = frozenset({"validation", "test"})
"""Parts in which nothing is trained."""


class RoundFolder:
    """One round on disk.

    Args:
        rounds: folder of all rounds.
        name: of the round; its attempt does not matter.
        start_digest: of the model that the round starts from.
    """

    def __init__(self, rounds: Path, name: RoundName, *, start_digest: str) -> None:
        self.folder = rounds / f"{name.phase:02d}-{name.round:05d}"
        self._start = {"study_digest": name.study_digest, "start_digest": start_digest}
        self._facts = self._read()
        if self._facts is None:
            self.begin_anew()
        self._stores: dict[Part, RoundStore] = {}
        self._steps: dict[str, RoundStore] = {}

    def store(self, part: Part) -> RoundStore:
        """The replies to one question of the round; opened, and judged, once."""
        if part not in self._stores:
            self._stores[part] = RoundStore(self.folder / part)
        return self._stores[part]

    def step_store(self, part: Part, attempt: int, step: str) -> RoundStore:
        """What the sites answered to one step of a secure sum; opened, and judged, once."""
        key = f"secure/{part}/{attempt:04d}/{step}"
        if key not in self._steps:
            self._steps[key] = RoundStore(self.folder / key)
        return self._steps[key]

    def get(self, key: str, default: Any) -> Any:
        """What was noted."""
        return (self._facts or {}).get(key, default)

    def note(self, facts: Mapping[str, Any], *, wait: bool = True) -> None:
        """Note what must not change when the round is taken up again; the disk has it when this returns.

        Args:
            facts: by name.
            wait: for the disk; mere counts need not.
        """
        self._facts = {**(self._facts or {}), **facts}
        with on_disk(self.folder, keeps="all finished rounds are whole"):
            write_json(self.folder / FACTS, self._facts, wait=wait)

    def add(self, counts: Mapping[str, float]) -> None:
        """Add to counts that were noted, such as bytes."""
        self.note({key: self.get(key, 0) + value for key, value in counts.items()}, wait=False)

    def begin_anew(self) -> None:
        """Remove all that was collected."""
        with on_disk(self.folder, keeps="all finished rounds are whole"):
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True, exist_ok=True)
        self._stores = {}
        self._facts = None
        self.note(self._start)

    def forget_replies(self) -> None:
        """Remove what was collected, and keep what was noted: an attempt's number is never used twice."""
        for part in (*PARTS, "secure"):
            shutil.rmtree(self.folder / part, ignore_errors=True)
        self._stores, self._steps = {}, {}
        if self.get("bound_train", None) or self.get("bound_statistics", None):
            kinds = ("bound", "survivors", "summed")
            self.note({f"{kind}_{part}": None for kind in kinds for part in PARTS})

    def forget_arrays(self) -> None:
        """Remove the arrays once the round's checkpoint is safe."""
        for part in PARTS:
            if (self.folder / part).is_dir():
                self.store(part).forget_arrays()
        # Masked vectors and the shares that opened their sum.
        shutil.rmtree(self.folder / "secure", ignore_errors=True)
        self._steps = {}

    def _read(self) -> dict[str, Any] | None:
        try:
            facts = read_json(self.folder / FACTS)
        except (OSError, ValueError):
            return None
        if not isinstance(facts, dict) or any(facts.get(key) != value for key, value in self._start.items()):
            return None
        return facts
