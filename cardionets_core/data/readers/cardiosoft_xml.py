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
from cardionets_core.data.readers.lead_names import canonical_lead
from cardionets_core.data.records import EcgRecord
from cardionets_core.errors import RecordRefused

MAXIMUM_BYTES = 8_000_000
_MAXIMUM_DEPTH = 64
_INTEGER_CHARACTERS = dict.fromkeys(map(ord, "0123456789,- \t\r\n"))
_TRUNCATED = {
    expat.errors.codes[message]
    for message in (
        expat.errors.XML_ERROR_NO_ELEMENTS,
        expat.errors.XML_ERROR_UNCLOSED_TOKEN,
        expat.errors.XML_ERROR_PARTIAL_CHAR,
    )
}


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
        if len(self._path) > _MAXIMUM_DEPTH:
            raise RecordRefused("ecg-unreadable", "the elements are nested too deeply")
        if len(self._path) == 1:
            self.root = name
        inside = self._path[1:]
        self.has_strip |= inside == ["StripData"]
        self.is_exercise |= inside in (["StripData", "Strip"], ["FullDisclosure"], ["Protocol"])
        wanted = inside == ["ObservationType"] or (len(inside) == 2 and inside[0] == "StripData")
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
        RecordRefused: ``ecg-file-missing``, ``ecg-too-large``, ``ecg-unreadable``, ``ecg-truncated`` or
            ``ecg-wrong-structure`` (an exercise ECG, no ``StripData``, another dialect).
    """
    try:
        return _record(_parse(read_bytes(path, kind="ecg", limit_bytes=MAXIMUM_BYTES)))
    except RecordRefused as refusal:
        raise RecordRefused(refusal.reason, refusal.what, where=str(path)) from refusal


def _parse(content: bytes) -> _Strip:
    strip = _Strip()
    parser = expat.ParserCreate()
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
        reason = "ecg-truncated" if error.code in _TRUNCATED else "ecg-unreadable"
        raise RecordRefused(reason, f"not well-formed XML: {expat.ErrorString(error.code)}") from error
    except (LookupError, ValueError, TypeError) as error:  # an unknown or broken encoding
        raise RecordRefused("ecg-unreadable", "the text's encoding is not known") from error
    return strip


def _record(strip: _Strip) -> EcgRecord:
    if strip.root != "CardiologyXML" or strip.observation != "RestECG" or strip.is_exercise:
        raise RecordRefused("ecg-wrong-structure", "not a CardioSoft resting ECG")
    if not strip.has_strip or not strip.leads:
        raise RecordRefused("ecg-wrong-structure", "no rhythm strip")
    rate_hz = _positive(strip.numbers.get("SampleRate", ""), "SampleRate")
    mv_per_count = _positive(strip.numbers.get("Resolution", ""), "Resolution") / 1000.0
    promised = strip.numbers.get("ChannelSampleCountTotal", "")
    rows = {canonical_lead(name): _counts(text) for name, text in strip.leads if text.strip()}
    if len(rows) < sum(1 for _, text in strip.leads if text.strip()):
        raise RecordRefused("ecg-wrong-structure", "a lead stands twice")
    lengths = {len(row) for row in rows.values()}
    if len(lengths) != 1 or (promised and lengths != {int(_positive(promised, "ChannelSampleCountTotal"))}):
        raise RecordRefused("ecg-truncated", "the leads do not hold the samples that the file promises")
    signal = np.stack(list(rows.values())) * mv_per_count
    return EcgRecord(signal_mv=signal.astype(np.float32), fs_hz=rate_hz, leads=tuple(rows))


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


def _positive(text: str, name: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise RecordRefused("ecg-unreadable", f"{name} is missing or not a number") from None
    if not 0 < value < 1e9:
        raise RecordRefused("ecg-unreadable", f"{name} is not positive")
    return value


READER = Reader(
    name="cardiosoft_xml",
    kind="ecg",
    title="GE CardioSoft XML",
    suffixes=(".xml",),
    recognises=lambda path, head: b"<CardiologyXML" in head,
    read=lambda path, options: read_cardiosoft_xml(path),
)
