"""DICOM studies: order, repeats, geometry, enhanced and compressed objects, refusals, real files."""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    MRImageStorage,
    RLELossless,
)

from cardionets_core.data.cine_phases import with_phases
from cardionets_core.data.readers import frame_decoder
from cardionets_core.data.readers.base import ReadOptions
from cardionets_core.data.readers.cine_views import view_of_name
from cardionets_core.data.readers.dicom_cine import READER, read_dicom_study
from cardionets_core.data.readers.registry import recognise
from cardionets_core.data.records import CineStack
from cardionets_core.errors import RecordRefused

UNDECLARED = ReadOptions()
FOUR = "CINE_segmented_LAX_4Ch"
OBLIQUE = np.array([[0.8, 0.6, 0.0], [-0.36, 0.48, -0.8]])
NORMAL = np.cross(*OBLIQUE)


def refusal(path: Path, options: ReadOptions = UNDECLARED, **more: Any) -> str:
    with pytest.raises(RecordRefused) as caught:
        read_dicom_study(path, options, **more)
    return caught.value.reason


def frame(value: int, *, series: str = FOUR, number: int = 1, instance: int = 1, trigger: float | None = 0.0,
          promised: int = 3, place_mm: float = 0.0, size: int = 8, axes: np.ndarray = OBLIQUE,
          drop: tuple[str, ...] = (), change: dict[str, Any] | None = None) -> Dataset:  # fmt: skip
    """One frame of 8 x 10 pixels of one value, at a place along the normal of an oblique plane."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = MRImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = "1.2.826.0.1.3680043.8.498.1"
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.PatientName, data.PatientID = "Someone", "7654321"
    data.SeriesDescription, data.SeriesNumber, data.SeriesInstanceUID = series, number, f"1.2.3.{number}"
    data.InstanceNumber, data.CardiacNumberOfImages = instance, promised
    if trigger is not None:
        data.TriggerTime = str(trigger)
    data.ImagePositionPatient = [f"{x:.6f}" for x in np.cross(*axes) * place_mm + [10, -20, 30]]
    data.ImageOrientationPatient = axes.ravel().tolist()
    data.SliceLocation = f"{place_mm * 0.66:.4f}"  # as in files that are in circulation
    data.PixelSpacing, data.SliceThickness = [1.8, 1.6], 6
    data.Rows, data.Columns, data.SamplesPerPixel = size, size + 2, 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    data.PixelData = np.full((size, size + 2), value, "<u2").tobytes()
    data["PixelData"].VR = "OW"
    for name in drop:
        delattr(data, name)
    for name, changed in (change or {}).items():
        setattr(data, name, changed)
    return data


def encoded(data: Dataset) -> bytes:
    buffer = io.BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def archive(folder: Path, contents: list[Dataset | bytes], *, extra: dict[str, bytes] | None = None) -> Path:
    path = folder / "study.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for place, content in enumerate(contents):
            raw = content if isinstance(content, bytes) else encoded(content)
            opened.writestr(zipfile.ZipInfo(f"{99 - place}.dcm"), raw, zipfile.ZIP_DEFLATED)
        for name, raw in (extra or {}).items():
            opened.writestr(name, raw)
    return path


def sweep(values: list[int], **same: Any) -> list[Dataset]:
    """Frames of one slice, 30 ms apart."""
    return [
        frame(value, trigger=30.0 * place, instance=place + 1, **({"promised": len(values)} | same))
        for place, value in enumerate(values)
    ]


def sax(places_mm: list[float], *, frames: int = 3, number: int = 5, series: str = "sax", first: int = 0,
        **more: Any) -> list[Dataset]:  # fmt: skip
    """A stack in one series: value = 10 * slice + frame."""
    return [
        frame(first + 10 * z + n, series=series, number=number, instance=frames * z + n + 1,
              trigger=46.0 * n + z, promised=frames, place_mm=place, **more)
        for z, place in enumerate(places_mm)
        for n in range(frames)
    ]  # fmt: skip


def only(path: Path, **more: Any) -> CineStack:
    (stack,) = read_dicom_study(path, **more)
    return stack


# -- one slice ---------------------------------------------------------------------------------------------


def test_frames_are_sorted_by_trigger_time_and_each_view_is_a_stack(tmp_path: Path) -> None:
    contents = [
        frame(30, trigger=60, instance=1),
        frame(10, trigger=0, instance=2),
        frame(20, trigger=30, instance=3),
        *sweep([7, 8, 9], series="CINE_segmented_LAX_2Ch", number=2),
        *sweep([99] * 3, series="CINE_segmented_LAX_InlineVF", number=3),
        *sweep([98] * 3, series="CINE_segmented_Ao_dist", number=4),
        *sweep([97] * 3, series="cine_tagging_3sl_SAX_b1s", number=6),
    ]
    manifest = b"filename,patientid,date\nx.dcm,1,Mar 04, 2015\ncut off"
    path = archive(tmp_path, contents, extra={"manifest.cvs": manifest, "DICOMDIR": b"\0" * 200})
    four, two = read_dicom_study(path)
    assert (four.view, two.view) == ("4ch", "2ch")
    assert four.pixels[:, 0, 0].tolist() == [10, 20, 30] and two.pixels[:, 7, 9].tolist() == [7, 8, 9]
    assert four.pixels.shape == (3, 8, 10) and four.pixels.dtype == np.float32
    assert four.spacing_mm == (1.8, 1.6) and four.frame_ms == 30.0 and four.flags == frozenset()
    assert only(path, views={"2ch", "sax"}).view == "2ch"
    assert refusal(path, views=("3ch",)) == "cine-no-view"


def test_a_folder_reads_like_a_zip_and_shapes_are_row_by_column(tmp_path: Path) -> None:
    ramp = np.arange(80, dtype="<u2").reshape(8, 10)
    contents = sweep([1, 2, 3])
    contents[1].PixelData = ramp.tobytes()
    contents[2].RescaleSlope, contents[2].RescaleIntercept = "2", "-1.5"
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for place, data in enumerate(contents):
        (tmp_path / "deep" / ("er" if place else ".") / f"IM{place}").write_bytes(encoded(data))
    (tmp_path / "readme.txt").write_text("not an image")
    stack = only(tmp_path)
    np.testing.assert_array_equal(stack.pixels[1], ramp)
    assert (stack.pixels[2] == 3 * 2 - 1.5).all()
    np.testing.assert_array_equal(stack.pixels, only(archive(tmp_path, contents)).pixels)
    assert recognise(tmp_path).name == recognise(tmp_path / "study.zip").name == READER.name == "dicom"
    np.savez(tmp_path / "array.npz", stack.pixels)
    assert not READER.recognises(tmp_path / "array.npz", b"PK\3\4")


def test_of_repeated_series_the_last_whole_one_counts(tmp_path: Path) -> None:
    whole = sweep([1] * 3, number=5) + sweep([2] * 3, number=9) + sweep([3, 3], number=11, promised=3)
    stack = only(archive(tmp_path, whole))
    assert stack.pixels[0, 0, 0] == 2 and stack.flags == {"series-repeated"}
    torn = sweep([4, 4], number=5, promised=3) + sweep([5], number=7, promised=3)
    assert refusal(archive(tmp_path, torn)) == "cine-frames"
    # Without a promise the longest of equally common series is whole.
    told = sweep([6] * 12, number=1, promised=0) + sweep([7] * 4, number=2, promised=0)
    assert only(archive(tmp_path, told)).pixels[:, 0, 0].tolist() == [6] * 12


def test_a_repeat_inside_one_series_is_told_by_time(tmp_path: Path) -> None:
    first = [frame(1, trigger=31 * n, instance=n + 1) for n in range(3)]
    second = [frame(2, trigger=29 * n, instance=n + 4) for n in range(3)]
    for later in (second, [frame(2, trigger=31 * n, instance=n + 4) for n in range(3)]):
        stack = only(archive(tmp_path, first + later))
        assert stack.pixels[:, 0, 0].tolist() == [2, 2, 2] and stack.flags == {"series-repeated"}


def test_without_trigger_times_the_instance_number_sorts(tmp_path: Path) -> None:
    for trigger in (None, 0.0):
        contents = [frame(v, trigger=trigger, instance=v, change={"NominalInterval": 900}) for v in (3, 1, 2)]
        stack = only(archive(tmp_path, contents))
        assert stack.pixels[:, 0, 0].tolist() == [1, 2, 3] and stack.frame_ms == 300.0


def test_a_mixed_series_is_split_by_position(tmp_path: Path) -> None:
    contents = [
        frame(
            view * 10 + n, series="CINE_segmented_LAX", instance=view * 3 + n, trigger=30 * n, place_mm=view
        )
        for view in range(3)
        for n in range(3)
    ]
    stacks = {stack.view: stack for stack in read_dicom_study(archive(tmp_path, contents[::-1]))}
    assert {view: stack.pixels[0, 0, 0] for view, stack in stacks.items()} == {"3ch": 0, "4ch": 10, "2ch": 20}
    assert refusal(archive(tmp_path, contents[:6])) == "cine-no-view"


def test_a_slice_without_a_name_is_unknown_unless_the_site_declares_it(tmp_path: Path) -> None:
    path = archive(tmp_path, sweep([1, 2, 3], series=""))
    assert only(path).view == "unknown"
    assert only(path, options=ReadOptions(view="2ch")).view == "2ch"
    assert refusal(path, views=("4ch",)) == "cine-no-view"
    named = archive(tmp_path, sweep([1, 2, 3], series="cine 4 Chamber") + sweep([5] * 3, series="", number=9))
    assert only(named).view == "4ch"


def test_a_view_that_fails_leaves_the_others_and_a_mark(tmp_path: Path) -> None:
    contents = sweep([1, 2, 3]) + sweep([4, 5], series="2ch", number=2, promised=3)
    stack = only(archive(tmp_path, contents))
    assert stack.view == "4ch" and stack.flags == {"view-refused"}
    assert refusal(tmp_path / "study.zip", views=("2ch",)) == "cine-frames"


@pytest.mark.parametrize(("name", "view"), [
    ("CINE_segmented_LAX_4Ch", "4ch"), ("CINE_segmented_LAX_2Ch", "2ch"), ("CINE_segmented_LAX_3Ch", "3ch"),
    ("CINE_segmented_SAX_b13", "sax"), ("CINE_segmented_SAX", "sax"), ("CINE_segmented_LAX", "lax-mixed"),
    ("CINE_segmented_SAX_InlineVF", "excluded"), ("CINE_segmented_LAX_InlineVF", "excluded"),
    ("CINE_segmented_Ao_dist", "excluded"), ("CINE_segmented_LVOT", "excluded"),
    ("cine_tagging_3sl_SAX_b1s", "excluded"), ("flow_250_tp_AoV_bh_ePAT@c_MAG", "excluded"),
    ("ShMOLLI_192i_SAX_b2s_SAX_b2s_SAX_b2s_T1MAP", "excluded"), ("T2 map SAX", "excluded"),
    ("cine bSSFP 4 chamber", "4ch"), ("FIESTA HLA", "4ch"), ("tf2d14_retro_iPAT 2CHAMBER", "2ch"),
    ("VLA cine", "2ch"), ("3CH LVOT cine", "3ch"), ("Short-Axis stack", "sax"), ("SA_cine_2", "sax"),
    ("kurze Achse", "sax"), ("4-Kammer-Blick", "4ch"),
    ("cine 2 cavites de face", "2ch"), ("eje corto", "sax"), ("sBTFE_BH", "nothing"), ("", "nothing"),
    ("2ch 4ch planning", "nothing"), ("PSIR SAX", "excluded"), ("la_4ch", "4ch"), ("sa", "sax"),
])  # fmt: skip
def test_what_names_say(name: str, view: str) -> None:
    assert view_of_name(name) == view


# -- stacks ------------------------------------------------------------------------------------------------


def test_slices_are_sorted_and_spaced_along_the_normal(tmp_path: Path) -> None:
    places = [16.0, -8.0, 0.0, 8.0]
    contents = sax(places, series="")
    np.random.default_rng(0).shuffle(contents)
    stack = only(archive(tmp_path, contents))
    assert stack.view == "sax" and stack.pixels.shape == (3, 4, 8, 10)
    assert stack.pixels[:, :, 0, 0].tolist() == [[10 + n, 20 + n, 30 + n, n] for n in range(3)]
    assert stack.slice_spacing_mm == pytest.approx(8.0, abs=1e-4) and stack.frame_ms == 46.0
    assert stack.flags == frozenset()


def test_one_slice_a_series_makes_a_stack_too_and_repeats_replace(tmp_path: Path) -> None:
    contents = [
        data
        for slot, number in enumerate((3, 4, 6, 7))
        for data in sax([8.0 * slot], series=f"CINE_segmented_SAX_b{slot}", number=number, first=10 * slot)
    ]
    contents += sax([8.0], series="CINE_segmented_SAX_b1", number=9, first=50)
    contents += sax([16.0], series="CINE_segmented_SAX_b2", number=10, first=60)[:2]  # broken off
    stack = only(archive(tmp_path, contents))
    assert stack.pixels[0, :, 0, 0].tolist() == [0, 50, 20, 30] and stack.flags == {"series-repeated"}


def test_a_stack_taken_again_a_little_aside_replaces_the_first(tmp_path: Path) -> None:
    contents = sax([0, 8, 16], number=4) + sax([2, 10, 18], number=5, first=100)
    stack = only(archive(tmp_path, contents))
    assert stack.pixels[0, :, 0, 0].tolist() == [100, 110, 120] and stack.flags == {"series-repeated"}
    halves = sax([0, 8], number=4) + sax([16, 24], number=5, first=100)
    assert only(archive(tmp_path, halves)).pixels[0, :, 0, 0].tolist() == [0, 10, 100, 110]


def test_a_slice_that_lacks_frames_is_left_out_while_most_remain(tmp_path: Path) -> None:
    contents = sax([0, 8, 16, 24])
    stack = only(archive(tmp_path, contents[:4] + contents[5:]))
    assert stack.pixels.shape[:2] == (3, 3) and stack.flags == {"slice-incomplete", "slice-gap"}
    assert stack.slice_spacing_mm == pytest.approx(8.0, abs=1e-3)
    torn = [data for place, data in enumerate(contents) if place % 3 or place == 0]
    assert refusal(archive(tmp_path, torn)) == "cine-frames"


def test_slices_must_be_parallel_and_have_positions(tmp_path: Path) -> None:
    turned = np.array([[1.0, 0, 0], [0, 1, 0]])
    fan = sax([0, 8, 16, 24]) + sax([500], axes=turned, first=90)
    stack = only(archive(tmp_path, fan))
    assert stack.pixels.shape[1] == 4 and stack.flags == {"slice-not-parallel"}
    crossed = sax([0], first=0) + sax([0], axes=turned, first=10) + sax([0], axes=OBLIQUE[::-1], first=20)
    assert refusal(archive(tmp_path, crossed)) == "cine-geometry"
    nowhere = sax([0, 8, 16], drop=("ImagePositionPatient",), number=1)
    for place, data in enumerate(nowhere):
        data.SeriesInstanceUID = f"1.2.{place // 3}"
    assert refusal(archive(tmp_path, nowhere)) == "cine-geometry"


# -- enhanced and compressed -------------------------------------------------------------------------------


def enhanced(places_mm: list[float], times_ms: list[float], *, series: str = "", phase: int | None = None,
             uid: str = ExplicitVRLittleEndian) -> Dataset:  # fmt: skip
    """One enhanced object; frames slice by slice, pixel value = 10 * slice + rank of time."""
    data = frame(0, series=series, drop=("TriggerTime", "ImagePositionPatient", "ImageOrientationPatient",
                                         "PixelSpacing", "CardiacNumberOfImages"))  # fmt: skip
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = EnhancedMRImageStorage
    data.file_meta.TransferSyntaxUID = uid
    shared = Dataset()
    shared.PlaneOrientationSequence = [Dataset()]
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = OBLIQUE.ravel().tolist()
    shared.PixelMeasuresSequence = [Dataset()]
    shared.PixelMeasuresSequence[0].PixelSpacing = [1.25, 1.5]
    shared.PixelMeasuresSequence[0].SliceThickness = 8
    data.SharedFunctionalGroupsSequence = [shared]
    groups, pixels = [], []
    ranks = np.argsort(np.argsort(times_ms))
    for z, place in enumerate(places_mm):
        for n, time in enumerate(times_ms):
            group = Dataset()
            group.PlanePositionSequence = [Dataset()]
            group.PlanePositionSequence[0].ImagePositionPatient = (NORMAL * place).round(6).tolist()
            group.CardiacSynchronizationSequence = [Dataset()]
            group.CardiacSynchronizationSequence[0].NominalCardiacTriggerDelayTime = time
            group.PixelValueTransformationSequence = [Dataset()]
            group.PixelValueTransformationSequence[0].RescaleSlope = "0.5"
            group.PixelValueTransformationSequence[0].RescaleIntercept = "1"
            group.MRImageFrameTypeSequence = [Dataset()]
            kind = "PHASE" if phase == n else "MAGNITUDE"
            group.MRImageFrameTypeSequence[0].ComplexImageComponent = kind
            groups.append(group)
            pixels.append(np.full((8, 10), 10 * z + int(ranks[n]), "<u2"))
    data.PerFrameFunctionalGroupsSequence = groups
    data.NumberOfFrames = len(groups)
    data.PixelData = np.stack(pixels).tobytes()
    data["PixelData"].VR = "OW"
    return data


@pytest.mark.parametrize("uid", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless])
def test_an_enhanced_object_is_a_stack(tmp_path: Path, uid: str) -> None:
    times = [60.0, 0.0, 20.0, 40.0]
    data = enhanced([8.0, 0.0, 16.0], times)
    if uid == RLELossless:
        data.compress(RLELossless)
    data.file_meta.TransferSyntaxUID = uid
    path = tmp_path / "enhanced.dcm"
    path.write_bytes(encoded(data))
    stack = only(path)
    assert stack.view == "sax" and stack.pixels.shape == (4, 3, 8, 10) and stack.frame_ms == 20.0
    assert stack.spacing_mm == (1.25, 1.5) and stack.slice_spacing_mm == pytest.approx(8.0, abs=1e-4)
    expected = [[0.5 * (10 * z + n) + 1 for z in (1, 0, 2)] for n in range(4)]
    assert stack.pixels[:, :, 0, 0].tolist() == expected
    assert recognise(path).name == "dicom"


def test_phase_images_of_an_enhanced_object_are_left(tmp_path: Path) -> None:
    path = archive(tmp_path, [enhanced([0.0], [0.0, 20.0, 40.0, 60.0], series="cine 3ch", phase=2)])
    assert only(path).pixels[:, 0, 0].tolist() == [1.0, 1.5, 2.5]
    classic = sweep([1, 2, 3]) + sweep([9] * 3, number=2, change={"ImageType": ["ORIGINAL", "PRIMARY", "P"]})
    assert only(archive(tmp_path, classic)).pixels[:, 0, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    "syntax", ["RLELossless", "JPEGLosslessProcess14_1", "JPEGLSLossless", "JPEG2000Lossless"]
)
def test_losslessly_compressed_pixels_are_the_plain_ones(tmp_path: Path, syntax: str) -> None:
    import gdcm

    rng = np.random.default_rng(1)
    contents, stored = sweep([0, 0, 0], size=40), []
    for place, data in enumerate(contents):
        stored.append(rng.integers(0, 4096, (40, 42)).astype("<u2"))
        data.PixelData = stored[-1].tobytes()
        plain, packed = str(tmp_path / "plain"), str(tmp_path / f"{place}.dcm")
        Path(plain).write_bytes(encoded(data))
        reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
        reader.SetFileName(plain)
        assert reader.Read()
        change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer.SetFileName(packed)
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
    Path(plain).unlink()
    assert pydicom.dcmread(packed).file_meta.TransferSyntaxUID.is_compressed
    np.testing.assert_array_equal(only(tmp_path).pixels, np.stack(stored))
    if syntax == "RLELossless":
        return  # it has no size of its own
    # A code stream of another size than the header's is not given to a decoder.
    for path in tmp_path.glob("*.dcm"):
        data = pydicom.dcmread(path)
        data.Rows = 39
        data.save_as(path)
    assert refusal(tmp_path) == "cine-unreadable"


# -- refusals ----------------------------------------------------------------------------------------------


def test_refusals(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.zip") == "cine-file-missing"
    (tmp_path / "text.zip").write_bytes(b"PK no zip")
    assert refusal(tmp_path / "text.zip") == "cine-unreadable"
    assert refusal(archive(tmp_path, [])) == "cine-no-view"
    assert refusal(archive(tmp_path, sweep([1, 2, 3], drop=("PixelSpacing",)))) == "cine-spacing"
    uneven = [frame(1, trigger=0), frame(1, trigger=30), frame(1, trigger=60, size=9)]
    assert refusal(archive(tmp_path, uneven)) == "cine-frames"
    cut = [encoded(data)[:-20] for data in sweep([1, 2, 3])]
    assert refusal(archive(tmp_path, cut)) == "cine-unreadable"
    for uid in (HTJ2KLossless, DeflatedExplicitVRLittleEndian):
        raw = [
            encoded(data).replace(
                ExplicitVRLittleEndian.encode() + b"\0",
                uid.encode()[:20] if len(uid) % 2 else uid.encode(),
            )
            for data in sweep([1, 2, 3])
        ]
        assert refusal(archive(tmp_path, raw)) in {"cine-unsupported", "cine-unreadable"}


def test_pixels_without_a_decoder_are_unsupported(tmp_path: Path) -> None:
    contents = sweep([1, 2, 3])
    for data in contents:
        data.file_meta.TransferSyntaxUID = HTJ2KLossless
        data.PixelData = pydicom.encaps.encapsulate([bytes(44)])
        data["PixelData"].is_undefined_length = True
    assert refusal(archive(tmp_path, contents)) == "cine-unsupported"


@pytest.mark.parametrize("program", ["import os; os.abort()", "import time; time.sleep(60)", "print('x')"])
def test_a_decoder_that_crashes_or_hangs_costs_one_view(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    (tmp_path / "decoder.py").write_text(program)
    monkeypatch.setattr(frame_decoder, "_PROGRAM", tmp_path / "decoder.py")
    monkeypatch.setattr(frame_decoder, "LIMIT_S", 0.3)
    contents = sweep([1, 2, 3]) + sweep([4, 5, 6], series="2ch", number=2)
    for data in contents[:3]:
        data.compress(RLELossless)
    assert only(archive(tmp_path, contents)).view == "2ch"
    assert refusal(tmp_path / "study.zip", views=("4ch",)) == "cine-unreadable"


def test_size_is_bounded_before_a_pixel_is_read(tmp_path: Path) -> None:
    wide = sweep([1, 2, 3], change={"Rows": 20_000, "Columns": 20_000})
    assert refusal(archive(tmp_path, wide)) == "cine-too-large"
    deep = frame(1, change={"NumberOfFrames": 4000, "Rows": 1000, "Columns": 1000})
    assert refusal(archive(tmp_path, [deep])) == "cine-too-large"
    nested = encoded(frame(1))
    bomb = b"\x29\x00\x10\x10SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\0\0\0\0" * 60_000
    place = nested.index(b"\x28\x00\x02\x00")
    assert refusal(archive(tmp_path, [nested[:place] + bomb + nested[place:]])) == "cine-too-large"


def test_hostile_zips_are_refused(tmp_path: Path) -> None:
    for name in ("../out.dcm", "/abs.dcm", "a\\..\\..\\b.dcm"):
        assert refusal(archive(tmp_path, [], extra={name: b"x"})) == "cine-unreadable"
    bomb = archive(tmp_path, [], extra={"bomb.dcm": bytes(7_000_000)})
    assert bomb.stat().st_size < 20_000
    assert refusal(bomb) == "cine-too-large"
    many = archive(tmp_path, [], extra={f"{n}.txt": b"" for n in range(10_001)})
    assert refusal(many) == "cine-too-large"
    with zipfile.ZipFile(tmp_path / "study.zip", "w", zipfile.ZIP_LZMA) as opened:
        opened.writestr("1.dcm", encoded(frame(1)))
    assert refusal(tmp_path / "study.zip") == "cine-unsupported"
    assert [path.name for path in tmp_path.iterdir()] == ["study.zip"]  # nothing was unpacked


def test_a_torn_file_costs_its_slice_only(tmp_path: Path) -> None:
    contents: list[Dataset | bytes] = list(sax([0, 8, 16, 24]))
    whole = contents[4]
    assert isinstance(whole, Dataset)
    contents[4] = encoded(whole)[:300]
    stack = only(archive(tmp_path, contents))
    assert stack.pixels.shape[1] == 3 and "slice-incomplete" in stack.flags


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutated_zips_give_a_stack_or_a_refusal(tmp_path: Path, data: st.DataObject) -> None:
    source = enhanced([0.0, 8.0], [0.0, 20.0]) if data.draw(st.booleans()) else frame(1)
    member = bytearray(encoded(source))
    for _ in range(data.draw(st.integers(0, 3))):
        member[data.draw(st.integers(128, len(member) - 1))] = data.draw(st.integers(0, 255))
    path = archive(tmp_path, [bytes(member)])
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(0, 2))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content)))]
    path.write_bytes(content)
    with contextlib.suppress(RecordRefused):
        assert all(isinstance(stack, CineStack) for stack in read_dicom_study(path))


# -- real files --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sunnybrook(shared_data: Path) -> CineStack:
    return only(shared_data / "cmr" / "sunnybrook" / "SCD0000301.zip")


def test_sunnybrook_is_ten_slices_eight_millimetres_apart(sunnybrook: CineStack, shared_data: Path) -> None:
    folder = shared_data / "cmr" / "sunnybrook"
    told = json.loads((folder / "expected_ed_es.json").read_text())
    assert sunnybrook.view == "sax" and sunnybrook.flags == frozenset()
    assert sunnybrook.pixels.shape == (told["phases"], told["slices"], 256, 256)
    assert sunnybrook.spacing_mm == (told["pixel_mm"], told["pixel_mm"])
    assert sunnybrook.slice_spacing_mm == pytest.approx(told["slice_spacing_mm"], abs=0.001)
    assert sunnybrook.frame_ms == 46.0
    with zipfile.ZipFile(folder / "SCD0000301.zip") as opened:
        for name in ("SCD0000301/77.dcm", "SCD0000301/136.dcm", "SCD0000301/14.dcm"):
            data = pydicom.dcmread(io.BytesIO(opened.read(name)))
            # The series was taken along the other direction of the normal.
            z, f = 9 - (int(data.InstanceNumber) - 1) // 20, (int(data.InstanceNumber) - 1) % 20
            np.testing.assert_array_equal(sunnybrook.pixels[f, z], data.pixel_array)


def test_phases_of_sunnybrook_are_guessed_within_a_frame(sunnybrook: CineStack, shared_data: Path) -> None:
    told = json.loads((shared_data / "cmr" / "sunnybrook" / "expected_ed_es.json").read_text())
    guessed = with_phases(sunnybrook)
    assert guessed.phase_source == "heuristic" and sunnybrook.phase_source == ""
    assert guessed.ed_frame is not None and guessed.es_frame is not None
    for frame_index, expected in (
        (guessed.ed_frame, "ED_frame_1based"),
        (guessed.es_frame, "ES_frame_1based"),
    ):
        off = (frame_index + 1 - told[expected]) % told["phases"]
        assert min(off, told["phases"] - off) <= 1


def test_replicas_hold_the_pixels_of_sunnybrook(sunnybrook: CineStack, shared_data: Path) -> None:
    for name, slices in (("9000011_20209_2_0.zip", (2, 6)), ("9000022_20209_2_0.zip", (6, 8))):
        stack = only(shared_data / "replicas" / "ukb" / "20209" / name)
        assert stack.view == "sax" and stack.slice_spacing_mm == pytest.approx(8.0, abs=0.001)
        np.testing.assert_array_equal(stack.pixels, sunnybrook.pixels[:, slice(*slices)])


def test_a_folder_is_a_recording_only_where_it_holds_one_study(tmp_path: Path, shared_data: Path) -> None:
    with zipfile.ZipFile(shared_data / "cmr" / "sunnybrook" / "SCD0000301.zip") as archive:
        names = [name for name in archive.namelist() if name.endswith(".dcm")][:6]
        for patient in ("one", "two"):
            for name in names:
                dataset = pydicom.dcmread(io.BytesIO(archive.read(name)))
                if patient == "two":
                    dataset.StudyInstanceUID = "1.2.3"
                (tmp_path / patient).mkdir(exist_ok=True)
                dataset.save_as(tmp_path / patient / Path(name).name)
    assert recognise(tmp_path / "one").name == recognise(tmp_path / "two").name == "dicom"
    for folder in (tmp_path, shared_data / "ecg" / "vendor" / "dicom", shared_data / "ecg" / "vendor"):
        with pytest.raises(RecordRefused) as caught:
            recognise(folder)
        assert caught.value.reason == "unrecognised"
