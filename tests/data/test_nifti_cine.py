"""NIfTI cines: axes, spacing, time, scale, folders in two layouts, refusals, hostile bytes."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import struct
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cardionets_core.data.cine import prepare_cine
from cardionets_core.data.cine_phases import pool_mm2
from cardionets_core.data.masks import LV, MYO, RV, ejection_fraction, ventricle_volumes
from cardionets_core.data.readers.base import ReadOptions
from cardionets_core.data.readers.converted_folder import read_converted_view
from cardionets_core.data.readers.nifti_cine import READER, read_nifti
from cardionets_core.data.readers.registry import recognise
from cardionets_core.data.records import CineStack
from cardionets_core.data.synthetic_nifti import synthetic_nifti
from cardionets_core.errors import RecordRefused

UNDECLARED = ReadOptions()


def refusal(path: Path, options: ReadOptions = UNDECLARED) -> str:
    with pytest.raises(RecordRefused) as caught:
        read_nifti(path, options)
    return caught.value.reason


def only(path: Path, **declared: Any) -> CineStack:
    (stack,) = read_nifti(path, ReadOptions(**declared))
    return stack


def nifti(path: Path, data: np.ndarray, zooms: tuple[float, ...] = (), *, units: str = "msec",
          slope: float | None = None) -> Path:  # fmt: skip
    image = nib.Nifti1Image(data, np.diag([-1.0, -1.0, 1.0, 1.0]))
    image.header.set_zooms(zooms or (1.0,) * data.ndim)
    image.header.set_xyzt_units("mm", units)
    if slope is not None:
        image.header.set_slope_inter(slope, 5.0)
    image.to_filename(path)
    return path


@pytest.mark.parametrize("kind", ["int16", "uint8", "float32", ">i2"])
def test_axes_spacing_and_time(tmp_path: Path, kind: str) -> None:
    data = np.arange(120).reshape(5, 4, 2, 3).astype(kind)
    stack = only(nifti(tmp_path / "cine.nii.gz", data, (1.5, 2.5, 8.0, 30.0)))
    assert stack.pixels.shape == (3, 2, 4, 5) and stack.pixels.dtype == np.float32
    np.testing.assert_array_equal(stack.pixels, data.transpose(3, 2, 1, 0))
    assert stack.spacing_mm == (2.5, 1.5)  # rows are Y; the affine says 1 mm and is not believed
    assert stack.slice_spacing_mm == 8.0 and stack.frame_ms == 30.0 and stack.view == "sax"
    flat = only(nifti(tmp_path / "flat.nii", data[:, :, :1], (1.5, 2.5, 8.0, 30.0)), view="2ch")
    assert flat.pixels.shape == (3, 4, 5) and flat.slice_spacing_mm is None and flat.view == "2ch"


@pytest.mark.parametrize(("planes", "declared", "shape"), [
    (20, None, (20, 4, 5)), (19, None, (1, 19, 4, 5)),
    (19, "frames", (19, 4, 5)), (20, "slices", (1, 20, 4, 5)),
])  # fmt: skip
def test_the_third_axis_of_a_3d_file(
    tmp_path: Path, planes: int, declared: Any, shape: tuple[int, ...]
) -> None:
    data = np.arange(20 * planes, dtype=np.int16).reshape(5, 4, planes)
    stack = only(nifti(tmp_path / "cine.nii", data, (1.5, 2.5, 30.0)), third_axis=declared)
    assert stack.pixels.shape == shape and (stack.frame_ms, stack.slice_spacing_mm) == (
        (30.0, None) if len(shape) == 3 else (None, 30.0)
    )
    np.testing.assert_array_equal(stack.pixels.reshape(planes, 4, 5), data.transpose(2, 1, 0))


def test_scale_units_and_views(tmp_path: Path) -> None:
    data = np.arange(60, dtype=np.int16).reshape(5, 4, 1, 3)
    scaled = only(nifti(tmp_path / "scaled.nii.gz", data, slope=0.5))
    np.testing.assert_array_equal(scaled.pixels, data[:, :, 0].transpose(2, 1, 0) * 0.5 + 5)
    seconds = only(nifti(tmp_path / "la_4ch.nii.gz", data, (1, 1, 1, 0.03125), units="sec"))
    assert seconds.frame_ms == 31.25 and seconds.view == "4ch"
    assert only(tmp_path / "la_4ch.nii.gz", view="3ch").view == "3ch"
    assert scaled.view == "unknown"
    # Copies that say 1 for the time step say nothing.
    assert only(nifti(tmp_path / "one.nii.gz", data, units="unknown")).frame_ms is None


def test_a_segmentation_beside_a_file_is_read_where_its_labels_are_declared(tmp_path: Path) -> None:
    image, labels = np.zeros((30, 30, 1, 20), np.int16), np.zeros((30, 30, 1, 20), np.uint8)
    for frame in range(20):
        reach = 4 + frame % 10
        labels[15 - reach : 15 + reach, 15 - reach : 15 + reach, 0, frame] = 2
        labels[17 - reach : 13 + reach, 17 - reach : 13 + reach, 0, frame] = 3
    labels[:, :, :, [3, 4]] = 0
    nifti(tmp_path / "a.nii.gz", image)
    nifti(tmp_path / "a_gt.nii.gz", labels)
    plain, drawn = only(tmp_path / "a.nii.gz"), only(tmp_path / "a.nii.gz", label_map="acdc")
    assert plain.mask is None and drawn.mask is not None and drawn.mask.shape == drawn.pixels.shape
    assert set(np.unique(drawn.mask)) == {0, LV, MYO}
    assert (drawn.ed_frame, drawn.es_frame, drawn.phase_source) == (9, 0, "given")
    nifti(tmp_path / "a_gt.nii.gz", labels[:, :, :, :7])
    assert refusal(tmp_path / "a.nii.gz", ReadOptions(label_map="acdc")) == "cine-mask"
    nifti(tmp_path / "a_gt.nii.gz", labels + np.float32(0.5))
    assert refusal(tmp_path / "a.nii.gz", ReadOptions(label_map="acdc")) == "cine-mask"


def test_a_converted_folder_gives_a_stack_a_view(tmp_path: Path) -> None:
    for name, shape in (("sa", (6, 5, 3, 20)), ("la_2ch", (6, 5, 1, 20)), ("la_4ch", (6, 5, 1, 20))):
        nifti(tmp_path / f"{name}.nii.gz", np.ones(shape, np.int16), (1.8, 1.8, 10.0, 0.03), units="sec")
    drawn = np.zeros((6, 5, 3, 20), np.uint8)
    drawn[1:5, 1:4], drawn[2:4, 2, :, 4:] = 2, 1
    nifti(tmp_path / "seg_sa.nii.gz", drawn)
    nifti(tmp_path / "seg_la_4ch.nii.gz", np.ones((6, 5, 1, 20), np.uint8))  # atria: not for us
    assert recognise(tmp_path) is READER
    four, two, sax = read_nifti(tmp_path, ReadOptions())
    assert [stack.view for stack in (four, two, sax)] == ["4ch", "2ch", "sax"]
    assert four.mask is None and sax.mask is not None and sax.pixels.shape == (20, 3, 5, 6)
    np.testing.assert_array_equal(sax.mask, drawn.transpose(3, 2, 1, 0))
    assert (sax.ed_frame, sax.es_frame, sax.frame_ms) == (4, 0, pytest.approx(30.0))
    assert read_converted_view(tmp_path, "sax").mask is not None
    (tmp_path / "la_2ch.nii.gz").write_bytes(b"torn")
    assert [(stack.view, stack.flags) for stack in read_nifti(tmp_path, ReadOptions())] == [
        ("4ch", {"view-refused"}), ("sax", {"view-refused"}),
    ]  # fmt: skip


def test_an_acdc_folder_with_its_cine(tmp_path: Path) -> None:
    (tmp_path / "Info.cfg").write_text("ED: 3\r\nES: 12\r\nGroup: DCM\r\nNbFrame: 20\r\n")
    data = np.arange(6 * 5 * 3 * 20, dtype=np.int16).reshape(6, 5, 3, 20)
    nifti(tmp_path / "patient001_4d.nii.gz", data, (1.5, 1.5, 10.0, 1.0), units="unknown")
    for number in (3, 12):
        nifti(tmp_path / f"patient001_frame{number:02d}.nii.gz", data[..., number - 1], (1.5, 1.5, 10.0))
        labels = np.zeros((6, 5, 3), np.uint8)
        labels[1:5, 1:4], labels[2:4, 2] = 2, 3
        nifti(tmp_path / f"patient001_frame{number:02d}_gt.nii.gz", labels, (1.5, 1.5, 10.0))
    stack = only(tmp_path)
    assert recognise(tmp_path) is READER and stack.pixels.shape == (20, 3, 5, 6)
    assert (stack.ed_frame, stack.es_frame, stack.phase_source, stack.view) == (2, 11, "given", "sax")
    assert stack.mask is not None
    assert [int(frame.any()) for frame in stack.mask].count(1) == 2 and stack.mask[11].max() == MYO
    assert stack.slice_spacing_mm == 10.0 and stack.frame_ms is None
    assert refusal(tmp_path, ReadOptions(label_map="ukb")) == "cine-mask"


# -- refusals and hostile bytes ----------------------------------------------------------------------------


def test_refusals(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.nii.gz") == "cine-file-missing"
    assert refusal(tmp_path) == "unrecognised"
    assert refusal(nifti(tmp_path / "still.nii", np.zeros((5, 4), np.int16))) == "cine-frames"
    vector = np.zeros((5, 4, 1, 3, 2), np.int16)
    assert refusal(nifti(tmp_path / "vector.nii", vector)) == "cine-unreadable"
    assert refusal(nifti(tmp_path / "complex.nii", np.zeros((5, 4, 3), np.complex64))) == "cine-unsupported"
    whole = nifti(tmp_path / "whole.nii.gz", np.arange(60, dtype=np.int16).reshape(5, 4, 1, 3)).read_bytes()
    (tmp_path / "cut.nii.gz").write_bytes(whole[:-30])
    assert refusal(tmp_path / "cut.nii.gz") == "cine-unreadable"
    torn = bytearray(gzip.decompress(whole))
    torn[80:84] = struct.pack("<f", 0.0)  # pixdim of X: nibabel would take 1 mm
    (tmp_path / "zero.nii").write_bytes(torn)
    assert refusal(tmp_path / "zero.nii") == "cine-spacing"
    broken = bytearray(whole)
    broken[-6] ^= 0xFF  # the checksum of the gzip stream
    (tmp_path / "sum.nii.gz").write_bytes(broken)
    assert refusal(tmp_path / "sum.nii.gz") == "cine-unreadable"


@pytest.mark.parametrize("change", [{"dim": (4, 30000, 30000, 1, 50)}, {"vox_offset": 9e8}])
def test_a_small_file_that_promises_much_is_refused_before_it_is_unpacked(
    tmp_path: Path, change: Any
) -> None:
    header = nib.Nifti1Image(np.zeros((2, 2, 1, 2), np.uint8), np.eye(4)).header
    for name, value in change.items():
        header[name] = np.array((*value, 1, 1, 1) if name == "dim" else value).astype(header[name].dtype)
    stream = io.BytesIO()
    with gzip.GzipFile(fileobj=stream, mode="wb") as packed:
        packed.write(header.binaryblock + b"\1\0\0\0" + struct.pack("<ii", 2**31 - 16, 4))
        for _ in range(20):
            packed.write(bytes(1_000_000))
    (tmp_path / "bomb.nii.gz").write_bytes(stream.getvalue())
    assert refusal(tmp_path / "bomb.nii.gz") in {"cine-too-large", "cine-unreadable"}


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutated_nifti_gives_a_stack_or_a_refusal(tmp_path: Path, data: st.DataObject) -> None:
    image = nib.Nifti1Image(np.arange(60, dtype=np.int16).reshape(5, 4, 1, 3), np.eye(4))
    content = bytearray(image.to_bytes())
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "cine.nii"
    path.write_bytes(bytes(content[: data.draw(st.integers(0, len(content)))]))
    with contextlib.suppress(RecordRefused):
        assert isinstance(only(path), CineStack)


# -- real files --------------------------------------------------------------------------------------------


def test_acdc_patients_give_their_table(shared_data: Path) -> None:
    """The volumes counted from the masks; the affine would give them 20 to 40 times too small."""
    folder = shared_data / "cmr" / "acdc"
    with (folder / "phenotypes_from_gt.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 10
    larger = 0
    for row in rows:
        stack = only(folder / row["patient"])
        assert stack.mask is not None and stack.view == "sax" and stack.phase_source == "given"
        assert (stack.ed_frame, stack.es_frame) == (0, 1)  # the two frames that are there
        x, y, z = (int(size) for size in row["shape"].split("x"))
        assert stack.pixels.shape == (2, z, y, x)
        ed, es = (
            ventricle_volumes(mask, spacing_mm=stack.spacing_mm, slice_spacing_mm=stack.slice_spacing_mm or 0)
            for mask in stack.mask
        )
        found = {
            "LV_ED": ed.lv_ml, "LV_ES": es.lv_ml, "LVEF": ejection_fraction(ed.lv_ml, es.lv_ml),
            "RV_ED": ed.rv_ml, "RV_ES": es.rv_ml, "RVEF": ejection_fraction(ed.rv_ml, es.rv_ml),
            "MYO_ED": ed.muscle_g,
        }  # fmt: skip
        assert found == pytest.approx({name: float(row[name]) for name in found}, abs=6e-4)
        pool = pool_mm2(stack.pixels, spacing_mm=stack.spacing_mm)
        larger += bool(pool[0] > pool[1])
        with pytest.raises(RecordRefused) as caught:
            prepare_cine(stack)
        assert caught.value.reason == "cine-frames"
    assert larger == 10


def test_the_wrong_label_map_is_found_out_on_every_acdc_patient(shared_data: Path) -> None:
    for folder in sorted((shared_data / "cmr" / "acdc").glob("patient*")):
        assert refusal(folder, ReadOptions(label_map="ukb")) == "cine-mask"


def test_a_single_acdc_volume_is_slices(shared_data: Path) -> None:
    path = shared_data / "cmr" / "acdc" / "patient029" / "patient029_frame01.nii.gz"
    stack = only(path, label_map="acdc")
    assert stack.pixels.shape == (1, 11, 256, 192) and stack.mask is not None and (stack.mask == RV).any()
    assert stack.spacing_mm == (1.3671875, 1.3671875) and stack.slice_spacing_mm == 10.0


def test_a_cine_that_a_model_drew_is_refused(tmp_path):
    """What prediction writes never becomes training data, unless its header is removed on purpose."""
    pixels = np.random.default_rng(0).integers(0, 255, (24, 60, 60)).astype(np.uint8)
    path = tmp_path / "la_4ch.nii.gz"
    path.write_bytes(synthetic_nifti(pixels, spacing_mm=2.0, comment="drawn"))
    with pytest.raises(RecordRefused) as caught:
        read_nifti(path, ReadOptions(view="4ch"))
    assert caught.value.reason == "cine-synthetic"
    image = nib.load(path)
    image.header["descrip"], image.header["intent_name"] = b"", b""
    nib.save(image, tmp_path / "renamed_4ch.nii.gz")
    assert read_nifti(tmp_path / "renamed_4ch.nii.gz", ReadOptions(view="4ch"))
