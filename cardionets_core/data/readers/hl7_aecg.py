"""HL7 annotated ECG, ``urn:hl7-org:v3`` (HL7 aECG implementation guide, March 2005; FORMATS section 5).

Step 2 of the walk. Comes in: the path of an XML file. Goes out: the leads of the rhythm series in mV as they
are stored. Representative beats, whether in a series of their own, derived from the rhythm or in a second
sequence set, the annotations, and all that tells who the person is stay unread.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from cardionets_core.data.readers.base import Reader
from cardionets_core.data.readers.lead_names import canonical_lead
from cardionets_core.data.readers.lead_rows import MAXIMUM_RATE_HZ, finite_number, positive_number, record_of
from cardionets_core.data.readers.xml_text import has_element, parse_xml, refusals_of, text_of
from cardionets_core.data.records import LEADS, EcgRecord
from cardionets_core.errors import RecordRefused

_MV_PER_UNIT = {"nv": 1e-6, "uv": 1e-3, "\u00b5v": 1e-3, "\u03bcv": 1e-3, "mv": 1.0, "v": 1000.0}
_UNITS_PER_SECOND = {"s": 1.0, "ms": 1e3, "us": 1e6, "\u00b5s": 1e6, "\u03bcs": 1e6}
_TIMES = ("TIME_ABSOLUTE", "TIME_RELATIVE")
_NUMBER_CHARACTERS = dict.fromkeys(map(ord, "0123456789+-. \t\r\n"))


def read_hl7_aecg(path: Path, *, unit: str | None = None) -> EcgRecord:
    """Read the rhythm of one annotated ECG.

    Args:
        path: an ``AnnotatedECG`` file.
        unit: what the site declares for lists of plain integers, which name none.

    Returns:
        The stored leads in the order of the file; mV = origin + digit x scale, rate = 1 / increment. Of
        several sequence sets the longest is taken.

    Raises:
        RecordRefused: ``ecg-file-missing``, ``ecg-too-large``, ``ecg-unreadable``, ``ecg-truncated``,
            ``ecg-wrong-structure`` (no rhythm series, another dialect), ``ecg-undeclared`` (no unit or
            increment) or ``ecg-unsupported`` (a unit or a kind of list that is not read).
    """
    with refusals_of(path):
        root = parse_xml(path)
        if root.tag != "AnnotatedECG":
            raise RecordRefused("ecg-wrong-structure", "not an annotated ECG")
        sequences = _rhythm(root)
        rate_hz = _rate_hz(sequences)
        leads = [(lead, _lead_mv(value, unit=unit)) for lead, value in _leads(sequences)]
        return record_of(leads, rate_hz=rate_hz)


def _rhythm(root: Element) -> list[Element]:
    """Sequences of the longest set of the rhythm; ``derivation`` lies on another path and is not met."""
    sets = [
        found.findall("component/sequence")
        for series in root.findall("component/series")
        if _code(series) in ("", "RHYTHM")
        for found in series.findall("component/sequenceSet")
    ]
    lengths = [
        max((len(text_of(value, "digits")) for _, value in _leads(found)), default=0) for found in sets
    ]
    if not any(lengths):
        raise RecordRefused("ecg-wrong-structure", "no rhythm series with leads")
    return sets[lengths.index(max(lengths))]


def _leads(sequences: list[Element]) -> list[tuple[str, Element]]:
    """(lead, value) of those of the twelve."""
    named = ((canonical_lead(_code(sequence)), sequence.find("value")) for sequence in sequences)
    return [(lead, value) for lead, value in named if lead in LEADS and value is not None]


def _rate_hz(sequences: list[Element]) -> float:
    rates = {
        _known(step.get("unit", ""), _UNITS_PER_SECOND)
        / positive_number(step.get("value", ""), "the increment")
        for sequence in sequences
        if _code(sequence) in _TIMES
        for step in sequence.findall("value/increment")
    }
    if not rates:
        raise RecordRefused("ecg-undeclared", "the sequences name no increment of time")
    if max(rates) > 1.001 * min(rates):
        raise RecordRefused("ecg-wrong-structure", "the sequences name different rates")
    return positive_number(max(rates), "the rate", limit=MAXIMUM_RATE_HZ)


def _lead_mv(value: Element, *, unit: str | None) -> np.ndarray:
    """Float64 [T] in mV."""
    if value.get("type", "").rpartition(":")[2] not in ("SLIST_PQ", "SLIST_INT"):
        raise RecordRefused("ecg-unsupported", "a lead is not a scaled list")
    scale, origin = value.find("scale"), value.find("origin")
    if scale is None:
        raise RecordRefused("ecg-unreadable", "a lead has no scale")
    scale_mv = positive_number(_amount(scale), "the scale") * _mv_per_unit(scale, unit=unit)
    origin_mv = 0.0
    if origin is not None and finite_number(_amount(origin), "the origin"):
        origin_mv = float(_amount(origin)) * _mv_per_unit(origin, unit=unit)
    return origin_mv + _digits(text_of(value, "digits")) * scale_mv


def _digits(text: str) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter(
            "error", DeprecationWarning
        )  # an older numpy's word for text that it cannot parse
        try:
            if not text.translate(_NUMBER_CHARACTERS):
                return np.fromstring(text, dtype=np.float64, sep=" ")
        except (DeprecationWarning, ValueError):
            pass
    raise RecordRefused("ecg-unreadable", "a lead holds something other than numbers")


def _amount(quantity: Element) -> str:
    """Of a physical quantity as an attribute, of a plain integer also as text."""
    return (quantity.get("value") or quantity.text or "").strip()


def _mv_per_unit(quantity: Element, *, unit: str | None) -> float:
    return _known((quantity.get("unit") or unit or "").lower(), _MV_PER_UNIT)


def _known(unit: str, table: dict[str, float]) -> float:
    if unit not in table:
        raise RecordRefused("ecg-unsupported" if unit else "ecg-undeclared", "a unit is absent or not known")
    return table[unit]


def _code(element: Element) -> str:
    code = element.find("code")
    return "" if code is None else code.get("code", "").strip()


READER = Reader(
    name="hl7_aecg",
    kind="ecg",
    title="HL7 aECG",
    suffixes=(".xml",),
    recognises=lambda path, head: has_element(head, "AnnotatedECG"),
    read=lambda path, options: read_hl7_aecg(path, unit=options.unit),
)
