"""The site's own key, with which its SuperNode vouches for approved bundles to Flower's check (row 0).

Flower runs a bundle under ``--trusted-entities`` only if an Ed25519 key of that file has signed it. An own
SuperLink passes no signatures on, so the site makes them itself, of nothing but what its IT approved. The key
never leaves the site and proves nothing to anybody else.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import tempfile
import time
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cardionets_core.errors import PrivacyError
from client.private_file import write_private

KEY = "key"
TRUSTED = "trusted.yaml"
KEY_NAME = "fpk_site_approvals"
"""Flower's name of the key."""


def approval_key(folder: Path) -> Ed25519PrivateKey:
    """The site's key; made, with the file for Flower's ``--trusted-entities``, if there is none yet.

    Args:
        folder: ``approvals`` of the site's folder.

    Raises:
        PrivacyError: the key is unreadable, of another kind, or open to other accounts.
    """
    path = folder / KEY
    if not path.exists():
        _make(path)
    key = _read(path)
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    # JSON is YAML too.
    text = json.dumps({KEY_NAME: f"{public.decode()} approvals"}) + "\n"
    trusted = folder / TRUSTED
    if not trusted.is_file() or trusted.read_text(encoding="utf-8") != text:
        write_private(trusted, text.encode())
    return key


def vouch(key: Ed25519PrivateKey, content: bytes, *, now_s: int | None = None) -> dict[str, str]:
    """A bundle's verification record, as Flower reads it.

    The signature is over the time (8 bytes, big-endian) and the bundle's SHA-256.

    Args:
        key: of the site.
        content: of an approved bundle.
        now_s: seconds since 1970.
    """
    at_s = int(time.time()) if now_s is None else now_s
    digest = hashlib.sha256(content).digest()
    signature = base64.urlsafe_b64encode(key.sign(at_s.to_bytes(8, "big") + digest)).decode().rstrip("=")
    return {KEY_NAME: json.dumps({"signed_at": at_s, "signature": signature})}


def _make(path: Path) -> None:
    text = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, part = tempfile.mkstemp(prefix=".key.", dir=path.parent)  # made with mode 0600
    except OSError as error:
        raise PrivacyError(
            f"the key of the approvals cannot be made: {error.strerror}",
            where=str(path),
            remedy="let the account of the service write into this folder",
        ) from error
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.link(part, path)
    except FileExistsError:
        pass  # another process made it in this moment
    finally:
        Path(part).unlink()


def _read(path: Path) -> Ed25519PrivateKey:
    remedy = f"remove {KEY} and {TRUSTED} in this folder and start the SuperNode again: new ones are made"
    try:
        if path.stat().st_mode & 0o077:
            raise PrivacyError(
                "the key of the approvals is open to other accounts", where=str(path), remedy=remedy
            )
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise PrivacyError(
            "the key of the approvals cannot be read", where=str(path), remedy=remedy
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise PrivacyError("the key of the approvals is not of Ed25519", where=str(path), remedy=remedy)
    return key
