"""Releases from strangers: tampered, torn, overfull, signed by others. Nothing of them is used."""

from __future__ import annotations

import json
import shutil
import stat
import zipfile
from datetime import UTC, datetime, timedelta

import pytest

from cardionets_core.errors import CertificateInvalidError, UsageError
from cardionets_core.release import archive
from cardionets_core.release.archive import pack_release, unpack_release
from cardionets_core.release.layout import (
    CHECKSUMS,
    MOST_FILES,
    SIGNATURE,
    check_files,
    checksums_of,
    is_plain,
    listed,
)
from cardionets_core.release.opening import opened_release, trusted_by
from cardionets_core.release.refusals import ReleaseTornError
from cardionets_core.release.signature import Trusted, signature_document, trusted_file
from cardionets_core.trust.certificates import certificate_pem, make_authority
from cardionets_core.trust.keys import fingerprint, make_key, public_pem

KEY, OTHER = make_key(), make_key()
CERTIFICATE = make_authority(KEY, consortium="hearts")
MINE = Trusted(fingerprint=fingerprint(KEY.public_key()), source="ca.crt")


def seal(folder, *, key=KEY, certificate=CERTIFICATE):
    """List and sign what lies in a folder."""
    (folder / CHECKSUMS).unlink(missing_ok=True)
    (folder / CHECKSUMS).write_bytes(checksums_of(folder))
    if key is not None:
        document = signature_document((folder / CHECKSUMS).read_bytes(), key, certificate=certificate)
        (folder / SIGNATURE).write_text(json.dumps(document))


@pytest.fixture
def release(tmp_path):
    folder = tmp_path / "release"
    (folder / "model").mkdir(parents=True)
    (folder / "CARD.md").write_text("# Model card\n")
    (folder / "model" / "model.json").write_text("{}")
    (folder / "model" / "ecg_encoder.safetensors").write_bytes(bytes(range(256)))
    seal(folder)
    return folder


def refused(path, error, words, trusted=MINE):
    with pytest.raises(error, match=words) as found, opened_release(path, trusted):
        pytest.fail("it was opened")
    assert found.value.remedy


def test_a_whole_release_opens_as_folder_and_as_zip(release, tmp_path):
    pack_release(release, tmp_path / "r.zip")
    for path in (release, tmp_path / "r.zip"):
        with opened_release(path, MINE) as found:
            folder = found.folder
            assert found.signer.consortium == "hearts" and found.signer.vouched
            assert (found.model / "ecg_encoder.safetensors").read_bytes() == bytes(range(256))
            if path.suffix:
                assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert not folder.exists() and release.exists()


