"""HL7 aECG: the real file against its DICOM twin and other readers' values; units, lists, median beats."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pydicom
import pytest

from cardionets_core.data.quality import order_leads
from cardionets_core.data.readers.base import ReadOptions
from cardionets_core.data.readers.hl7_aecg import READER, read_hl7_aecg
from cardionets_core.data.readers.lead_names import canonical_lead
from cardionets_core.data.records import LEADS
from cardionets_core.errors import RecordRefused

NAME = "ecg/vendor/hl7_aecg/Example_aECG.xml"
COUNTS = np.random.default_rng(4).integers(-500, 500, (3, 40))
STORED = ("I", "II", "V1")


def time(
    value: str = "0.002", unit: str = "s", *, code: str = "TIME_ABSOLUTE", kind: str = "GLIST_TS"
) -> str:
    return (
        f'<component><sequence><code code="{code}"/><value xsi:type="{kind}"><head value="20200101"/>'
        f'<increment value="{value}" unit="{unit}"/></value></sequence></component>'
    )


def lead(
    name: str,
    counts: np.ndarray,
    *,
    kind: str = "SLIST_PQ",
    origin: str = '<origin value="0" unit="uV"/>',
    scale: str = '<scale value="2.5" unit="uV"/>',
    digits: str | None = None,
) -> str:
    text = "\n  ".join(map(str, counts)) if digits is None else digits
    return (
        f'<component><sequence><code code="MDC_ECG_LEAD_{name}"/><value xsi:type="{kind}">{origin}{scale}'
        f"<digits> {text}\n</digits></value></sequence></component>"
    )


def leads(counts: np.ndarray = COUNTS, **changed: str) -> str:
    return "".join(lead(name, row, **changed) for name, row in zip(STORED, counts, strict=True))


def series(*sets: str, code: str = '<code code="RHYTHM"/>', more: str = "") -> str:
    inside = "".join(f"<component><sequenceSet>{one}</sequenceSet></component>" for one in sets)
    return f"<component><series>{code}<author>secret</author>{inside}{more}</series></component>"


def document(*parts: str, root: str = "AnnotatedECG") -> str:
    return (
        f'<?xml version="1.0" encoding="utf-8"?><{root} xmlns="urn:hl7-org:v3" '
        f'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><code code="93000"/>{"".join(parts)}</{root}>'
    )


def write(folder: Path, text: str) -> Path:
    path = folder / "aecg.xml"
    path.write_text(text, encoding="utf-8")
    return path


BEAT = time() + leads(COUNTS[:, :9])
WHOLE = time() + leads()
DERIVED = (
    "<derivation><derivedSeries><code code='REPRESENTATIVE_BEAT'/><component><sequenceSet>"
    f"{WHOLE + WHOLE}</sequenceSet></component></derivedSeries></derivation>"
)


def test_the_real_file_agrees_with_independent_readers(shared_data: Path) -> None:
    expected = json.loads((shared_data / "expected_vendor.json").read_text())[NAME]
    record = read_hl7_aecg(shared_data / NAME)
    ordered_mv, derived = order_leads(record)
    assert (record.fs_hz, ordered_mv.shape, derived) == (expected["fs"], (12, expected["n"]), 0)
    for name, row in zip(LEADS, ordered_mv, strict=True):
        # Expected are those three as derived; the file stores them rounded to counts of 2.5 uV.
        half_mv = 1.25e-3 if name in ("aVR", "aVL", "aVF") else 0.0
        assert np.abs(row).max() == pytest.approx(expected["peak_mV"][name], abs=5.1e-5 + half_mv)
        assert np.sqrt(np.mean(row**2)) == pytest.approx(expected["rms_mV"][name], abs=5.1e-6 + half_mv)


def test_the_real_file_equals_its_dicom_twin(shared_data: Path) -> None:
    record = read_hl7_aecg(shared_data / NAME)
    twin = pydicom.dcmread(shared_data / "ecg/vendor/dicom/Example.dcm")
    channels = twin.WaveformSequence[0].ChannelDefinitionSequence
    names = [canonical_lead(channel.ChannelSourceSequence[0].CodeMeaning) for channel in channels]
    assert {channel.ChannelSensitivityUnitsSequence[0].CodeValue for channel in channels} == {"uV"}
    twin_uv = twin.waveform_array(0).T[[names.index(lead) for lead in record.leads]]
    difference_uv = np.abs(1000.0 * record.signal_mv.astype(np.float64) - twin_uv)
    assert set(record.leads) == set(LEADS)
    assert difference_uv.max() <= 1.2501


@pytest.mark.parametrize(("increment", "rate_hz"), [
    (time("0.002"), 500.0),
    (time("2", "ms"), 500.0),
    (time("4.0", "ms"), 250.0),
    (time("1000", "us"), 1000.0),
    (time("2000", "\u00b5s"), 500.0),
    (time("2", "ms", code="TIME_RELATIVE", kind="GLIST_PQ"), 500.0),
    (time() + time("2", "ms", code="TIME_RELATIVE"), 500.0),
])  # fmt: skip
def test_rate_is_the_inverse_of_the_increment(tmp_path: Path, increment: str, rate_hz: float) -> None:
    record = read_hl7_aecg(write(tmp_path, document(series(increment + leads()))))
    assert record.fs_hz == rate_hz and record.leads == STORED


@pytest.mark.parametrize(("changed", "origin_mv", "mv_per_digit"), [
    ({}, 0.0, 2.5e-3),
    ({"origin": ""}, 0.0, 2.5e-3),
    ({"scale": '<scale value="5e-3" unit="mV"/>', "origin": '<origin value="-1" unit="mV"/>'}, -1.0, 5e-3),
    ({"scale": '<scale value="9e3" unit="nV"/>', "origin": '<origin value="9" unit="\u00b5V"/>'}, 9e-3, 9e-3),
    ({"scale": '<scale value="1" unit="uV"/>', "kind": "SLIST_INT"}, 0.0, 1e-3),
])  # fmt: skip
def test_value_is_origin_plus_digit_times_scale(
    tmp_path: Path, changed: dict[str, str], origin_mv: float, mv_per_digit: float
) -> None:
    record = read_hl7_aecg(write(tmp_path, document(series(time() + leads(**changed)))))
    np.testing.assert_allclose(record.signal_mv, origin_mv + COUNTS * mv_per_digit, rtol=1e-5, atol=1e-7)


def test_plain_integers_need_a_declared_unit(tmp_path: Path) -> None:
    text = document(
        series(time() + leads(kind="SLIST_INT", scale="<scale>5</scale>", origin="<origin>0</origin>"))
    )
    path = write(tmp_path, text)
    with pytest.raises(RecordRefused) as caught:
        READER.read(path, ReadOptions())
    assert caught.value.reason == "ecg-undeclared"
    record = READER.read(path, ReadOptions(unit="uV"))
    np.testing.assert_allclose(record.signal_mv, COUNTS * 5e-3, rtol=1e-5)


@pytest.mark.parametrize("text", [
    document(series(BEAT, code='<code code="REPRESENTATIVE_BEAT"/>'), series(WHOLE)),
    document(series(WHOLE, more=DERIVED)),
    document(series(WHOLE, BEAT)),
    document(series(BEAT, WHOLE)),
    document(series(time(), WHOLE)),
    document("<vendor><series/></vendor>", series(WHOLE, code="")),
    document(series(WHOLE + lead("V3R", COUNTS[0, :7]) + lead("X", COUNTS[0], kind="GLIST_PQ"))),
])  # fmt: skip
def test_the_rhythm_is_read_and_representative_beats_are_not(tmp_path: Path, text: str) -> None:
    record = read_hl7_aecg(write(tmp_path, text))
    np.testing.assert_allclose(record.signal_mv, COUNTS * 2.5e-3, rtol=1e-6)


@pytest.mark.parametrize(("text", "reason"), [
    (document(series(WHOLE), root="Other"), "ecg-wrong-structure"),
    (document(), "ecg-wrong-structure"),
    (document(series(WHOLE, code='<code code="REPRESENTATIVE_BEAT"/>')), "ecg-wrong-structure"),
    (document(series(time())), "ecg-wrong-structure"),
    (document(series(WHOLE + lead("i", COUNTS[0]))), "ecg-wrong-structure"),
    (document(series(WHOLE + time("4", "ms"))), "ecg-wrong-structure"),
    (document(series(leads())), "ecg-undeclared"),
    (document(series(time(unit="") + leads())), "ecg-undeclared"),
    (document(series(time(unit="min") + leads())), "ecg-unsupported"),
    (document(series(time() + leads(scale='<scale value="1"/>'))), "ecg-undeclared"),
    (document(series(time() + leads(scale='<scale value="1" unit="mmHg"/>'))), "ecg-unsupported"),
    (document(series(time() + leads(kind="GLIST_PQ"))), "ecg-unsupported"),
    (document(series(time() + leads(scale=""))), "ecg-unreadable"),
    (document(series(time() + leads(scale='<scale value="-1" unit="uV"/>'))), "ecg-unreadable"),
    (document(series(time() + leads(origin='<origin value="x" unit="uV"/>'))), "ecg-unreadable"),
    (document(series(time("0") + leads())), "ecg-unreadable"),
    (document(series(time("1e-9") + leads())), "ecg-unreadable"),
    (document(series(time() + leads(digits="1 2 x 4"))), "ecg-unreadable"),
    (document(series(time() + leads(digits="1 2 nan"))), "ecg-unreadable"),
    (document(series(time() + leads(digits="1 2-3"))), "ecg-unreadable"),
    (document(series(time() + leads(digits="9" * 400))), "ecg-unreadable"),
    (document(series(WHOLE + lead("V2", COUNTS[0, :39]))), "ecg-truncated"),
    (document(series(WHOLE + lead("V2", COUNTS[0], digits=""))), "ecg-truncated"),
    (document(series(WHOLE))[:-4], "ecg-truncated"),
])  # fmt: skip
def test_refusals(tmp_path: Path, text: str, reason: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(RecordRefused) as caught:
        read_hl7_aecg(path)
    assert (caught.value.reason, caught.value.where) == (reason, str(path))
