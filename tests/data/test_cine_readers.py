"""Cine readers: NIfTI of one slice, and the four-chamber series of a UK Biobank zip."""

from __future__ import annotations

import contextlib
import gzip
import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, MRImageStorage

from cardionets_core.data.cine import prepare_cine
from cardionets_core.data.readers.dicom_cine_zip import read_dicom_cine_zip
from cardionets_core.data.readers.nifti_cine import read_nifti_cine
from cardionets_core.data.records import CineStack
from cardionets_core.errors import RecordRefused

FOUR = "CINE_segmented_LAX_4Ch"


def refusal(read: Callable[[Path], object], path: Path) -> str:
    with pytest.raises(RecordRefused) as caught:
        read(path)
    return caught.value.reason


def nifti(folder: Path, data: np.ndarray, *, zooms: tuple[float, ...], units: str = "msec") -> Path:
    image = nib.Nifti1Image(data, np.diag([-1.0, -1.0, 1.0, 1.0]))
    image.header.set_zooms(zooms)
    image.header.set_xyzt_units("mm", units)
    path = folder / "cine.nii.gz"
    image.to_filename(path)
    return path


@pytest.mark.parametrize("shape", [(5, 4, 1, 3), (5, 4, 3)])
def test_nifti_axes_spacing_and_time(tmp_path: Path, shape: tuple[int, ...]) -> None:
    data = np.arange(60, dtype=np.int16).reshape(shape)
    zooms = (1.5, 2.5, 8.0, 30.0) if len(shape) == 4 else (1.5, 2.5, 30.0)
    stack = read_nifti_cine(nifti(tmp_path, data, zooms=zooms))
    assert stack.pixels.shape == (3, 4, 5) and stack.pixels.dtype == np.float32
    assert stack.pixels[2, 3, 1] == data.reshape(5, 4, 3)[1, 3, 2]
    assert stack.spacing_mm == (2.5, 1.5)  # rows are Y; the affine says 1 mm and is not believed
    assert stack.frame_ms == 30.0


def test_nifti_seconds_become_milliseconds(tmp_path: Path) -> None:
    path = nifti(tmp_path, np.zeros((5, 4, 1, 3), np.int16), zooms=(1, 1, 1, 0.03125), units="sec")
    assert read_nifti_cine(path).frame_ms == 31.25


def test_nifti_refusals(tmp_path: Path) -> None:
    assert refusal(read_nifti_cine, tmp_path / "none.nii.gz") == "cine-file-missing"
    several = nifti(tmp_path, np.zeros((5, 4, 2, 3), np.int16), zooms=(1, 1, 1, 1))
    assert refusal(read_nifti_cine, several) == "cine-no-view"
    still = nifti(tmp_path, np.zeros((5, 4), np.int16), zooms=(1, 1))
    assert refusal(read_nifti_cine, still) == "cine-frames"


def test_a_small_nifti_that_promises_much_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    header = nib.Nifti1Image(np.zeros((2, 2, 1, 2), np.uint8), np.eye(4)).header
    header.set_data_shape((30000, 30000, 1, 50))
    path = tmp_path / "bomb.nii.gz"
    path.write_bytes(gzip.compress(header.binaryblock + bytes(2000)))
    assert refusal(read_nifti_cine, path) == "cine-too-large"


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.filterwarnings("ignore")
def test_mutated_nifti_gives_a_stack_or_a_refusal(tmp_path: Path, data: st.DataObject) -> None:
    image = nib.Nifti1Image(np.arange(60, dtype=np.int16).reshape(5, 4, 1, 3), np.eye(4))
    content = bytearray(image.to_bytes())
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "cine.nii"
    path.write_bytes(bytes(content[: data.draw(st.integers(0, len(content)))]))
    with contextlib.suppress(RecordRefused):
        assert isinstance(read_nifti_cine(path), CineStack)


def test_real_short_axis_volumes_are_no_cine(shared_data: Path) -> None:
    path = shared_data / "cmr" / "acdc" / "patient029" / "patient029_frame01.nii.gz"
    assert refusal(lambda volume: prepare_cine(read_nifti_cine(volume)), path) == "cine-frames"
    assert (
        refusal(read_dicom_cine_zip, shared_data / "replicas/ukb/20209/9000011_20209_2_0.zip")
        == "cine-no-view"
    )


def frame(
    value: int,
    *,
    series: str = FOUR,
    number: int = 1,
    instance: int = 1,
    trigger: float = 0.0,
    promised: int = 3,
    position: float = 0.0,
    spacing: bool = True,
    size: int = 8,
    uid: str = "1.2.3",
) -> bytes:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.826.0.1.3680043.8.498.1"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = Dataset()
    data.file_meta = meta
    data.SOPClassUID, data.SOPInstanceUID = MRImageStorage, meta.MediaStorageSOPInstanceUID
    data.PatientName, data.PatientID = "Someone", "7654321"
    data.SeriesDescription, data.SeriesNumber, data.SeriesInstanceUID = series, number, f"{uid}.{number}"
    data.InstanceNumber, data.TriggerTime, data.CardiacNumberOfImages = instance, str(trigger), promised
    data.ImagePositionPatient, data.ImageOrientationPatient = [0, 0, position], [1, 0, 0, 0, 1, 0]
    if spacing:
        data.PixelSpacing = [1.8, 1.6]
    data.Rows, data.Columns, data.SamplesPerPixel = size, size + 2, 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    data.PixelData = np.full((size, size + 2), value, "<u2").tobytes()
    data["PixelData"].VR = "OW"
    buffer = io.BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def archive(folder: Path, contents: list[bytes], *, extra: dict[str, bytes] | None = None) -> Path:
    path = folder / "1234567_20208_2_0.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for place, content in enumerate(contents):
            opened.writestr(zipfile.ZipInfo(f"{99 - place}.dcm"), content, zipfile.ZIP_DEFLATED)
        for name, content in (extra or {}).items():
            opened.writestr(name, content)
    return path


