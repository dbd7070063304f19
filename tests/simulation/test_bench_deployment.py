"""Which cases the benchmark of rounds on real processes runs."""

from __future__ import annotations

import json

import pytest

from simulation.benchmarks import deployment


@pytest.fixture
def ran(monkeypatch, capsys):
    """Runs the program on made seconds; returns the cases that it asked for, and its lines."""

    def run(*arguments):
        asked = []

        def case(side, *, model_bytes, arrays, sites, **rest):
            asked.append((side, model_bytes, arrays, sites))
            return {"side": side, "round_s": {"flower": 30.0, "cardionets": 10.0}[side]}

        monkeypatch.setattr(deployment, "run_case", case)
        deployment.main(arguments)
        return asked, [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return run


@pytest.mark.parametrize(
    "arguments, case",
    [
        ((), (100_000_000, 100, 2)),
        (("--sites", "8"), (100_000_000, 100, 8)),
        (("--arrays", "4", "--model-bytes", "1000"), (1000, 4, 2)),
    ],
)
def test_what_is_asked_changes_the_usual_case(ran, arguments, case):
    asked, lines = ran(*arguments)
    assert asked == [("flower", *case), ("cardionets", *case)]
    assert lines[-1]["ratio_to_flower"] == round(1 / 3, 3)
    asked, lines = ran(*arguments, "--side", "cardionets")
    assert asked == [("cardionets", *case)] and "ratio_to_flower" not in lines[-1]


def test_the_whole_table_takes_no_case(ran, capsys):
    with pytest.raises(SystemExit):
        ran("--full", "--sites", "8")
    assert "leave --model-bytes" in capsys.readouterr().err
