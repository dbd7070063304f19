"""``cardionets-client logs`` and ``status``: what hospital IT reads of refusals at the terminal."""

import hashlib
import json
import shlex
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

from cardionets_core.audit import journal
from cardionets_core.config.connection import SiteFolder
from cardionets_core.config.site import read_site
from cardionets_core.config.study import read_study
from cardionets_core.errors import CardioNetsError
from cardionets_core.exchange.messages import Order, RoundName
from cardionets_core.privacy.accountant import Mechanism
from cardionets_core.privacy.ledger import Ledger, Limit
from cardionets_core.privacy.ledger_lines import Charge
from client.approvals.store import ApprovalStore
from client.log import LOG, log_error, site_log
from client.page.chain import broken_steps
from client.page.content import Looking
from client.page.page import page_file
from client.page.refusals import refusals_of
from client.permission import require_study
from client.spending import check_ledger
from server.study_files import SHIPPED

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
    none = client("logs", folder, "--since", "2100-01-01T00:00")
    assert none.out == "" and "no line since 2100-01-01 00:00:00" in none.err
    wrong = client("logs", folder, "--since", "yesterday")
    assert wrong.code == 2 and "2026-01-31T08:00" in wrong.err
    assert client("logs", folder / "none").code == 3
    file = client("logs", folder / LOG)
    assert file.code == 2 and f"cardionets-client logs {folder}" in file.err and "kit" not in file.err
    assert "(an order came)" not in shown[0]  # what an event means stands in the docs, not in every line


def test_what_another_hand_wrote_is_counted_and_not_shown(folder, client):
    log = site_log(folder, site="alpha")
    log.write("order-reached", **ROUND)
    line = json.loads((folder / LOG).read_text())
    forged = {**line, "level": "error", "event": "order-refused", "what": "Meier R010007 1950-01-01"}
    with (folder / LOG).open("a") as handle:
        handle.write(json.dumps(forged) + '\n{"time": "2026-01-0')
    ended = client("logs", folder)
    assert len(ended.out.splitlines()) == 1 and "Meier" not in ended.out + ended.err
    assert "2 lines could not be read" in ended.err
    assert "Meier" not in client("status", folder).out + client("status", folder, "--format", "json").out


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


def test_status_groups_refusals_and_says_what_was_approved_since(folder, client):
    log = site_log(folder, site="alpha")
    store = ApprovalStore(folder / "approvals")
    sha256 = hashlib.sha256(b"bundle").hexdigest()
    for _ in range(3):
        log.write("code-refused", code="code-not-approved", bundle=sha256)
    shown = client("status", folder).out
    assert "3 times, last" in shown and f"cardionets-client approve {folder}" in shown
    store.approve_code(b"bundle")
    log.write("reply-left", **ROUND, bytes=1, text_bytes=1)
    resumes = "if the study has paused, its coordinator resumes it: tell them"
    log.write("code-refused", code="code-not-approved", bundle=sha256)
    store.withdraw(sha256)
    store.approve_code(b"bundle")
    assert resumes in client("status", folder).out
    log.write("reply-left", **ROUND, bytes=1, text_bytes=1)
    assert resumes not in client("status", folder).out
    shown = client("status", folder).out
    assert "approved since" in shown and "replies that left since: 1" in shown
    refusal = shown[shown.index("last refusal") :].partition("!")[0]
    assert "to do:" not in refusal


def test_a_refused_study_is_named_by_its_digest(folder):
    found = refusals_of(
        [{"time": "2026-01-01T00:00:00Z", "level": "error", "event": "order-refused", "study": "ab" * 32,
          "code": "study-not-approved", "what": "the study … (…) is not approved on this site",
          "where": "order", "remedy": "look at it with: cardionets-client approve"}],
        root=folder, approved={("study", "ab" * 32): 0.0},
    )  # fmt: skip
    assert found[0]["what"] == f"the study {'ab' * 8} is not approved on this site"
    assert found[0]["remedy"].endswith(f"cardionets-client approve {folder}") and "where" not in found[0]
    assert found[0]["approved_s"] is None  # an approval before it was not enough


def test_a_withdrawal_is_told_with_its_moment(folder, client):
    store = ApprovalStore(folder / "approvals")
    assert "no code is approved yet" in client("status", folder).out
    text = read_study(SHIPPED / "demo.yaml").to_json()
    code, study = store.approve_code(b"bundle"), store.approve_study(text)
    store.withdraw(study)
    when = store.standing().withdrawal("study", study).when
    assert f"no study is approved ({study[:16]} was withdrawn on {when})" in client("status", folder).out
    store.withdraw(code)
    shown = client("status", folder).out.partition("no cache")[0]
    assert f"no code is approved ({code[:16]} was withdrawn on" in shown and "yet" not in shown
    (folder / "study.json").write_text(text)
    told = client("approve", folder, "--package", folder / "study.json").out
    assert f"was approved here, and withdrawn on {when} by" in told
    found = client("approve", folder, "--package", folder / "study.json", "--yes", "--format", "json").out
    assert json.loads(found)["studies"][0]["withdrawn"]["digest"] == study
    assert store.standing().withdrawal("study", study) is None


