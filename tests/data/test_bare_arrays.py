"""HDF5, NPY and MATLAB arrays name nothing: what is declared is checked, what is not is refused."""

from __future__ import annotations

import io
import pickle
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.io import loadmat, savemat

from cardionets_core.data.readers import hdf5_ecg, matlab_ecg, npy_ecg
from cardionets_core.data.readers.bare_array import bare_record
from cardionets_core.data.readers.base import Reader, ReadOptions
from cardionets_core.data.records import LEADS
from cardionets_core.errors import RecordRefused

DECLARED = ReadOptions(rate_hz=400, unit="mV")
READERS = {"h5": hdf5_ecg.READER, "npy": npy_ecg.READER, "mat": matlab_ecg.READER}


def rows(samples: int = 900) -> np.ndarray:
    values = np.random.default_rng(2).normal(0, 0.4, (12, samples)).astype(np.float32)
    return np.where(values == 0, np.float32(1e-3), values)


def write(folder: Path, kind: str, array: np.ndarray, *, name: str = "") -> Path:
    path = folder / f"array.{kind}"
    if kind == "npy":
        np.save(path, array)
    elif kind == "mat":
        savemat(path, {name or "feats": array}, do_compression=True)
    else:
        with h5py.File(path, "w") as file:
            file.create_dataset(name or "ecg", data=array, compression="gzip")
    return path


def refused(reader: Reader, path: Path, options: ReadOptions = DECLARED) -> str:
    with pytest.raises(RecordRefused) as caught:
        reader.read(path, options)
    assert caught.value.where == str(path)
    return caught.value.reason


@pytest.mark.parametrize("kind", READERS)
def test_the_array_arrives_unchanged_whichever_way_it_lies(tmp_path: Path, kind: str) -> None:
    values = rows()
    for array in (values, values.T, values[None], np.asfortranarray(values)):
        path = write(tmp_path, kind, array)
        record = READERS[kind].read(path, DECLARED)
        np.testing.assert_array_equal(record.signal_mv, values)
        assert (record.leads, record.fs_hz, record.flags) == (LEADS, 400, frozenset())
        assert record.signal_mv.dtype == np.float32 and record.signal_mv.flags.c_contiguous
        own = [name for name, reader in READERS.items() if reader.recognises(path, path.read_bytes()[:4096])]
        assert own == [kind]


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("dtype", ["<i2", ">i2", "<f4", "<f8", ">f8", "<u1", "<i4"])
def test_unit_and_type_become_float32_millivolts(tmp_path: Path, kind: str, dtype: str) -> None:
    counts = np.random.default_rng(4).integers(1, 200, (12, 500)).astype(dtype)
    path = write(tmp_path, kind, counts)
    for unit, scale in (("uV", 1e-3), ("mV", 1.0), ("V", 1e3)):
        record = READERS[kind].read(path, ReadOptions(rate_hz=500, unit=unit))
        np.testing.assert_allclose(record.signal_mv, counts.astype(np.float64) * scale, rtol=1e-6)


@pytest.mark.parametrize("number", ["1", "2", "3", "4"])
def test_real_sph_files(shared_data: Path, number: str) -> None:
    path = shared_data / "ecg" / "sph" / f"SPH0000{number}.h5"
    with h5py.File(path) as file:
        expected = file["ecg"][...].astype(np.float32)
    record = hdf5_ecg.READER.read(path, ReadOptions(rate_hz=500, unit="mV"))
    np.testing.assert_array_equal(record.signal_mv, expected)
    assert record.fs_hz == 500 and 0.3 < np.median(np.ptp(record.signal_mv, axis=1)) < 5
    assert refused(hdf5_ecg.READER, path, ReadOptions(unit="mV")) == "ecg-undeclared"
    assert refused(hdf5_ecg.READER, path, ReadOptions(rate_hz=500)) == "ecg-undeclared"


