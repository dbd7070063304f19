"""What a reply may hold, field by field and array by array; all else is refused by name (row 9 of the walk).

Comes in: an envelope as it would travel, and what the order, the study and the site's policy allow. Goes out:
the envelope with counts rounded and histograms made coarse, or a refusal that names what may not leave.
Whatever is added to a reply must be added here too, or it never leaves. No field is free text: each is a
number, a word of a list, a digest, a layout that the study itself knows, or a census that ``census`` reads.
Judges no person behind a number; the gate counts those.
"""

from __future__ import annotations

import contextlib
import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from cardionets_core.errors import DisclosureRefusedError, SecureSumError, error_codes
from cardionets_core.exchange.content_digest import text_bytes
from cardionets_core.exchange.fields import Scalar
from cardionets_core.exchange.messages import FORMAT_VERSION, Envelope, Kind, RoundName
from cardionets_core.exchange.precision import Form
from cardionets_core.exchange.secure import MASKED, MESSAGE
from cardionets_core.exchange.tensors import Layout
from cardionets_core.privacy.census import told_census
from cardionets_core.privacy.counts import Counts, check_counts, count_of, rounded, told
from cardionets_core.privacy.secure_sum import Confirmation, KeyAdvert, ShareBundle, UnmaskReply

DIGEST = re.compile(r"[0-9a-f]{64}")
SITE = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
PART = re.compile(r"value/part/[a-z][a-z0-9_]{0,40}")
MOST_PARTS = 32
CODES: Mapping[Form, type[np.generic]] = {"fp32": np.float32, "bf16": np.uint16, "int8": np.int8}
"""In which numbers a module travels, by its form."""
Check = Callable[[Scalar], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """What the reply to one order may hold.

    Attributes:
        kind: of the order.
        name: the round; a reply names no other.
        site: the site's name.
        layouts: modules that may leave, and what the strategy sends beside them, by name.
        form: in which the modules leave; what is sent beside them is exact.
        sums: name to shape of every sum that may leave.
        counts: which of them count people or records.
        values: names of the other numbers.
        measures: whether a code may say why nothing was measured.
    """

    kind: Kind
    name: RoundName
    site: str
    layouts: Mapping[str, Layout] = field(default_factory=dict)
    form: Form = "fp32"
    sums: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    counts: Counts = field(default_factory=dict)
    values: frozenset[str] = frozenset()
    measures: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The site's policy, as far as it bounds what a reply tells.

    Attributes:
        minimum_cell: fewest people in any group that is told of.
        count_rounding: counts leave as multiples of this.
        coarse: whether histograms leave in wide bins.
        cohort_sizes: whether a census tells sizes.
        maximum_bytes: of all arrays.
        maximum_text_bytes: of all names and texts.
        judged: whether the counts were judged and rounded before, when the reply left first.
    """

    minimum_cell: int
    count_rounding: int
    coarse: bool
    cohort_sizes: bool
    maximum_bytes: int
    maximum_text_bytes: int
    judged: bool = False


def told_envelope(envelope: Envelope, allowed: Allowed, limits: Limits) -> Envelope:
    """The envelope as it may leave; heads of journals come later.

    Raises:
        DisclosureRefusedError: names what may not leave.
    """
    _check_arrays(envelope.arrays, allowed)
    _check_fields(envelope.fields, allowed)
    sums = {name.removeprefix("sum/"): v for name, v in envelope.arrays.items() if name.startswith("sum/")}
    if not (limits.judged and limits.count_rounding > 1):
        check_counts(sums, allowed.counts, minimum=limits.minimum_cell)
    arrays = dict(envelope.arrays)
    for name, value in sums.items():
        arrays[f"sum/{name}"] = told(
            value,
            count_of(name, allowed.counts),
            multiple=limits.count_rounding,
            minimum=limits.minimum_cell,
            coarse=limits.coarse,
        )
    fields = {name: _told_field(name, value, limits) for name, value in envelope.fields.items()}
    found = Envelope(fields=fields, arrays=arrays)
    _check_size("bytes", found.nbytes, limits.maximum_bytes, "maximum_reply_bytes")
    _check_size("bytes of names and text", text_bytes(found), limits.maximum_text_bytes, "maximum_text_bytes")
    return found


def check_masked(envelope: Envelope, allowed: Allowed, limits: Limits) -> None:
    """A masked vector stands for all of a reply: beside it there is the round's name, and nothing else.

    Raises:
        DisclosureRefusedError: names what may not leave.
    """
    alone = Allowed(kind=allowed.kind, name=allowed.name, site=allowed.site)
    _check_fields(envelope.fields, alone)
    masked = envelope.arrays.get(MASKED)
    if set(envelope.arrays) != {MASKED} or masked is None or masked.dtype != np.uint64 or masked.ndim != 1:
        raise _refused(f"arrays {sorted(envelope.arrays)} in the place of a masked vector")
    _check_size("bytes", envelope.nbytes, limits.maximum_bytes, "maximum_reply_bytes")


def check_refusal(envelope: Envelope) -> None:
    """A refusal is a code and the round's name, and nothing else.

    Raises:
        DisclosureRefusedError: names what may not leave.
    """
    checks = {
        **_round_checks(None),
        "site": lambda value: value == "" or _fits(SITE, value),
        "code": lambda value: isinstance(value, str) and value in error_codes(),
        "facts": lambda value: value == "",
        "measure-code": lambda value: value == "",
    }
    if envelope.arrays:
        raise _refused(f"the array {min(envelope.arrays)} with a refusal")
    _check_each(envelope.fields, checks)


def _check_fields(fields: Mapping[str, Scalar], allowed: Allowed) -> None:
    census = allowed.kind == "census"
    codes = {"", *error_codes()} if allowed.measures else {""}
    checks: dict[str, Check] = {
        **_round_checks(allowed.name),
        "site": lambda value: value == allowed.site and _fits(SITE, value),
        "code": lambda value: value == "",
        # A census is read key by key where it is told.
        "facts": lambda value: isinstance(value, str) and (census or value == ""),
        "measure-code": lambda value: isinstance(value, str) and value in codes,
        **{f"value/{name}": _is_number for name in allowed.values},
    }
    for name, layout in allowed.layouts.items():
        checks[f"layout/module/{name}"] = partial(operator.eq, layout.to_json())
        checks[f"form/module/{name}"] = lambda value: value == allowed.form
        if "." not in name:
            checks[f"samples/{name}"] = lambda value: type(value) is int and 0 < value < 2**53
    if allowed.kind == "secure":
        checks[MESSAGE] = _is_secure_message
    parts = [name for name in fields if PART.fullmatch(name)] if "loss" in allowed.values else []
    if len(parts) > MOST_PARTS:
        raise _refused(f"{len(parts)} parts of a loss")
    _check_each(fields, checks | dict.fromkeys(parts, _is_number))


def _round_checks(name: RoundName | None) -> dict[str, Check]:
    """Of the fields that name the round; a refusal may answer what was no order."""
    if name is None:
        return {
            "format": lambda value: value == FORMAT_VERSION,
            "study-digest": lambda value: value == "" or _fits(DIGEST, value),
            **dict.fromkeys(("phase", "round", "attempt"), lambda value: type(value) is int),
        }
    return {
        "format": lambda value: value == FORMAT_VERSION,
        "study-digest": lambda value: value == name.study_digest and _fits(DIGEST, value),
        "phase": lambda value: type(value) is int and value == name.phase,
        "round": lambda value: type(value) is int and value == name.round,
        "attempt": lambda value: type(value) is int and value == name.attempt,
    }


def _check_each(fields: Mapping[str, Scalar], checks: Mapping[str, Check]) -> None:
    for name, value in fields.items():
        if name not in checks:
            raise _refused(f"the field {name}")
        if not checks[name](value):
            raise _refused(f"the field {name} with this value")


def _check_arrays(arrays: Mapping[str, np.ndarray], allowed: Allowed) -> None:
    expected: dict[str, tuple[type[np.generic], tuple[int, ...] | None]] = {
        f"sum/{name}": (np.float64, shape) for name, shape in allowed.sums.items()
    }
    for name, layout in allowed.layouts.items():
        form: Form = "fp32" if "." in name else allowed.form
        expected[f"module/{name}"] = (CODES[form], (layout.size,))
        if form == "int8":
            expected[f"scale/module/{name}"] = (np.float32, None)
    for name, value in arrays.items():
        if name not in expected:
            raise _refused(f"the array {name}")
        dtype, shape = expected[name]
        if value.dtype != dtype or (value.ndim != 1 if shape is None else value.shape != shape):
            raise _refused(f"the array {name} as {value.dtype} of shape {value.shape}")
        if not np.isfinite(value).all():
            raise DisclosureRefusedError(f"{name} holds values that are not finite", where="gate")


def _told_field(name: str, value: Scalar, limits: Limits) -> Scalar:
    if name == "facts" and value:
        return told_census(str(value), sizes=limits.cohort_sizes, multiple=limits.count_rounding)
    if name.startswith("samples/"):
        return int(rounded(np.array([float(value)]), multiple=limits.count_rounding)[0])
    return value


def _check_size(what: str, found: int, most: int, key: str) -> None:
    if found > most:
        raise DisclosureRefusedError(
            f"the reply has {found} {what}; the policy allows {most}", where=f"site.yaml: policy.{key}"
        )


def _fits(pattern: re.Pattern[str], value: Scalar) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _is_secure_message(value: Scalar) -> bool:
    """Whether a text is one of the protocol's messages: keys, digests, ciphertexts and signatures alone."""
    for kind in (KeyAdvert, ShareBundle, Confirmation, UnmaskReply):
        with contextlib.suppress(SecureSumError, AttributeError, UnicodeEncodeError):
            kind.from_bytes(value.encode("ascii"))  # type: ignore[union-attr]
            return True
    return False


def _is_number(value: Scalar) -> bool:
    return type(value) is float and math.isfinite(value)


def _refused(what: str) -> DisclosureRefusedError:
    return DisclosureRefusedError(
        f"{what} may not leave in answer to this order",
        where="gate",
        remedy="report it: nothing leaves that cardionets_core/privacy/disclosure.py does not name",
    )
