"""Keys, certificates, requests, kits, bundles and the coordinator's registry, for the fuzzer."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import textwrap
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from wounds import mutate, pick, wounded_json, wounded_zip

from cardionets_core.config.connection import SiteFolder
from cardionets_core.config.sites import TIME
from cardionets_core.config.workspace import Workspace
from cardionets_core.errors import CodeNotApprovedError
from cardionets_core.trust.certificates import (
    certificate_pem,
    issue_site,
    make_authority,
    make_request,
    read_certificate,
    read_request,
    serial_of,
)
from cardionets_core.trust.keys import (
    fingerprint,
    make_key,
    private_openssh,
    private_pem,
    public_der,
    public_openssh,
    public_pem,
    read_private,
    read_public,
)
from cardionets_core.trust.kit import open_kit, pack_kit
from cardionets_core.trust.validity import check_site
from client.approvals.bundle import read_bundle
from client.approvals.code_facts import code_facts
from client.approvals.store import RECORD, ApprovalStore
from client.startup_kit import install_kit
from server.provision.registry import FILE, read_registry

Case = Callable[[np.random.Generator], str]
AUTHORITY_KEY, SITE_KEY = make_key(), make_key()
AUTHORITY = make_authority(AUTHORITY_KEY, consortium="heart")
CERTIFICATE = issue_site(
    SITE_KEY.public_key(), site="alpha", days=300, signer=AUTHORITY, signer_key=AUTHORITY_KEY
)
CONNECTION = (
    "schema_version: 1\nconsortium: heart\nsite: alpha\nserver: hub.example:9092\n"
    "cardionets_version: 1.0.0\nflwr_version: 1.41.0\n"
)


def _pem(content: bytes, label: str) -> bytes:
    text = "\n".join(textwrap.wrap(base64.b64encode(content).decode(), 64))
    return f"-----BEGIN {label}-----\n{text}\n-----END {label}-----\n".encode()


def _wounded_pem(content: bytes, label: str, rng: np.random.Generator) -> bytes:
    """Half of the wounds in the binary form, where a parser meets them."""
    return _pem(mutate(content, rng), label) if rng.random() < 0.7 else mutate(_pem(content, label), rng)


def certificates(folder: Path) -> Case:
    """Certificates of a site and of an authority."""
    own, authority = (each.public_bytes(serialization.Encoding.DER) for each in (CERTIFICATE, AUTHORITY))

    def case(rng: np.random.Generator) -> str:
        certificate, signer = CERTIFICATE, AUTHORITY
        if rng.random() < 0.7:
            certificate = read_certificate(_wounded_pem(own, "CERTIFICATE", rng), where="fuzz")
        else:
            signer = read_certificate(_wounded_pem(authority, "CERTIFICATE", rng), where="fuzz")
        check_site(certificate, signer, site="alpha", where="fuzz")
        assert fingerprint(certificate.public_key()) == fingerprint(SITE_KEY.public_key())
        return "same"

    return case


def requests(folder: Path) -> Case:
    """Signing requests; a request is signed, so one that is accepted is the valid one."""
    content = x509.load_pem_x509_csr(make_request(SITE_KEY, site="alpha")).public_bytes(
        serialization.Encoding.DER
    )

    def case(rng: np.random.Generator) -> str:
        site, key = read_request(_wounded_pem(content, "CERTIFICATE REQUEST", rng), where="fuzz")
        assert site == "alpha" and fingerprint(key) == fingerprint(SITE_KEY.public_key())
        return "same"

    return case


def keys(folder: Path) -> Case:
    """Private and public keys in each of their forms."""
    public = SITE_KEY.public_key()
    publics = [public_openssh(public).encode(), public_der(public), public_pem(public)]
    privates = [private_openssh(SITE_KEY), private_pem(SITE_KEY), private_pem(SITE_KEY, passphrase="abc")]

    def case(rng: np.random.Generator) -> str:
        if rng.random() < 0.6:
            read_public(mutate(pick(publics, rng), rng), where="fuzz")
        else:
            read_private(mutate(pick(privates, rng), rng), where="fuzz", passphrase=pick((None, "abc"), rng))
        return "read"

    return case


def kits(folder: Path) -> Case:
    """Startup kits, opened and unpacked into a site's folder; nothing is written but into it."""
    files = {
        "trust/ca.crt": certificate_pem(AUTHORITY),
        "trust/site.crt": certificate_pem(CERTIFICATE),
        "trust/site.key": private_pem(SITE_KEY, passphrase="abc"),
        "connection.yaml": CONNECTION.encode(),
        "site.yaml": b"site: alpha\n" * 40,
        "package/study.json": b"{}\n",
    }
    packed = pack_kit(files, key=AUTHORITY_KEY)

    def case(rng: np.random.Generator) -> str:
        content, honest = packed, rng.random() < 0.8
        if honest:
            content = wounded_zip(packed, rng)
        else:
            # A kit of somebody who has the authority's key: whole, and wounded before it was signed.
            name = pick(files, rng)
            content = pack_kit({**files, name: mutate(files[name], rng)}, key=AUTHORITY_KEY)
        path = folder / "kit.zip"
        path.write_bytes(content)
        site = SiteFolder(folder / "home" / f"site-{rng.integers(0, 2**40)}")
        try:
            kit = open_kit(path)
            assert not honest or dict(kit.files) == files, "another content under the same signature"
            install_kit(path, site, passphrase="abc")
        except BaseException:
            assert not site.connection_yaml.exists(), "a refused kit was unpacked"
            raise
        finally:
            assert {each.name for each in folder.iterdir()} <= {"kit.zip", "home"}, "written outside"
        assert (site.trust / "site.key").stat().st_mode & 0o077 == 0
        return "installed"

    return case


