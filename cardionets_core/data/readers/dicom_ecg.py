"""DICOM waveform objects of a resting ECG (step 2 of the walk; PS3.3 A.34 and C.10.9; FORMATS section 5).

Comes in: the path of a file. Goes out: the rhythm group in mV; never the median beat. Reads the class of the
object and its waveforms only: names, dates and numbers of the person stay unread. A haemodynamic or
ambulatory object is no resting ECG, even with twelve leads in it.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pydicom

from cardionets_core.data.readers.base import Reader
from cardionets_core.data.readers.disk import read_bytes
from cardionets_core.data.readers.lead_codes import lead_of_number
from cardionets_core.data.readers.lead_names import canonical_lead
from cardionets_core.data.records import EcgRecord
from cardionets_core.errors import RecordRefused

MAXIMUM_BYTES = 8_000_000
"""Twelve leads at 1000 Hz for 5 minutes; pydicom may need fifty times the bytes of a hostile file."""
MAXIMUM_ITEMS = 20_000
MINIMUM_LEADS = 8
_CLASSES = {"1.2.840.10008.5.1.4.1.1.9.1.1", "1.2.840.10008.5.1.4.1.1.9.1.2"}
_WAVEFORM_CLASS = b"1.2.840.10008.5.1.4.1.1.9."
_SYNTAXES = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1"}
_ITEM_MARK = b"\xfe\xff\x00\xe0"
_LEAD_NUMBER = re.compile(r"(?:5\.6\.3-9-|2:)(\d{1,3})")
_MV_PER_UNIT = {"nV": 1e-6, "uV": 1e-3, "mV": 1.0, "V": 1e3}
_MISSING = -(2**15)


def read_dicom_ecg(path: Path) -> EcgRecord:
    """Read one DICOM waveform object.

    Args:
        path: a file with the DICOM preamble, little endian with explicit or implicit VR.

    Returns:
        The channels of the rhythm group; mV = (count x sensitivity x correction + baseline) of the stated
        unit. The lowest count of 16 bits is NaN; a padding value is not, since writers state ones that true
        samples take (the open example says 0).

    Raises:
        RecordRefused: ``ecg-file-missing``, ``ecg-too-large``, ``ecg-unreadable``, ``ecg-truncated``,
            ``ecg-wrong-structure``, ``ecg-undeclared`` (no sensitivity or unit) or ``ecg-unsupported``.
    """
    content = read_bytes(path, kind="ecg", limit_bytes=MAXIMUM_BYTES)
    if content.count(_ITEM_MARK) > MAXIMUM_ITEMS:  # each would cost a thousand times its bytes
        raise RecordRefused("ecg-too-large", "more items than any ECG has", where=str(path))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom warns of values that stray from the standard
            return _record(path, content)
    except RecordRefused as refusal:
        raise RecordRefused(refusal.reason, refusal.what, where=str(path)) from refusal
    except Exception as error:  # pydicom raises many kinds on hostile bytes, some as late as at a value's use
        raise RecordRefused("ecg-unreadable", "not a readable DICOM object", where=str(path)) from error


def _record(path: Path, content: bytes) -> EcgRecord:
    # Asked first: pydicom would inflate the deflated syntax whole, whatever its size.
    if str(pydicom.filereader.read_file_meta_info(path).TransferSyntaxUID) not in _SYNTAXES:
        raise RecordRefused("ecg-unsupported", "a transfer syntax that is not read")
    wanted = ["SOPClassUID", "WaveformSequence"]
    dataset = pydicom.dcmread(io.BytesIO(content), specific_tags=wanted)
    if str(dataset.get("SOPClassUID", "")) not in _CLASSES:
        raise RecordRefused("ecg-wrong-structure", "not a 12-lead or general ECG object")
    group = _rhythm(list(dataset.get("WaveformSequence") or []))
    channels = list(group.ChannelDefinitionSequence)
    samples = int(group.NumberOfWaveformSamples)
    if group.WaveformSampleInterpretation != "SS" or int(group.WaveformBitsAllocated) != 16:
        raise RecordRefused("ecg-unsupported", "samples that are not of 16 bits with sign")
    if samples < 1 or len(channels) != int(group.NumberOfWaveformChannels):
        raise RecordRefused("ecg-unreadable", "the channels do not match their number")
    data = bytes(group.WaveformData)
    if 2 * samples * len(channels) > len(data):
        raise RecordRefused("ecg-truncated")
    counts = np.frombuffer(data, dtype="<i2", count=samples * len(channels)).reshape(samples, -1).T
    leads = tuple(_lead(channel) for channel in channels)
    if len(set(leads)) != len(leads):
        raise RecordRefused("ecg-wrong-structure", "a lead stands twice")
    rate_hz = float(group.SamplingFrequency)
    if not 0 < rate_hz < 1e6:
        raise RecordRefused("ecg-unreadable", "an impossible rate")
    signal_mv = np.empty(counts.shape, dtype=np.float32)
    for row, channel in enumerate(channels):
        signal_mv[row] = _millivolts(counts[row], channel)
    signal_mv[counts == _MISSING] = np.nan
    return EcgRecord(signal_mv=signal_mv, fs_hz=rate_hz, leads=leads)


def _rhythm(groups: list[Any]) -> Any:
    """The longest group of at least eight channels that is no median beat; one labelled as rhythm first."""
    candidates: list[tuple[tuple[bool, bool, int], Any]] = []
    for group in groups:
        label = str(group.get("MultiplexGroupLabel", "")).upper()
        derived = str(group.get("WaveformOriginality", "")).upper() == "DERIVED"
        if "MEDIAN" in label or "BEAT" in label or int(group.NumberOfWaveformChannels) < MINIMUM_LEADS:
            continue
        rank = ("RHYTHM" in label, not derived, int(group.NumberOfWaveformSamples))
        candidates.append((rank, group))
    if not candidates:
        raise RecordRefused("ecg-wrong-structure", "no rhythm of at least eight leads in one group")
    return max(candidates, key=lambda candidate: candidate[0])[1]


def _lead(channel: Any) -> str:
    """The coded lead where there is a code that is known, else what its meaning or label spells."""
    sources = list(channel.get("ChannelSourceSequence") or [])
    for source in sources:
        number = _LEAD_NUMBER.fullmatch(str(source.get("CodeValue", "")).strip())
        if number:
            return lead_of_number(int(number[1]))
    spelt = [*(source.get("CodeMeaning", "") for source in sources), channel.get("ChannelLabel", "")]
    text = next((str(name) for name in spelt if str(name).strip()), "")
    return canonical_lead(re.sub(r"\(.*\)", "", text))  # "Lead I (Einthoven)"


def _millivolts(counts: np.ndarray, channel: Any) -> np.ndarray:
    units = [str(item.get("CodeValue", "")) for item in channel.get("ChannelSensitivityUnitsSequence") or []]
    if not units or channel.get("ChannelSensitivity") is None:
        raise RecordRefused("ecg-undeclared", "a channel states no sensitivity or unit")
    scale = _MV_PER_UNIT.get(units[0].strip())
    if scale is None:
        raise RecordRefused("ecg-wrong-structure", "a channel's unit is not a voltage")
    numbers = [float(channel.ChannelSensitivity), _number(channel, "ChannelSensitivityCorrectionFactor", 1.0),
               _number(channel, "ChannelBaseline", 0.0)]  # fmt: skip
    sensitivity, correction, baseline = numbers
    if not all(math.isfinite(number) and abs(number) < 1e12 for number in numbers) or not sensitivity:
        raise RecordRefused("ecg-unreadable", "an impossible sensitivity or baseline")
    return (counts * sensitivity * correction + baseline) * scale


def _number(channel: Any, keyword: str, default: float) -> float:
    value = channel.get(keyword)
    return default if value is None else float(value)


READER = Reader(
    name="dicom_ecg",
    kind="ecg",
    title="DICOM waveform",
    suffixes=(".dcm", ".ecg"),
    recognises=lambda path, head: head[128:132] == b"DICM" and _WAVEFORM_CLASS in head,
    read=lambda path, options: read_dicom_ecg(path),
)