@pytest.mark.parametrize("kind", READERS)
def test_leads_are_the_declared_ones_and_the_shape_must_fit(tmp_path: Path, kind: str) -> None:
    eight = ("v1", "MDC_ECG_LEAD_V2", "V3", "V4", "V5", "V6", "II", "I")
    path = write(tmp_path, kind, rows()[:8])
    record = READERS[kind].read(path, ReadOptions(rate_hz=500, unit="mV", leads=eight))
    assert record.leads == ("V1", "V2", "V3", "V4", "V5", "V6", "II", "I")
    assert refused(READERS[kind], path) == "ecg-undeclared"
    options = ReadOptions(rate_hz=500, unit="mV", leads=LEADS)
    assert refused(READERS[kind], path, options) == "ecg-wrong-structure"
    square = write(tmp_path, kind, rows(12))
    assert refused(READERS[kind], square, options) == "ecg-wrong-structure"


@pytest.mark.parametrize("kind", READERS)
def test_many_recordings_in_one_file_are_refused_with_advice(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path, kind, np.zeros((3, 4096, 12), dtype=np.float32))
    with pytest.raises(RecordRefused, match="each into a file of its own") as caught:
        READERS[kind].read(path, DECLARED)
    assert caught.value.reason == "ecg-wrong-structure"


@pytest.mark.parametrize("kind", READERS)
def test_zero_padding_at_both_ends_is_cut_off_and_flagged(tmp_path: Path, kind: str) -> None:
    values = rows()
    values[4] = 0  # a flat lead is no padding
    values[:, 300:320] = 0  # nor is a pause inside
    padded = np.pad(values, ((0, 0), (48, 51)))
    record = READERS[kind].read(write(tmp_path, kind, padded.T), DECLARED)
    np.testing.assert_array_equal(record.signal_mv, values)
    assert record.flags == {"padding-trimmed"}


def test_a_few_zeros_and_a_record_of_zeros_stay() -> None:
    few = bare_record(np.pad(rows(), ((0, 0), (4, 0))), DECLARED)
    assert few.signal_mv.shape == (12, 904) and not few.flags
    empty = bare_record(np.zeros((12, 900)), DECLARED)
    assert empty.signal_mv.shape == (12, 900) and not empty.flags


@pytest.mark.parametrize("kind", READERS)
def test_what_is_no_ecg_is_refused(tmp_path: Path, kind: str) -> None:
    reader = READERS[kind]
    for array, reason in ((np.zeros((12, 9), dtype=complex), "ecg-wrong-structure"),
                          (np.zeros((2, 12, 9, 1)), "ecg-wrong-structure"),
                          (np.zeros((12, 600_000), dtype=np.float32), "ecg-too-large")):  # fmt: skip
        path = write(tmp_path, kind, array)
        assert refused(reader, path) == reason
    path.write_bytes(b"")
    assert refused(reader, path) == "ecg-unreadable"
    assert refused(reader, tmp_path / "none") == "ecg-file-missing"


@pytest.mark.parametrize("kind", ["h5", "mat"])
def test_the_array_is_found_by_name_or_for_being_the_only_one(tmp_path: Path, kind: str) -> None:
    values = rows()
    path = write(tmp_path, kind, values, name="signal")
    np.testing.assert_array_equal(READERS[kind].read(path, DECLARED).signal_mv, values)
    named = ReadOptions(rate_hz=400, unit="mV", dataset="signal")
    np.testing.assert_array_equal(READERS[kind].read(path, named).signal_mv, values)
    absent = ReadOptions(rate_hz=400, unit="mV", dataset="absent")
    assert refused(READERS[kind], path, absent) == "ecg-wrong-structure"


def test_two_arrays_need_a_name(tmp_path: Path) -> None:
    mat, hdf = tmp_path / "two.mat", tmp_path / "two.h5"
    savemat(mat, {"a": rows(), "b": rows() * 2, "rate": 500.0, "note": "text"})
    with h5py.File(hdf, "w") as file:
        file["a"], file["group/b"], file["c"] = rows(), rows() * 2, rows()
    assert refused(matlab_ecg.READER, mat) == refused(hdf5_ecg.READER, hdf) == "ecg-undeclared"
    for reader, path, name in ((matlab_ecg.READER, mat, "b"), (hdf5_ecg.READER, hdf, "group/b")):
        record = reader.read(path, ReadOptions(rate_hz=400, unit="mV", dataset=name))
        np.testing.assert_array_equal(record.signal_mv, rows() * 2)
    text = ReadOptions(rate_hz=400, unit="mV", dataset="note")
    assert refused(matlab_ecg.READER, mat, text) == "ecg-wrong-structure"