def test_equal_folders_make_equal_zips(release, tmp_path):
    pack_release(release, tmp_path / "one.zip")
    pack_release(shutil.copytree(release, tmp_path / "copy"), tmp_path / "two.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


def test_a_fault_in_a_zip_is_told_of_the_zip(release, tmp_path):
    (release / "CARD.md").write_text("# Another\n")
    pack_release(release, tmp_path / "r.zip")
    with pytest.raises(ReleaseTornError) as found, opened_release(tmp_path / "r.zip", MINE):
        pytest.fail("it was opened")
    assert found.value.where == str(tmp_path / "r.zip")


@pytest.mark.parametrize("name", ["CARD.md", "model/model.json", "model/ecg_encoder.safetensors"])
def test_every_changed_byte_and_every_absent_file_is_found(release, name):
    path = release / name
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    refused(release, ReleaseTornError, f"{name} was changed")
    path.unlink()
    refused(release, ReleaseTornError, f"{name} is absent")


def test_what_was_added_is_found(release):
    (release / "model" / "extra.safetensors").write_bytes(b"x")
    refused(release, ReleaseTornError, "extra.safetensors does not belong to it")


def test_links_pipes_and_strange_names_are_refused(release, tmp_path):
    import os

    (tmp_path / "secret").write_text("a secret")
    for make in (
        lambda path: path.symlink_to(tmp_path / "secret"),
        os.mkfifo,
        lambda path: path.with_name("a b").write_text(""),
        lambda path: path.with_name(".hidden").write_text(""),
    ):
        folder = shutil.copytree(release, tmp_path / "copy")
        make(folder / "odd")
        refused(folder, ReleaseTornError, "holds what no release does")
        shutil.rmtree(folder)
    (release / "CARD.md").unlink()
    (release / "CARD.md").symlink_to(tmp_path / "secret")
    refused(release, ReleaseTornError, "holds what no release does")


@pytest.mark.parametrize(
    "text",
    ["", "\n", "x", "0" * 64 + "  ../secret\n", "0" * 64 + "  /etc/passwd\n", "0" * 64 + " CARD.md\n",
     ("0" * 64 + "  CARD.md\n") * 2, "0" * 64 + f"  {SIGNATURE}\n",
     "".join(f"{'0' * 64}  f{n}\n" for n in range(MOST_FILES + 1))],
)  # fmt: skip
def test_lists_that_no_release_has_are_refused(text):
    with pytest.raises(ReleaseTornError):
        listed(text.encode(), where="list")


def test_a_list_is_absent_a_folder_or_too_long(release):
    (release / CHECKSUMS).write_bytes(b"0" * 200_000)
    refused(release, ReleaseTornError, "no list of checksums")
    (release / CHECKSUMS).unlink()
    with pytest.raises(ReleaseTornError):
        check_files(release)


@pytest.mark.parametrize(
    "name", ["../x", "a/../../x", "/x", "a//b", "", ".x", "a\\b", "C:x", "a/b/c/d", "a" * 101]
)
def test_names_that_lead_elsewhere_are_not_plain(name):
    assert not is_plain(name)


# -- zips ----------------------------------------------------------------------------------------------------


def zipped(path, entries):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for entry, content in entries:
            packed.writestr(entry, content)
    return path


@pytest.mark.parametrize("name", ["../outside", "/outside", "a/../../outside", "C:outside", "a\\..\\outside"])
def test_a_zip_that_leads_out_of_its_folder_writes_nothing(tmp_path, name):
    path = zipped(tmp_path / "r.zip", [("CARD.md", "x"), (name, "gotcha")])
    (tmp_path / "in").mkdir()
    with pytest.raises(ReleaseTornError, match="a name that no release has"):
        unpack_release(path, tmp_path / "in")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["in", "r.zip"]
    assert list((tmp_path / "in").iterdir()) == []


def test_a_link_in_a_zip_is_refused(tmp_path):
    link = zipfile.ZipInfo("CARD.md")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    refused(
        zipped(tmp_path / "r.zip", [(link, "/etc/passwd")]), ReleaseTornError, "a name that no release has"
    )


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_file_twice_too_many_files_and_other_packings_are_refused(tmp_path):
    twice = zipped(tmp_path / "twice.zip", [("CARD.md", "x"), ("card.MD", "y")])
    refused(twice, ReleaseTornError, "names a file twice")
    many = zipped(tmp_path / "many.zip", [(f"f{n}", "") for n in range(MOST_FILES + 1)])
    refused(many, ReleaseTornError, "more than a release does")
    with zipfile.ZipFile(tmp_path / "lzma.zip", "w", zipfile.ZIP_LZMA) as packed:
        packed.writestr("CARD.md", "x")
    refused(tmp_path / "lzma.zip", ReleaseTornError, "packed as no release is")


def test_sizes_are_bounded_by_what_is_said_and_by_what_comes(tmp_path, monkeypatch):
    bomb = zipped(tmp_path / "bomb.zip", [("CARD.md", bytes(5_000_000))])
    assert bomb.stat().st_size < 10_000
    with monkeypatch.context() as small:
        small.setattr(archive, "LARGEST_BYTES", 1_000_000)
        refused(bomb, ReleaseTornError, "more than a release does")
    # The zip says 10 bytes of a file that unpacks to five millions.
    content = bytearray(bomb.read_bytes())
    for place in (content.find(b"PK\x03\x04") + 22, content.find(b"PK\x01\x02") + 24):
        assert content[place : place + 4] == (5_000_000).to_bytes(4, "little")
        content[place : place + 4] = (10).to_bytes(4, "little")
    bomb.write_bytes(content)
    (tmp_path / "in").mkdir()
    with pytest.raises(ReleaseTornError):
        unpack_release(bomb, tmp_path / "in")
    assert sum(path.stat().st_size for path in (tmp_path / "in").iterdir()) <= 10


@pytest.mark.parametrize("content", [b"", b"PK", b"PK\x03\x04" + bytes(40), b"<html>", bytes(1000)])
def test_other_files_are_no_release(tmp_path, content):
    (tmp_path / "r.zip").write_bytes(content)
    refused(tmp_path / "r.zip", ReleaseTornError, "no zip")


# -- signatures ----------------------------------------------------------------------------------------------


def test_another_key_is_refused_where_somebody_is_trusted_and_named_where_nobody_is(release):
    seal(release, key=OTHER, certificate=make_authority(OTHER, consortium="hearts"))
    refused(release, CertificateInvalidError, "signed by another key")
    with opened_release(release, Trusted()) as found:
        assert found.signer.fingerprint == fingerprint(OTHER.public_key()) and not found.signer.vouched
        assert "any key can name itself so" in found.signed_by


def test_a_certificate_of_another_key_gives_no_name(release):
    seal(release, key=OTHER, certificate=CERTIFICATE)
    refused(release, CertificateInvalidError, "of another key than the one that signed", Trusted())


def test_a_signature_over_another_list_is_refused(release):
    (release / "CARD.md").write_text("# A better card\n")
    (release / CHECKSUMS).unlink()
    kept = (release / SIGNATURE).read_text()
    (release / CHECKSUMS).write_bytes(checksums_of(release))
    (release / SIGNATURE).write_text(kept)
    refused(release, CertificateInvalidError, "not over this list", Trusted())


def test_a_signature_that_was_taken_away_shows_where_one_is_asked_for(release):
    (release / SIGNATURE).unlink()
    refused(release, CertificateInvalidError, "unsigned")
    with opened_release(release, Trusted()) as found:
        assert found.signer is None and found.signed_by.startswith("unsigned")


@pytest.mark.parametrize(
    "changes",
    [{"signature": "zz"}, {"signature": ""}, {"schema_version": 2}, {"public_key": "x"}, {"public_key": 3},
     {"certificate": "x"}, {"certificate": 3}, {"signature": None}],
)  # fmt: skip
def test_a_torn_signature_is_refused(release, changes):
    document = json.loads((release / SIGNATURE).read_text())
    (release / SIGNATURE).write_text(json.dumps({**document, **changes}))
    refused(release, CertificateInvalidError, "signature|key|certificate", Trusted())
    (release / SIGNATURE).write_text("[" * 100_000)
    refused(release, CertificateInvalidError, "cannot be read", Trusted())


def test_certificates_outside_of_their_time_are_refused(release, tmp_path):
    long_ago = make_authority(KEY, consortium="hearts", now=datetime.now(UTC) - timedelta(days=4000))
    seal(release, certificate=long_ago)
    refused(release, CertificateInvalidError, "the signer's certificate expired", Trusted())
    (tmp_path / "ca.crt").write_bytes(certificate_pem(long_ago))
    with pytest.raises(CertificateInvalidError, match="expired"):
        trusted_file(tmp_path / "ca.crt")
    early = make_authority(KEY, consortium="hearts", now=datetime.now(UTC) + timedelta(days=30))
    seal(release, certificate=early)
    refused(release, CertificateInvalidError, "not yet valid", Trusted())


def test_whom_to_trust_is_a_certificate_a_key_or_a_whole_fingerprint(tmp_path):
    (tmp_path / "ca.crt").write_bytes(certificate_pem(CERTIFICATE))
    (tmp_path / "key.pub").write_bytes(public_pem(KEY.public_key()))
    digits = fingerprint(KEY.public_key())
    for file, given in ((tmp_path / "ca.crt", None), (tmp_path / "key.pub", None), (None, digits.upper())):
        assert trusted_by(file, given).fingerprint == digits
    with pytest.raises(UsageError, match="64 hexadecimal digits"):
        trusted_by(None, digits[:16])
    with pytest.raises(UsageError, match="not both"):
        trusted_by(tmp_path / "ca.crt", digits)
    for content in (b"", b"hello", b"-----BEGIN CERTIFICATE-----\nxx\n-----END CERTIFICATE-----\n"):
        (tmp_path / "bad").write_bytes(content)
        with pytest.raises(CertificateInvalidError):
            trusted_by(tmp_path / "bad", None)
    with pytest.raises(CertificateInvalidError):
        trusted_by(tmp_path / "absent", None)
