"""A site's folder with a journal, a log, approvals and a report, made of files alone."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from cardionets_core.audit import journal
from cardionets_core.config.connection import SiteFolder
from cardionets_core.config.study import read_study
from client.approvals.store import ApprovalStore
from client.log import site_log
from server.study_files import SHIPPED

CONNECTION = """consortium: heart
site: alpha
server: "localhost:19092"
cardionets_version: "0.1.0"
flwr_version: "1.41.0"
"""
SITE = """site: alpha
source: {kind: mimic_iv_ecg, root: ecg}
policy: {phases: [ecg_mae], privacy: {maximum_epsilon: 4.0, maximum_delta: 1.0e-5}}
"""
QUALITY = {
    "recordings": {"ecg": {"listed": 1200, "accepted": 1111, "flagged": 22},
                   "cine": {"listed": 0, "accepted": 0, "flagged": 0}},
    "patients": 987,
    "left_out": [{"reason": "flat", "count": 89, "sentence": "a lead holds one value all the time"}],
    "flags": [], "warnings": ["More than half of the ECGs bear a doubt."], "splits": {},
    "histograms": {"rate_hz": {"unit": "Hz", "known": 1111, "unknown": 3, "median": 500,
                               "least": 250.5, "most": 997.5,
                               "bars": [{"from": None, "below": 300, "count": 11},
                                        {"from": 300, "below": 600, "count": 1100},
                                        {"from": 600, "below": None, "count": 0}]}},
}  # fmt: skip
STUDY = read_study(SHIPPED / "demo.yaml")


def round_of(**changes):
    return {"kind": "train", "study": STUDY.digest, "phase": 0, "round": 1, "attempt": 1, **changes}


@pytest.fixture
def bare(tmp_path) -> SiteFolder:
    """As a kit leaves it, with a described site: nothing was prepared, approved or started."""
    root = tmp_path / "the site"
    root.mkdir()
    (root / "connection.yaml").write_text(CONNECTION)
    (root / "site.yaml").write_text(SITE)
    return SiteFolder(root)


@pytest.fixture
def busy(bare) -> SiteFolder:
    """It has answered orders, refused one, and holds a report."""
    lines = bare.root / "state" / "journal.jsonl"
    for number in range(3):
        facts = {**round_of(round=number + 1), "bytes": 1_000_000 + number, "text_bytes": 500,
                 "patients": 40 + number, "digest": f"{number}{number}" * 32, "sums": 0}  # fmt: skip
        journal.append(lines, "reply-left", facts)
    journal.append(lines, "reply-left", {**round_of(kind="evaluate"), "bytes": 640, "text_bytes": 60,
                                         "patients": 9, "digest": "ee" * 32})  # fmt: skip
    journal.append(lines, "refusal-left", {**round_of(), "code": "too-few-patients", "bytes": 0,
                                           "text_bytes": 140, "digest": "ff" * 32})  # fmt: skip
    log = site_log(bare.root, site="alpha")
    log.write("service-started")
    log.write("link-changed", link="connected")
    log.write("order-reached", **round_of(round=2))
    log.write("trained", **round_of(round=2), seconds=3.5)
    log.write("order-refused", **round_of(round=2), code="too-few-patients")
    log.write("refusal-left", **round_of(round=2), code="too-few-patients", bytes=0, text_bytes=140)
    log.write("order-answered", **round_of(round=2), seconds=4.0)
    log.write("order-reached", **round_of(round=3))
    store = ApprovalStore(bare.approvals)
    store.approve_code(b"bundle")
    store.approve_study(STUDY.to_json())
    report = bare.root / "cache" / "report"
    report.mkdir(parents=True)
    (report / "quality.json").write_text(json.dumps(QUALITY))
    (bare.root / "cache" / "cohort").mkdir()
    (bare.root / "cache" / "cohort" / "manifest.json").write_text("{}")
    return bare


@pytest.fixture
def old(busy) -> Path:
    """The journal, with its last change so long ago that half a line is nobody's."""
    path = busy.root / "state" / "journal.jsonl"

    def age() -> None:
        past = time.time() - 60
        os.utime(path, (past, past))

    age()
    return path
