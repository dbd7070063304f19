"""The ledger: reserve before, commit after, composition, limits, crashes, changed lines."""

from __future__ import annotations

import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cardionets_core.errors import BudgetSpentError, DataError, StorageFailedError
from cardionets_core.privacy.accountant import Mechanism, epsilon_of
from cardionets_core.privacy.ledger import Ledger, Limit
from cardionets_core.privacy.ledger_lines import GENESIS, Charge

MECHANISM = Mechanism(noise_multiplier=2.0, sample_rate=0.2, steps=5)
FAR = [Limit(epsilon=1e3, delta=1e-5, where="test")]


def charge(number: int = 1, *, study: str = "a" * 64, mechanism: Mechanism = MECHANISM, **more) -> Charge:
    facts = {"name": "s", "phase": 0, "task": "ecg_mae", "round": number, "part": "train", **more}
    return Charge(study=study, mechanism=mechanism, **facts)


@pytest.fixture
def ledger(tmp_path) -> Ledger:
    return Ledger(tmp_path / "state" / "ledger.db")


def test_what_is_reserved_counts_and_a_commit_changes_nothing(ledger):
    assert ledger.spent(delta=1e-5) == 0.0 and ledger.head() == (0, GENESIS)
    name = ledger.reserve(charge(), FAR)
    spent = ledger.spent(delta=1e-5)
    assert spent == epsilon_of([MECHANISM], delta=1e-5)
    ledger.commit(name)
    assert ledger.spent(delta=1e-5) == spent and ledger.verify() == 2


def test_it_composes_over_studies_rounds_and_openings(tmp_path):
    path = tmp_path / "ledger.db"
    other = Mechanism(noise_multiplier=3.0, sample_rate=0.5, steps=2)
    for number, (study, mechanism) in enumerate([("a" * 64, MECHANISM), ("b" * 64, other)] * 2):
        ledger = Ledger(path)
        ledger.commit(ledger.reserve(charge(number, study=study, mechanism=mechanism), FAR))
    ledger = Ledger(path)
    assert ledger.spent(delta=1e-5) == epsilon_of([MECHANISM, other] * 2, delta=1e-5)
    assert ledger.spent(delta=1e-5, study="b" * 64) == epsilon_of([other] * 2, delta=1e-5)


def test_what_would_pass_a_limit_is_refused_and_not_written(ledger):
    one = epsilon_of([MECHANISM], delta=1e-5)
    two = epsilon_of([MECHANISM] * 2, delta=1e-5)
    for limit in (one, 0.5 * (one + two)):
        tight = [*FAR, Limit(epsilon=limit, delta=1e-5, where="site.yaml: policy")]
        if not ledger.entries():
            ledger.commit(ledger.reserve(charge(1), tight))
        before = ledger.head()
        with pytest.raises(BudgetSpentError) as caught:
            ledger.reserve(charge(2), tight)
        assert f"{one:.3f}" in caught.value.what and caught.value.where == "site.yaml: policy"
        assert ledger.head() == before
    ledger.reserve(charge(2), [Limit(epsilon=two, delta=1e-5, where="x")])


def test_a_limit_of_a_study_does_not_count_the_others(ledger):
    one = epsilon_of([MECHANISM], delta=1e-5)
    ledger.reserve(charge(study="b" * 64), FAR)
    own = Limit(epsilon=one, delta=1e-5, where="study", study="a" * 64)
    ledger.reserve(charge(1), [own])
    with pytest.raises(BudgetSpentError):
        ledger.reserve(charge(2), [own])


def test_an_open_reservation_is_taken_up_and_a_committed_one_is_not(ledger):
    first = ledger.reserve(charge(), FAR)
    assert ledger.reserve(charge(), FAR) == first
    ledger.commit(first)
    again = ledger.reserve(charge(), FAR)
    assert again != first and ledger.spent(delta=1e-5) == epsilon_of([MECHANISM] * 2, delta=1e-5)


def test_an_open_reservation_at_another_cost_is_given_back(ledger):
    other = Mechanism(noise_multiplier=2.0, sample_rate=0.4, steps=5)
    first = ledger.reserve(charge(), FAR)
    second = ledger.reserve(charge(mechanism=other), FAR)
    assert second != first and ledger.spent(delta=1e-5) == epsilon_of([other], delta=1e-5)
    assert ledger.verify() == 3