def test_frames_are_sorted_by_trigger_time_and_other_series_are_left(tmp_path: Path) -> None:
    contents = [
        frame(30, trigger=60, instance=1),
        frame(10, trigger=0, instance=2),
        frame(20, trigger=30, instance=3),
        frame(99, series="CINE_segmented_LAX_InlineVF"),
        frame(98, series="CINE_segmented_LAX_2Ch"),
        frame(97, series="CINE_segmented_SAX_b4"),
    ]
    manifest = b"filename,patientid,date\nx.dcm,1,Mar 04, 2015\ncut off"
    stack = read_dicom_cine_zip(archive(tmp_path, contents, extra={"manifest.cvs": manifest}))
    assert stack.pixels[:, 0, 0].tolist() == [10, 20, 30]
    assert stack.pixels.shape == (3, 8, 10) and stack.spacing_mm == (1.8, 1.6) and stack.frame_ms == 30.0


def test_of_repeated_series_the_last_whole_one_counts(tmp_path: Path) -> None:
    def series(value: int, number: int, frames: int) -> list[bytes]:
        return [frame(value, number=number, instance=n, trigger=30 * n) for n in range(frames)]

    stack = read_dicom_cine_zip(archive(tmp_path, series(1, 5, 3) + series(2, 9, 3) + series(3, 11, 2)))
    assert stack.pixels[0, 0, 0] == 2
    torn_only = read_dicom_cine_zip(archive(tmp_path, series(4, 5, 2) + series(5, 7, 1)))
    assert torn_only.pixels[:, 0, 0].tolist() == [4, 4]


def test_a_mixed_series_is_split_by_position(tmp_path: Path) -> None:
    contents = [
        frame(
            view * 10 + n, series="CINE_segmented_LAX", instance=view * 3 + n, trigger=30 * n, position=view
        )
        for view in range(3)
        for n in range(3)
    ]
    stack = read_dicom_cine_zip(archive(tmp_path, contents[::-1]))
    assert stack.pixels[:, 0, 0].tolist() == [10, 11, 12]  # the order is three, four, two chambers
    assert refusal(read_dicom_cine_zip, archive(tmp_path, contents[:6])) == "cine-no-view"


def test_zip_refusals(tmp_path: Path) -> None:
    assert refusal(read_dicom_cine_zip, tmp_path / "none.zip") == "cine-file-missing"
    (tmp_path / "text.zip").write_bytes(b"no zip")
    assert refusal(read_dicom_cine_zip, tmp_path / "text.zip") == "cine-unreadable"
    assert refusal(read_dicom_cine_zip, archive(tmp_path, [])) == "cine-no-view"
    assert refusal(read_dicom_cine_zip, archive(tmp_path, [frame(1, spacing=False)])) == "cine-spacing"
    uneven = [frame(1, trigger=0), frame(1, trigger=30, size=9)]
    assert refusal(read_dicom_cine_zip, archive(tmp_path, uneven)) == "cine-unreadable"
    assert refusal(read_dicom_cine_zip, archive(tmp_path, [frame(1)[:-20]])) == "cine-unreadable"
    packed = frame(1).replace(ExplicitVRLittleEndian.encode() + b"\0", JPEG2000Lossless.encode()[:20])
    assert refusal(read_dicom_cine_zip, archive(tmp_path, [packed])) == "cine-unreadable"


def test_hostile_zips_are_refused(tmp_path: Path) -> None:
    for name in ("../out.dcm", "/abs.dcm", "a\\..\\..\\b.dcm"):
        assert refusal(read_dicom_cine_zip, archive(tmp_path, [], extra={name: b"x"})) == "cine-unreadable"
    bomb = archive(tmp_path, [], extra={"bomb.dcm": bytes(7_000_000)})
    assert bomb.stat().st_size < 20_000
    assert refusal(read_dicom_cine_zip, bomb) == "cine-too-large"
    many = archive(tmp_path, [], extra={f"{n}.txt": b"" for n in range(2001)})
    assert refusal(read_dicom_cine_zip, many) == "cine-too-large"
    assert [path.name for path in tmp_path.iterdir()] == ["1234567_20208_2_0.zip"]  # nothing was unpacked


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.filterwarnings("ignore")
def test_mutated_zips_give_a_stack_or_a_refusal(tmp_path: Path, data: st.DataObject) -> None:
    member = bytearray(frame(1))
    for _ in range(data.draw(st.integers(0, 3))):
        member[data.draw(st.integers(128, len(member) - 1))] = data.draw(st.integers(0, 255))
    path = archive(tmp_path, [bytes(member)])
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(0, 2))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(
        bytes(content[: data.draw(st.integers(0, len(content)))]) if data.draw(st.booleans()) else content
    )
    with contextlib.suppress(RecordRefused):
        assert isinstance(read_dicom_cine_zip(path), CineStack)
