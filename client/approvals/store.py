"""The record of what hospital IT approved and withdrew (row 0 of the walk).

Comes in: the folder ``approvals`` of a site. Goes out: whether a bundle or a study may run, by its SHA-256.
The record is a hash-chained journal; what was approved lies beside it, to be compared with what comes later.
It fails closed: a record that is broken or cannot be read approves nothing. Imports no torch and no Flower,
since it is asked before anything of the coordinator's runs.
"""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cardionets_core.audit import journal
from cardionets_core.config.study import study_from_json
from cardionets_core.errors import CodeNotApprovedError, DataError, StorageFailedError, UsageError
from client.approvals.pending import Pending
from client.private_file import write_private

RECORD = "store.jsonl"
CODE, STUDY = "code", "study"
APPROVED, WITHDRAWN = "approved", "withdrawn"
SHORTEST_PREFIX = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The last word on a bundle or a study.

    Attributes:
        kind: ``code`` or ``study``.
        digest: SHA-256 of the bundle, or of the study.
        approved: whether it may run.
        time_s: when it was said, in seconds since 1970.
        who: the account that said it.
        note: in its own words.
    """

    kind: str
    digest: str
    approved: bool
    time_s: float
    who: str
    note: str

    @property
    def when(self) -> str:
        """When it was said, in this machine's time, to the minute."""
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(self.time_s))


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """All that the record says.

    Attributes:
        decisions: (kind, digest) to the last word on it, the latest word last.
        fault: why the record counts for nothing; empty where it is whole.
    """

    decisions: dict[tuple[str, str], Decision] = field(default_factory=dict)
    fault: str = ""

    def allows(self, kind: str, digest: str) -> bool:
        """Whether it may run."""
        said = self.decisions.get((kind, digest))
        return not self.fault and said is not None and said.approved

    def approved(self, kind: str) -> list[Decision]:
        """What may run, the latest approval last."""
        return [
            said for said in self.decisions.values() if said.kind == kind and self.allows(kind, said.digest)
        ]

    def withdrawn(self, kind: str) -> list[Decision]:
        """What was approved and may run no longer, the latest withdrawal last."""
        return [
            said
            for said in self.decisions.values()
            if said.kind == kind and not said.approved and not self.fault
        ]

    def withdrawal(self, kind: str, digest: str) -> Decision | None:
        """The withdrawal that is the last word on it; None where that is another, or none was said."""
        return next((said for said in self.withdrawn(kind) if said.digest == digest), None)


