"""The door for XML: bounds, encodings, hostile text; and every XML reader on wounded real files."""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cardionets_core.data.readers import cardiosoft_xml, hl7_aecg, muse_xml, sierra_xml
from cardionets_core.data.readers.base import HEAD_BYTES, Reader, ReadOptions
from cardionets_core.data.readers.lead_rows import base64_bytes, positive_number, record_of
from cardionets_core.data.readers.xml_text import has_element, parse_xml
from cardionets_core.data.records import LEADS, EcgRecord
from cardionets_core.errors import RecordRefused

READERS = [cardiosoft_xml.READER, muse_xml.READER, sierra_xml.READER, hl7_aecg.READER]
REAL: dict[str, Reader] = {
    "replicas/ukb/20205/9000022_20205_2_0.xml": cardiosoft_xml.READER,
    "ecg/vendor/muse/easyrecg_muse_ecg1.xml": muse_xml.READER,
    "ecg/vendor/philips/sierra_1_03.xml": sierra_xml.READER,
    "ecg/vendor/philips/sierra_1_04_a.xml": sierra_xml.READER,
    "ecg/vendor/hl7_aecg/Example_aECG.xml": hl7_aecg.READER,
}
IDENTIFYING = (
    "9000022",
    "JAX01234",
    "TEST 05",
    "1112010721168bdc",
    "GE EMS",
    "Smith",
    "River City",
    "1953",
    "---",
)
BOMB = '<!DOCTYPE a [<!ENTITY l0 "ha">' + "".join(
    f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10)
) + "]>"  # fmt: skip


@pytest.fixture(params=REAL, ids=[name.rsplit("/", 1)[1] for name in REAL])
def real(request: pytest.FixtureRequest, shared_data: Path) -> tuple[Path, Reader]:
    return shared_data / request.param, REAL[request.param]


@pytest.fixture
def write(tmp_path: Path) -> Callable[[bytes], Path]:
    def put(content: bytes) -> Path:
        path = tmp_path / "file.xml"
        path.write_bytes(content)
        return path

    return put


def read(reader: Reader, path: Path) -> EcgRecord:
    record = reader.read(path, ReadOptions())
    assert isinstance(record, EcgRecord)
    return record


def reason(path: Path) -> str:
    with pytest.raises(RecordRefused) as caught:
        parse_xml(path)
    return caught.value.reason


def assert_valid(record: EcgRecord) -> None:
    assert record.signal_mv.dtype == np.float32 and record.signal_mv.ndim == 2
    assert 1 <= len(record.leads) == len(record.signal_mv) <= 12 and record.signal_mv.shape[1] >= 1
    assert set(record.leads) <= set(LEADS) and len(set(record.leads)) == len(record.leads)
    assert np.isfinite(record.fs_hz) and record.fs_hz > 0 and not np.isinf(record.signal_mv).any()


def test_a_document_type_is_tolerated_and_never_fetched(
    tmp_path: Path, write: Callable[[bytes], Path]
) -> None:
    outside = tmp_path / "restecg.dtd"
    outside.write_text('<!ENTITY secret "read">')
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        web = f"http://127.0.0.1:{server.getsockname()[1]}/restecg.dtd"
        for system in ("restecg.dtd", outside.as_uri(), web):
            head = f'<!DOCTYPE RestingECG SYSTEM "{system}">'.encode()
            assert parse_xml(write(head + b"<RestingECG>1</RestingECG>")).text == "1"
            assert reason(write(head + b"<RestingECG>&secret;</RestingECG>")) == "ecg-unreadable"
        with pytest.raises(BlockingIOError):
            server.accept()


@pytest.mark.parametrize("head", [
    BOMB,
    '<!DOCTYPE a [<!ENTITY l9 SYSTEM "file:///etc/passwd">]>',
    '<!DOCTYPE a [<!ENTITY % l9 SYSTEM "http://127.0.0.1:9/x.dtd"> %l9;]>',
    '<!DOCTYPE a SYSTEM "x.dtd" [<!ENTITY l9 "text">]>',
    '<!DOCTYPE a [<!ATTLIST a b CDATA "text">]>',
    "<!DOCTYPE a []>",
])  # fmt: skip
def test_declarations_inside_a_file_are_refused(write: Callable[[bytes], Path], head: str) -> None:
    for encoding in ("utf-8", "utf-16", "utf-16-le"):
        for body in ("<a>&l9;</a>", "<a/>"):
            assert reason(write((head + body).encode(encoding))) == "ecg-unreadable"


