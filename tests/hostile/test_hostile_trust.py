"""Keys, certificates, kits, bundles, registries and approvals of another hand: whole, or one refusal."""

from __future__ import annotations

import io
import json
import struct
import time
import zipfile

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from hypothesis import given, settings
from hypothesis import strategies as st

from cardionets_core.config.workspace import Workspace
from cardionets_core.errors import CardioNetsError, CertificateInvalidError, ConfigError, PeerError
from cardionets_core.trust.certificates import (
    certificate_pem,
    issue_site,
    make_authority,
    make_request,
    read_certificate,
    read_request,
)
from cardionets_core.trust.keys import fingerprint, make_key, public_openssh, read_private, read_public
from cardionets_core.trust.kit import open_kit, pack_kit
from cardionets_core.trust.validity import check_site
from client.approvals.bundle import LARGEST_SUM_BYTES, read_bundle
from client.approvals.store import RECORD, ApprovalStore
from server.provision.admission import read_asked
from server.provision.registry import FILE, read_registry

# Some wounds are of a form that the library reads and warns of.
pytestmark = pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
AUTHORITY_KEY, KEY = make_key(), make_key()
AUTHORITY = make_authority(AUTHORITY_KEY, consortium="heart")
CERTIFICATE = issue_site(KEY.public_key(), site="alpha", days=9, signer=AUTHORITY, signer_key=AUTHORITY_KEY)
FILES = {"trust/ca.crt": certificate_pem(AUTHORITY), "site.yaml": b"site: alpha\n" * 50}
DOCUMENT = (
    '[project]\nname = "cardionets"\nversion = "1.0"\ndependencies = []\n'
    '[tool.flwr.app.components]\nclientapp = "client.app:app"\n'
)


def zipped(members, packing=zipfile.ZIP_DEFLATED, attributes=0o100644 << 16) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", packing) as archive:
        for name, content in members:
            entry = zipfile.ZipInfo(name)
            entry.compress_type, entry.external_attr = packing, attributes
            archive.writestr(entry, content)
    return stream.getvalue()


def wrong_name(packed: bytes) -> bytes:
    """A name that says that it is UTF-8, and is not."""
    content = bytearray(packed)
    for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = content.find(mark)
        content[place + flags : place + flags + 2] = struct.pack("<H", 0x800)
    return bytes(content).replace(b"site.yaml", b"\xff\xfe\xff\xfeyaml")


def no_name(packed: bytes) -> bytes:
    """An entry whose name has no letters."""
    content = bytearray(packed)
    for mark, length in ((b"PK\x03\x04", 26), (b"PK\x01\x02", 28)):
        place = content.rfind(mark)
        content[place + length : place + length + 2] = b"\0\0"
    return bytes(content)


WHOLE = pack_kit(FILES, key=AUTHORITY_KEY)
ZIPS = {
    "a name that is no text": wrong_name(WHOLE),
    "an entry without a name": no_name(WHOLE),
    "packed with a dictionary of any size": zipped([("a", b"x" * 100)], zipfile.ZIP_LZMA),
    "packed in blocks": zipped([("a", b"x" * 100)], zipfile.ZIP_BZIP2),
    "a way out": zipped([("../../etc/cron.d/x", b"")]),
    "a way from the root": zipped([("/etc/passwd", b"")]),
    "a drive": zipped([("C:\\x", b"")]),
    "an end of the name": zipped([("site.yaml\x00.txt", b"")]),
    "thousands of files": zipped([(f"f{number}", b"") for number in range(5000)]),
    "half a gigabyte of nothing": zipped([(f"f{number}", bytes(20_000_000)) for number in range(6)]),
    "a name twice in two ways": zipped([("Site.yaml", b"1"), ("site.yaml", b"2")]),
    "an end without a beginning": WHOLE[-22:],
    "nothing": b"",
    "only a mark": b"PK\x05\x06",
}


@pytest.mark.parametrize("content", ZIPS.values(), ids=ZIPS)
def test_a_zip_with_this_is_no_kit_and_no_bundle(tmp_path, content):
    (tmp_path / "kit.zip").write_bytes(content)
    start = time.monotonic()
    with pytest.raises(CertificateInvalidError):
        open_kit(tmp_path / "kit.zip")
    with pytest.raises(PeerError):
        read_bundle(content)
    assert time.monotonic() - start < 5.0 and [path.name for path in tmp_path.iterdir()] == ["kit.zip"]


def test_a_link_in_a_zip_is_its_text_and_leads_nowhere(tmp_path):
    content = zipped(
        [("pyproject.toml", DOCUMENT), ("client/x.py", b"/etc/passwd")], attributes=0o120777 << 16
    )
    assert read_bundle(content).files["client/x.py"] == b"/etc/passwd"


DOCUMENTS = {
    "lists in lists": "a = " + "[" * 7000,
    "tables in tables": "a = " + "{a = " * 3000,
    "dots": ".".join("a" * 7900) + " = 1",
    "more than any": DOCUMENT + "#" * 20_000,
    "a word for dependencies": DOCUMENT.replace("[]", '"torch"'),
    "no project": "a = 1",
    "a list for the project": "project = []",
    "a day that is none": "a = 2020-13-45",
    "bytes": "\xff",
}


