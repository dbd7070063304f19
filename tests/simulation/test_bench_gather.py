"""`make bench`: what it keeps, what it calls worse, what a broken run leaves, what the page says."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from cardionets_core.errors import UsageError
from cardionets_core.plain_json import read_json
from simulation.benchmarks import gather as gathering
from simulation.benchmarks.__main__ import main
from simulation.benchmarks.bench_page import (
    BEGIN,
    END,
    read_committed,
    table_lines,
    with_table,
    write_committed,
)
from simulation.benchmarks.catalogue import CATALOGUE, Benchmark, Figure, names
from simulation.benchmarks.gather import gather, read_lines, rows_of
from simulation.benchmarks.regressions import compare, comparison_lines, has_regressed, judge, times_worse

ROOT = Path(__file__).resolve().parents[2]
RATIO = Figure(key="ratio", what="time of {sites} sites", baseline="one site", where={"case": ("ours",)})
SECONDS = Figure(key="s", what="seconds of {sites} sites", unit="s")
BENCH = Benchmark(name="toy", module="toy", figures=(RATIO, SECONDS))
positive = some.floats(1e-6, 1e6)


def entry(*rows: tuple[str, float], status: str = "done", name: str = "toy", **changes: object) -> dict:
    return {
        "schema_version": 1,
        "name": name,
        "command": "toy",
        "date": "2026-01-02",
        "seconds": 1.0,
        "machine": {"processor": "A processor", "cores": 2, "memory_gb": 24, "system": "Linux 6.18"},
        "busy_cores_before": 0.1,
        "versions": {"python": "3.11.7"},
        "note": "",
        "status": status,
        "fault": "" if status == "done" else "it broke",
        "rows": [
            {"what": what, "value": value, "unit": "", "baseline": "b", "better": "lower", "margin": 0.25}
            for what, value in rows
        ],
        **changes,
    }


def test_lines_that_are_no_objects_are_counted_and_the_others_kept() -> None:
    text = '{"a": 1}\n\nnot json\n[1]\n{"b": 2}\n{"torn": '
    assert read_lines(text) == ([{"a": 1}, {"b": 2}], 3)
    assert read_lines("") == ([], 0)


def test_rows_are_the_figures_of_the_lines_that_fit() -> None:
    lines = [
        {"case": "ours", "sites": 3, "ratio": 1.5},
        {"case": "theirs", "sites": 3, "ratio": 9.0},  # where does not fit
        {"case": "ours", "ratio": 9.0},  # nothing to call it by
        {"case": "ours", "sites": 4, "ratio": None},  # no number
        {"case": "ours", "sites": 5, "ratio": True},
        {"case": "ours", "sites": 3, "ratio": 1.25, "s": 4},  # told again: the last one stands
    ]
    rows = rows_of(BENCH, lines)
    assert [(row["what"], row["value"], row["baseline"], row["unit"]) for row in rows] == [
        ("time of 3 sites", 1.25, "one site", ""),
        ("seconds of 3 sites", 4, "", "s"),
    ]


@given(positive, positive)
def test_a_change_and_its_reverse_undo_each_other(now: float, before: float) -> None:
    for better in ("lower", "higher"):
        forth, back = times_worse(now, before, better=better), times_worse(before, now, better=better)
        assert math.isclose(forth * back, 1.0, rel_tol=1e-9)
    assert times_worse(now, now, better="lower") == 1.0
    lower, higher = times_worse(now, before, better="lower"), times_worse(now, before, better="higher")
    assert math.isclose(lower * higher, 1.0, rel_tol=1e-9)


@given(positive, some.floats(0.0, 3.0))
def test_worse_and_better_are_mirror_images(change: float, margin: float) -> None:
    mirrored = {"worse": "better", "better": "worse", "within": "within"}
    # At the very edge rounding may put one of the two inside.
    if not any(math.isclose(edge, 1 + margin, rel_tol=1e-9) for edge in (change, 1 / change)):
        assert judge(1 / change, margin=margin) == mirrored[judge(change, margin=margin)]
    assert judge(1.0, margin=margin) == "within"


def test_ratios_of_nothing_are_judged_too() -> None:
    assert times_worse(0.0, 0.0, better="lower") == 1.0
    assert times_worse(1.0, 0.0, better="lower") == math.inf and times_worse(0.0, 1.0, better="lower") == 0.0
    assert times_worse(-1.0, 2.0, better="lower") == 0.0


def test_the_comparison_names_what_changed() -> None:
    before = {
        "toy": entry(("same", 1.0), ("slower", 1.0), ("faster", 1.0), ("went", 1.0)),
        "other": entry(("not run", 1.0), name="other"),
    }
    now = {"toy": entry(("same", 1.2), ("slower", 1.3), ("faster", 0.7), ("came", 2.0))}
    now["toy"]["rows"].append({**now["toy"]["rows"][0], "what": "plain seconds", "baseline": "", "value": 99})
    rows = compare(now, before)
    assert {row["what"]: row["verdict"] for row in rows} == {
        "same": "within", "slower": "worse", "faster": "better", "came": "new", "went": "gone",
        "plain seconds": "no ratio",
    }  # fmt: skip
    assert has_regressed(rows)
    told = list(comparison_lines(rows))
    assert told[0].startswith("worse") and "1 -> 1.3 (1.30 times worse)" in told[0]
    assert told[-1].startswith("1 ratios are within")
    assert not has_regressed(compare({"toy": before["toy"]}, before))


def test_a_benchmark_that_failed_tells_of_no_figure_that_it_did_not_come_to() -> None:
    before = {"toy": entry(("one", 1.0), ("two", 1.0))}
    rows = compare({"toy": entry(("one", 1.0), status="failed")}, before)
    assert [(row["what"], row["verdict"]) for row in rows] == [("it broke", "failed"), ("one", "within")]
    assert has_regressed(rows)


class Runs:
    """Stands in the place of ``subprocess.run``: writes what each module would print."""

    def __init__(self, printed: dict[str, str], codes: dict[str, int] | None = None) -> None:
        self.printed, self.codes, self.asked = printed, codes or {}, []

    def __call__(self, command, *, stdout, stderr, check):  # type: ignore[no-untyped-def]
        module = command[command.index("-m") + 1].rpartition(".")[2]
        self.asked.append(module)
        printed = self.printed[module]
        if printed == "interrupt":
            raise KeyboardInterrupt
        stdout.write(printed.encode())
        stderr.write(b"Traceback\n  a line\nValueError: no room in /home/somebody/x.bin\n")

        class Done:
            returncode = self.codes.get(module, 0)

        return Done()


def benches(*modules: str) -> list[Benchmark]:
    return [Benchmark(name=module, module=module, figures=(RATIO, SECONDS)) for module in modules]


LINE = '{"case": "ours", "sites": 3, "ratio": 1.5}\n'


def test_a_failing_benchmark_stops_no_other_and_tells_no_path(tmp_path: Path, monkeypatch) -> None:
    runs = Runs({"a": LINE, "b": LINE, "c": "", "d": LINE + "torn"}, {"b": 3})
    monkeypatch.setattr(gathering.subprocess, "run", runs)
    found = gather(benches("a", "b", "c", "d"), tmp_path)
    assert {name: each["status"] for name, each in found.items()} == {
        "a": "done", "b": "failed", "c": "failed", "d": "failed"
    }  # fmt: skip
    assert found["b"]["fault"] == "ValueError: no room in x.bin" and found["b"]["rows"]
    assert "none of the figures" in found["c"]["fault"] and "1 of its lines" in found["d"]["fault"]
    assert "somebody" not in json.dumps(found)
    assert "node" not in found["a"]["machine"] and found["a"]["machine"]["cores"] >= 1


@pytest.mark.parametrize("busy, is_told", [(1.4, True), (0.1, False)])
def test_work_beside_a_benchmark_is_told_and_kept(tmp_path: Path, monkeypatch, busy, is_told) -> None:
    monkeypatch.setattr(gathering.subprocess, "run", Runs({"a": LINE}))
    monkeypatch.setattr(gathering, "busy_cores", lambda: busy)
    told: list[str] = []
    found = gather(benches("a"), tmp_path, tell=told.append)
    assert ("1.4 cores busy" in told[0]) == is_told and found["a"]["busy_cores_before"] == busy


def test_a_run_that_was_broken_off_goes_on_where_it_was(tmp_path: Path, monkeypatch) -> None:
    broken = Runs({"a": LINE, "b": "interrupt"})
    monkeypatch.setattr(gathering.subprocess, "run", broken)
    with pytest.raises(KeyboardInterrupt):
        gather(benches("a", "b"), tmp_path)
    again = Runs({"b": LINE})
    monkeypatch.setattr(gathering.subprocess, "run", again)
    found = gather(benches("a", "b"), tmp_path)
    assert again.asked == ["b"] and all(each["rows"] for each in found.values())
    # Another command is another benchmark; a failed or torn entry is no result.
    (tmp_path / "b.json").write_text("{torn")
    changed = [Benchmark(name="a", module="a", figures=(RATIO,), arguments=("--more",)), *benches("b")]
    more = Runs({"a": LINE, "b": LINE})
    monkeypatch.setattr(gathering.subprocess, "run", more)
    gather(changed, tmp_path)
    assert more.asked == ["a", "b"]


def test_what_needs_data_is_left_out_without_it(tmp_path: Path) -> None:
    (heart,) = [each for each in CATALOGUE if each.needs_data]
    assert gather([heart], tmp_path) == {}
    assert "DIR" in heart.command and "{" not in heart.command


@pytest.fixture
def at_home(tmp_path: Path, monkeypatch) -> Path:
    """A folder with a page, where one real catalogue name prints a known figure."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "benchmarks.md").write_text(f"# By hand\n\n{BEGIN}\n{END}\n\nafter\n")
    return tmp_path


