"""What stands between a site and its first round, all of it at once (``check``).

Comes in: the path of ``site.yaml``; the way to the coordinator is looked at where ``connection.yaml`` lies
beside it. Goes out: facts, problems with their remedies, notices. It works before
``prepare`` was ever run, goes on after a problem wherever something is left to look at, and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cardionets_core.config.connection import SiteFolder
from cardionets_core.config.site import SiteConfig, read_site
from cardionets_core.data.records import Recording
from cardionets_core.data.sources import Source, open_source
from cardionets_core.errors import CacheStaleError, CardioNetsError, FolderMissingError
from cardionets_core.tasks.shapes import shape_of
from client.doctor.clock import check_clock
from client.doctor.connection import check_connection
from client.doctor.findings import Findings, Notice
from client.doctor.folders import check_folders
from client.doctor.machine import (
    check_device,
    check_disk,
    check_libraries,
    check_memory,
    estimated_bytes,
)
from client.doctor.sample import Sampled, check_sample
from client.doctor.service import (
    check_phases,
    check_policy,
    check_splits,
    open_cohort,
    phases_without_cache,
)
from client.ending import error_json

SCHEMA_VERSION = 2
SAMPLE = 8

Progress = Callable[[str, int, int], None]


@dataclass(kw_only=True)
class Checked:
    """What a check found.

    Attributes:
        site: its name; empty where the document cannot be read.
        phases: task to ``can be served``, or the code for which it cannot.
        facts: part of the check to what it found, JSON-ready.
        problems: errors, each with its remedy.
        notices: what stops nothing.
        sampled: the outcome of each recording of the sample, for the picture.
    """

    site: str = ""
    phases: dict[str, str] = field(default_factory=dict)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    problems: list[CardioNetsError] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    sampled: list[Sampled] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """That of the worst family: the largest exit code of the problems, 0 without any."""
        return max((problem.exit_code for problem in self.problems), default=0)

    def take(self, part: str, findings: Findings) -> None:
        """Add one part; a problem that two parts meet is told once."""
        self.facts[part] = findings.facts
        self.notices += findings.notices
        self.add(findings.problems)

    def add(self, problems: list[CardioNetsError]) -> None:
        """Add problems that are not there yet.

        All missing paths were told by their keys at once; a part that stumbles over the first of them again
        adds nothing.
        """
        known = {(problem.code, problem.where) for problem in self.problems if problem.where}
        missing = any(isinstance(problem, FolderMissingError) for problem in self.problems)
        for problem in problems:
            again = missing and isinstance(problem, FolderMissingError)
            if not again and (problem.code, problem.where) not in known:
                self.problems.append(problem)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "schema_version": SCHEMA_VERSION,
            "site": self.site,
            "exit_code": self.exit_code,
            "phases": self.phases,
            **self.facts,
            "problems": [error_json(problem) for problem in self.problems],
            "notices": [{"what": notice.what, "remedy": notice.remedy} for notice in self.notices],
        }


def check_site(
    path: Path, *, preset: str = "nano", sample: int = SAMPLE, progress: Progress | None = None
) -> Checked:
    """Check a site's document, folders, machine, data, cache and phases.

    Args:
        path: of ``site.yaml``.
        preset: whose windows the phases are judged by.
        sample: recordings that are sent through the whole path.
        progress: told (stage, done, total); the stages are ``list`` and ``sample``.
    """
    found = Checked()
    folder = SiteFolder(path.expanduser().resolve().parent)
    if folder.connection_yaml.exists():
        found.take("connection", check_connection(folder))
    try:
        config = read_site(path)
    except CardioNetsError as error:
        found.problems.append(error)
        return found
    found.site = config.site
    tell = progress or (lambda stage, done, total: None)
    found.take("folders", check_folders(config))
    found.take("device", check_device(config))
    found.take("memory", check_memory(config))
    found.take("libraries", check_libraries())
    found.take("clock", check_clock(config))
    source, recordings = _listing(config, found)
    tell("list", len(recordings), len(recordings))
    cohort, faults = open_cohort(config)
    found.add(faults)
    found.take("disk", check_disk(config, needed_bytes=_needed(config, recordings, faults)))
    if source is not None and recordings:
        findings, found.sampled = check_sample(config, source, recordings, count=sample, tell=tell)
        found.take("sample", findings)
    found.take("splits", check_splits(config, cohort, recordings))
    found.add(check_policy(config).problems)
    if cohort is None:
        found.phases = phases_without_cache(config, faults[0].code)
    else:
        phases = check_phases(config, cohort, shape_of(preset))
        found.phases = phases.facts
        found.add(phases.problems)
    return found


def _listing(config: SiteConfig, found: Checked) -> tuple[Source | None, list[Recording]]:
    """Everything that the source lists; nothing, with the problem noted, where it cannot."""
    try:
        source = open_source(config)
        recordings = source.recordings()
        source.tables()
    except CardioNetsError as error:
        found.add([error])
        return None, []
    kinds = {kind: sum(recording.kind == kind for recording in recordings) for kind in ("ecg", "cine")}
    found.facts["listing"] = {
        "recordings": kinds,
        "patients": len({recording.patient for recording in recordings}),
        "left_out": dict(source.refusals),
        "notes": dict(source.notes),
    }
    return source, recordings


def _needed(config: SiteConfig, recordings: list[Recording], faults: list[CardioNetsError]) -> int:
    """Bytes that the next ``prepare`` may add: all of the listing, or nothing while the cache is good."""
    if not any(isinstance(fault, CacheStaleError) for fault in faults):
        return 0
    ecgs = sum(recording.kind == "ecg" for recording in recordings)
    return estimated_bytes(ecgs, (len(recordings) - ecgs) * len(config.prepare.views))
