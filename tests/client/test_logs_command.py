"""``cardionets-client logs`` and ``status``: what hospital IT reads of refusals at the terminal."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from client.log import LOG, site_log

CONNECTION = """consortium: heart
site: alpha
server: "localhost:19092"
cardionets_version: "0.1.0"
flwr_version: "1.41.0"
logs: {maximum_bytes: 10000, keep: 2}
"""
ROUND = {"kind": "train", "study": "ab" * 32, "phase": 0, "round": 2, "attempt": 1}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "connection.yaml").write_text(CONNECTION)
    (tmp_path / "site.yaml").write_text(
        "site: alpha\nsource: {kind: mimic_iv_ecg, root: ecg}\npolicy: {phases: [ecg_mae]}\n"
    )
    return tmp_path


def test_lines_for_people_and_for_programs(folder, client):
    log = site_log(folder, site="alpha")
    assert (log.maximum_bytes, log.keep) == (10_000, 2)
    log.write("order-reached", **ROUND)
    log.write("order-failed", code="internal", **ROUND)
    shown = client("logs", folder).out.splitlines()
    assert len(shown) == 2 and "phase 1, round 2" in shown[0] and "ERROR order-failed" in shown[1]
    assert client("logs", folder, "--level", "error").out.splitlines() == shown[1:]
    lines = [json.loads(line) for line in client("logs", folder, "--format", "json").out.splitlines()]
    assert [line["event"] for line in lines] == ["order-reached", "order-failed"] and lines[0]["phase"] == 0
    assert client("logs", folder, "--since", "1h").out.splitlines() == shown
    assert client("logs", folder, "--since", "2100-01-01T00:00").out == ""
    wrong = client("logs", folder, "--since", "yesterday")
    assert wrong.code == 2 and "2026-01-31T08:00" in wrong.err
    assert client("logs", folder / "none").code == 3


def test_a_site_without_a_log_has_no_lines(folder, client):
    assert (client("logs", folder).out, client("logs", folder).code) == ("", 0)


def test_lines_are_followed(folder):
    program = Path(sys.executable).with_name("cardionets-client")
    log = site_log(folder, site="alpha")
    log.write("order-reached", **ROUND)
    with subprocess.Popen(
        [program, "logs", folder, "--follow"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert "order-reached" in process.stdout.readline()
        for number in range(3, 9):
            log.write("trained", **{**ROUND, "round": number}, seconds=1.0)
        found = [process.stdout.readline() for _ in range(3, 9)]
        process.terminate()
        process.wait(20)
    assert [f"round {number}" in line for number, line in enumerate(found, start=3)] == [True] * 6


def test_status_tells_the_last_refusal_and_what_to_do(folder, client):
    log = site_log(folder, site="alpha")
    log.write("order-failed", code="internal", **ROUND)
    log.write("code-refused", code="code-not-approved", bundle="cd" * 32)
    shown = client("status", folder).out
    assert "code-not-approved" in shown and "cd" * 32 in shown and "cardionets-client approve" in shown
    (folder / LOG).write_text("2026-01-01 00:00:00 a line of an earlier version\n")
    assert "last refusal" not in client("status", folder).out