@pytest.mark.parametrize("compressed", [True, False])
def test_matlab_equals_scipy(tmp_path: Path, compressed: bool) -> None:
    path = tmp_path / "a.mat"
    values = np.random.default_rng(1).integers(-99, 99, (12, 300)).astype(np.float64)  # stored as int8
    savemat(path, {"other": rows(), "feats": values}, do_compression=compressed)
    expected = loadmat(path)["feats"]
    np.testing.assert_array_equal(matlab_ecg.READER.read(path, DECLARED).signal_mv, expected)


def test_nothing_outside_of_an_hdf5_file_is_opened(tmp_path: Path) -> None:
    other, path = write(tmp_path, "h5", rows()), tmp_path / "link.h5"
    with h5py.File(path, "w") as file:
        file["ecg"] = h5py.ExternalLink(other.name, "ecg")
        file["soft"] = h5py.SoftLink("/ecg")
        file.create_dataset("raw", (12, 900), "f4", external=[(str(other), 0, 12 * 900 * 4)])
        layout = h5py.VirtualLayout((12, 900), "f4")
        layout[...] = h5py.VirtualSource(str(other), "ecg", (12, 900))
        file.create_virtual_dataset("virtual", layout)
    for name, reason in (("ecg", "ecg-wrong-structure"), ("soft", "ecg-wrong-structure"),
                         ("raw", "ecg-unsupported"), ("virtual", "ecg-unsupported")):  # fmt: skip
        options = ReadOptions(rate_hz=400, unit="mV", dataset=name)
        assert refused(hdf5_ecg.READER, path, options) == reason


def test_pickles_and_bombs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.array([{"a": 1}, None], dtype=object), allow_pickle=True)
    assert refused(npy_ecg.READER, path) == "ecg-wrong-structure"
    path.write_bytes(pickle.dumps(rows()))
    assert refused(npy_ecg.READER, path) == "ecg-unreadable"
    head = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": (12, 400_000)}
    np.lib.format.write_array_header_1_0(head, header)
    path.write_bytes(head.getvalue() + bytes(100))
    assert refused(npy_ecg.READER, path) == "ecg-truncated"
    bomb = zlib.compress(bytes(70_000_000), 9)
    mark = b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\x01IM"
    mat = tmp_path / "a.mat"
    mat.write_bytes(mark + (15).to_bytes(4, "little") + len(bomb).to_bytes(4, "little") + bomb)
    assert refused(matlab_ecg.READER, mat) == "ecg-too-large"


@pytest.mark.parametrize("kind", ["h5", "npy", "mat", "sph"])
def test_mutated_files_give_a_record_or_a_refusal(shared_data: Path, tmp_path: Path, kind: str) -> None:
    if kind == "sph":
        whole, reader = (shared_data / "ecg" / "sph" / "SPH00001.h5").read_bytes(), hdf5_ecg.READER
    else:
        whole, reader = write(tmp_path, kind, rows()).read_bytes(), READERS[kind]
    rng = np.random.default_rng(9)
    path = tmp_path / "wounded"
    answers = set()
    for case in range(200):
        wounded = bytearray(whole)
        for _ in range(int(rng.integers(1, 4))):
            place = int(rng.integers(0, 3000 if rng.random() < 0.8 else len(whole)))
            wounded[place : place + 1] = rng.integers(
                0, 256, int(rng.integers(0, 3)), dtype=np.uint8
            ).tobytes()
        path.write_bytes(wounded[: int(rng.integers(0, len(wounded)))] if case % 5 == 0 else wounded)
        try:
            record = reader.read(path, DECLARED)
        except RecordRefused as refusal:
            answers.add(refusal.reason)
            continue
        answers.add("read")
        assert record.signal_mv.dtype == np.float32 and record.signal_mv.shape[0] == len(record.leads)
        assert record.fs_hz == 400 and record.signal_mv.shape[1] > 0
    assert "ecg-unreadable" in answers
