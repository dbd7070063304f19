"""CardioSoft XML: equal to the truth of the replicas; exercise ECGs, hostile and torn files are refused."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cardionets_core.data.quality import order_leads
from cardionets_core.data.readers.cardiosoft_xml import read_cardiosoft_xml
from cardionets_core.data.records import LEADS, EcgRecord
from cardionets_core.errors import RecordRefused

SAMPLES = 40


def document(
    *,
    leads: tuple[str, ...] = LEADS,
    observation: str = "RestECG",
    resolution: str = "5",
    total: str = str(SAMPLES),
    extra: str = "",
    strip: str = "StripData",
    head: str = "",
) -> str:
    waves = "".join(
        f'<WaveformData lead="{lead}">\t\t' + ",".join(str(row + place) for place in range(20)) + ",\r\n\t\t"
        + ",".join(str(row + place) for place in range(20, SAMPLES)) + "</WaveformData>\r\n"
        for row, lead in enumerate(leads)
    )  # fmt: skip
    return (
        f'<?xml version="1.0" encoding="ISO8859-1" ?>\r\n{head}<CardiologyXML><ObservationType>{observation}'
        "</ObservationType><PatientInfo><PID>1234567</PID></PatientInfo><RestingECGMeasurements><VentricularRate/>"
        "<MedianSamples><Resolution>9</Resolution><SampleRate>9</SampleRate>"
        f'<WaveformData lead="I">9,9,9</WaveformData></MedianSamples></RestingECGMeasurements><{strip}>'
        f'<SampleRate units="Hz">500</SampleRate><ChannelSampleCountTotal>{total}</ChannelSampleCountTotal>'
        f"<Resolution>{resolution}</Resolution>{waves}{extra}</{strip}></CardiologyXML>"
    )


def write(folder: Path, text: str) -> Path:
    path = folder / "ecg.xml"
    path.write_bytes(text.encode("latin-1"))
    return path


def refusal(path: Path) -> str:
    with pytest.raises(RecordRefused) as caught:
        read_cardiosoft_xml(path)
    return caught.value.reason


def test_replicas_equal_the_truth(shared_data: Path) -> None:
    listed = json.loads((shared_data / "replicas" / "_truth_ukb_ecg.json").read_text())
    for entry in listed:
        record = read_cardiosoft_xml(shared_data / "replicas" / "ukb" / "20205" / entry["file"])
        truth = np.load(shared_data / "replicas" / f"_truth_ukb_{entry['eid']}_{entry['instance']}.npz")
        ordered = record.signal_mv[[record.leads.index(str(lead)) for lead in truth["leads"]]]
        np.testing.assert_array_equal(ordered, truth["mV"].T)
        assert record.fs_hz == 500
    assert len(listed) == 6


def test_tabs_newlines_resolution_and_no_ventricular_rate(tmp_path: Path) -> None:
    record = read_cardiosoft_xml(write(tmp_path, document(resolution="2.5")))
    expected = (np.arange(12)[:, None] + np.arange(SAMPLES)) * 2.5 / 1000
    np.testing.assert_allclose(record.signal_mv, expected, rtol=1e-6)
    assert record.leads == LEADS


def test_shuffled_and_misspelt_leads_go_by_name(tmp_path: Path) -> None:
    names = ("V6", "AVF", "avl", "AVR", "iii", "II", "I", "v1", "V2", "V3", "V4", "V5")
    record = read_cardiosoft_xml(write(tmp_path, document(leads=names)))
    assert record.leads[:7] == ("V6", "aVF", "aVL", "aVR", "III", "II", "I")
    assert set(record.leads) == set(LEADS)


def test_an_empty_lead_is_absent_and_an_empty_cell_is_missing(tmp_path: Path) -> None:
    empty = document(leads=LEADS[1:], extra='<WaveformData lead="I"> </WaveformData>')
    assert "I" not in read_cardiosoft_xml(write(tmp_path, empty)).leads
    gap = document().replace("3,4,5,", "3,,5,", 1)
    signal = read_cardiosoft_xml(write(tmp_path, gap)).signal_mv
    assert np.isnan(signal[0, 4]) and np.isnan(signal).sum() == 1


def test_what_a_file_may_lack_and_hold_besides(tmp_path: Path) -> None:
    whole = read_cardiosoft_xml(write(tmp_path, document())).signal_mv
    for text in (
        document().replace("<VentricularRate/>", ""),
        document().replace("<ChannelSampleCountTotal>40</ChannelSampleCountTotal>", ""),
        document().replace(
            "</StripData>", "<ArrhythmiaResults><Time>4</Time></ArrhythmiaResults></StripData>"
        ),
        document().replace("</StripData>", "</StripData><Export/><CSWeb><StripData/></CSWeb>"),
        document().replace("<Resolution>5", '<Resolution units="uVperLsb">5'),
        document(extra='<WaveformData lead="V3R">1,2,3</WaveformData>'),
        document(extra='<WaveformData lead="Jane Doe">1,2,3</WaveformData>'),
    ):
        record = read_cardiosoft_xml(write(tmp_path, text))
        np.testing.assert_array_equal(record.signal_mv, whole)
        assert record.leads == LEADS


@pytest.mark.parametrize(("lost", "derived"), [
    (("III",), 1),
    (("II", "aVR", "aVL", "aVF"), 4),
    (("II", "III", "aVR", "aVL", "aVF"), None),
    (("V3",), None),
])  # fmt: skip
@pytest.mark.parametrize("how", ["absent", "empty"])
def test_fewer_or_empty_leads_are_derived_or_refused_later(
    tmp_path: Path, how: str, lost: tuple[str, ...], derived: int | None
) -> None:
    extra = "".join(f'<WaveformData lead="{lead}">\r\n</WaveformData>' for lead in lost)
    kept = tuple(lead for lead in LEADS if lead not in lost)
    record = read_cardiosoft_xml(write(tmp_path, document(leads=kept, extra=extra if how == "empty" else "")))
    assert record.leads == kept
    if derived is None:
        with pytest.raises(RecordRefused) as caught:
            order_leads(record)
        assert caught.value.reason == "ecg-lead-missing"
    else:
        assert order_leads(record)[1] == derived


EXERCISE = (
    '<?xml version="1.0" encoding="ISO8859-1" ?><CardiologyXML><ObservationType>{kind}</ObservationType>'
    "<Protocol><Phase><PhaseName>Rest</PhaseName></Phase></Protocol><StripData><NumberOfLeads>3</NumberOfLeads>"
    '<SampleRate units="Hz">500</SampleRate><Resolution units="uVperLsb">5</Resolution><Strip><Time/>'
    '<WaveformData lead="I">1,2,3</WaveformData></Strip></StripData><FullDisclosure><NumberOfChannels>3'
    "</NumberOfChannels><FullDisclosureData>1,2,3</FullDisclosureData></FullDisclosure></CardiologyXML>"
)


@pytest.mark.parametrize(("text", "reason"), [
    (EXERCISE.format(kind="ExerciseECG"), "ecg-wrong-structure"),
    (EXERCISE.format(kind="RestECG"), "ecg-wrong-structure"),
    (document(extra='<WaveformData lead="II">1</WaveformData>', leads=LEADS[:1]), "ecg-truncated"),
    (document(extra='<WaveformData lead=""> </WaveformData>', leads=()), "ecg-wrong-structure"),
    (document().replace("<Resolution>5", '<Resolution units="mVperLsb">5'), "ecg-unsupported"),
    (document().replace('units="Hz"', 'units="kHz"'), "ecg-unsupported"),
    (document(observation="ExerciseECG"), "ecg-wrong-structure"),
    (document(extra="<Strip><WaveformData/></Strip>"), "ecg-wrong-structure"),
    (document(strip="Other"), "ecg-wrong-structure"),
    (document(leads=()), "ecg-wrong-structure"),
    (document(leads=("I", "i")), "ecg-wrong-structure"),
    (document().replace("CardiologyXML", "RestingECG"), "ecg-wrong-structure"),
    (document(total="41"), "ecg-truncated"),
    (document()[: len(document()) // 2], "ecg-truncated"),
    ("", "ecg-truncated"),
    (document(resolution=""), "ecg-unreadable"),
    (document(resolution="nan"), "ecg-unreadable"),
    (document().replace("3,4,5", "3,4.5,5", 1), "ecg-unreadable"),
    (document().replace("3,4,5", "3,4-4,5", 1), "ecg-unreadable"),
    (document().replace("ISO8859-1", "no-such-encoding"), "ecg-unreadable"),
    ("<a>" * 100, "ecg-unreadable"),
    ("not xml", "ecg-unreadable"),
])  # fmt: skip
def test_refusals(tmp_path: Path, text: str, reason: str) -> None:
    assert refusal(write(tmp_path, text)) == reason


def test_billion_laughs_and_external_entities_are_refused_before_they_expand(tmp_path: Path) -> None:
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    bomb = f'<!DOCTYPE CardiologyXML [<!ENTITY l0 "ha">{laughs}]>'
    for head in (bomb, '<!DOCTYPE x SYSTEM "http://example.invalid/x.dtd">',
                 '<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]>'):  # fmt: skip
        text = document(head=head).replace("<PID>", "<PID>&l9;" if "l9" in head else "<PID>&f;")
        assert refusal(write(tmp_path, text)) == "ecg-unreadable"
        path = tmp_path / "utf16.xml"
        path.write_bytes(text.replace(' encoding="ISO8859-1"', "").encode("utf-16"))
        assert refusal(path) == "ecg-unreadable"


def test_a_file_too_large_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "big.xml"
    with path.open("wb") as stream:
        stream.truncate(8_000_001)
    assert refusal(path) == "ecg-too-large"
    assert refusal(tmp_path / "none.xml") == "ecg-file-missing"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutated_bytes_give_a_record_or_a_refusal(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(document().encode())
    for _ in range(data.draw(st.integers(0, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place : place + data.draw(st.integers(0, 30))] = data.draw(st.binary(max_size=6))
    path = tmp_path / "ecg.xml"
    path.write_bytes(bytes(content[: data.draw(st.integers(len(content) // 3, len(content)))]))
    with contextlib.suppress(RecordRefused):
        assert isinstance(read_cardiosoft_xml(path), EcgRecord)