@pytest.mark.parametrize("text", DOCUMENTS.values(), ids=DOCUMENTS)
def test_a_bundle_with_such_a_document_is_refused_in_little_time(text):
    start = time.monotonic()
    with pytest.raises(PeerError):
        read_bundle(zipped([("pyproject.toml", text.encode("latin-1"))]))
    assert time.monotonic() - start < 5.0 and LARGEST_SUM_BYTES < 10**8


@given(st.integers(0, len(WHOLE) - 1), st.binary(min_size=1, max_size=6))
@settings(max_examples=120)
def test_a_wounded_kit_is_refused_or_the_same(tmp_path_factory, place, wound):
    path = tmp_path_factory.getbasetemp() / "wounded.zip"
    path.write_bytes(WHOLE[:place] + wound + WHOLE[place + len(wound) :])
    try:
        kit = open_kit(path)
    except CardioNetsError:
        return
    assert dict(kit.files) == FILES


DER = {
    "certificate": CERTIFICATE.public_bytes(serialization.Encoding.DER),
    "request": x509.load_pem_x509_csr(make_request(KEY, site="alpha")).public_bytes(
        serialization.Encoding.DER
    ),
}


def pem(content: bytes, label: str) -> bytes:
    import base64

    return f"-----BEGIN {label}-----\n{base64.encodebytes(content).decode()}-----END {label}-----\n".encode()


@given(st.sampled_from(sorted(DER)), st.integers(0, 500), st.binary(min_size=1, max_size=3))
@settings(max_examples=250)
def test_a_wounded_certificate_or_request_is_refused_or_of_the_same_key(kind, place, wound):
    content = DER[kind]
    torn = content[: place % len(content)] + wound + content[place % len(content) + len(wound) :]
    try:
        if kind == "certificate":
            found = read_certificate(pem(torn, "CERTIFICATE"), where="test")
            check_site(found, AUTHORITY, site="alpha", where="test")
            key = found.public_key()
        else:
            _, key = read_request(pem(torn, "CERTIFICATE REQUEST"), where="test")
    except CardioNetsError:
        return
    assert fingerprint(key) == fingerprint(KEY.public_key())


def test_parts_of_a_certificate_that_cannot_be_read_are_found_at_once():
    """Name, end and extensions were read only when they were asked for, and failed there without a type."""
    content = DER["certificate"]
    for place in range(0, len(content) - 104, 3):
        torn = content[:place] + bytes([content[place] ^ 0x1F]) + content[place + 1 :]
        try:
            found = read_certificate(pem(torn, "CERTIFICATE"), where="test")
        except CertificateInvalidError:
            continue
        str((found.subject, found.issuer, list(found.extensions), found.not_valid_after_utc))


@given(
    st.binary(max_size=80),
    st.sampled_from(["", "ecdsa-sha2-nistp384 ", "ssh-ed25519 ", "-----BEGIN PUBLIC KEY-----\n"]),
)
@settings(max_examples=150)
def test_any_bytes_are_no_key(content, head):
    for read in (read_public, read_private):
        with pytest.raises(CertificateInvalidError):
            read(head.encode() + content, where="test")


def test_a_request_of_any_size_or_kind_is_looked_at_in_part(tmp_path):
    import os

    (tmp_path / "large").write_bytes(bytes(10**6))
    os.mkfifo(tmp_path / "pipe")
    for name in ("large", "pipe", "absent", "."):
        with pytest.raises(CardioNetsError):
            read_asked(tmp_path / name)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "{}",
        "[1]",
        '[{"site":"alpha"}]',
        "9" * 5000,
        "[NaN]",
        "\xff",
        '[{"site":"a","site":"b"}]',
    ],
)
def test_a_registry_of_another_hand_admits_nobody(tmp_path, text):
    workspace = Workspace(tmp_path)
    workspace.trust.mkdir()
    (workspace.trust / FILE).write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError):
        read_registry(workspace)


@pytest.mark.parametrize(
    "body", ["[" * 50_000, "[]", "3", '{"event":"code-approved"}', '"x"', "{", "\udfff", "9" * 5000]
)
def test_a_record_of_approvals_of_another_hand_approves_nothing(tmp_path, body):
    import hashlib

    store = ApprovalStore(tmp_path)
    digest = store.approve_code(b"a bundle")
    text = body.encode("utf-8", "surrogatepass")
    (tmp_path / RECORD).write_bytes(hashlib.sha256(text).hexdigest().encode() + b" " + text + b"\n")
    assert store.standing().fault and not store.is_code_approved(digest)


def test_what_is_valid_passes(tmp_path):
    (tmp_path / "kit.zip").write_bytes(WHOLE)
    assert dict(open_kit(tmp_path / "kit.zip").files) == FILES
    assert read_request(make_request(KEY, site="alpha"), where="test")[0] == "alpha"
    assert json.dumps(read_bundle(zipped([("pyproject.toml", DOCUMENT)])).name)
    assert fingerprint(read_public(public_openssh(KEY.public_key()).encode(), where="test"))