CHILD = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_ledger import FAR, charge
from cardionets_core.privacy.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]))
name = ledger.reserve(charge(), FAR)
if sys.argv[2] == "committed":
    ledger.commit(name)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("where", ["reserved", "committed"])
def test_a_process_that_dies_has_counted_all_that_it_may_have_spent(tmp_path, where):
    path = tmp_path / "ledger.db"
    code = CHILD.format(tests=str(Path(__file__).parent))
    done = subprocess.run([sys.executable, "-c", code, str(path), where], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    ledger = Ledger(path)
    assert ledger.spent(delta=1e-5) == epsilon_of([MECHANISM], delta=1e-5)
    assert [entry.committed for entry in ledger.entries()] == [where == "committed"]
    assert ledger.verify() == len(where.split()) + (where == "committed")


def test_no_two_processes_pass_a_limit_together(tmp_path):
    path = tmp_path / "ledger.db"
    Ledger(path)
    three = [Limit(epsilon=epsilon_of([MECHANISM] * 3, delta=1e-5), delta=1e-5, where="x")]
    refused = []

    def work(number: int) -> None:
        try:
            Ledger(path).reserve(charge(number), three)
        except BudgetSpentError:
            refused.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 5 and len(Ledger(path).entries()) == 3


def test_lines_can_neither_be_changed_nor_removed(ledger, tmp_path):
    ledger.reserve(charge(), FAR)
    link = sqlite3.connect(tmp_path / "state" / "ledger.db")
    for statement in ("UPDATE lines SET body = '{}'", "DELETE FROM lines"):
        with pytest.raises(sqlite3.IntegrityError, match="ledger"):
            link.execute(statement)


def test_lines_that_were_changed_all_the_same_are_found(ledger, tmp_path):
    for number in (1, 2, 3):
        ledger.commit(ledger.reserve(charge(number), FAR))
    link = sqlite3.connect(tmp_path / "state" / "ledger.db", isolation_level=None)
    link.execute("DROP TRIGGER no_change")
    link.execute("""UPDATE lines SET body = replace(body, '"steps":5', '"steps":1') WHERE number = 3""")
    link.close()
    for act in (ledger.verify, ledger.entries, lambda: ledger.reserve(charge(9), FAR)):
        with pytest.raises(DataError, match="line 3"):
            act()


@pytest.mark.parametrize(
    "body",
    ["[" * 50_000, "{", "3", "{}", '{"event":"reserved","reservation":"x"}', "9" * 5_000, "x\ud800",
     lambda body: body.replace('"steps":5', '"steps":-5'),
     lambda body: body.replace('"phase":0', '"phase":"0"'),
     lambda body: body.replace('"noise_multiplier":2.0', '"noise_multiplier":NaN'),
     lambda body: body.replace('"noise_multiplier":2.0', f'"noise_multiplier":{10**400}'),
     lambda body: body.replace('"steps":5', '"steps":"5"')],
)  # fmt: skip
def test_a_line_whose_hash_fits_and_whose_content_does_not_is_refused(ledger, tmp_path, body):
    ledger.reserve(charge(), FAR)
    link = sqlite3.connect(tmp_path / "state" / "ledger.db", isolation_level=None)
    link.execute("DROP TRIGGER no_change")
    (valid,) = link.execute("SELECT body FROM lines").fetchone()
    changed = body(valid) if callable(body) else body.encode("utf-8", "replace").decode()
    assert changed != valid
    digest = hashlib.sha256(f"{GENESIS} {changed}".encode()).hexdigest()
    link.execute("UPDATE lines SET body = ?, hash = ?", (changed, digest))
    link.close()
    for act in (ledger.entries, lambda: ledger.spent(delta=1e-5), lambda: ledger.reserve(charge(9), FAR)):
        with pytest.raises(DataError, match="cannot be read"):
            act()


def test_what_is_no_ledger_is_named(tmp_path):
    path = tmp_path / "ledger.db"
    path.write_bytes(os.urandom(4096))
    with pytest.raises(DataError, match="not a ledger"):
        Ledger(path)
    assert path.stat().st_size == 4096


def test_a_folder_that_cannot_be_written_is_a_fault_of_the_disk(tmp_path):
    (tmp_path / "ledger.db").mkdir()
    with pytest.raises(StorageFailedError, match="opened"):
        Ledger(tmp_path / "ledger.db")
