"""The one exception tree of CardioNets.

Every error that a person can meet tells *what* happened, *where* (a file and key, or a step of the
walk) and *what to do*. Its ``code`` is kebab-case and safe on the wire; its text never leaves a site.

    UsageError        2   the command line
    ConfigError       3   a document
    DataError         4   the site's data; RecordRefused carries a reason of REFUSAL_REASONS
    PrivacyError      5   something would leave, or be spent, that may not
    PeerError         6   the other side; SecureSumError carries a reason
    CheckpointError   7   what lasts at the coordinator, and disks

are its families with their exit codes. Every class and code stands in docs/exit-codes.md.

This module imports nothing of the project but the reasons, and does no input or output.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from cardionets_core.refusal_reasons import REFUSAL_REASONS


class CardioNetsError(Exception):
    """Base of all errors that the project raises on purpose.

    Args:
        what: what happened, in one plain sentence.
        where: the file and key, or the step, in which it happened.
        remedy: what the reader can do about it.
        facts: of it for the site's own log, by the fields of ``logs.events``; nothing of a patient.
    """

    code: ClassVar[str] = "internal"
    exit_code: ClassVar[int] = 1

    def __init__(
        self, what: str, *, where: str = "", remedy: str = "", facts: Mapping[str, str | float] | None = None
    ) -> None:
        super().__init__(what)
        self.facts = dict(facts or {})
        self.what = what
        self.where = where
        self.remedy = remedy

    def __str__(self) -> str:
        parts = [self.what]
        if self.where:
            parts.append(f"  where: {self.where}")
        if self.remedy:
            parts.append(f"  to do: {self.remedy}")
        return "\n".join(parts)


class UsageError(CardioNetsError):
    """The command line asks for something that cannot be done."""

    code = "usage"
    exit_code = 2


class ConfigError(CardioNetsError):
    """A study, site or scenario document is wrong."""

    code = "config-invalid"
    exit_code = 3


class UnknownNameError(ConfigError):
    """A document names a task, source, strategy or preset that does not exist."""

    code = "unknown-name"


class MachineUnfitError(ConfigError):
    """The machine lacks what the site needs: disk, memory, a device, a library's version, a right clock."""

    code = "machine-unfit"


class DataError(CardioNetsError):
    """A site's data cannot serve."""

    code = "data"
    exit_code = 4


class FolderMissingError(DataError):
    """A folder or file that the site's document names is not there or not readable."""

    code = "folder-missing"


class SourceInvalidError(DataError):
    """The files are there, but the layout is not the one that the source reads."""

    code = "source-invalid"


class ModalityMissingError(DataError):
    """The site holds no records of a kind that the phase needs."""

    code = "modality-missing"


class TooFewPatientsError(DataError):
    """The site has fewer patients than its own policy or the study asks for."""

    code = "too-few-patients"


class CacheStaleError(DataError):
    """The cache was made from other data, code or settings."""

    code = "cache-stale"


class CacheMissingError(CacheStaleError):
    """There is no cache yet: the site was never prepared."""

    code = "cache-missing"


class CacheForeignError(DataError):
    """The cache belongs to another site or is torn."""

    code = "cache-foreign"


class RecordRefused(DataError):  # noqa: N818 - a refusal is the house's word for it
    """One record cannot be used; it is counted under ``reason`` and never listed off-site.

    Args:
        reason: a key of ``REFUSAL_REASONS``.
        what: detail for the site's own screen; never sent.
        where: the file, for the site's own screen; never sent.
    """

    code = "record-refused"

    def __init__(self, reason: str, what: str = "", *, where: str = "") -> None:
        if reason not in REFUSAL_REASONS:
            raise KeyError(f"unknown refusal reason {reason!r}")
        super().__init__(what or REFUSAL_REASONS[reason], where=where)
        self.reason = reason


class PrivacyError(CardioNetsError):
    """Something would leave the site that may not."""

    code = "privacy"
    exit_code = 5


class PhaseNotPermittedError(PrivacyError):
    """The site's policy does not permit this phase, or these many rounds or bytes."""

    code = "phase-not-permitted"


class DisclosureRefusedError(PrivacyError):
    """The gate stopped a reply: it would disclose more than the site permits."""

    code = "disclosure-refused"


class BudgetSpentError(PrivacyError):
    """With this round the site's patients would have spent more privacy than is allowed."""

    code = "budget-spent"


class CodeNotApprovedError(PrivacyError):
    """The coordinator sent code that this site's IT has not approved."""

    code = "code-not-approved"


class StudyNotApprovedError(PrivacyError):
    """An order belongs to a study that this site's IT has not approved."""

    code = "study-not-approved"


class PeerError(CardioNetsError):
    """The other side of the wire sent something wrong, or nothing."""

    code = "peer"
    exit_code = 6


class OrderRefusedError(PeerError):
    """An order does not fit the study that it names."""

    code = "order-refused"


class FormatTooNewError(PeerError):
    """The other side speaks a newer format of the exchange."""

    code = "format-too-new"


class FrozenModuleMissingError(PeerError):
    """The site does not hold a frozen module that the phase reads."""

    code = "frozen-module-missing"


class ReplyRefusedError(PeerError):
    """A reply's names, shapes, dtype, values or counts are wrong."""

    code = "reply-refused"


class QuorumNotMetError(PeerError):
    """Fewer sites answered than the study asks for."""

    code = "quorum-not-met"


class NonFiniteLossError(PeerError):
    """Local training reached a loss that is not a number."""

    code = "non-finite-loss"


class ServiceDownError(PeerError):
    """This side's own service is not running, or one of its processes keeps dying."""

    code = "service-down"


class UnreachableError(PeerError):
    """The other side cannot be reached over the network."""

    code = "unreachable"


class CertificateInvalidError(PeerError):
    """A certificate is of another authority, for another name, or outside of its time."""

    code = "certificate-invalid"


class NotAdmittedError(PeerError):
    """The coordinator does not know this site's key, or has revoked it."""

    code = "not-admitted"


class VersionMismatchError(PeerError):
    """Both sides must run the same version of CardioNets and of Flower, and do not."""

    code = "version-mismatch"


class StudyPausedError(PeerError):
    """The coordinator paused the study; all finished rounds are kept."""

    code = "study-paused"


class SecureSumError(PeerError):
    """A step of a secure sum was refused.

    Args:
        what: as ever; holds no secret and no value.
        where: as ever.
        remedy: as ever.
        reason: why, a key of ``privacy.secure_sum.refusals.REMEDIES``.
        site: whose message it was, where that can be known.
    """

    code = "secure-sum-refused"

    def __init__(
        self, what: str, *, where: str = "", remedy: str = "", reason: str = "", site: str = ""
    ) -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.reason = reason
        self.site = site


class FixedPointRangeError(PeerError):
    """A value is not finite, or too large for the whole numbers that a secure sum adds up."""

    code = "fixed-point-range"


class CheckpointError(CardioNetsError):
    """A checkpoint is torn, or belongs to another study."""

    code = "checkpoint"
    exit_code = 7


class StorageFailedError(CheckpointError):
    """A disk is full, read-only or failing, so that what must last could not be written."""

    code = "storage-failed"


def error_codes() -> dict[str, type[CardioNetsError]]:
    """Every code of the tree with its class; codes are never reused."""
    found: dict[str, type[CardioNetsError]] = {}
    queue: list[type[CardioNetsError]] = [CardioNetsError]
    while queue:
        cls = queue.pop()
        found[cls.code] = cls
        queue.extend(cls.__subclasses__())
    return found
