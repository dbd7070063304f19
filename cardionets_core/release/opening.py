"""A release opened for use: every file held against its checksum, and the signature against who is trusted.

Comes in: a folder or a zip, from anybody. Goes out: the folder of its model, and who signed. A zip goes
into a folder of this account alone, which is removed when the release is closed.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cardionets_core.errors import CardioNetsError, UsageError
from cardionets_core.release.archive import unpack_release
from cardionets_core.release.layout import CHECKSUMS, MODEL, check_files
from cardionets_core.release.signature import Signer, Trusted, check_signature, trusted_file
from cardionets_core.trust.keys import heard

UNSIGNED = "unsigned: nobody vouches for it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A release whose checks all passed.

    Attributes:
        folder: where it lies.
        signer: who signed; None for nobody.
    """

    folder: Path
    signer: Signer | None

    @property
    def model(self) -> Path:
        """Folder of the model."""
        return self.folder / MODEL

    @property
    def signed_by(self) -> str:
        """For people."""
        return UNSIGNED if self.signer is None else f"signed by {self.signer.words}"


def is_release(path: Path) -> bool:
    """Whether a path is to be opened as a release: any file, or a folder with a list of checksums."""
    return path.is_file() or (path / CHECKSUMS).exists()


def trusted_by(file: Path | None, digits: str | None) -> Trusted:
    """Who must have signed, as a command line names it.

    Raises:
        UsageError: both were given, or the fingerprint is not a whole one.
        CertificateInvalidError: the file is no certificate or public key, or is outside of its time.
    """
    if file is not None and digits is not None:
        raise UsageError(
            "give --trust or --fingerprint, not both", where="--trust", remedy="one of them suffices"
        )
    if digits is not None:
        return Trusted(fingerprint=heard(digits), source="--fingerprint")
    return Trusted() if file is None else trusted_file(file)


@contextlib.contextmanager
def opened_release(path: Path, trusted: Trusted) -> Iterator[Release]:
    """Check a release and hand it out.

    Args:
        path: of a folder or a zip.
        trusted: who must have signed it; nobody by default.

    Raises:
        ReleaseTornError: it is not whole, or no release.
        CertificateInvalidError: the signature is wrong, or not of whom is trusted.
        StorageFailedError: a zip finds no room.
    """
    with contextlib.ExitStack() as stack:
        folder = path
        if path.is_file():
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cardionets-release-")))
            unpack_release(path, folder)
        try:
            signer = check_signature(folder, check_files(folder), trusted)
        except CardioNetsError as error:
            # A reader of the error knows the zip, and not where it was unpacked for a moment.
            error.where = error.where.replace(str(folder), str(path))
            raise
        yield Release(folder=folder, signer=signer)
