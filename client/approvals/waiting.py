"""What waits for IT's word: in the kit's package, among what arrived, or in a file that was named.

Comes in: a site's folder. Goes out: bundles and studies that are not approved, each once, by digest. Reads
files as data; runs and unpacks nothing of them.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from cardionets_core.config.study import Study, read_study
from cardionets_core.errors import CardioNetsError, ConfigError, FolderMissingError, PeerError
from client.approvals.bundle import LARGEST_BYTES, LARGEST_KIT_BYTES, CodeBundle, read_bundle, zip_files
from client.approvals.store import CODE, STUDY, ApprovalStore, Standing

STUDY_NAMES = ("study.json", "study.yaml", "study.yml")


@dataclass(kw_only=True)
class Waiting:
    """What waits.

    Attributes:
        codes: SHA-256 to (bytes, bundle).
        studies: digest to study.
        faults: what was found and cannot be looked at.
    """

    codes: dict[str, tuple[bytes, CodeBundle]] = field(default_factory=dict)
    studies: dict[str, Study] = field(default_factory=dict)
    faults: list[CardioNetsError] = field(default_factory=list)

    def add_code(self, content: bytes, *, where: str) -> None:
        """Add a bundle, or the fault of it."""
        try:
            bundle = read_bundle(content)
            self.codes[bundle.sha256] = (content, bundle)
        except PeerError as error:
            self.faults.append(PeerError(error.what, where=where, remedy=error.remedy))

    def add_study(self, content: bytes, *, where: str) -> None:
        """Add a study, as JSON or as YAML, or the fault of it."""
        try:
            study = _study(content, where)
            self.studies[study.digest] = study
        except CardioNetsError as error:
            self.faults.append(error)

    def without(self, standing: Standing) -> None:
        """Drop what is approved already."""
        self.codes = {key: value for key, value in self.codes.items() if not standing.allows(CODE, key)}
        self.studies = {key: value for key, value in self.studies.items() if not standing.allows(STUDY, key)}


def find_waiting(store: ApprovalStore, *, package: Path, given: Path | None = None) -> Waiting:
    """What is not approved of all that came.

    Args:
        store: of the site; says what is approved and what arrived.
        package: the folder that came with the kit; need not be there.
        given: a bundle, a kit or a study that somebody named; then nothing else is looked at.

    Raises:
        FolderMissingError: the named file cannot be read.
    """
    found = Waiting()
    if given is not None:
        _add_file(given, found)
    else:
        for path in sorted(package.glob("*")) if package.is_dir() else []:
            if path.suffix == ".fab" or path.name in STUDY_NAMES:
                _add_file(path, found)
        for sha256, content in store.pending.codes().items():
            found.add_code(content, where=f"pending: {sha256}")
        for digest, content in store.pending.studies().items():
            found.add_study(content, where=f"pending: {digest}.json")
    found.without(store.standing())
    return found


def _add_file(path: Path, found: Waiting) -> None:
    try:
        if path.stat().st_size > LARGEST_KIT_BYTES:
            raise PeerError(f"{path.name} is larger than any kit", where=str(path))
        content = path.read_bytes()
    except OSError as error:
        raise FolderMissingError(
            f"{path} cannot be read: {error.strerror}", where=str(path), remedy="name a bundle or a kit"
        ) from error
    if path.name.endswith((".json", ".yaml", ".yml")):
        found.add_study(content, where=str(path))
    elif path.suffix == ".zip":
        _add_kit(content, found)
    else:
        found.add_code(content[: LARGEST_BYTES + 1], where=str(path))


def _add_kit(content: bytes, found: Waiting) -> None:
    for name, inner in zip_files(content, largest_bytes=LARGEST_KIT_BYTES).items():
        if name.endswith(".fab"):
            found.add_code(inner, where=name)
        elif PurePosixPath(name).name in STUDY_NAMES:
            found.add_study(inner, where=name)


def _study(content: bytes, where: str) -> Study:
    # JSON is YAML too; the digest is of the canonical form, however the text was written.
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "study.yaml"
        path.write_bytes(content)
        try:
            return read_study(path)
        except ConfigError as error:
            what = error.what.replace(str(path), PurePosixPath(where).name)
            raise ConfigError(what, where=where, remedy=error.remedy) from error
