"""Every real file is read, or refused with the reason that the formats' document gives it.

A row of the shared manifest is a recording (with its reader and what the checks say of it), a part of one, or
no recording at all. No row may be left without a rule, so a new file needs a line here.
"""

from __future__ import annotations

import csv
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from cardionets_core.data.cine import prepare_cine
from cardionets_core.data.quality import check_ecg
from cardionets_core.data.readers.base import ReadOptions
from cardionets_core.data.readers.registry import recognise
from cardionets_core.data.records import EcgRecord
from cardionets_core.errors import RecordRefused

BARE = ReadOptions(rate_hz=500.0, unit="mV")

RECORDINGS = [
    ("ecg/georgia/*.hea", "wfdb", "accepted"),
    ("ecg/ningbo/JS2000[48].hea", "wfdb", "accepted: flat-lead"),
    ("ecg/ningbo/*.hea", "wfdb", "accepted"),
    ("ecg/cpsc/*.hea", "wfdb", "accepted"),
    ("ecg/ptb/*.hea", "wfdb", "accepted"),
    ("ecg/ptbxl_*/*.hea", "wfdb", "accepted"),
    ("ecg/sph/*.h5", "hdf5", "accepted"),
    ("ecg/vendor/muse/*.xml", "muse_xml", "accepted: lead-derived"),
    ("ecg/vendor/philips/*.xml", "sierra_xml", "accepted: calibration-cropped"),
    ("ecg/vendor/hl7_aecg/*.xml", "hl7_aecg", "accepted"),
    ("ecg/vendor/scp/*.scp", "scp_ecg", "accepted"),
    ("ecg/vendor/dicom/*.dcm", "dicom_ecg", "accepted"),
    ("cmr/acdc/*.nii.gz", "nifti", "cine-frames"),
    ("cmr/sunnybrook/*.zip", "dicom", "accepted: centre-by-motion"),
    ("replicas/mimic_iv_ecg/*/49000007.hea", "wfdb", "accepted: flat-lead"),
    ("replicas/mimic_iv_ecg/*/49000008.hea", "wfdb", "accepted: nan-filled"),
    ("replicas/mimic_iv_ecg/*.hea", "wfdb", "accepted"),
    ("replicas/ukb/20205/*.xml", "cardiosoft_xml", "accepted"),
    ("replicas/ukb/20209/*.zip", "dicom", "accepted: centre-by-motion"),
]
PARTS = ["ecg/*.mat", "ecg/*.dat", "ecg/*.xyz", "replicas/mimic_iv_ecg/*.dat"]
OTHERS = [
    "cmr/*.cfg", "cmr/*.md", "cmr/*.txt", "cmr/*.json", "cmr/acdc/phenotypes_from_gt.csv",
    "ecg/sph/metadata.csv", "labels/*", "replicas/_truth_*", "replicas/mimic_iv_ecg/*.csv",
    "replicas/mimic_iv_ecg/RECORDS", "replicas/ukb/tabular/*", "fed_heart_disease/*", "*.json", "*.tsv",
    "SOURCES.md",
]  # fmt: skip


def listed(shared_data: Path) -> list[str]:
    with (shared_data / "manifest.csv").open(encoding="utf-8", newline="") as stream:
        return [row["path"] for row in csv.DictReader(stream)]


def rule_of(path: str) -> tuple[str, str] | None:
    """(reader, outcome) of a recording; None for what is none."""
    for pattern, reader, outcome in RECORDINGS:
        if fnmatchcase(path, pattern):
            return reader, outcome
    assert any(fnmatchcase(path, pattern) for pattern in PARTS + OTHERS), f"no rule for {path}"
    return None


def outcome_of(path: Path) -> tuple[str, str]:
    """(reader, what it and the checks say)."""
    reader = recognise(path)
    try:
        record = reader.read(path, BARE)
        if isinstance(record, EcgRecord):
            flags = check_ecg(record).flags
        else:
            (stack,) = record
            flags = prepare_cine(stack).flags
    except RecordRefused as refusal:
        return reader.name, refusal.reason
    return reader.name, "accepted" + (": " + ", ".join(sorted(flags)) if flags else "")


def test_every_recording_is_read_or_refused_as_documented(shared_data):
    paths = listed(shared_data)
    expected = {path: rule for path in paths if (rule := rule_of(path)) is not None}
    assert len(expected) > 110
    found = {path: outcome_of(shared_data / path) for path in expected}
    assert found == expected


@pytest.mark.parametrize("pattern", [*PARTS, *OTHERS])
def test_what_is_no_recording_passes_for_none(shared_data, pattern):
    paths = [path for path in listed(shared_data) if fnmatchcase(path, pattern) and rule_of(path) is None]
    for path in paths:
        with pytest.raises(RecordRefused) as caught:
            recognise(shared_data / path).read(shared_data / path, ReadOptions())
        assert caught.value.reason in ("unrecognised", "ecg-undeclared", "ecg-wrong-structure"), path
