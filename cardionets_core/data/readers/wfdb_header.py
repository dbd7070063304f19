"""Text of a WFDB header (step 2 of the walk).

Comes in: the text of a ``.hea`` file. Goes out: what is needed to read its signals. Does not open any other
file; keeps no date, time, comment or name of the record. Syntax: WFDB Applications Guide, header(5); the
tolerated departures are those of FORMATS section 5 (an extension on the record line, odd dates, ``mv``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

MAXIMUM_SIGNALS = 64
_DEFAULT_RATE_HZ = 250.0
_DEFAULT_GAIN = 200.0
_MV_PER_UNIT = {"mv": 1.0, "uv": 1e-3, "µv": 1e-3, "nv": 1e-6, "v": 1e3}
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*")
_FORMAT = re.compile(r"(?P<format>\d+)(?:x(?P<per_frame>\d+))?(?::(?P<skew>\d+))?(?:\+(?P<offset>\d+))?")
_GAIN = re.compile(
    r"(?P<gain>[-+]?[\d.]+(?:e[-+]?\d+)?)(?:\((?P<baseline>-?\d+)\))?(?:/(?P<unit>\S+))?", re.I
)


class HeaderInvalidError(ValueError):
    """The text does not follow the syntax, or asks for what no resting ECG has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Coding:
    """How the samples of a signal are stored.

    Attributes:
        storage: number of the WFDB storage format.
        plain: one sample a frame and no skew.
        offset_bytes: bytes before the first sample.
        gain: counts per unit.
        baseline: count of zero.
        mv_per_unit: millivolts; None where the unit is not a voltage.
        single: whether float32 holds gain and baseline exactly and the unit is mV.
    """

    storage: int
    plain: bool
    offset_bytes: int
    gain: float
    baseline: int
    mv_per_unit: float | None
    single: bool


class SignalLine(NamedTuple):
    """One signal of the header.

    Attributes:
        file_name: a plain name beside the header.
        coding: how its samples are stored.
        lead: as spelt.
    """

    file_name: str
    coding: Coding
    lead: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """A whole header.

    Attributes:
        rate_hz: samples per second of each signal; positive.
        samples: length of each signal, or None where the header leaves it open.
        signals: in the order of the file.
        standard: the record line is one that the wfdb library reads too.
    """

    rate_hz: float
    samples: int | None
    signals: tuple[SignalLine, ...]
    standard: bool


def parse_header(text: str) -> Header:
    """Parse the text of a header.

    Raises:
        HeaderInvalidError: says which line is wrong; names no file.
    """
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines:
        raise HeaderInvalidError("no record line")
    record = lines[0].split()
    if len(record) < 2 or "/" in record[0]:
        raise HeaderInvalidError("the record line is short, or of a record in several segments")
    count = _whole(record[1], "number of signals")
    if not 1 <= count <= MAXIMUM_SIGNALS or len(lines) < 1 + count:
        raise HeaderInvalidError("the header does not hold the signals that it promises")
    rate = _number(re.split(r"[/(]", record[2])[0], "rate") if len(record) > 2 else _DEFAULT_RATE_HZ
    if rate <= 0:
        raise HeaderInvalidError("the rate is not positive")
    samples = _whole(record[3], "number of samples") if len(record) > 3 else 0
    return Header(
        rate_hz=rate,
        samples=samples or None,
        signals=tuple(_signal(line) for line in lines[1 : 1 + count]),
        standard=re.fullmatch(r"[-\w]+", record[0]) is not None,
    )


def _signal(line: str) -> SignalLine:
    fields = line.split(maxsplit=8)
    if len(fields) < 2:
        raise HeaderInvalidError("a signal line is short")
    if _FILE_NAME.fullmatch(fields[0]) is None:
        raise HeaderInvalidError("a signal line names no plain file")
    coding = _coding(fields[1], fields[2] if len(fields) > 2 else None, fields[4] if len(fields) > 4 else "0")
    return SignalLine(fields[0], coding, fields[8] if len(fields) > 8 else "")


@lru_cache(maxsize=256)  # the records of a cohort share a few codings
def _coding(form: str, scale_text: str | None, zero: str) -> Coding:
    storage = _FORMAT.fullmatch(form)
    if storage is None:
        raise HeaderInvalidError("a signal line names no format")
    scale = _GAIN.fullmatch(scale_text) if scale_text is not None else None
    if scale_text is not None and scale is None:
        raise HeaderInvalidError("a signal line has no readable gain")
    gain = (_number(scale["gain"], "gain") if scale else 0.0) or _DEFAULT_GAIN
    text = scale["baseline"] if scale and scale["baseline"] is not None else zero
    baseline = _whole(text, "baseline", signed=True)
    mv_per_unit = _MV_PER_UNIT.get(((scale["unit"] if scale else None) or "mV").lower())
    exact = float(np.float32(gain)) == gain and 1e-6 < abs(gain) < 1e6 and abs(baseline) < 2**23
    return Coding(
        storage=int(storage["format"][:6]),
        plain=(storage["per_frame"] or "1") == "1" and (storage["skew"] or "0") == "0",
        offset_bytes=_whole(storage["offset"] or "0", "offset"),
        gain=gain,
        baseline=baseline,
        mv_per_unit=mv_per_unit,
        single=exact and mv_per_unit == 1.0,
    )


def _whole(text: str, name: str, *, signed: bool = False) -> int:
    if not re.fullmatch(r"-?[0-9]{1,12}" if signed else r"[0-9]{1,12}", text):
        raise HeaderInvalidError(f"the {name} is not a whole number")
    return int(text)


def _number(text: str, name: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise HeaderInvalidError(f"the {name} is not a number") from None
    if not -1e12 < value < 1e12:
        raise HeaderInvalidError(f"the {name} is not finite")
    return value
