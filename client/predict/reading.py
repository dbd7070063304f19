"""The ECGs that a person named, as the model's data path would pack them (steps 2 to 4 of the walk).

Comes in: paths, and what the site's document declares. Goes out: packed ECGs and refusals, numbered as
``inspect`` numbers them; no name of a file leaves here. The functions are those of ``prepare``, so a
prediction sees the same bytes as training and evaluation do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np

from cardionets_core.data.pack import pack_recording
from cardionets_core.data.readers.base import ReadOptions
from cardionets_core.data.records import Read, Recording
from cardionets_core.data.sources import Source
from cardionets_core.data.sources.local_files import Part
from cardionets_core.errors import RecordRefused
from client.recordings_on_disk import Found, recordings_on_disk


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A recording that is asked for.

    Attributes:
        argument: number of the path on the command line, from 1.
        found: the file or folder, with its place and reader.
    """

    argument: int
    found: Found

    @property
    def number(self) -> str:
        """As ``inspect`` says it: 2.14 is the fourteenth of the second path."""
        return f"{self.argument}.{self.found.position}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What came of one recording.

    Attributes:
        number: 2.14 is the fourteenth of the second path.
        title: its format, for people; empty where unknown.
        counts: int16 [12, T] in microvolts at 250 Hz, filtered; None where refused.
        reason: of ``REFUSAL_REASONS``; empty where accepted.
        flags: doubts that did not stop it.
        facts: of ``check_ecg``: fs_hz, duration_s, amplitude_mv, swap_residual.
    """

    number: str
    title: str
    counts: np.ndarray | None = None
    reason: str = ""
    flags: tuple[str, ...] = ()
    facts: dict[str, float | str] = field(default_factory=dict)


def named_recordings(paths: Sequence[Path]) -> list[Named]:
    """Every ECG under some paths, and every file that was named itself, whatever it is.

    A folder is walked; what in it is no ECG is passed over. Reads no signal.
    """
    named = []
    for argument, path in enumerate(paths, start=1):
        found = list(recordings_on_disk(path))
        alone = path.is_file() or [each.path for each in found] == [path]
        named += [
            Named(argument=argument, found=each)
            for each in found
            if alone or (each.reader is not None and each.reader.kind == "ecg")
        ]
    return named


def hear(named: Sequence[Named], *, declared: Sequence[Part] = ()) -> Iterator[Heard]:
    """Read, check and pack one recording after the other; a refusal does not stop the others.

    Args:
        named: of ``named_recordings``.
        declared: what the site's document says of its folders, as for ``inspect``.
    """
    for each in named:
        files = _Files(each.found, [part for part in declared if part.kind == "ecg"])
        recording = Recording(patient="", visit="", kind="ecg", path=each.found.path)
        packed = pack_recording(cast(Source, files), recording)
        reader = each.found.reader
        yield Heard(
            number=each.number,
            title="" if reader is None else reader.title,
            counts=packed.ecg,
            reason=packed.reason,
            flags=packed.flags,
            facts=packed.facts,
        )


class _Files:
    """A source of one recording, for ``pack_recording``, which asks a source for nothing but ``read``."""

    def __init__(self, found: Found, declared: Sequence[Part]) -> None:
        self._found = found
        self._declared = declared

    def read(self, recording: Recording) -> Read:
        """The recording, as the folder that it lies in is declared, else as another of its format is."""
        reader, path = self._found.reader, recording.path
        if reader is None or reader.kind != "ecg":
            raise RecordRefused("unrecognised")
        for part in self._declared:
            if part.owns(path.absolute()):
                return part.read(path)
        alike = [part for part in self._declared if part.reader is None or part.reader.name == reader.name]
        options = alike[0].options if alike else ReadOptions()
        if any(getattr(options, name) is None for name in reader.needs):
            raise RecordRefused("ecg-undeclared")
        return reader.read(path, options)
