"""The scale benchmark: sites that are links, clocks that add up, growth in closed form, a picture."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cardionets_core.config.site import read_site
from cardionets_core.data.cache import open_cache
from server.progress import Event
from simulation.benchmarks import scale
from simulation.benchmarks.many_sites import make_sites
from simulation.benchmarks.scale import growth_of
from simulation.benchmarks.scale_case import PARTS, ROUNDS, Clock, run_case, study_content
from simulation.benchmarks.scale_plot import plot_cases


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scale")


@pytest.fixture(scope="module")
def paths(folder: Path) -> list[Path]:
    return make_sites(folder, 3, study=study_content(3))


def test_sites_are_their_own_and_cost_no_disk(folder: Path, paths: list[Path]) -> None:
    cohorts = [open_cache(read_site(path), check="full") for path in paths]
    assert [cohort.site for cohort in cohorts] == ["site-00000", "site-00001", "site-00002"]
    assert len({len(cohort.row_patient) for cohort in cohorts}) == 1 and len(cohorts[0].row_patient) >= 5
    packed = next((paths[0].parent / "cache" / "store").glob("ecg-*.bin"))
    assert packed.stat().st_nlink == 4
    template = read_site(folder / "template" / "template" / "site.yaml")
    assert open_cache(template, check="full").site == "template"
    assert make_sites(folder, 2, study=study_content(2)) == paths[:2]


@pytest.fixture(scope="module")
def cases(folder: Path, paths: list[Path]) -> list[dict[str, Any]]:
    return [run_case(paths[:sites], folder / "run", engine="local") for sites in (2, 3)]


def test_seconds_of_sites_and_server_are_those_of_the_round(
    folder: Path, cases: list[dict[str, Any]]
) -> None:
    found = cases[1]
    assert found["sites"] == found["counted"] == 3 and not (folder / "run").exists()
    for kind in ("s", "processor_s"):
        whole = found[f"sites_{kind}"] + found[f"server_{kind}"]
        assert whole == pytest.approx(found[f"round_{kind}"], abs=0.002)
        parts = found[f"server_parts_{kind}"]
        assert parts.keys() == PARTS.keys() - {"sites"}
        assert 0 < sum(parts.values()) <= found[f"server_{kind}"] + 0.01
    calls = found["server_calls"]
    assert calls["store"] == calls["judge"] == 3 and calls["combine"] == calls["checkpoint"] == 1
    # One line for the head of each site's journal and one for each reply.
    assert calls["journal"] == 6
    assert found["bytes_sent"] > 0 and found["bytes_received"] > 0


def test_the_server_lists_its_replies_as_often_for_few_sites_as_for_many(cases: list[dict[str, Any]]) -> None:
    few, many = (case["server_calls"]["list-replies"] for case in cases)
    assert few == many


def test_clocks_tell_a_round_apart_from_the_ones_before(monkeypatch) -> None:
    now = [0.0]
    base = "simulation.benchmarks.scale_case.time."
    monkeypatch.setattr(f"{base}perf_counter_ns", lambda: int(now[0] * 1e9))
    monkeypatch.setattr(f"{base}process_time_ns", lambda: int(now[0] * 1e9) // 2)
    clock = Clock()

    def pass_time(seconds: float) -> None:
        now[0] += seconds

    def both(seconds: float) -> None:
        pass_time(seconds)
        send(1.0)

    send, store = clock._timed("send", pass_time), clock._timed("store", both)
    for number, seconds in enumerate((2.0, 3.0), start=1):
        send(seconds)
        store(seconds)
        now[0] += 0.5
        clock.rounds(Event(kind="round", phase=1, phases=1, round=number, rounds=3, task="t"))
    clock.rounds(Event(kind="trained", phase=1, phases=1, round=3, rounds=3, task="t"))
    found = clock.of_round(2)
    # What runs within another counts as the outer one's.
    assert found["s"]["send"] == 3.0 and found["s"]["store"] == 4.0 and found["s"]["round"] == 7.5
    assert {name: value / 2 for name, value in found["s"].items()} == found["processor_s"]
    assert found["calls"]["send"] == found["calls"]["store"] == 1 and found["calls"]["judge"] == 0


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_growth_is_that_of_a_power(power: float) -> None:
    cases = [
        {"sites": n, "round_s": 3.0 * n**power, "server_processor_s": n**power,
         "round_processor_s": 3.0 * n**power, "peak_bytes": 1000 + 50 * n}
        for n in (300, 10, 1000)
    ]  # fmt: skip
    found = growth_of(cases)
    assert found["from_sites"] == 300 and found["to_sites"] == 1000 and found["peak_bytes_a_site"] == 50
    assert found["round_s_exponent"] == found["server_processor_s_exponent"] == power
    assert found["server_share"] == round(1 / 3, 3)
    if power == 1.0:
        assert math.isclose(found["round_s_a_site"], 3.0)


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    cases = [
        {"sites": n, "round_s": 0.1 * n, "peak_bytes": 10**8, "bytes_sent": 10**6, "bytes_received": 10**6}
        for n in (10, 100)
    ]
    plot_cases(cases, tmp_path / "scale.png")
    assert (tmp_path / "scale.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "scale.png").stat().st_size < 80_000


def test_each_case_runs_in_a_process_of_its_own(tmp_path: Path, monkeypatch, capsys) -> None:
    def run(command, **options):  # type: ignore[no-untyped-def]
        sites = int(command[command.index("--case") + 1])
        told = {"schema_version": 1, "benchmark": "scale", "sites": sites, "round_s": 0.5 * sites,
                "peak_bytes": 10**8, "bytes_sent": 9, "bytes_received": 9}  # fmt: skip
        return SimpleNamespace(stdout=f"{json.dumps(told)}\n")

    monkeypatch.setattr(scale.subprocess, "run", run)
    scale.main(["--sites", "30", "10", "30", "--out", str(tmp_path / "new" / "scale.png")])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line.get("sites") for line in lines] == [10, 30, None]
    assert lines[-1]["round_s_exponent"] == 1.0 and (tmp_path / "new" / "scale.png").exists()
    for wrong in (["--sites", "1"], ["--out", "picture.svg"]):
        with pytest.raises(SystemExit):
            scale.main(wrong)
    assert study_content(2)["phases"][0]["rounds"] == ROUNDS
