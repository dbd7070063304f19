"""Certificates, judged by our words, by OpenSSL in real handshakes, and by its program."""

import socket
import ssl
import subprocess
import threading
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from cardionets_core.errors import CertificateInvalidError
from cardionets_core.trust.certificates import (
    certificate_pem,
    consortium_of,
    issue_server,
    issue_site,
    key_of,
    make_authority,
    make_request,
    names_of,
    read_certificate,
    read_request,
    serial_of,
    site_of,
)
from cardionets_core.trust.keys import fingerprint, make_key, private_pem
from cardionets_core.trust.secret_files import write_file
from cardionets_core.trust.validity import check_server, check_site, check_times, days_left

NOW = datetime.now(UTC)


class Consortium:
    """An authority, and what it signs."""

    def __init__(self, name="heart", now=None):
        self.key = make_key()
        self.certificate = make_authority(self.key, consortium=name, now=now)

    def server(self, *names, days=30, now=None):
        key = make_key()
        made = issue_server(key.public_key(), names=names, days=days, signer=self.certificate,
                            signer_key=self.key, now=now)  # fmt: skip
        return key, made

    def site(self, name, *, days=30, now=None):
        key = make_key()
        return issue_site(key.public_key(), site=name, days=days, signer=self.certificate,
                          signer_key=self.key, now=now)  # fmt: skip


def handshake(folder, key, certificate, *, trusted, name):
    """One TLS handshake on loopback; raises what the client's side raises."""
    write_file(folder / "server.key", private_pem(key), secret=True)
    write_file(folder / "server.crt", certificate_pem(certificate), secret=False)
    write_file(folder / "ca.crt", certificate_pem(trusted), secret=False)
    rules = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    rules.load_cert_chain(folder / "server.crt", folder / "server.key")
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(10)

    def serve():
        try:
            plain, _ = listener.accept()
            with plain, rules.wrap_socket(plain, server_side=True) as secure:
                secure.recv(1)
        except OSError:
            pass  # the client went away

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
        with (
            socket.create_connection(listener.getsockname(), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname=name) as secure,
        ):
            return secure.version()
    finally:
        thread.join()
        listener.close()


def test_a_handshake_succeeds_under_each_name_of_the_certificate(tmp_path):
    home = Consortium()
    key, certificate = home.server("localhost", "127.0.0.1", "::1")
    assert names_of(certificate) == ("localhost", "127.0.0.1", "::1")
    for name in names_of(certificate):
        assert handshake(tmp_path, key, certificate, trusted=home.certificate, name=name) == "TLSv1.3"
        check_server(certificate, home.certificate, name=name, where="x")


@pytest.mark.parametrize(
    "case, told", [
        ("rogue", "another authority"), ("expired", "expired 3 days ago"), ("early", "begins in 1"),
        ("name", "for another name: 'localhost' is not among"), ("site", "not issued for that purpose"),
    ],
)  # fmt: skip
def test_what_openssl_refuses_we_refuse_with_the_reason(tmp_path, case, told):
    home = Consortium(now=NOW - timedelta(days=100))
    key, certificate = {
        "rogue": lambda: Consortium("rogue").server("localhost"),
        "expired": lambda: home.server("localhost", days=10, now=NOW - timedelta(days=13, hours=1)),
        "early": lambda: home.server("localhost", now=NOW + timedelta(hours=20)),
        "name": lambda: home.server("elsewhere.example"),
        "site": lambda: (make_key(), home.site("localhost")),
    }[case]()
    with pytest.raises(CertificateInvalidError, match=told) as refused:
        check_server(certificate, home.certificate, name="localhost", where="x")
    assert refused.value.remedy
    if case != "site":
        with pytest.raises(ssl.SSLCertVerificationError):
            handshake(tmp_path, key, certificate, trusted=home.certificate, name="localhost")


