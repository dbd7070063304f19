"""The work of one cell of a sweep: its study, run on the hospitals of its scenario."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cardionets_core.config.study import Study
from simulation.cells.cell import CellResult, digest_of
from simulation.cells.sites import own_roster, own_sites
from simulation.events.schedule import Attack, Fault, LabelFlip
from simulation.events.table import event_rows
from simulation.screen import Screen


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyJob:
    """A study on hospitals.

    Attributes:
        study: the study.
        site_paths: documents of the hospitals.
        hospitals: digest of the hospitals' files.
        events: what happens on the way.
        seed: of the scenario.
        initial: folder of the weights that the study names as ``initial``.
    """

    study: Study
    site_paths: tuple[Path, ...]
    hospitals: str
    events: tuple[Fault | Attack | LabelFlip, ...] = ()
    seed: int = 0
    initial: Path | None = None

    @property
    def starts_anew(self) -> bool:
        """What a replaying site once sent is in no checkpoint."""
        return any(event.kind == "replay" for event in self.events)

    @property
    def digest(self) -> str:
        """Of all that decides the result."""
        return digest_of(
            work="study",
            study=self.study.to_json(),
            hospitals=self.hospitals,
            events=[event.model_dump(mode="json") for event in self.events],
            seed=self.seed,
        )

    def run(self, folder: Path) -> CellResult:
        """Run the study to its end; checkpoints of an earlier try in the folder are taken up."""
        from simulation.flower import run_locally

        paths = own_sites(self.site_paths, folder / "sites")
        result = run_locally(
            own_roster(self.study, paths),
            paths,
            folder=folder / "run",
            progress=Screen(sys.stderr, live=False).event,
            track=False,
            initial=self.initial,
            events=self.events,
            seed=self.seed,
        )
        content = {
            "model_digest": result["model_digest"],
            "study_digest": result["study_digest"],
            "metrics": metrics_of(result),
            "primary": primary_of(result),
            "events": event_rows(result),
            "left_out": sum(
                row["status"] == "left-out" for entry in result["rounds"] for row in entry["sites"]
            ),
        }
        return CellResult(content=content)


def metrics_of(result: Mapping[str, Any]) -> dict[str, float]:
    """``TASK.METRIC`` to its pooled value at the end of the task's phase.

    Of test patients where the phase measured them, else of validation patients.
    """
    found: dict[str, float] = {}
    for entry in result["rounds"]:
        pooled = (entry.get("test") or {}).get("pooled") or entry.get("pooled") or {}
        for name, value in pooled.items():
            if value is not None:
                found[f"{entry['task']}.{name}"] = float(value)
    return found


def primary_of(result: Mapping[str, Any]) -> list[str]:
    """``TASK.METRIC`` of the primary metric of each phase that was measured, in the order of the phases."""
    measured = metrics_of(result)
    names = dict.fromkeys(f"{entry['task']}.{entry.get('primary', '')}" for entry in result["rounds"])
    return [name for name in names if name in measured]