@pytest.mark.parametrize("command", ["status", "logs", "approve", "stop"])
def test_a_folder_that_is_not_there_or_a_coordinators_is_named_as_that(tmp_path, client, command):
    none = client(command, tmp_path / "nowhere")
    assert (
        none.code == 3 and f"there is no folder {tmp_path / 'nowhere'}" in none.err and "kit" not in none.err
    )
    (tmp_path / "server.yaml").write_text("consortium: heart\n")
    other = client(command, tmp_path)
    assert other.code == 3 and f"{tmp_path} is a coordinator's workspace" in other.err


def refuse(folder, act):
    """Write down the error that a refusing function raises."""
    try:
        act()
    except CardioNetsError as error:
        assert log_error(
            site_log(folder, site="alpha"), error, root=folder, config=None, code=error.code, **ROUND
        )
        return error.what
    raise AssertionError("nothing was refused")


def test_the_epsilons_of_a_spent_budget_are_told_to_the_site(folder, client):
    charge = Charge(
        study="ab" * 32,
        name="heart",
        phase=0,
        task="ecg_mae",
        round=2,
        part="train",
        mechanism=Mechanism(noise_multiplier=1.0, sample_rate=0.5, steps=20),
    )
    limits = [Limit(epsilon=2.0, delta=1e-5, where="site.yaml: policy.privacy.maximum_epsilon")]
    what = refuse(folder, lambda: Ledger(folder / "state" / "ledger.db").reserve(charge, limits))
    assert what.startswith("epsilon 0.000 is spent, and would be") and "the limit is 2 at delta 1e-05" in what
    for shown in (client("status", folder).out, client("logs", folder).out):
        assert what in shown and "…" not in shown
    (refusal,) = json.loads(client("status", folder, "--format", "json").out)["refusals"]
    assert refusal["what"] == what and refusal["epsilon_limit"] == 2.0 and refusal["epsilon_after"] > 2.0
    assert what in page_file(Looking(SiteFolder(folder)).look())


@pytest.mark.parametrize("name", ["heart-of-2026", "probe"])
def test_a_study_that_is_not_approved_is_told_by_name_and_digest(folder, client, name):
    study = read_study(SHIPPED / "demo.yaml").model_copy(update={"name": name})
    order = Order(
        kind="train",
        name=RoundName(study_digest=study.digest, phase=0, round=2, attempt=1),
        study_json=study.to_json(),
    )
    with mock.patch.dict(ROUND, study=study.digest):
        what = refuse(folder, lambda: require_study(order, ApprovalStore(folder / "approvals")))
    assert what == f"the study {name} ({study.digest[:16]}) is not approved on this site"
    for shown in (client("status", folder).out, client("logs", folder).out):
        assert what in shown and "…" not in shown


def test_no_name_of_another_kind_comes_into_a_sentence(folder, client):
    log = site_log(folder, site="alpha")
    log.write("order-refused", code="study-not-approved", study_name="Jane Doe", **ROUND)
    assert "Doe" not in (folder / LOG).read_text()
    assert "Doe" not in client("status", folder).out + client("logs", folder).out


def test_status_says_what_the_site_lacks(folder, client):
    shown = client("status", folder).out
    assert "no code is approved" in shown and f"cardionets-client approve {folder}" in shown
    assert "there is no cache" in shown
    ApprovalStore(folder / "approvals").approve_code(b"bundle")
    assert "no study is approved" in client("status", folder).out
    lacks = json.loads(client("status", folder, "--format", "json").out)["lacks"]
    assert [each["lacks"] for each in lacks] == ["study", "cache"]


def test_a_broken_journal_is_loud_and_bytes_are_those_of_the_page(folder, client):
    path = folder / "state" / "journal.jsonl"
    for number in range(3):
        journal.append(path, "reply-left", {**ROUND, "bytes": 383, "text_bytes": 257, "attempt": number})
    shown = client("status", folder).out
    assert "640 bytes" in shown and "journal:" not in shown
    path.write_text(path.read_text().replace('"attempt":1', '"attempt":7'))
    shown = client("status", folder).out
    assert "! journal: broken from line 2 on" in shown and "mv -n" in shown and "leave ledger.db" in shown


def test_what_is_said_of_a_broken_journal_holds(folder):
    """Moved away alone, the ledger stays, and the next line begins a new chain."""
    path = folder / "state" / "journal.jsonl"
    journal.append(path, "reply-left", ROUND)
    path.write_text(path.read_text().replace("reply", "reqly"))
    ledger = folder / "state" / "ledger.db"
    ledger.touch()
    (command,) = [
        step.partition("mv -n ")[2].partition(";")[0] for step in broken_steps(path) if "mv" in step
    ]
    subprocess.run(["mv", "-n", *shlex.split(command)], check=True)
    assert not path.exists() and ledger.exists()
    assert journal.append_line(path, "reply-left", ROUND)[0] == journal.verify(path) == 1
    check_ledger(read_site(folder / "site.yaml"))
