"""One CMR study as UK Biobank ships it: a flat zip of DICOM files and a ``manifest.cvs``.

Comes in: series of frames. Goes out: bytes of the zip (FORMATS section 2). Each series is encoded once with
pydicom; its other frames are the same bytes with number, time, UID and pixels replaced, which is 50 times
faster and gives the same file.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage

UID_ROOT = "1.2.826.0.1.3680043.8.498"
POSITION_MM = (-92.5, -118.25, 64.75)
_TRIGGER, _NUMBER = "98765.4321", "87654321"
_COLUMNS = "filename,patientid,studyid,study discription,date,seriesid,series discription,aet,host"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Series:
    """One series of one slice.

    Attributes:
        description: SeriesDescription.
        number: SeriesNumber.
        pixels: uint16 [F, Y, X].
        spacing_mm: (row, column).
        frame_ms: time between frames.
        phases: CardiacNumberOfImages; more than F where the scan was broken off.
        position_mm: ImagePositionPatient.
        orientation: ImageOrientationPatient.
    """

    description: str
    number: int
    pixels: np.ndarray
    spacing_mm: tuple[float, float]
    frame_ms: float
    phases: int
    position_mm: tuple[float, ...] = POSITION_MM
    orientation: tuple[float, ...] = (0.8, 0.6, 0.0, -0.36, 0.48, -0.8)


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyHead:
    """What all series of a study share; ``patient`` is not the eid, as in the real manifests."""

    patient: str
    date: str
    date_in_words: str
    heart_rate_bpm: int


def study_zip(series: tuple[Series, ...], head: StudyHead, rng: np.random.Generator) -> bytes:
    """The zip of a study: files in a shuffled order, the manifest last.

    Args:
        series: all series.
        head: the rest.
        rng: draws UIDs and the order.
    """
    study_uid = _uid(rng)
    files: list[tuple[str, bytes]] = []
    rows: list[str] = []
    for one in series:
        series_uid = _uid(rng)
        template_uid = _uid(rng)
        template = _template(one, head, study_uid=study_uid, series_uid=series_uid, uid=template_uid)
        for frame in range(len(one.pixels)):
            uid = _uid(rng)
            files.append((f"{uid}.dcm", _frame(template, one, frame, template_uid=template_uid, uid=uid)))
            rows.append(
                f"{uid}.dcm,{head.patient},{study_uid},UK Biobank CMR,{head.date_in_words},"
                f"{series_uid},{one.description},AERA,scanner1"
            )
    order = rng.permutation(len(files))
    manifest = "\n".join([_COLUMNS, *(rows[place] for place in order)]) + "\n"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for place in order:
            archive.writestr(zipfile.ZipInfo(files[place][0]), files[place][1], zipfile.ZIP_DEFLATED, 1)
        archive.writestr(zipfile.ZipInfo("manifest.cvs"), manifest, zipfile.ZIP_DEFLATED, 1)
    return buffer.getvalue()


def _uid(rng: np.random.Generator) -> str:
    """A UID of constant length."""
    high, low = rng.integers(10**14, 10**15, size=2)
    return f"{UID_ROOT}.{high}{low}"


def _frame(template: bytes, series: Series, frame: int, *, template_uid: str, uid: str) -> bytes:
    pixels = np.ascontiguousarray(series.pixels[frame].astype("<u2")).tobytes()
    body = template[: len(template) - len(pixels)]
    body = body.replace(template_uid.encode(), uid.encode())
    body = body.replace(_TRIGGER.encode(), f"{frame * series.frame_ms:<10.3f}".encode())
    return body.replace(_NUMBER.encode(), f"{frame + 1:<8d}".encode()) + pixels


def _template(series: Series, head: StudyHead, *, study_uid: str, series_uid: str, uid: str) -> bytes:
    """One encoded file of the series with place holders and black pixels at its end."""
    _, rows, columns = series.pixels.shape
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.MediaStorageSOPInstanceUID = UID(uid)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(f"{UID_ROOT}.1")
    data = Dataset()
    data.file_meta = meta
    data.ImageType = ["ORIGINAL", "PRIMARY", "M", "RETRO", "NORM", "DIS2D"]
    data.SOPClassUID = MRImageStorage
    data.SOPInstanceUID = uid
    data.StudyDate = data.SeriesDate = data.AcquisitionDate = head.date
    data.StudyTime = "102000"
    data.Modality = "MR"
    data.Manufacturer = "SIEMENS"
    data.SeriesDescription = series.description
    data.ManufacturerModelName = "Aera"
    data.PatientName = data.PatientID = head.patient
    data.PatientBirthDate = data.PatientSex = ""
    data.SliceThickness = 6
    data.RepetitionTime = "31.56"
    data.EchoTime = "1.1"
    data.MagneticFieldStrength = "1.5"
    data.TriggerTime = _TRIGGER
    data.NominalInterval = round(series.frame_ms * series.phases)
    data.HeartRate = head.heart_rate_bpm
    data.CardiacNumberOfImages = series.phases
    data.FlipAngle = 80
    data.PatientPosition = "HFS"
    data.StudyInstanceUID = study_uid
    data.SeriesInstanceUID = series_uid
    data.SeriesNumber = series.number
    data.InstanceNumber = _NUMBER
    data.ImagePositionPatient = list(series.position_mm)
    data.ImageOrientationPatient = list(series.orientation)
    data.SliceLocation = "12.5"
    data.SamplesPerPixel = 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.Rows, data.Columns = rows, columns
    data.PixelSpacing = [f"{value:.4f}" for value in series.spacing_mm]
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    data.WindowCenter, data.WindowWidth = 210, 480
    data.PixelData = bytes(rows * columns * 2)
    data["PixelData"].VR = "OW"
    buffer = io.BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
