"""What the three programs print and with which code they end, as their users meet them."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

MODULE = {"cardionets-sim": "simulation", "cardionets-client": "client", "cardionets-server": "server"}
SCENARIO = {
    "name": "tiny",
    "seed": 3,
    "hospitals": [
        {"site": "alpha", "layout": "local_wfdb", "patients": 24, "split": {"validation": 0.2, "test": 0.2}},
        {"site": "beta", "layout": "mimic_iv_ecg", "patients": 12, "split": {"validation": 0.2, "test": 0.2}},
        {
            "site": "gamma",
            "layout": "mimic_iv_ecg",
            "patients": 12,
            "split": {"validation": 0.2, "test": 0.2},
        },
    ],
    "study": {
        "name": "tiny",
        "seed": 1,
        "sites": {"minimum": 2, "deadline_s": 60},
        "phases": [
            {"task": "ecg_mae", "rounds": 1, "local_epochs": 1, "batch_size": 8, "optimiser": {"lr": 1e-3}}
        ],
    },
}
for hospital in SCENARIO["hospitals"]:
    hospital["policy"] = {"minimum_patients": 5, "minimum_cell": 1}
    hospital["scanner"] = {"spacing_mm": 2.2, "pixels": 80, "frames": 20}


@pytest.fixture(scope="module")
def made(tmp_path_factory, run):
    """A run folder with hospitals, made by the command itself."""
    folder = tmp_path_factory.mktemp("made")
    scenario = folder / "tiny.yaml"
    scenario.write_text(yaml.safe_dump(SCENARIO))
    done = run(
        "cardionets-sim",
        "make",
        scenario,
        "--out",
        folder / "run" / "hospitals",
        "--cores",
        1,
        "--format",
        "json",
    )
    assert done.returncode == 0, done.stderr
    assert [Path(path).parent.name for path in json.loads(done.stdout)["sites"]] == ["alpha", "beta", "gamma"]
    return folder


def copy_of(made, tmp_path):
    """Hospitals may be broken by a test; times of files are kept, or caches would be stale."""
    shutil.copytree(made, tmp_path / "made", copy_function=shutil.copy2)
    return tmp_path / "made"


def simulate(run, folder, *more):
    arguments = ["--out", folder / "run", "--engine", "local", "--no-track", "--cores", 1, "--format", "json"]
    return run("cardionets-sim", "run", folder / "tiny.yaml", *arguments, *more)


def test_a_run_prints_one_object_and_refuses_to_write_over_itself(made, tmp_path, run):
    folder = copy_of(made, tmp_path)
    done = simulate(run, folder)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result == json.loads((folder / "run" / "result.json").read_text())
    assert {"schema_version", "study_digest", "model_digest", "sites", "rounds", "comparison"} <= set(result)
    assert "round 1/1" in done.stderr and "loss" in done.stderr
    assert (folder / "run" / "plots" / "rounds.png").stat().st_size > 1000
    again = simulate(run, folder)
    assert again.returncode == 2 and "--replace" in again.stderr and not again.stdout
    replaced = simulate(run, folder, "--replace")
    assert json.loads(replaced.stdout)["model_digest"] == result["model_digest"]
    other = simulate(run, folder, "--replace", "--seed", 9)
    assert json.loads(other.stdout)["model_digest"] != result["model_digest"]


def test_broken_hospitals_are_named_and_the_others_go_on(made, tmp_path, run):
    folder = copy_of(made, tmp_path)
    (folder / "run" / "hospitals" / "beta" / "site.yaml").write_text("site: beta\nsurce: {}\n")
    done = simulate(run, folder)
    assert done.returncode == 0, done.stderr
    assert "beta cannot take part [config-invalid]" in done.stderr and "did you mean 'source'" in done.stderr
    result = json.loads(done.stdout)
    assert result["broken_sites"] == {"beta": "config-invalid"}
    assert {row["site"] for row in result["rounds"][0]["sites"]} == {"alpha", "gamma"}


def test_too_few_sites_pause_the_study_with_exit_code_6(made, tmp_path, run):
    folder = copy_of(made, tmp_path)
    shutil.rmtree(folder / "run" / "hospitals" / "alpha" / "ecg")
    site = folder / "run" / "hospitals" / "gamma" / "site.yaml"
    site.write_text(site.read_text().replace("minimum_patients: 5", "minimum_patients: 500"))
    done = simulate(run, folder)
    assert done.returncode == 6 and "quorum-not-met" in done.stderr and not done.stdout
    assert "too-few-patients" in done.stderr and "folder-missing" in done.stderr
    paused = json.loads((folder / "run" / "result.json").read_text())
    assert paused["status"] == "paused"


@pytest.mark.parametrize(
    "change, code, told",
    [
        (lambda text: text.replace("phases:", "phase:"), 3, "did you mean 'phases'"),
        (lambda text: text.replace("schema_version: 1", "schema_version: ["), 3, "not valid YAML"),
        (lambda text: text.replace("ecg_mae", "ecg_mea"), 3, "ecg_mae"),
        (lambda text: text.replace('folder: "ecg"', 'folder: "nowhere"'), 4, "nowhere"),
        (lambda text: text.replace("minimum_patients: 5", "minimum_patients: 500"), 4, "minimum_patients"),
        (lambda text: text.replace('name: "cpu"', 'name: "cuda"'), 3, "GPU"),
    ],
)
def test_check_tells_each_fault_with_its_exit_code(made, tmp_path, change, code, told, run):
    folder = copy_of(made, tmp_path)
    site = folder / "run" / "hospitals" / "alpha" / "site.yaml"
    assert run("cardionets-client", "prepare", "--site", site).returncode == 0
    assert run("cardionets-client", "check", "--site", site).returncode == 0
    text = site.read_text()
    assert change(text) != text
    site.write_text(change(text))
    done = run("cardionets-client", "check", "--site", site)
    assert (done.returncode, told in done.stdout) == (code, True), done.stdout + done.stderr


def test_an_unreadable_record_is_counted_and_the_rest_is_used(made, tmp_path, run):
    folder = copy_of(made, tmp_path)
    site = folder / "run" / "hospitals" / "alpha" / "site.yaml"
    before = json.loads(run("cardionets-client", "prepare", "--site", site, "--format", "json").stdout)
    header = sorted((site.parent / "ecg").rglob("*.hea"))[0]
    header.write_bytes(b"\x00\xff not a header")
    after = json.loads(run("cardionets-client", "prepare", "--site", site, "--format", "json").stdout)
    assert sum(after["refusals"].values()) == sum(before["refusals"].values()) + 1
    assert after["refusals"]["ecg-unreadable"] == before["refusals"].get("ecg-unreadable", 0) + 1


def test_an_unknown_scenario_or_phase_is_a_configuration_error(made, tmp_path, run):
    unknown = run("cardionets-sim", "run", "nonesuch", "--out", tmp_path / "x")
    assert unknown.returncode == 3 and "demo" in unknown.stderr
    folder = copy_of(made, tmp_path)
    scenario = folder / "tiny.yaml"
    scenario.write_text(scenario.read_text().replace("ecg_mae", "sing"))
    done = simulate(run, folder)
    assert done.returncode == 3 and "sing" in done.stderr and "ecg_mae" in done.stderr
    missing = run("cardionets-sim", "run", "real_ecg", "--out", tmp_path / "y")
    assert missing.returncode == 2 and "--data" in missing.stderr
    nowhere = run(
        "cardionets-sim", "run", "real_ecg", "--out", tmp_path / "z", "--data", tmp_path / "nowhere"
    )
    assert nowhere.returncode == 4 and "nowhere" in nowhere.stderr


def test_a_study_can_be_planned_and_a_wrong_one_cannot(run):
    plan = json.loads(run("cardionets-server", "plan", "demo", "--format", "json").stdout)
    assert [phase["task"] for phase in plan["phases"]] == ["cmr_mae", "ecg_mae", "align", "probe"]
    assert run("cardionets-server", "plan", "/nowhere.yaml").returncode == 3


@pytest.mark.parametrize("program", ["cardionets-sim", "cardionets-client", "cardionets-server"])
def test_help_loads_neither_torch_nor_flower(program, run):
    code = f"import sys; sys.argv=['{program}', '--help']; from {MODULE[program]}.cli import main\n"
    code += (
        "try: main()\nexcept SystemExit: pass\nprint(sorted({'torch', 'flwr', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