@pytest.mark.parametrize(("content", "expected"), [
    (b"", "ecg-truncated"),
    (b"<a", "ecg-truncated"),
    (b"<a><b/>", "ecg-truncated"),
    (b"<a><![CDATA[ 1", "ecg-truncated"),
    ("<a/>".encode("utf-16")[:-1], "ecg-truncated"),
    (b"<a></b>", "ecg-unreadable"),
    (b"<a/><a/>", "ecg-unreadable"),
    (b"<a>\0</a>", "ecg-unreadable"),
    (b"no xml", "ecg-unreadable"),
    (b"\xff\xfe", "ecg-truncated"),
    (b'<?xml version="1.0" encoding="no-such"?><a/>', "ecg-unreadable"),
    (b'<?xml version="1.0" encoding="utf-7"?><a/>', "ecg-unreadable"),
    (b'<?xml version="1.0" encoding="utf-8"?><a>\xe9</a>', "ecg-unreadable"),
    (b"<a>" * 65 + b"</a>" * 65, "ecg-unreadable"),
    (b"<a>" + b"<b/>" * 200_000 + b"</a>", "ecg-unreadable"),
    (b"<a>" + b" " * 8_000_000, "ecg-too-large"),
])  # fmt: skip
def test_torn_malformed_and_oversized_text(
    write: Callable[[bytes], Path], content: bytes, expected: str
) -> None:
    assert reason(write(content)) == expected


def test_the_bounds_themselves_are_allowed(write: Callable[[bytes], Path]) -> None:
    assert len(parse_xml(write(b"<a>" + b"<b/>" * 199_999 + b"</a>"))) == 199_999
    assert sum(1 for _ in parse_xml(write(b"<a>" * 64 + b"</a>" * 64)).iter()) == 64


