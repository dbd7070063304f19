"""Philips Sierra XML: the real files against ``sierraecg`` and other values; coding, cropping, bombs."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pytest
import sierraecg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cardionets_core.data.readers.sierra_xml import crop_calibration, decode_sierra, read_sierra_xml
from cardionets_core.data.records import LEADS, EcgRecord
from cardionets_core.errors import RecordRefused

FILES = ("ecg/vendor/philips/sierra_1_03.xml", "ecg/vendor/philips/sierra_1_04_a.xml")
END = 1023


def packed(codes: list[int]) -> bytes:
    """10-bit codes, first bits first."""
    bits = "".join(f"{code:010b}" for code in codes)
    return bytes(int(bits[at : at + 8].ljust(8, "0"), 2) for at in range(0, len(bits), 8))


def chunk(content: bytes, *, size: int | None = None, first: int = 0) -> bytes:
    size = len(content) if size is None else size
    return (
        size.to_bytes(4, "little", signed=True) + b"\1\0" + first.to_bytes(2, "little", signed=True) + content
    )


def coded(counts: np.ndarray) -> bytes:
    """One lead: two samples, then 64 + second differences; high bytes, low bytes; LZW of single bytes."""
    second = np.zeros(len(counts), dtype=np.int64)
    second[2:] = 2 * counts[1:-1] - counts[:-2] - counts[2:]
    words = np.concatenate((counts[:2], second[3:] + 64, [64])).astype(np.int16).view(np.uint16)
    if len(counts) == 2:
        words = counts.astype(np.int16).view(np.uint16)
    text = (words >> 8).tolist() + (words & 255).tolist()
    return chunk(packed([*text, END]), first=int(second[2]) if len(counts) > 2 else 0)


def stored(counts: np.ndarray) -> np.ndarray:
    """What a cart writes for the twelve leads: III and the augmented as differences from their derivation."""
    rows = np.array(counts, dtype=np.int64)
    one, two, three = rows[0], rows[1], rows[2].copy()
    rows[2] = two - one - rows[2]
    rows[3] = -((one + two) // 2) - rows[3]
    rows[4] = (one - three) // 2 - rows[4]
    rows[5] = (two + three) // 2 - rows[5]
    return rows


def document(content: bytes, *, samples: int, attributes: str = "", version: str = "1.04", head: str = "",
             coding: str = 'dataencoding="Base64" compression="XLI"', text: str = "") -> str:  # fmt: skip
    return (
        '<restingecgdata xmlns="http://www3.medical.philips.com"><documentinfo><documenttype>PhilipsECG'
        f"</documenttype><documentversion>{version}</documentversion></documentinfo><dataacquisition>"
        "<signalcharacteristics><samplingrate>500</samplingrate><acquisitiontype>STD-12</acquisitiontype>"
        f"{head}</signalcharacteristics></dataacquisition><waveforms><repbeats resolution='2.5'/>"
        f'<parsedwaveforms {coding} durationperchannel="{2 * samples}" {attributes}>'
        f"{text or base64.encodebytes(content).decode()}</parsedwaveforms></waveforms></restingecgdata>"
    )


def write(folder: Path, text: str) -> Path:
    path = folder / "sierra.xml"
    path.write_text(text)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(RecordRefused) as caught:
        read_sierra_xml(path)
    assert caught.value.where == str(path)
    return caught.value.reason


COUNTS = np.random.default_rng(5).integers(-300, 300, (12, 60))
CONTENT = b"".join(coded(row) for row in stored(COUNTS))


@pytest.mark.parametrize("name", FILES)
def test_real_files_agree_with_independent_readers(shared_data: Path, name: str) -> None:
    expected = json.loads((shared_data / "expected_vendor.json").read_text())[name]
    record = decode_sierra(shared_data / name)
    assert (record.fs_hz, record.signal_mv.shape, record.leads) == (
        expected["fs"],
        (12, expected["n"]),
        LEADS,
    )
    for lead, row in zip(LEADS, record.signal_mv.astype(np.float64), strict=True):
        assert np.abs(row).max() == pytest.approx(expected["peak_mV"][lead], abs=1e-5)
        assert np.sqrt(np.mean(row**2)) == pytest.approx(expected["rms_mV"][lead], abs=5.1e-6)
    library = np.stack([lead.samples for lead in sierraecg.read_file(str(shared_data / name)).leads])
    np.testing.assert_array_equal(record.signal_mv, (library * 0.005).astype(np.float32))


@pytest.mark.parametrize("name", FILES)
def test_the_calibration_second_is_dropped_and_nothing_else(shared_data: Path, name: str) -> None:
    whole, cropped = decode_sierra(shared_data / name), read_sierra_xml(shared_data / name)
    np.testing.assert_array_equal(cropped.signal_mv, whole.signal_mv[:, :5000])
    assert cropped.flags == {"calibration-cropped"} and whole.flags == frozenset()


def test_only_a_pulse_with_zeros_behind_it_is_cropped() -> None:
    rhythm = np.random.default_rng(1).normal(0, 0.3, (12, 5500)).astype(np.float32)
    pulse = rhythm.copy()
    pulse[:, 5350:5450], pulse[:, 5450:] = 1.0, 0.0

    def samples(signal_mv: np.ndarray, rate_hz: float = 500.0) -> int:
        record = EcgRecord(signal_mv=signal_mv, fs_hz=rate_hz, leads=LEADS)
        return crop_calibration(record).signal_mv.shape[1]

    assert samples(pulse) == 5000 and samples(pulse[:, ::2], 250.0) == 2500
    few = pulse.copy()
    few[4:, 5350:5450] = rhythm[4:, 5350:5450]
    short, high, early, noisy = (pulse.copy() for _ in range(4))
    short[:, 5360:5450], high[:, 5350:5450] = 0.0, 2.0
    early[:, :5000], early[:, 5000:] = pulse[:, 500:], rhythm[:, 5000:]
    noisy[3, -1] = 0.1
    for other in (rhythm, few, short, high, early, noisy, np.zeros_like(rhythm), pulse[:, 5000:]):
        assert samples(other) == other.shape[1]


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_decoding_undoes_coding(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    samples = data.draw(st.integers(2, 12))
    limit = data.draw(st.sampled_from([1, 200, 3000]))
    row = st.lists(st.integers(-limit, limit), min_size=samples, max_size=samples)
    counts = np.array(data.draw(st.lists(row, min_size=12, max_size=12)))
    spare = chunk(b"\0")
    path = write(
        tmp_path_factory.getbasetemp(),
        document(b"".join(map(coded, stored(counts))) + spare, samples=samples),
    )
    np.testing.assert_array_equal(decode_sierra(path).signal_mv, (counts * 0.005).astype(np.float32))


@pytest.mark.parametrize(("attributes", "head", "uv"), [
    ("", "", 5.0),
    ("", "<signalresolution>2</signalresolution>", 2.0),
    ("", "<resolution>4</resolution>", 4.0),
    ('resolution="2.5"', "<resolution>4</resolution>", 2.5),
])  # fmt: skip
def test_the_resolution_is_that_of_the_rhythm(tmp_path: Path, attributes: str, head: str, uv: float) -> None:
    path = write(tmp_path, document(CONTENT, samples=60, attributes=attributes, head=head, version="1.03"))
    np.testing.assert_allclose(decode_sierra(path).signal_mv, COUNTS * uv / 1000, rtol=1e-6)


def test_labelled_leads_go_by_name_and_others_are_left_out(tmp_path: Path) -> None:
    rows = stored(COUNTS)
    order = [6, 1, 0, 2, 3, 4, 5, 7]
    content = b"".join(coded(rows[row]) for row in order) + coded(COUNTS[8])
    labels = " ".join(LEADS[row] for row in order).replace("aVR", "AVR") + " V3R unused"
    attributes = f'leadlabels="{labels}" numberofleads="9" samplespersecond="500"'
    record = decode_sierra(write(tmp_path, document(content, samples=60, attributes=attributes)))
    assert record.leads == tuple(LEADS[row] for row in order)
    np.testing.assert_allclose(record.signal_mv, COUNTS[order] * 0.005, rtol=1e-6)


def good(**changed: str) -> str:
    return document(CONTENT, samples=60, **changed)


BOMB = packed([65, *range(256, 1023), *[1022] * 40_000])
"""Codes that name themselves: 51 kB that would become 31 MB."""


@pytest.mark.parametrize(("text", "reason"), [
    (good().replace("restingecgdata", "other"), "ecg-wrong-structure"),
    (good().replace("parsedwaveforms", "other"), "ecg-wrong-structure"),
    (good(version="1.01"), "ecg-unsupported"),
    (good(coding='dataencoding="Base64"'), "ecg-unsupported"),
    (good(coding='dataencoding="Plain" compression="XLI"'), "ecg-unsupported"),
    (good(attributes='bitspersample="12"'), "ecg-unsupported"),
    (good(attributes='signaloffset="100"'), "ecg-unsupported"),
    (good().replace("STD-12", "EASI"), "ecg-unsupported"),
    (good(attributes='leadlabels="V1 V2 aVR V4"'), "ecg-unsupported"),
    (good(attributes='leadlabels="I II i"'), "ecg-wrong-structure"),
    (good(attributes='leadlabels="I II" numberofleads="0.5"'), "ecg-unsupported"),
    (good(attributes=f'leadlabels="{" ".join(map(str, range(40)))}"'), "ecg-unsupported"),
    (good(attributes='leadlabels="I II" numberofleads="x"'), "ecg-unreadable"),
    (good(attributes='resolution="0"'), "ecg-unreadable"),
    (good(attributes='samplespersecond="-500"'), "ecg-unreadable"),
    (good().replace('durationperchannel="120"', ""), "ecg-unreadable"),
    (good().replace('durationperchannel="120"', 'durationperchannel="1"'), "ecg-wrong-structure"),
    (good().replace('durationperchannel="120"', 'durationperchannel="9e8"'), "ecg-wrong-structure"),
    (document(CONTENT, samples=59), "ecg-unreadable"),
    (document(CONTENT, samples=61), "ecg-truncated"),
    (document(CONTENT[:-90], samples=60), "ecg-truncated"),
    (document(b"", samples=60, text=" "), "ecg-truncated"),
    (document(CONTENT, samples=60, text="AAA"), "ecg-unreadable"),
    (document(chunk(b"\0" * 9, size=2**31 - 1), samples=60), "ecg-truncated"),
    (document(chunk(b"\0" * 9, size=-8) * 30, samples=60), "ecg-unreadable"),
    (document(chunk(b"\0" * 9, size=0) * 30, samples=60), "ecg-unreadable"),
    (document(chunk(packed([300, 301])) * 12, samples=60), "ecg-unreadable"),
    (document(coded(COUNTS[0]) + chunk(BOMB) * 11, samples=60), "ecg-unreadable"),
    (document(chunk(packed([127] * 121)) * 12, samples=60), "ecg-unreadable"),
    (document(chunk(packed([127] * 120)) * 12, samples=60), "ecg-unreadable"),
])  # fmt: skip
def test_refusals(tmp_path: Path, text: str, reason: str) -> None:
    assert refusal(write(tmp_path, text)) == reason


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200), tail=st.binary(max_size=40))
def test_any_bytes_behind_valid_base64_give_a_record_or_a_refusal(
    tmp_path: Path, content: bytes, tail: bytes
) -> None:
    """The compressed text itself is wounded, which mutations of the base64 text rarely reach."""
    middle = (
        bytes(CONTENT[: len(CONTENT) // 2]) + content + CONTENT[len(CONTENT) // 2 + len(content) :] + tail
    )
    for wounded in (middle, content + tail):
        try:
            record = decode_sierra(write(tmp_path, document(wounded, samples=60)))
        except RecordRefused:
            continue
        assert record.signal_mv.shape == (12, 60) and np.isfinite(record.signal_mv).all()