def bytes_line(ratio: float) -> str:
    return json.dumps({"task": "all", "study": "demo", "ratio": ratio}) + "\n"


def test_the_command_writes_compares_and_is_strict_where_asked(at_home: Path, monkeypatch, capsys) -> None:
    only = ["--only", "wire-bytes"]
    monkeypatch.setattr(gathering.subprocess, "run", Runs({"wire_bytes": bytes_line(0.4)}))
    assert main([*only, "--strict"]) == 0
    page = (at_home / "docs" / "benchmarks.md").read_text()
    assert "| bytes of the study demo | 0.4 | the whole model" in page and page.startswith("# By hand\n")
    assert page.endswith(f"{END}\n\nafter\n") and not list((at_home / "runs" / "bench").glob("*.json"))
    monkeypatch.setattr(gathering.subprocess, "run", Runs({"wire_bytes": bytes_line(0.5)}))
    assert main([*only, "--dry-run"]) == 0 and main([*only, "--dry-run", "--strict"]) == 1
    assert (at_home / "docs" / "benchmarks.md").read_text() == page
    capsys.readouterr()
    assert main([*only, "--dry-run", "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["regressed"] and told["rows"][0]["verdict"] == "worse"
    # What failed leaves the committed figures.
    committed = (at_home / "docs" / "benchmarks.json").read_text()
    monkeypatch.setattr(gathering.subprocess, "run", Runs({"wire_bytes": ""}, {"wire_bytes": 1}))
    assert main([*only, "--fresh"]) == 0
    assert (at_home / "docs" / "benchmarks.json").read_text() == committed


def test_what_cannot_be_read_is_refused(at_home: Path, capsys) -> None:
    (at_home / "docs" / "benchmarks.json").write_text('{"schema_version": 2, "benchmarks": []}')
    assert main(["--only", "wire-bytes"]) == UsageError("").exit_code
    assert "docs/benchmarks.json" in capsys.readouterr().err
    for text in ("no marks", f"{END} {BEGIN}", f"{BEGIN}{BEGIN}{END}", f"{BEGIN}{END}{END}"):
        with pytest.raises(UsageError):
            with_table(text, {})


def test_entries_survive_being_written(tmp_path: Path) -> None:
    entries = {"scale": entry(("x", 1.0), name="scale"), "wire-bytes": entry(("y", 2.0), name="wire-bytes")}
    write_committed(tmp_path / "b.json", entries)
    assert read_committed(tmp_path / "b.json") == entries
    assert list(read_committed(tmp_path / "b.json")) == ["wire-bytes", "scale"]  # the catalogue's order
    assert read_committed(tmp_path / "absent.json") == {}


def test_the_table_says_where_there_is_no_ratio_and_what_failed() -> None:
    rows = [
        {"what": "w", "value": 2, "unit": "s", "baseline": "", "better": "lower", "margin": 0.25},
        {"what": "m", "value": 5_000_000, "unit": "bytes", "baseline": "", "better": "lower", "margin": 0.25},
    ]
    failed = entry(name="scale", status="failed", rows=rows, note="others ran beside", fault="a | b")
    text = "\n".join(table_lines({"toy": entry(("r", 1.5)), "scale": failed}))
    assert "no ratio: 2 s" in text and "no ratio: 5 MB" in text and "scale: failed: a / b" in text
    assert text.count("Machine ") == 2 and "others ran beside." in text
    assert all(line.count("|") == 6 for line in text.splitlines() if line.startswith("|"))


def test_every_benchmark_is_a_module_with_names_of_its_own() -> None:
    assert len(set(names())) == len(CATALOGUE)
    for each in CATALOGUE:
        assert (ROOT / "simulation" / "benchmarks" / f"{each.module}.py").is_file()
        assert each.figures and all(figure.baseline or figure.unit for figure in each.figures)
        assert all(0 < figure.margin <= 1 for figure in each.figures)


def test_the_page_holds_the_table_of_the_committed_figures() -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    entries = read_committed(ROOT / "docs" / "benchmarks.json")
    assert entries, "docs/benchmarks.json holds no figures"
    assert with_table(page, entries) == page, "run make bench, or write the page anew from benchmarks.json"
    text = json.dumps(read_json(ROOT / "docs" / "benchmarks.json"))
    assert re.search(r"[\s\"'(]/\w", text) is None, "a path of somebody's machine"
