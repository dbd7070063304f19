"""Name of a format, as ``site.yaml`` spells it, to its reader; and telling formats apart by content."""

from __future__ import annotations

from pathlib import Path

from cardionets_core.data.readers import (
    cardiosoft_xml,
    csv_ecg,
    dicom_cine,
    dicom_ecg,
    edf_ecg,
    hdf5_ecg,
    hl7_aecg,
    matlab_ecg,
    muse_xml,
    nifti_cine,
    npy_ecg,
    scp_ecg,
    sierra_xml,
    wfdb_ecg,
)
from cardionets_core.data.readers.base import HEAD_BYTES, Reader
from cardionets_core.errors import RecordRefused, UnknownNameError

READERS: dict[str, Reader] = {
    reader.name: reader
    for reader in (
        wfdb_ecg.READER,
        cardiosoft_xml.READER,
        muse_xml.READER,
        sierra_xml.READER,
        hl7_aecg.READER,
        nifti_cine.READER,
        dicom_cine.READER,
        scp_ecg.READER,
        dicom_ecg.READER,
        edf_ecg.READER,
        hdf5_ecg.READER,
        matlab_ecg.READER,
        npy_ecg.READER,
        csv_ecg.READER,
    )
}
"""The order is that in which formats are tried: those with the surest marks stand first."""


def reader_named(name: str, *, where: str) -> Reader:
    """The reader of a format.

    Raises:
        UnknownNameError: no reader has this name.
    """
    if name not in READERS:
        raise UnknownNameError(
            f"no reader is called {name!r}", where=where,
            remedy=f"the formats are: {', '.join(sorted(READERS))}, or auto",
        )  # fmt: skip
    return READERS[name]


def recognise(path: Path) -> Reader:
    """The reader whose marks a file or folder bears, judged by content, not by name alone.

    Raises:
        RecordRefused: ``unrecognised``.
    """
    head = b""
    try:
        if path.is_file():
            with path.open("rb") as stream:
                head = stream.read(HEAD_BYTES)
    except OSError as error:
        raise RecordRefused("unrecognised", f"cannot be read: {error.strerror}") from error
    for reader in READERS.values():
        if (path.is_dir() and not reader.folders) or (path.is_file() and not reader.suffixes):
            continue
        if reader.recognises(path, head):
            return reader
    raise RecordRefused("unrecognised")
