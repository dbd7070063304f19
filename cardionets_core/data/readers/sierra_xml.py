"""Philips Sierra / PhilipsECG XML 1.03, 1.04, 1.04.01 and 1.04.02 (FORMATS section 5).

Step 2 of the walk. Comes in: the path of an XML file. Goes out: the leads in mV without the calibration pulse
that the carts append. ``sierraecg`` expands the LZW text, under our bounds: its own file reader trusts
the sizes that a file states and leaves out the resolution. The second differences are summed here (1 ms a
record instead of 65 ms); the tests hold the result to that of the library.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np
from sierraecg.lzw import LzwDecoder

from cardionets_core.data.readers.base import Reader
from cardionets_core.data.readers.lead_names import canonical_lead
from cardionets_core.data.readers.lead_rows import MAXIMUM_RATE_HZ, base64_bytes, positive_number, record_of
from cardionets_core.data.readers.xml_text import has_element, parse_xml, refusals_of, text_of
from cardionets_core.data.records import LEADS, EcgRecord
from cardionets_core.errors import RecordRefused

VERSIONS = ("1.03", "1.04", "1.04.01", "1.04.02")
RESOLUTION_UV = 5.0
"""Of files that state none: all of version 1.03 may."""
MAXIMUM_SAMPLES = 120_000
MAXIMUM_CHANNELS = 32
CALIBRATION_MV = 1.0
CALIBRATION_SECONDS = 1.0
_SHORTEST_PULSE_SECONDS = 0.1
_CODE_BITS = 10
_HEADER_BYTES = 8
_STANDARD_ACQUISITIONS = ("STD-12", "10-WIRE")


def read_sierra_xml(path: Path) -> EcgRecord:
    """Read one resting ECG without its calibration second.

    Args:
        path: a ``restingecgdata`` file.

    Returns:
        The leads in the order of the file, flagged ``calibration-cropped`` where the last second was dropped.

    Raises:
        RecordRefused: see ``decode_sierra``.
    """
    return crop_calibration(decode_sierra(path))


def decode_sierra(path: Path) -> EcgRecord:
    """All samples of one file, the calibration pulse included.

    Raises:
        RecordRefused: ``ecg-file-missing``, ``ecg-too-large``, ``ecg-unreadable``, ``ecg-truncated``,
            ``ecg-wrong-structure`` (another dialect, no waveforms) or ``ecg-unsupported`` (a version,
            compression or set of leads that is not read).
    """
    with refusals_of(path):
        root = parse_xml(path)
        if root.tag != "restingecgdata":
            raise RecordRefused("ecg-wrong-structure", "not a Sierra resting ECG")
        if text_of(root, "documentinfo/documentversion") not in VERSIONS:
            raise RecordRefused("ecg-unsupported", "a version of the format that is not read")
        waves = root.find(".//parsedwaveforms")
        signal = root.find("dataacquisition/signalcharacteristics")
        if waves is None or signal is None:
            raise RecordRefused("ecg-wrong-structure", "no waveforms")
        _require_known_coding(waves, signal)
        rate = waves.get("samplespersecond") or text_of(signal, "samplingrate")
        rate_hz = positive_number(rate, "samplingrate", limit=MAXIMUM_RATE_HZ)
        duration_ms = positive_number(waves.get("durationperchannel", ""), "durationperchannel")
        samples = round(duration_ms * rate_hz / 1000.0)
        if not 2 <= samples <= MAXIMUM_SAMPLES:
            raise RecordRefused("ecg-wrong-structure", f"{samples} samples a lead: not a resting ECG")
        counts = _counts(base64_bytes(waves.text or ""), _labels(waves, signal), samples=samples)
        mv_per_count = _resolution_uv(waves, signal) / 1000.0
        return record_of(((lead, row * mv_per_count) for lead, row in counts.items()), rate_hz=rate_hz)


def crop_calibration(record: EcgRecord) -> EcgRecord:
    """Drop the last second where it holds the 1 mV pulse of the cart and then zeros to the end.

    The carts give 11 s: 10 s of rhythm, and a second whose samples 350 to 449 (at 500 Hz) are 1 mV in all
    leads. The pulse must stand in at least half of the leads at the same time for 0.1 s.
    """
    second = round(CALIBRATION_SECONDS * record.fs_hz)
    if second < 1 or record.signal_mv.shape[1] <= second:
        return record
    tail_mv = record.signal_mv[:, -second:]
    pulse = np.flatnonzero((np.abs(tail_mv - CALIBRATION_MV) < 0.01 * CALIBRATION_MV).mean(axis=0) >= 0.5)
    if len(pulse) < max(1.0, _SHORTEST_PULSE_SECONDS * record.fs_hz) or tail_mv[:, pulse[-1] + 1 :].any():
        return record
    signal_mv = np.ascontiguousarray(record.signal_mv[:, :-second])
    return replace(record, signal_mv=signal_mv, flags=record.flags | {"calibration-cropped"})


def _resolution_uv(waves: Element, signal: Element) -> float:
    """Of the rhythm; that of the representative beats stands elsewhere and differs."""
    for text in (waves.get("resolution"), text_of(signal, "resolution"), text_of(signal, "signalresolution")):
        if text:
            return positive_number(text, "resolution")
    return RESOLUTION_UV


def _require_known_coding(waves: Element, signal: Element) -> None:
    compression = waves.get("compressmethod") or waves.get("compression")
    bits = waves.get("bitspersample") or waves.get("nbitspersample") or text_of(signal, "bitspersample")
    offset = waves.get("signaloffset") or text_of(signal, "signaloffset")
    coding = (waves.get("dataencoding"), compression, bits or "16", offset or "0")
    if coding != ("Base64", "XLI", "16", "0"):
        raise RecordRefused("ecg-unsupported", "the waveforms are coded in a way that is not read")


def _labels(waves: Element, signal: Element) -> list[str]:
    """Names of the channels that are in use; the files hold spare ones behind them."""
    labels = [canonical_lead(label) for label in waves.get("leadlabels", "").split()]
    if labels:
        labels = labels[: int(positive_number(waves.get("numberofleads", str(len(labels))), "numberofleads"))]
    elif text_of(signal, "acquisitiontype") in _STANDARD_ACQUISITIONS:
        labels = list(LEADS)
    if not labels or len(labels) > MAXIMUM_CHANNELS:
        raise RecordRefused("ecg-unsupported", "a set of leads that is not read")
    if len(set(labels)) < len(labels):
        raise RecordRefused("ecg-wrong-structure", "a lead stands twice")
    return labels


def _counts(content: bytes, labels: list[str], *, samples: int) -> dict[str, np.ndarray]:
    """Name to int64 [T]; limb leads, which are stored as differences from their derived value, restored."""
    rows: dict[str, np.ndarray] = {}
    place = 0
    for label in labels:
        header = content[place : place + _HEADER_BYTES]
        size_bytes = int.from_bytes(header[:4], "little", signed=True)
        place += _HEADER_BYTES + size_bytes
        if len(header) < _HEADER_BYTES or place > len(content):
            raise RecordRefused("ecg-truncated", "the waveforms end before the last lead")
        if size_bytes < 1:
            raise RecordRefused("ecg-unreadable", "a lead has no size")
        first = int.from_bytes(header[6:], "little", signed=True)
        rows[label] = _lead(content[place - size_bytes : place], first, samples=samples)
    return _restore_limb_leads(rows)


def _lead(chunk: bytes, first: int, *, samples: int) -> np.ndarray:
    """One channel, int64 [T]: LZW text of all high, then all low bytes of second differences plus 64."""
    decoder = LzwDecoder(chunk, bits=_CODE_BITS)
    try:
        unpacked = decoder.read_bytes(2 * samples)
        surplus = decoder.read() >= 0
    except OverflowError as error:  # the library's -1 for "no more" does not fit into a byte
        raise RecordRefused("ecg-truncated", "a lead holds fewer samples than the file promises") from error
    except IndexError as error:
        raise RecordRefused("ecg-unreadable", "a lead is not LZW text") from error
    if surplus:
        raise RecordRefused("ecg-unreadable", "a lead holds more samples than the file promises")
    high, low = np.frombuffer(bytes(unpacked), dtype=np.uint8).astype(np.int64).reshape(2, samples)
    words = (high << 8 | low).astype(np.int16).astype(np.int64)
    # The first two words are samples, the header holds the first difference, and the last word is unused.
    second = -np.concatenate(([first], words[2:-1] - 64))[: samples - 2]
    slope = words[1] - words[0] + np.cumsum(second)
    counts = np.concatenate((words[:2], words[1] + np.cumsum(slope)))
    if counts.min() < -(2**15) or counts.max() >= 2**15:
        raise RecordRefused("ecg-unreadable", "a sample does not fit into 16 bit")
    return counts


def _restore_limb_leads(rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Derived value (halves rounded down) minus or plus what is stored, for III, aVR, aVL and aVF."""
    if not {"III", "aVR", "aVL", "aVF"} & rows.keys():
        return rows
    if not {"I", "II", "III"} <= rows.keys():
        raise RecordRefused("ecg-unsupported", "the limb leads cannot be restored")
    restored = dict(rows)
    one, two = rows["I"], rows["II"]
    restored["III"] = three = two - one - rows["III"]
    derived = {"aVR": -((one + two) // 2), "aVL": (one - three) // 2, "aVF": (two + three) // 2}
    restored |= {lead: value - rows[lead] for lead, value in derived.items() if lead in rows}
    return restored


READER = Reader(
    name="sierra_xml",
    kind="ecg",
    title="Philips Sierra XML",
    suffixes=(".xml",),
    recognises=lambda path, head: has_element(head, "restingecgdata"),
    read=lambda path, options: read_sierra_xml(path),
)
