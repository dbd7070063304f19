"""Keys in every form that others read, and secret files."""

import os
import stat
import subprocess

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import given, settings
from hypothesis import strategies as st

from cardionets_core.errors import CertificateInvalidError, StorageFailedError, UsageError
from cardionets_core.trust.keys import (
    fingerprint,
    heard,
    make_key,
    make_passphrase,
    private_openssh,
    private_pem,
    public_der,
    public_openssh,
    public_pem,
    read_private,
    read_public,
    spoken,
)
from cardionets_core.trust.secret_files import exposed, make_secret_folder, write_file
from cardionets_core.trust.signatures import fits, sign


def test_a_key_comes_back_from_every_form():
    key = make_key()
    digest = fingerprint(key.public_key())
    for private in (private_openssh(key), private_pem(key)):
        assert fingerprint(read_private(private, where="x").public_key()) == digest
    public = key.public_key()
    for form in (public_openssh(public).encode(), public_der(public), public_pem(public)):
        assert fingerprint(read_public(form, where="x")) == digest
    assert fingerprint(read_public(public_openssh(public).encode() + b" a-comment", where="x")) == digest
    assert heard(spoken(digest).upper()) == heard(f"SHA256:{digest}") == digest


def test_ssh_itself_reads_the_same_public_key_out_of_the_private_file(tmp_path):
    key = make_key()
    path = tmp_path / "site.key"
    write_file(path, private_openssh(key), secret=True)
    done = subprocess.run(["ssh-keygen", "-y", "-f", path], capture_output=True, text=True, check=True)
    assert done.stdout.split()[:2] == public_openssh(key.public_key()).split()


def test_only_the_passphrase_opens_an_encrypted_key():
    key, passphrase = make_key(), make_passphrase()
    locked = private_pem(key, passphrase=passphrase)
    assert fingerprint(read_private(locked, where="x", passphrase=passphrase).public_key()) == fingerprint(
        key.public_key()
    )
    with pytest.raises(CertificateInvalidError, match="does not open"):
        read_private(locked, where="x", passphrase=passphrase[:-1])
    with pytest.raises(CertificateInvalidError, match="no passphrase was given"):
        read_private(locked, where="x")
    assert len({make_passphrase() for _ in range(100)}) == 100


@pytest.mark.parametrize(
    "key", [ec.generate_private_key(ec.SECP256R1()), ed25519.Ed25519PrivateKey.generate()]
)
def test_keys_of_another_curve_are_refused(key):
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with pytest.raises(CertificateInvalidError, match="key is of the"):
        read_private(private, where="x")
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    with pytest.raises(CertificateInvalidError, match="key is of the"):
        read_public(public, where="x")


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300))
def test_noise_is_no_key(noise):
    for read in (read_public, read_private):
        with pytest.raises(CertificateInvalidError):
            read(noise, where="x")
        with pytest.raises(CertificateInvalidError):
            read(b"-----BEGIN OPENSSH PRIVATE KEY-----" + noise, where="x")


@pytest.mark.parametrize("text", ["", "abcd", "z" * 64, "a" * 63, "a" * 65])
def test_a_part_of_a_fingerprint_is_refused(text):
    with pytest.raises(UsageError, match="no fingerprint"):
        heard(text)


def test_a_signature_fits_its_key_content_and_purpose_alone():
    key, other = make_key(), make_key()
    signature = sign(key, b"content", purpose="kit")
    assert signature == sign(key, b"content", purpose="kit")
    public = key.public_key()
    assert fits(public, signature, b"content", purpose="kit")
    assert not fits(other.public_key(), signature, b"content", purpose="kit")
    assert not fits(public, signature, b"content.", purpose="kit")
    assert not fits(public, signature, b"content", purpose="kits")
    assert not fits(public, signature, b"tcontent", purpose="ki")
    assert not fits(public, b"no signature", b"content", purpose="kit")


def test_secret_files_are_secret_and_are_not_replaced_unless_asked(tmp_path):
    path = tmp_path / "a.key"
    old = os.umask(0)
    try:
        write_file(path, b"one", secret=True, replace=False)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and exposed(path) is None
    with pytest.raises(FileExistsError):
        write_file(path, b"two", secret=True, replace=False)
    assert path.read_bytes() == b"one"
    write_file(path, b"two", secret=True)
    assert [each.name for each in tmp_path.iterdir()] == ["a.key"] and path.read_bytes() == b"two"
    path.chmod(0o640)
    assert exposed(path).code == "privacy" and "chmod 600" in exposed(path).remedy
    assert exposed(tmp_path / "absent") is None


def test_what_cannot_be_written_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageFailedError):
        make_secret_folder(tmp_path / "file" / "trust")
    with pytest.raises(StorageFailedError):
        write_file(tmp_path / "absent" / "a.key", b"", secret=True)
    (tmp_path / "open").mkdir(mode=0o755)
    make_secret_folder(tmp_path / "open")
    assert stat.S_IMODE((tmp_path / "open").stat().st_mode) == 0o700
