"""``status.json`` of many sites: written at each change of state, and no more often than its cost allows."""

from __future__ import annotations

import json

import pytest

from cardionets_core.config.study import Study
from server import status
from server.members import Members
from server.progress import Event
from server.reply_journal import ReplyJournal
from server.status import REST, SHORTEST_S, StatusBoard


class Clock:
    """A clock that moves only when it is told to, and by ``cost`` with each write."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, cost: float) -> None:
        self.now, self.writes, real = 0.0, 0, status.write_json

        def write(*arguments, **keywords):  # type: ignore[no-untyped-def]
            real(*arguments, **keywords)
            self.writes += 1
            self.now += cost

        monkeypatch.setattr(status.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(status, "write_json", write)


def board(tmp_path, study: Study) -> StatusBoard:  # type: ignore[no-untyped-def]
    return StatusBoard(tmp_path, study, members=Members(), journal=ReplyJournal(tmp_path))


def event(kind: str, *, round_number: int = 1, site: str = "") -> Event:
    counts = {"phase": 1, "phases": 1, "round": round_number, "rounds": 3}
    return Event(kind=kind, task="ecg_mae", site=site, **counts)


@pytest.fixture
def study() -> Study:
    phase = {"task": "ecg_mae", "rounds": 3, "local_steps": 1, "optimiser": {"lr": 1e-3}}
    return Study.model_validate({"name": "pace", "phases": [phase]})


@pytest.mark.parametrize("cost", [0.001, 0.1, 2.0])
def test_writing_takes_a_twentieth_of_the_time_at_most(tmp_path, study, monkeypatch, cost: float) -> None:
    clock = Clock(monkeypatch, cost=cost)
    made = board(tmp_path, study)
    made.event(event("trained", site="site-0"))  # the first tells of a round: a change of state
    begun, clock.writes = clock.now, 0
    for number in range(400):
        clock.now += 0.25
        made.event(event("trained", site=f"site-{number}"))
    spent = clock.now - begun
    assert clock.writes <= spent / SHORTEST_S + 1
    assert clock.writes * cost <= spent / REST + cost
    assert clock.writes >= int(spent / (max(SHORTEST_S, REST * cost) + 0.3))


def test_a_change_of_state_is_written_at_once_with_all_that_was_heard(tmp_path, study, monkeypatch) -> None:
    clock = Clock(monkeypatch, cost=30.0)
    made = board(tmp_path, study)
    made.event(event("trained", site="alpha"))
    made.event(event("trained", site="beta"))
    assert clock.writes == 1
    made.event(event("round"))
    made.event(event("trained", round_number=2, site="alpha"))
    assert clock.writes == 3
    told = json.loads((tmp_path / "status.json").read_text())
    assert [site["site"] for site in told["sites"]] == ["alpha", "beta"] and told["round"] == 2
