"""Why a model is not released, or a release not used; no such code ever crosses the wire.

Further leaves of the one exception tree, with its families' exit codes: 5 privacy, 7 checkpoint. They stand
in docs/exit-codes.md.
"""

from __future__ import annotations

from cardionets_core.errors import CheckpointError, PrivacyError


class MemorisationError(PrivacyError):
    """A generator would be released without a memorisation test that it passed."""

    code = "memorisation-not-passed"


class PrivacyUnmetError(PrivacyError):
    """A run did not keep the privacy that its study asks for, or nothing shows that it did."""

    code = "privacy-unmet"


class StudyUnfinishedError(CheckpointError):
    """A study that has not completed has no final model."""

    code = "study-unfinished"


class ReleaseTornError(CheckpointError):
    """A released model is not as it was made: a file is absent, changed or added."""

    code = "release-torn"


class OnnxDiffersError(CheckpointError):
    """An exported ONNX file does not compute what the model computes."""

    code = "onnx-differs"
