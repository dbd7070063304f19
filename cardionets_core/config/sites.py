"""One row of the coordinator's registry of sites, ``trust/sites.json``.

Comes in: a mapping from JSON. Goes out: a frozen, checked row. Reading and changing the file is the server's.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from pydantic import Field, field_validator

from cardionets_core.config.patterns import SHA256, SITE_NAME
from cardionets_core.config.read import Document

TIME = "%Y-%m-%dT%H:%M:%SZ"


class SiteRow(Document):
    """A site that was admitted once; a row is never removed, so that a revoked key stays known."""

    site: str = Field(pattern=SITE_NAME)
    fingerprint: str = Field(pattern=SHA256, description="SHA-256 of the public key, DER")
    public_key: str = Field(pattern=r"^ecdsa-sha2-nistp384 [A-Za-z0-9+/=]+$", description="OpenSSH form")
    serial: str = Field(pattern=r"^[0-9a-f]+$", description="of the newest certificate, hexadecimal")
    not_after: str = Field(description="end of the newest certificate, UTC, as 2027-12-31T00:00:00Z")
    status: Literal["admitted", "revoked"]
    admitted_s: float = Field(gt=0, description="seconds since 1970")
    reason: str = Field(default="", max_length=500, description="of the revocation")

    @field_validator("not_after")
    @classmethod
    def _a_moment(cls, value: str) -> str:
        datetime.strptime(value, TIME)
        return value

    @property
    def ends(self) -> datetime:
        """End of the certificate."""
        return datetime.strptime(self.not_after, TIME).replace(tzinfo=UTC)
