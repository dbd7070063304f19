"""NIfTI cines: single files, and the folders that two well-known conversions write (step 2 of the walk).

Comes in: a file or folder. Goes out: one stack a view. A 4-D file is X, Y, slices, frames. What the third
axis of a 3-D file counts is declared by the site, else taken for frames where it is long. A file names no
view: several slices are a short axis, and a single one is what the site declares, else what the file's name
says.
"""

from __future__ import annotations

from pathlib import Path

from cardionets_core.data.readers.acdc_folder import is_acdc_folder, read_acdc_folder
from cardionets_core.data.readers.base import Reader, ReadOptions
from cardionets_core.data.readers.cine_views import view_of_name
from cardionets_core.data.readers.converted_folder import is_converted_folder, read_converted_folder
from cardionets_core.data.readers.nifti_stack import labels_of, stack_of, with_mask
from cardionets_core.data.readers.nifti_volume import read_volume
from cardionets_core.data.records import CineStack, View
from cardionets_core.errors import RecordRefused

_UNDECLARED = ReadOptions()
_SUFFIXES = (".nii.gz", ".nii")
_VIEWS: dict[str, View] = {"4ch": "4ch", "2ch": "2ch", "3ch": "3ch", "sax": "sax"}


def read_nifti(path: Path, options: ReadOptions = _UNDECLARED) -> tuple[CineStack, ...]:
    """Read the cines of one file or folder.

    Args:
        path: a ``.nii`` or ``.nii.gz`` file, or a folder in the layout of ACDC or of UK Biobank's converter.
        options: ``view``, ``third_axis`` and ``label_map``. With ``label_map`` a segmentation beside a file
            (``NAME_gt`` or ``seg_NAME``) is read too; in folders it is read in any case.

    Returns:
        One stack a view; a file gives one.

    Raises:
        RecordRefused: ``cine-file-missing``, ``cine-too-large``, ``cine-unreadable``, ``cine-unsupported``,
            ``cine-frames``, ``cine-spacing``, ``cine-geometry``, ``cine-mask``, ``cine-synthetic`` or
            ``unrecognised`` (the folder).
    """
    try:
        if path.is_dir():
            return _read_folder(path, options)
        return (_read_file(path, options),)
    except RecordRefused as refusal:
        raise RecordRefused(refusal.reason, refusal.what, where=str(path)) from refusal
    except (OSError, ValueError) as error:
        raise RecordRefused("cine-unreadable", "cannot be read", where=str(path)) from error


def _read_folder(folder: Path, options: ReadOptions) -> tuple[CineStack, ...]:
    if is_acdc_folder(folder):
        return read_acdc_folder(folder, options)
    if is_converted_folder(folder):
        return read_converted_folder(folder, options)
    raise RecordRefused("unrecognised")


def _read_file(path: Path, options: ReadOptions) -> CineStack:
    named = view_of_name(_stem(path))
    view = options.view or _VIEWS.get(named)
    stack = stack_of(read_volume(path), view=view, third_axis=options.third_axis)
    drawn = _segmentation(path) if options.label_map else None
    if drawn is None or options.label_map is None:
        return stack
    return with_mask(
        stack, labels_of(read_volume(drawn, labels=True), label_map=options.label_map, like=stack.pixels)
    )


def _segmentation(path: Path) -> Path | None:
    stem = _stem(path)
    names = [f"{name}{suffix}" for name in (f"{stem}_gt", f"seg_{stem}") for suffix in _SUFFIXES]
    return next((beside for name in names if (beside := path.with_name(name)).is_file()), None)


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".nii")


def _recognises(path: Path, head: bytes) -> bool:
    if path.is_dir():
        return is_acdc_folder(path) or is_converted_folder(path)
    return path.name.lower().endswith(_SUFFIXES)


READER = Reader(
    name="nifti",
    kind="cine",
    title="NIfTI cine",
    suffixes=_SUFFIXES[::-1],
    recognises=_recognises,
    read=read_nifti,
    folders=True,
)