@pytest.mark.parametrize("declared", ["", "utf-8", "ISO8859-1", "ISO-8859-1", "utf-16"])
@pytest.mark.parametrize("actual", ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig", "utf-8", "latin-1"])
def test_the_bytes_decide_the_encoding(write: Callable[[bytes], Path], declared: str, actual: str) -> None:
    head = f'<?xml version="1.0" encoding="{declared}"?>' if declared else ""
    path = write(f'{head}<x:a xmlns:x="urn:x" x:b="\u00b5">\u00b5V</x:a>'.encode(actual))
    is_latin = declared.startswith("ISO")
    if actual == "latin-1" and not is_latin:
        assert reason(path) == "ecg-unreadable"
        return
    root = parse_xml(path)
    # Nothing in the bytes shows that UTF-8 without a mark is not the Latin text that it says it is.
    micro = "\u00c2\u00b5" if actual == "utf-8" and is_latin else "\u00b5"
    assert (root.tag, root.get("b"), root.text) == ("a", micro, micro + "V")


def test_an_element_is_found_by_name_in_any_encoding_and_namespace() -> None:
    for head in ("<RestingECG>", "<!-- x --><n:RestingECG\r\n", "<RestingECG/>"):
        for encoding in ("utf-8", "utf-16", "utf-16-le", "utf-16-be"):
            assert has_element(head.encode(encoding), "RestingECG")
    for head in (
        b"",
        b"<!DOCTYPE RestingECG ",
        b"<RestingECGMeasurements>",
        b"<",
        b"\xff\xfe\xd8",
        bytes(99),
    ):
        assert not has_element(head, "RestingECG")


def test_numbers_base64_and_rows_are_checked() -> None:
    for text in ("", "x", "nan", "inf", "-1", "0", "1e9"):
        with pytest.raises(RecordRefused):
            positive_number(text, "it")
    for text in ("AAA", "AA!A", "A", "AA==AAAA", "é"):
        with pytest.raises(RecordRefused):
            base64_bytes(text)
    assert base64_bytes("AQ\r\n ID\n") == b"\x01\x02\x03" and base64_bytes("") == b""
    one, two = np.ones(3), np.zeros(2)
    record = record_of([("avr", one), ("V3R", two), ("MDC_ECG_LEAD_V1", one)], rate_hz=1)
    assert record.leads == ("aVR", "V1") and record.signal_mv.shape == (2, 3)
    wrong = [("ecg-wrong-structure", [("X", one)]), ("ecg-wrong-structure", [("I", one), ("i", one)]),
             ("ecg-truncated", [("I", one), ("II", two)]), ("ecg-truncated", [("I", np.empty(0))]),
             ("ecg-unreadable", [("I", one * 1e39)])]  # fmt: skip
    for expected, leads in wrong:
        with pytest.raises(RecordRefused) as caught:
            record_of(leads, rate_hz=1)
        assert caught.value.reason == expected


def test_a_real_file_is_recognised_by_its_own_reader_alone(real: tuple[Path, Reader]) -> None:
    path, reader = real
    head = path.read_bytes()[:HEAD_BYTES]
    assert [other.name for other in READERS if other.recognises(path, head)] == [reader.name]
    recoded = _in_utf16(path.read_bytes())[:HEAD_BYTES]
    assert [other.name for other in READERS if other.recognises(path, recoded)] == [reader.name]


def test_the_registry_recognises_the_real_files(real: tuple[Path, Reader]) -> None:
    from cardionets_core.data.readers.registry import recognise

    path, reader = real
    assert recognise(path) is reader


def test_a_real_file_in_utf16_gives_the_same_record(
    real: tuple[Path, Reader], write: Callable[[bytes], Path]
) -> None:
    path, reader = real
    record, recoded = read(reader, path), read(reader, write(_in_utf16(path.read_bytes())))
    assert_valid(record)
    np.testing.assert_array_equal(record.signal_mv, recoded.signal_mv)
    assert (record.fs_hz, record.leads, record.flags) == (recoded.fs_hz, recoded.leads, recoded.flags)


def test_nothing_of_a_person_is_in_a_record_or_a_refusal(
    real: tuple[Path, Reader], write: Callable[[bytes], Path]
) -> None:
    path, reader = real
    record = read(reader, path)
    assert [field.name for field in dataclasses.fields(record)] == ["signal_mv", "fs_hz", "leads", "flags"]
    told = [str((record.fs_hz, record.leads, record.flags))]
    for share in np.linspace(0.01, 0.99, 9):
        with pytest.raises(RecordRefused) as caught:
            reader.read(write(path.read_bytes()[: int(share * path.stat().st_size)]), ReadOptions())
        told.append(caught.value.what)
    assert not [word for word in IDENTIFYING if any(word in line for line in told)]


def test_a_file_cut_off_anywhere_is_truncated(
    real: tuple[Path, Reader], write: Callable[[bytes], Path]
) -> None:
    path, reader = real
    content = path.read_bytes()
    whole = len(content.rstrip(b"\r\n \0"))
    places = {*np.linspace(1, whole - 1, 40).astype(int).tolist(), *range(whole - 8, whole)}
    for place in sorted(places):
        with pytest.raises(RecordRefused) as caught:
            reader.read(write(content[:place]), ReadOptions())
        assert caught.value.reason == "ecg-truncated", place


def test_mutations_give_a_record_or_a_refusal(
    real: tuple[Path, Reader], write: Callable[[bytes], Path]
) -> None:
    path, reader = real
    content, rng = path.read_bytes(), np.random.default_rng(7)
    outcomes = [_outcome(reader, write(_mutated(content, rng))) for _ in range(40)]
    assert "record" in outcomes and len(set(outcomes)) > 2


def _outcome(reader: Reader, path: Path) -> str:
    try:
        assert_valid(read(reader, path))
    except RecordRefused as refusal:
        return refusal.reason
    return "record"


def _mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """One to three wounds: bytes written over, digits changed, parts lost, doubled or moved."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        place, size = int(rng.integers(len(data))), int(2 ** rng.integers(0, 9))
        kind = rng.integers(5)
        if kind == 0:
            data[place : place + 1] = bytes([rng.integers(256)])
        elif kind == 1:
            tail = data[place:].translate(bytes((b + 1 if 48 <= b < 57 else b) for b in range(256)))
            data[place : place + size] = tail[:size]
        elif kind == 2:
            del data[place : place + size]
        elif kind == 3:
            data[place:place] = data[place : place + size]
        else:
            data[place : place + size] = data[int(rng.integers(len(data))) :][:size]
    return bytes(data)


def _in_utf16(content: bytes) -> bytes:
    """The same text in the other byte order or width; the declaration stays that of the original."""
    if content.startswith(b"\xff\xfe"):
        return b"\xfe\xff" + content.decode("utf-16").encode("utf-16-be")
    return content.decode("utf-8").encode("utf-16")
