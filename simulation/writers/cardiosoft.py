"""One resting ECG as CardioSoft XML, the dialect of UK Biobank field 20205 (FORMATS section 1).

Comes in: an ``EcgRecord``. Goes out: bytes. The median beats stand before the rhythm and are also called
``WaveformData``; numbers run over many lines with tabs; an unknown measurement is an empty element.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
from scipy.signal import find_peaks

from cardionets_core.data.records import EcgRecord

RESOLUTION_UV = 5
MEDIAN_SAMPLES = 600
_VALUES_A_LINE = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Sitting:
    """What the file says beside the signal.

    Attributes:
        patient_id: the eid; readers must drop it.
        when: date and time.
        measurements: name of the element to whole number; an absent one is written empty.
        diagnosis: the machine's lines.
    """

    patient_id: str
    when: datetime
    measurements: dict[str, int]
    diagnosis: tuple[str, ...]


_MEASUREMENTS = (
    ("VentricularRate", "BPM"), ("PQInterval", "ms"), ("PDuration", "ms"), ("QRSDuration", "ms"),
    ("QTInterval", "ms"), ("QTCInterval", "ms"), ("RRInterval", "ms"), ("PPInterval", "ms"),
    ("SokolovLVHIndex", "mV"), ("PAxis", "degrees"), ("RAxis", "degrees"), ("TAxis", "degrees"),
)  # fmt: skip


def cardiosoft_xml(record: EcgRecord, sitting: Sitting) -> bytes:
    """The file as bytes, ISO 8859-1 with CRLF.

    Args:
        record: 12 leads at 500 Hz in mV, without NaN.
        sitting: the rest.
    """
    counts = np.rint(record.signal_mv * (1000.0 / RESOLUTION_UV)).astype(int)
    beats = find_beats(record)
    lines = ['<?xml version="1.0" encoding="ISO8859-1" ?>', "<CardiologyXML>", *_head(sitting)]
    lines += ["\t<RestingECGMeasurements>"]
    for name, unit in _MEASUREMENTS:
        value = sitting.measurements.get(name, "")
        lines.append(f'\t\t<{name} units="{unit}">{value}</{name}>')
    lines += [f"\t\t<QRSNum>{len(beats)}</QRSNum>", "\t\t<MedianSamples>"]
    lines += _signal_head(record, MEDIAN_SAMPLES, "\t\t\t")
    lines += ['\t\t\t<FirstValid units="Sample">0</FirstValid>']
    lines += [f'\t\t\t<LastValid units="Sample">{MEDIAN_SAMPLES}</LastValid>']
    lines += _waveforms(record.leads, _median_beat(counts, beats), "\t\t\t")
    lines += ["\t\t</MedianSamples>", "\t</RestingECGMeasurements>", "\t<StripData>"]
    lines += _signal_head(record, counts.shape[1], "\t\t")
    lines += _waveforms(record.leads, counts, "\t\t")
    lines += ["\t\t<ArrhythmiaResults>"]
    for beat in beats:
        lines += [f'\t\t\t<Time units="ms">{round(1000 * beat / record.fs_hz)}</Time>']
        lines += ["\t\t\t<BeatClass>dominant</BeatClass>"]
    lines += [
        "\t\t</ArrhythmiaResults>",
        "\t</StripData>",
        "\t<Export>",
        "\t</Export>",
        "</CardiologyXML>",
        "",
    ]
    return "\r\n".join(lines).encode("iso-8859-1")


def find_beats(record: EcgRecord) -> np.ndarray:
    """Samples of the R peaks: where the leads together change fastest. int64 [beats]."""
    energy = np.abs(np.diff(record.signal_mv, axis=1)).sum(axis=0)
    width = max(3, round(0.05 * record.fs_hz))
    energy = np.convolve(energy, np.ones(width) / width, mode="same")
    peaks, _ = find_peaks(
        energy, distance=round(0.4 * record.fs_hz), height=0.35 * float(np.quantile(energy, 0.995))
    )
    return np.asarray(peaks, dtype=np.int64)


def _median_beat(counts: np.ndarray, beats: np.ndarray) -> np.ndarray:
    before = MEDIAN_SAMPLES // 3
    whole = [b for b in beats if before <= b <= counts.shape[1] - (MEDIAN_SAMPLES - before)]
    if not whole:
        return np.zeros((len(counts), MEDIAN_SAMPLES), dtype=int)
    stacked = np.stack([counts[:, b - before : b - before + MEDIAN_SAMPLES] for b in whole])
    return np.rint(np.median(stacked, axis=0)).astype(int)


def _head(sitting: Sitting) -> list[str]:
    when = sitting.when
    clock = {"Hour": when.hour, "Minute": when.minute, "Second": when.second}
    date = {"Day": when.day, "Month": when.month, "Year": when.year}
    return [
        "\t<ObservationType>RestECG</ObservationType>",
        "\t<ObservationDateTime>",
        *(f"\t\t<{name}>{value}</{name}>" for name, value in (clock | date).items()),
        "\t</ObservationDateTime>",
        "\t<UID>",
        "\t\t<DICOMStudyUID></DICOMStudyUID>",
        "\t</UID>",
        "\t<ClinicalInfo>",
        "\t\t<DeviceInfo>",
        "\t\t\t<Desc>CardioSoft</Desc>",
        "\t\t\t<SoftwareVer>V6.73</SoftwareVer>",
        "\t\t\t<AnalysisVer></AnalysisVer>",
        "\t\t</DeviceInfo>",
        "\t</ClinicalInfo>",
        "\t<PatientVisit>",
        "\t\t<PatientClass>O</PatientClass>",
        '\t\t<SysBP units="mmHg"></SysBP>',
        '\t\t<DiaBP units="mmHg"></DiaBP>',
        "\t</PatientVisit>",
        "\t<PatientInfo>",
        f"\t\t<PID>{sitting.patient_id}</PID>",
        "\t\t<Gender>UNKNOWN</Gender>",
        "\t\t<Race>UNKNOWN</Race>",
        "\t\t<PaceMaker>no</PaceMaker>",
        "\t</PatientInfo>",
        "\t<FilterSetting>",
        "\t\t<CubicSpline>No</CubicSpline>",
        "\t\t<Filter50Hz>Yes</Filter50Hz>",
        "\t\t<Filter60Hz>No</Filter60Hz>",
        '\t\t<LowPass units="Hz">150</LowPass>',
        "\t</FilterSetting>",
        "\t<Device-Type>-1</Device-Type>",
        "\t<Interpretation>",
        "\t\t<Diagnosis>",
        *(f"\t\t\t<DiagnosisText>{line}</DiagnosisText>" for line in sitting.diagnosis),
        "\t\t</Diagnosis>",
        "\t</Interpretation>",
    ]


def _signal_head(record: EcgRecord, samples: int, indent: str) -> list[str]:
    return [
        f"{indent}<NumberOfLeads>{len(record.leads)}</NumberOfLeads>",
        f'{indent}<SampleRate units="Hz">{round(record.fs_hz)}</SampleRate>',
        f"{indent}<ChannelSampleCountTotal>{samples}</ChannelSampleCountTotal>",
        f'{indent}<Resolution units="uVperLsb">{RESOLUTION_UV}</Resolution>',
    ]


def _waveforms(leads: tuple[str, ...], counts: np.ndarray, indent: str) -> list[str]:
    lines: list[str] = []
    for lead, row in zip(leads, counts.tolist(), strict=True):
        words = [str(value) for value in row]
        chunks = [",".join(words[at : at + _VALUES_A_LINE]) for at in range(0, len(words), _VALUES_A_LINE)]
        text = f",\r\n{indent}".join(chunks)
        lines.append(f'{indent}<WaveformData lead="{lead}">{indent}{text}</WaveformData>')
    return lines
