"""What every reader offers (step 2 of the walk).

A reader is one module of this folder with a function that gives an ``EcgRecord``, or the ``CineStack`` of
each view, or raises ``RecordRefused`` with a reason of ``REFUSAL_REASONS``; nothing else, whatever the bytes
are. Its ``READER`` stands in ``registry.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cardionets_core.data.records import Read

HEAD_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions:
    """What the site's document declares of files that do not say it themselves; None = not declared.

    Attributes:
        rate_hz: samples per second of bare arrays and CSV files.
        unit: ``mV``, ``uV`` or ``V`` of bare arrays, CSV files, and aECG lists of plain integers.
        leads: order of the rows or columns of bare arrays.
        dataset: name of the array in an HDF5 or MATLAB file.
        view: of cine files that name none.
        third_axis: what the third axis of a 3-D NIfTI file counts.
        label_map: meaning of the labels of segmentations that lie beside the images.
        views: those that are wanted of a study that holds several; all where empty.
    """

    rate_hz: float | None = None
    unit: str | None = None
    leads: tuple[str, ...] | None = None
    dataset: str | None = None
    view: Literal["4ch", "2ch", "3ch", "sax"] | None = None
    third_axis: Literal["frames", "slices"] | None = None
    label_map: Literal["ukb", "acdc"] | None = None
    views: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """One format.

    Attributes:
        name: as ``site.yaml`` spells it, snake_case.
        kind: what a recording of this format is.
        title: for people, ``GE MUSE XML``.
        suffixes: lower-case endings of the file that stands for a recording; empty where only folders do.
        folders: whether a folder may be one recording.
        needs: names of ``ReadOptions`` that the site's document must declare.
        recognises: (path, first ``HEAD_BYTES`` bytes) to whether the content is of this format; for a folder
            the bytes are empty. Must not raise.
        read: (path, options) to the record.
    """

    name: str
    kind: Literal["ecg", "cine"]
    title: str
    suffixes: tuple[str, ...]
    recognises: Callable[[Path, bytes], bool]
    read: Callable[[Path, ReadOptions], Read]
    folders: bool = False
    needs: tuple[str, ...] = ()