def test_the_openssl_program_verifies_the_chain(tmp_path):
    home = Consortium()
    for name, certificate in {"server": home.server("localhost")[1], "site": home.site("alpha")}.items():
        write_file(tmp_path / "ca.crt", certificate_pem(home.certificate), secret=False)
        write_file(tmp_path / f"{name}.crt", certificate_pem(certificate), secret=False)
        purpose = "sslserver" if name == "server" else "sslclient"
        done = subprocess.run(
            ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-CAfile", tmp_path / "ca.crt",
             tmp_path / f"{name}.crt"], capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_site_certificate_binds_its_name_and_key():
    home = Consortium()
    certificate = read_certificate(certificate_pem(home.site("alpha")), where="x")
    assert (site_of(certificate), consortium_of(certificate)) == ("alpha", "heart")
    assert int(serial_of(certificate), 16) == certificate.serial_number
    check_site(certificate, home.certificate, site="alpha", where="x")
    for wrong in ("beta", "alph"):
        with pytest.raises(CertificateInvalidError, match="another name"):
            check_site(certificate, home.certificate, site=wrong, where="x")
    with pytest.raises(CertificateInvalidError, match="purpose"):
        check_site(home.server("alpha")[1], home.certificate, site="alpha", where="x")


def test_nothing_outlives_its_authority():
    home = Consortium(now=NOW - timedelta(days=3640))
    _, certificate = home.server("localhost", days=397)
    assert certificate.not_valid_after_utc == home.certificate.not_valid_after_utc
    assert 9 < days_left(certificate) <= 10
    with pytest.raises(CertificateInvalidError, match="expired 2 days ago"):
        check_times(certificate, what="it", where="x", now=certificate.not_valid_after_utc + timedelta(2.5))


def test_the_moment_of_the_end_is_over_and_the_second_before_is_not():
    certificate = Consortium().site("alpha")
    end = certificate.not_valid_after_utc
    check_times(certificate, what="it", where="x", now=end - timedelta(seconds=1))
    with pytest.raises(CertificateInvalidError, match="expired"):
        check_times(certificate, what="it", where="x", now=end)


def test_a_request_comes_back_with_its_name_and_key():
    key = make_key()
    site, asked = read_request(make_request(key, site="alpha"), where="x")
    assert (site, fingerprint(asked)) == ("alpha", fingerprint(key.public_key()))


def _request(key, name="alpha"):
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM)


@pytest.mark.parametrize(
    "content, told",
    [
        (b"no request", "no signing request"),
        (b"x" * 20_000, "too large"),
        (_request(ec.generate_private_key(ec.SECP256R1())), "curve secp256r1"),
        (_request(rsa.generate_private_key(65537, 2048)), "kind RSA"),
        (_request(make_key(), "../alpha"), "names no site"),
        (_request(make_key(), "Alpha"), "names no site"),
    ],
)
def test_requests_that_are_refused(content, told):
    with pytest.raises(CertificateInvalidError, match=told):
        read_request(content, where="x")


def test_a_request_signed_by_another_key_is_refused():
    ours, theirs = make_key(), make_key()
    request = x509.load_pem_x509_csr(make_request(ours, site="alpha"))
    der = request.public_bytes(serialization.Encoding.DER)
    form = (serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    forged = der.replace(ours.public_key().public_bytes(*form), theirs.public_key().public_bytes(*form))
    assert forged != der
    pem = x509.load_der_x509_csr(forged).public_bytes(serialization.Encoding.PEM)
    with pytest.raises(CertificateInvalidError, match="not signed by the key"):
        read_request(pem, where="x")


def test_a_certificate_that_was_changed_is_of_another_authority():
    home = Consortium()
    certificate = home.site("alpha")
    der = certificate.public_bytes(serialization.Encoding.DER).replace(b"alpha", b"alphb")
    with pytest.raises(CertificateInvalidError, match="another authority"):
        check_site(x509.load_der_x509_certificate(der), home.certificate, site="alphb", where="x")
    assert fingerprint(key_of(certificate))