class ApprovalStore:
    """What IT approved on one site.

    Args:
        folder: ``approvals`` of the site's folder; it need not be there yet.

    Attributes:
        pending: what arrived and was not approved.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pending = Pending(folder / "pending")

    def standing(self) -> Standing:
        """Read the whole record; never raises."""
        path = self.folder / RECORD
        decisions: dict[tuple[str, str], Decision] = {}
        try:
            if not path.exists():
                return Standing()
            journal.verify(path)
            for line in path.read_text(encoding="utf-8").splitlines():
                said = _decision(json.loads(line.partition(" ")[2]))
                decisions.pop((said.kind, said.digest), None)  # the latest word stands last
                decisions[said.kind, said.digest] = said
        except Exception as error:  # whatever is wrong with the record, it approves nothing
            told = error.what if isinstance(error, DataError) else type(error).__name__
            return Standing(fault=f"the record of approvals is broken or cannot be read ({told})")
        return Standing(decisions=decisions)

    def is_code_approved(self, sha256: str) -> bool:
        """Whether a bundle of this SHA-256 may run."""
        return self.standing().allows(CODE, sha256)

    def is_study_approved(self, digest: str) -> bool:
        """Whether orders of this study may be followed."""
        return self.standing().allows(STUDY, digest)

    def approve_code(self, content: bytes, *, note: str = "") -> str:
        """Approve a bundle; it is kept, and no longer waits.

        Args:
            content: of the bundle.
            note: kept in the record.

        Returns:
            Its SHA-256.

        Raises:
            CodeNotApprovedError: the record is broken.
            StorageFailedError: the folder cannot be written; then nothing is approved.
        """
        digest = hashlib.sha256(content).hexdigest()
        self._approve(CODE, digest, content=content, note=note)
        self.pending.forget_code(digest)
        return digest

    def approve_study(self, text: str, *, note: str = "") -> str:
        """Approve a study; it is kept, and no longer waits.

        Args:
            text: the study's canonical JSON.
            note: kept in the record.

        Returns:
            Its digest.

        Raises:
            OrderRefusedError: the text is not a study in canonical JSON.
            CodeNotApprovedError: the record is broken.
            StorageFailedError: the folder cannot be written; then nothing is approved.
        """
        digest = hashlib.sha256(text.encode()).hexdigest()
        study_from_json(text, digest=digest)
        self._approve(STUDY, digest, content=text.encode(), note=note)
        self.pending.forget_study(digest)
        return digest

    def withdraw(self, prefix: str, *, note: str = "") -> Decision:
        """Take an approval back; what runs of it is refused from its next order on.

        Args:
            prefix: the SHA-256, or its first 8 characters or more.
            note: kept in the record.

        Returns:
            The decision that no longer stands.

        Raises:
            UsageError: nothing approved begins with the prefix, or more than one does.
            CodeNotApprovedError: the record is broken: nothing is approved at all.
            StorageFailedError: the folder cannot be written.
        """
        self._whole()
        said = [said for kind in (CODE, STUDY) for said in self.standing().approved(kind)]
        found = [one for one in said if len(prefix) >= SHORTEST_PREFIX and one.digest.startswith(prefix)]
        if len(found) != 1:
            raise UsageError(
                f"{len(found)} approvals begin with {prefix!r}",
                where="--withdraw",
                remedy=f"give at least {SHORTEST_PREFIX} characters of one that stands: "
                + (", ".join(one.digest[:16] for one in said) or "nothing is approved"),
            )
        self._record(found[0].kind, WITHDRAWN, found[0].digest, note)
        return found[0]

    def approved_code(self, digest: str) -> bytes | None:
        """The bundle as it was approved; None where the copy is gone or is not that bundle."""
        return _intact(self._copy(CODE, digest), digest)

    def approved_study(self, digest: str) -> str | None:
        """The study as it was approved; None where the copy is gone or is not that study."""
        content = _intact(self._copy(STUDY, digest), digest)
        return None if content is None else content.decode()

    def _approve(self, kind: str, digest: str, *, content: bytes, note: str) -> None:
        self._whole()
        with self._written():
            path = self._copy(kind, digest)
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_private(path, content)
            _give_to_owner(self.folder, path.parent, path)
        self._record(kind, APPROVED, digest, note)

    def _record(self, kind: str, word: str, digest: str, note: str) -> None:
        with self._written():
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            facts = {"digest": digest, "who": _account(), "note": note}
            journal.append(self.folder / RECORD, f"{kind}-{word}", facts)
            _give_to_owner(self.folder, self.folder / RECORD)

    def _copy(self, kind: str, digest: str) -> Path:
        return self.folder / (f"code/{digest}.fab" if kind == CODE else f"studies/{digest}.json")

    def _whole(self) -> None:
        if fault := self.standing().fault:
            raise CodeNotApprovedError(
                f"{fault}: nothing counts as approved",
                where=str(self.folder / RECORD),
                remedy="find out who changed it; keep the file elsewhere, then approve again",
            )

    @contextlib.contextmanager
    def _written(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageFailedError(
                f"the approval cannot be recorded: {error.strerror}",
                where=str(self.folder),
                remedy="free space, mount the disk for writing, or use the account that owns the folder",
            ) from error


def _decision(body: dict[str, Any]) -> Decision:
    kind, _, word = str(body["event"]).partition("-")
    if kind not in (CODE, STUDY) or word not in (APPROVED, WITHDRAWN):
        raise ValueError("not a decision")
    return Decision(
        kind=kind,
        digest=str(body["digest"]),
        approved=word == APPROVED,
        time_s=float(body["time_s"]),
        who=str(body["who"]),
        note=str(body["note"]),
    )


def _intact(path: Path, digest: str) -> bytes | None:
    with contextlib.suppress(OSError):
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() == digest:
            return content
    return None


def _give_to_owner(folder: Path, *paths: Path) -> None:
    """What root writes belongs to whoever owns the site's folder, or the service could not read it."""
    owner = folder.parent.stat()
    for path in (folder, *paths):
        if os.geteuid() == 0 and path.stat().st_uid != owner.st_uid:
            os.chown(path, owner.st_uid, owner.st_gid)


def _account() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's account may have no name
        return str(os.getuid())
