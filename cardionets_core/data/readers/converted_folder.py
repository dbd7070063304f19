"""A folder of one visit as the public converter of UK Biobank's cines writes it (step 2 of the walk).

``la_2ch``, ``la_3ch``, ``la_4ch`` and ``sa`` as ``.nii.gz`` or ``.nii``, each 4-D. Of its segmentations only
those that hold ventricles are read: ``seg_sa`` and ``seg4_la_4ch``; ``seg_la_2ch`` and ``seg_la_4ch`` number
the atria.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cardionets_core.data.readers.base import ReadOptions
from cardionets_core.data.readers.nifti_stack import labels_of, stack_of, with_mask
from cardionets_core.data.readers.nifti_volume import MAXIMUM_VOXELS, read_volume
from cardionets_core.data.records import CineStack, View
from cardionets_core.errors import RecordRefused

_FILES: dict[View, str] = {"4ch": "la_4ch", "2ch": "la_2ch", "3ch": "la_3ch", "sax": "sa"}
_UNDECLARED = ReadOptions()
_MASKS: dict[View, str] = {"4ch": "seg4_la_4ch", "sax": "seg_sa"}


def is_converted_folder(folder: Path) -> bool:
    """Whether a folder holds at least one cine of this layout."""
    return any(_file(folder, stem) for stem in _FILES.values())


def read_converted_folder(folder: Path, options: ReadOptions) -> tuple[CineStack, ...]:
    """All views of one visit.

    A view that cannot be read is left out while others can, which leaves the flag ``view-refused`` on those.

    Raises:
        RecordRefused: what ``read_volume`` raises, and ``cine-mask``.
    """
    stacks: list[CineStack] = []
    refused: list[RecordRefused] = []
    for view, stem in _FILES.items():
        path = _file(folder, stem)
        if path is None:
            continue
        left = MAXIMUM_VOXELS - sum(stack.pixels.size for stack in stacks)
        try:
            stacks.append(_read(folder, path, view=view, options=options, maximum_voxels=left))
        except RecordRefused as refusal:
            refused.append(refusal)
    if not stacks:
        raise refused[0] if refused else RecordRefused("cine-file-missing", where=str(folder))
    if not refused:
        return tuple(stacks)
    return tuple(replace(stack, flags=stack.flags | {"view-refused"}) for stack in stacks)


def read_converted_view(folder: Path, view: View, options: ReadOptions = _UNDECLARED) -> CineStack:
    """One view of one visit; the other files are not touched.

    Raises:
        RecordRefused: ``cine-file-missing``, what ``read_volume`` raises, and ``cine-mask``.
    """
    path = _file(folder, _FILES[view]) if view in _FILES else None
    if path is None:
        raise RecordRefused("cine-file-missing", where=str(folder))
    return _read(folder, path, view=view, options=options)


def _read(
    folder: Path, path: Path, *, view: View, options: ReadOptions, maximum_voxels: int = MAXIMUM_VOXELS
) -> CineStack:
    volume = read_volume(path, maximum_voxels=maximum_voxels)
    stack = stack_of(volume, view=view, third_axis=options.third_axis)
    drawn = _file(folder, _MASKS[view]) if view in _MASKS else None
    if drawn is None:
        return stack
    return with_mask(
        stack,
        labels_of(read_volume(drawn, labels=True), label_map=options.label_map or "ukb", like=stack.pixels),
    )


def _file(folder: Path, stem: str) -> Path | None:
    return next(
        (path for suffix in (".nii.gz", ".nii") if (path := folder / (stem + suffix)).is_file()), None
    )