def bundles(folder: Path) -> Case:
    """Code bundles, as hospital IT looks at them."""
    document = (
        '[project]\nname = "cardionets"\nversion = "1.0"\ndependencies = []\n'
        '[tool.flwr.app.components]\nclientapp = "client.app:app"\n'
    )
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("pyproject.toml", document)
        archive.writestr("client/app.py", "app = 1\n" * 200)
        archive.writestr(".info/CONTENT", "a,b,c\n")
    store = ApprovalStore(folder / "approvals")

    def case(rng: np.random.Generator) -> str:
        content = wounded_zip(stream.getvalue(), rng)
        bundle = read_bundle(content)
        assert bundle.sha256 == hashlib.sha256(content).hexdigest()
        for name in bundle.files:
            assert not name.startswith("/") and ".." not in Path(name).parts
        if rng.random() < 0.05:  # it compares with the installed code, which takes a while
            json.dumps(code_facts(bundle, store)).encode()
        return "read"

    return case


def approvals(folder: Path) -> Case:
    """The record of approvals: it never approves what was not approved, and never fails."""
    store = ApprovalStore(folder)
    approved = store.approve_code(b"a bundle")
    record = (folder / RECORD).read_bytes()
    body = json.loads(record.partition(b" ")[2])

    def case(rng: np.random.Generator) -> str:
        if rng.random() < 0.5:
            content = mutate(record, rng)
        else:
            text = wounded_json(body, rng).encode("utf-8", "replace")
            content = hashlib.sha256(text).hexdigest().encode() + b" " + text + b"\n"
        (folder / RECORD).write_bytes(content)
        standing = store.standing()
        if standing.fault:
            assert not store.is_code_approved(approved)
            raise CodeNotApprovedError(standing.fault)
        return "whole"

    return case


def registries(folder: Path) -> Case:
    """The registry of sites; nobody is admitted by a guess."""
    key = SITE_KEY.public_key()
    row = {
        "site": "alpha", "fingerprint": fingerprint(key), "public_key": public_openssh(key),
        "serial": serial_of(CERTIFICATE), "status": "admitted", "admitted_s": time.time(), "reason": "",
        "not_after": CERTIFICATE.not_valid_after_utc.strftime(TIME),
    }  # fmt: skip
    workspace = Workspace(folder)
    workspace.trust.mkdir()

    def case(rng: np.random.Generator) -> str:
        text = wounded_json([row], rng)
        (workspace.trust / FILE).write_bytes(text.encode("utf-8", "replace"))
        registry = read_registry(workspace)
        assert all(each.fingerprint == row["fingerprint"] for each in registry.rows)
        registry.admitted()
        return "read"

    return case


SURFACES: dict[str, Callable[[Path], Case]] = {
    "certificates": certificates, "requests": requests, "keys": keys, "kits": kits, "bundles": bundles,
    "approvals": approvals, "registries": registries,
}  # fmt: skip
