"""GE MUSE ``RestingECG`` XML (FORMATS section 5).

Step 2 of the walk. Comes in: the path of an XML file. Goes out: the leads of the rhythm waveform in mV as
they are stored, mostly I, II and V1 to V6; ``order_leads`` derives the other four. The median beat, which
stands first in the file, and all that tells who the person is stay unread.
"""

from __future__ import annotations

import re
import zlib
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from cardionets_core.data.readers.base import Reader
from cardionets_core.data.readers.lead_rows import MAXIMUM_RATE_HZ, base64_bytes, positive_number, record_of
from cardionets_core.data.readers.xml_text import has_element, parse_xml, refusals_of, text_of
from cardionets_core.data.records import EcgRecord
from cardionets_core.errors import RecordRefused

_MV_PER_UNIT = {"MICROVOLTS": 1e-3, "MILLIVOLTS": 1.0}
_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,10}")
_LARGEST_EXPONENT = 6


def read_muse_xml(path: Path) -> EcgRecord:
    """Read one resting ECG.

    Args:
        path: a ``RestingECG`` file.

    Returns:
        The stored leads in the order of the file; mV = count x ``LeadAmplitudeUnitsPerBit`` in its unit,
        rate = ``SampleBase`` x 10^``SampleExponent``.

    Raises:
        RecordRefused: ``ecg-file-missing``, ``ecg-too-large``, ``ecg-unreadable`` (also where a lead
            contradicts its checksum), ``ecg-truncated``, ``ecg-wrong-structure`` (no rhythm waveform, another
            dialect), ``ecg-undeclared`` (no unit) or ``ecg-unsupported`` (samples that are not 16 bit and
            continuous, leads that begin at different times).
    """
    with refusals_of(path):
        root = parse_xml(path)
        if root.tag != "RestingECG":
            raise RecordRefused("ecg-wrong-structure", "not a MUSE resting ECG")
        waveform = _rhythm(root)
        leads = waveform.findall("LeadData")
        if len({text_of(lead, "LeadTimeOffset") for lead in leads}) > 1:
            raise RecordRefused("ecg-unsupported", "the leads begin at different times")
        return record_of(
            ((text_of(lead, "LeadID"), _lead_mv(lead)) for lead in leads), rate_hz=_rate_hz(waveform)
        )


def _rhythm(root: Element) -> Element:
    found = [wave for wave in root.findall("Waveform") if text_of(wave, "WaveformType").lower() == "rhythm"]
    if len(found) != 1:
        raise RecordRefused("ecg-wrong-structure", f"{len(found)} rhythm waveforms instead of one")
    if text_of(found[0], "SampleType") not in ("", "CONTINUOUS_SAMPLES"):
        raise RecordRefused("ecg-unsupported", "the samples are not continuous")
    return found[0]


def _rate_hz(waveform: Element) -> float:
    base = positive_number(text_of(waveform, "SampleBase"), "SampleBase")
    exponent = text_of(waveform, "SampleExponent") or "0"
    if not _WHOLE_NUMBER.fullmatch(exponent) or abs(int(exponent)) > _LARGEST_EXPONENT:
        raise RecordRefused("ecg-unreadable", "SampleExponent is out of its range")
    return positive_number(base * 10.0 ** int(exponent), "the rate", limit=MAXIMUM_RATE_HZ)


def _lead_mv(lead: Element) -> np.ndarray:
    """Float64 [T] in mV."""
    if text_of(lead, "LeadSampleSize") not in ("", "2"):
        raise RecordRefused("ecg-unsupported", "the samples are not of 16 bit")
    unit = text_of(lead, "LeadAmplitudeUnits").upper()
    if unit not in _MV_PER_UNIT:
        raise RecordRefused("ecg-unsupported" if unit else "ecg-undeclared", "the unit is none of a voltage")
    units_per_bit = positive_number(text_of(lead, "LeadAmplitudeUnitsPerBit"), "LeadAmplitudeUnitsPerBit")
    content = base64_bytes(text_of(lead, "WaveFormData"))
    promised = text_of(lead, "LeadSampleCountTotal") or str(len(content) // 2)
    if positive_number(promised, "LeadSampleCountTotal") != len(content) / 2:
        raise RecordRefused("ecg-truncated", "a lead does not hold the samples that the file promises")
    checksum = text_of(lead, "LeadDataCRC32")
    if _WHOLE_NUMBER.fullmatch(checksum) and int(checksum) % 2**32 != zlib.crc32(content):
        raise RecordRefused("ecg-unreadable", "a lead contradicts its checksum")
    return np.frombuffer(content, dtype="<i2") * (units_per_bit * _MV_PER_UNIT[unit])


READER = Reader(
    name="muse_xml",
    kind="ecg",
    title="GE MUSE XML",
    suffixes=(".xml",),
    recognises=lambda path, head: has_element(head, "RestingECG"),
    read=lambda path, options: read_muse_xml(path),
)
