"""GE CardioSoft ``CardiologyXML`` of a resting ECG, UK Biobank field 20205 (FORMATS section 1).

Step 2 of the walk. Comes in: the path of an XML file. Goes out: the twelve rhythm leads in mV. Reads the
children of ``StripData`` only: the median beats and all that tells who the person is stay unread. A document
type or entity declaration is refused before anything is expanded; nothing is fetched.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from xml.parsers import expat

import numpy as np

from cardionets_core.data.readers.base import Reader
from cardionets_core.data.readers.disk import read_bytes
from cardionets_core.data.readers.lead_rows import MAXIMUM_RATE_HZ, positive_number, record_of
from cardionets_core.data.readers.xml_text import (
    CUT_OFF,
    MAXIMUM_BYTES,
    MAXIMUM_DEPTH,
    has_element,
    refusals_of,
    true_encoding,
)
from cardionets_core.data.records import EcgRecord
from cardionets_core.errors import RecordRefused

_INTEGER_CHARACTERS = dict.fromkeys(map(ord, "0123456789,- \t\r\n"))
_UNITS = {"SampleRate": "hz", "Resolution": "uvperlsb"}


class _Strip:
    """Handlers of expat: keeps the few texts that a rhythm strip needs, drops all others as they pass."""

    def __init__(self) -> None:
        self.root = ""
        self.observation = ""
        self.numbers: dict[str, str] = {}
        self.leads: list[tuple[str, str]] = []
        self.has_strip = False
        self.is_exercise = False
        self._path: list[str] = []
        self._text: list[str] | None = None
        self._lead = ""

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._path.append(name)
        if len(self._path) > MAXIMUM_DEPTH:
            raise RecordRefused("ecg-unreadable", "the elements are nested too deeply")
        if len(self._path) == 1:
            self.root = name
        inside = self._path[1:]
        self.has_strip |= inside == ["StripData"]
        self.is_exercise |= inside in (["StripData", "Strip"], ["FullDisclosure"], ["Protocol"])
        wanted = inside == ["ObservationType"] or (len(inside) == 2 and inside[0] == "StripData")
        if wanted and name in _UNITS and attributes.get("units", _UNITS[name]).lower() != _UNITS[name]:
            raise RecordRefused("ecg-unsupported", f"{name} is given in another unit")
        self._text = [] if wanted else None
        self._lead = attributes.get("lead", "")

    def text(self, text: str) -> None:
        if self._text is not None:
            self._text.append(text)

    def end(self, name: str) -> None:
        inside = self._path[1:]
        if self._text is not None:
            content = "".join(self._text)
            if inside == ["ObservationType"]:
                self.observation = content.strip()
            elif name == "WaveformData":
                self.leads.append((self._lead, content))
            else:
                self.numbers[name] = content.strip()
        self._text = None
        self._path.pop()

    def refuse_declaration(self, *_: object) -> int:
        raise RecordRefused("ecg-unreadable", "the file declares a document type or an entity")


def read_cardiosoft_xml(path: Path) -> EcgRecord:
    """Read one resting ECG.

    Args:
        path: a ``CardiologyXML`` file.

    Returns:
        The leads in the order of the file; mV = count x ``Resolution`` / 1000.

    Raises:
        RecordRefused: ``ecg-file-missing``, ``ecg-too-large``, ``ecg-unreadable``, ``ecg-truncated``,
            ``ecg-wrong-structure`` (an exercise ECG, no ``StripData``, another dialect) or
            ``ecg-unsupported`` (a unit other than Hz and uV per count).
    """
    with refusals_of(path):
        return _record(_parse(read_bytes(path, kind="ecg", limit_bytes=MAXIMUM_BYTES)))


def _parse(content: bytes) -> _Strip:
    strip = _Strip()
    parser = expat.ParserCreate(true_encoding(content))
    parser.buffer_text = True
    parser.StartElementHandler = strip.start
    parser.EndElementHandler = strip.end
    parser.CharacterDataHandler = strip.text
    parser.StartDoctypeDeclHandler = strip.refuse_declaration
    parser.EntityDeclHandler = strip.refuse_declaration
    parser.ExternalEntityRefHandler = strip.refuse_declaration
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        reason = "ecg-truncated" if error.code in CUT_OFF else "ecg-unreadable"
        raise RecordRefused(reason, f"not well-formed XML: {expat.ErrorString(error.code)}") from error
    except (LookupError, ValueError, TypeError) as error:  # an unknown or broken encoding
        raise RecordRefused("ecg-unreadable", "the text's encoding is not known") from error
    return strip


def _record(strip: _Strip) -> EcgRecord:
    if strip.root != "CardiologyXML" or strip.observation != "RestECG" or strip.is_exercise:
        raise RecordRefused("ecg-wrong-structure", "not a CardioSoft resting ECG")
    if not strip.has_strip or not strip.leads:
        raise RecordRefused("ecg-wrong-structure", "no rhythm strip")
    rate_hz = positive_number(strip.numbers.get("SampleRate", ""), "SampleRate", limit=MAXIMUM_RATE_HZ)
    mv_per_count = positive_number(strip.numbers.get("Resolution", ""), "Resolution") / 1000.0
    leads = [(name, _counts(text) * mv_per_count) for name, text in strip.leads if text.strip()]
    record = record_of(leads, rate_hz=rate_hz)
    promised = strip.numbers.get("ChannelSampleCountTotal", "")
    if promised and record.signal_mv.shape[1] != positive_number(promised, "ChannelSampleCountTotal"):
        raise RecordRefused("ecg-truncated", "the leads do not hold the samples that the file promises")
    return record


def _counts(text: str) -> np.ndarray:
    """Float64 [T]; an empty cell is a missing sample, and a comma at the very end is none."""
    trimmed = text.strip().removesuffix(",")
    if trimmed.translate(_INTEGER_CHARACTERS):
        raise RecordRefused("ecg-unreadable", "a waveform holds something other than whole numbers")
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)  # numpy's word for text that it cannot parse
        try:
            values = np.fromstring(trimmed, dtype=np.float64, sep=",")
        except (DeprecationWarning, ValueError):
            values = np.empty(0)
    if len(values) == trimmed.count(",") + 1:
        return values
    try:
        return np.array([float(cell) if cell.strip() else np.nan for cell in trimmed.split(",")])
    except ValueError as error:
        raise RecordRefused("ecg-unreadable", "a waveform cell is not a number") from error


READER = Reader(
    name="cardiosoft_xml",
    kind="ecg",
    title="GE CardioSoft XML",
    suffixes=(".xml",),
    recognises=lambda path, head: has_element(head, "CardiologyXML"),
    read=lambda path, options: read_cardiosoft_xml(path),
)
