"""Rules of the house that no linter holds: the bundle, the documents, the codes, the READMEs."""

import importlib.metadata
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

from cardionets_core.config.site import read_site
from cardionets_core.config.study import read_study
from cardionets_core.data.readers.registry import READERS
from cardionets_core.errors import REFUSAL_REASONS, CardioNetsError, RecordRefused, error_codes
from server.plan import plan_of
from server.provision.kits import TEMPLATES as KIT_TEMPLATES
from server.study_files import SHIPPED
from simulation.local_grid import FLWR_MINOR
from simulation.scenario import load_scenario, shipped_scenarios

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
# What one site and the server of its study need, and nothing else.
IN_BUNDLE = ("cardionets_core", "client", "server", "strategies")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """The application bundle as ``flwr build`` makes it."""
    folder = tmp_path_factory.mktemp("bundle")
    flwr = Path(sys.executable).with_name("flwr")
    done = subprocess.run(
        [flwr, "build", "--app", str(ROOT)],
        cwd=folder,
        capture_output=True,
        text=True,
        env={
            "FLWR_HOME": str(folder / "home"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "PATH": "/usr/bin:/bin",
            "HOME": str(folder),
        },
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (fab,) = list(folder.glob("*.fab")) + list(ROOT.glob("*.fab"))
    with zipfile.ZipFile(fab) as archive:
        yield archive.namelist()
    fab.unlink()


def test_the_bundle_holds_only_what_a_site_needs(bundle):
    allowed = {"pyproject.toml", "LICENSE", "README.md"}
    strangers = [
        name for name in bundle
        if name.split("/")[0] not in IN_BUNDLE and name not in allowed and not name.startswith(".info")
    ]  # fmt: skip
    assert strangers == []
    assert not [
        name for name in bundle if "simulation" in name or "test" in name or name.endswith((".hea", ".dat"))
    ]


def test_the_bundle_holds_every_module_of_its_packages(bundle):
    for package in IN_BUNDLE:
        for path in (ROOT / package).rglob("*.py"):
            assert path.relative_to(ROOT).as_posix() in bundle


def test_every_package_is_listed_by_name():
    listed = set(PROJECT["tool"]["setuptools"]["packages"])
    found = {
        path.parent.relative_to(ROOT).as_posix().replace("/", ".")
        for top in (*IN_BUNDLE, "simulation")
        for path in (ROOT / top).rglob("__init__.py")
    }
    assert listed == found


def test_the_in_process_grid_was_written_for_this_flower():
    version = importlib.metadata.version("flwr")
    assert version.startswith(FLWR_MINOR + "."), (
        "read simulation/local_grid.py again: it uses names that are not public"
    )


def test_every_code_is_documented_and_every_class_has_its_own():
    text = (ROOT / "docs" / "exit-codes.md").read_text()
    for code, cls in error_codes().items():
        assert f"`{code}`" in text
        assert cls.code == code
    assert len(error_codes()) == len(set(error_codes().values()))


def test_every_refusal_reason_is_documented_and_unknown_ones_cannot_be_made():
    text = (ROOT / "docs" / "formats.md").read_text()
    assert [reason for reason in REFUSAL_REASONS if f"`{reason}`" not in text] == []
    with pytest.raises(KeyError):
        RecordRefused("because")


def test_every_format_is_documented():
    documented = (ROOT / "docs" / "formats.md").read_text()
    for reader in READERS.values():
        assert f"| `{reader.name}` |" in documented, reader.name


def test_an_error_tells_what_where_and_what_to_do():
    assert str(CardioNetsError("a", where="b", remedy="c")).split() == ["a", "where:", "b", "to", "do:", "c"]


@pytest.mark.parametrize("path", sorted((ROOT / "site_configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_site_templates_are_valid(path):
    assert read_site(path).policy.phases


def test_the_template_in_the_kits_is_that_of_the_site_documents():
    ours = ROOT / "site_configs" / "template.yaml"
    assert (KIT_TEMPLATES / "site.yaml").read_bytes() == ours.read_bytes()


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_studies_can_be_planned(path):
    study = read_study(path)
    plan = plan_of(study)
    assert [phase["task"] for phase in plan["phases"]] == [phase.task for phase in study.phases]
    # A phase that trains nothing sends nothing of the model out but what it reads.
    assert all(phase["bytes_per_round_and_site"] > 0 or not phase["trains"] for phase in plan["phases"])


@pytest.mark.parametrize("name", sorted(shipped_scenarios()))
def test_shipped_scenarios_are_valid(name):
    assert load_scenario(name).hospitals


def test_no_module_outgrows_the_house():
    long = {
        path.relative_to(ROOT).as_posix(): count
        for top in (*IN_BUNDLE, "simulation")
        for path in (ROOT / top).rglob("*.py")
        if (count := len(path.read_text().splitlines())) > 320
    }
    assert long == {}


def test_the_readme_names_only_words_and_options_that_exist():
    readme = (ROOT / "README.md").read_text()
    words = set(re.findall(r"^make (\w+)", readme, re.MULTILINE))
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert words and words <= targets
    for program, command in set(re.findall(r"\.venv/bin/(cardionets-\w+) (\w+)", readme)):
        done = subprocess.run(
            [Path(sys.executable).with_name(program), command, "--help"],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, f"{program} {command}"
        for line in re.findall(rf"{program} {command}[^\n]*", readme):
            for option in re.findall(r"(--[a-z-]+)", line):
                assert option in done.stdout, f"{program} {command} has no {option}"


TOLD = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "server" / "templates").rglob("*.*")]


@pytest.mark.parametrize("path", TOLD, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_program_is_installed_by_its_file_and_never_by_its_name(path):
    """For a name, pip asks a public index, where anybody may offer a package of that name."""
    for line in path.read_text().splitlines():
        command = re.match(r"[^`]*pip install (.*)", line)
        if command:
            assert not re.search(r"(^|[\s\"'])cardionets($|[\s\"'=\[<>~])", command[1]), line


def test_the_first_day_builds_the_code_before_it_admits_anybody():
    runbook = (ROOT / "docs" / "operators.md").read_text().partition("## First day: coordinator")[2]
    workspace = (KIT_TEMPLATES.parent / "README.md").read_text()
    for text, words in (
        (runbook.partition("## First day: hospital")[0], ("pip wheel", "provision", "package", "admit")),
        (workspace, ("provision", "package", "admit", "start", "run", "watch")),
    ):
        commands = [line for line in text.splitlines() if line.startswith(("cardionets-server", "python3"))]
        places = [next(n for n, line in enumerate(commands) if f" {word} " in line) for word in words]
        assert places == sorted(places)


def test_constraints_pin_every_dependency():
    pinned = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().split()
    }
    optional = PROJECT["project"]["optional-dependencies"]
    for requirement in [
        *PROJECT["project"]["dependencies"],
        *(r for extra in optional.values() for r in extra),
    ]:
        name = re.split(r"[\[<>=]", requirement)[0].lower().replace("_", "-")
        assert name == "cardionets" or name in pinned, name


def test_yaml_in_the_bundle_is_only_studies(bundle):
    assert {name for name in bundle if name.endswith((".yaml", ".yml"))} == {
        path.relative_to(ROOT).as_posix() for path in SHIPPED.glob("*.yaml")
    }
    for path in SHIPPED.glob("*.yaml"):
        assert yaml.safe_load(path.read_text())["phases"]
