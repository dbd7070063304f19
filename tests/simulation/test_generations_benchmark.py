"""The two generations are compared on the same people and phases, and the table joins what was run."""

from __future__ import annotations

import json
from typing import Any

import pytest

from simulation.benchmarks.generations import (
    CHANGES,
    EARLIER,
    EQUAL_SECONDS,
    FIGURES,
    LATER,
    in_as_many_seconds,
    main,
    shipped_phases,
)


def finished(seconds: float, *, r2: float) -> dict[str, Any]:
    return {
        "values": {"phenotype R2": r2},
        "seconds": seconds,
        "whole_seconds": 10 * seconds,
        "megabytes": 2.0,
        "seconds_a_sample": 0.5,
        "seconds_a_round": {"cmr_mae": seconds, "standardise": seconds},
    }


def test_the_generations_differ_in_nothing_but_the_named_settings():
    later, earlier = shipped_phases(LATER), shipped_phases(EARLIER)
    assert {phase["task"] for phase in later} >= {*CHANGES, *(task for task, _ in FIGURES.values())}
    for one, other in zip(later, earlier, strict=True):
        changed = CHANGES.get(one["task"], {})
        for part in ("optimiser", "options"):
            mine, theirs = one.pop(part, {}), other.pop(part, {})
            assert {key for key in {*mine, *theirs} if mine.get(key) != theirs.get(key)} <= set(changed)
        assert one == other


def test_equal_seconds_are_fewer_rounds_and_never_more():
    phases = [
        {"task": "cmr_mae", "rounds": 8, "optimiser": {}},
        {"task": "standardise", "rounds": 1},
    ]
    slower = in_as_many_seconds(phases, finished(1.0, r2=0.0), finished(4.0, r2=0.0))
    assert [phase["rounds"] for phase in slower] == [2, 1]
    assert in_as_many_seconds(phases, finished(4.0, r2=0.0), finished(1.0, r2=0.0)) == phases
    assert in_as_many_seconds(phases, finished(1.0, r2=0.0), finished(99.0, r2=0.0))[0]["rounds"] == 1


def test_files_of_single_seeds_join_to_one_table(tmp_path, capsys):
    for seed, r2 in ((7, 0.1), (8, 0.3)):
        runs = {name: [finished(2.0, r2=r2)] for name in (LATER, EARLIER, EQUAL_SECONDS)}
        content = {"schema_version": 1, "preset": "nano", "seeds": [seed], "runs": runs}
        (tmp_path / f"{seed}.json").write_text(json.dumps(content))
    files = [str(tmp_path / "7.json"), str(tmp_path / "8.json")]
    main(["--join", *files])
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == "| phenotype R2 |" + " 0.2 (0.1 to 0.3) |" * 3
    main(["--join", *files, "--format", "json"])
    assert json.loads(capsys.readouterr().out)["seeds"] == [7, 8]


@pytest.mark.parametrize("arguments", [[], ["--out", "there", "--join", "one.json"]])
def test_it_either_runs_or_joins(arguments, capsys):
    with pytest.raises(SystemExit):
        main(arguments)
    assert "give --out to run, or --join" in capsys.readouterr().err
