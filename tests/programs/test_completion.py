"""What a TAB proposes, as a shell asks for it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cardionets_core.config.study import read_study
from server.study_files import SHIPPED
from simulation.scenario import shipped_scenarios


def proposed(line: str) -> list[str]:
    program, *words = line.split(" ")
    asked = {
        f"_{program.upper().replace('-', '_')}_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words)),
    }
    done = subprocess.run(
        [Path(sys.executable).with_name(program)],
        env={**os.environ, **asked},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("cardionets-sim run de", ["demo"]),
        ("cardionets-sim run no-such", []),
        ("cardionets-server pla", ["plan"]),
        ("cardionets-client predict --pa", ["--page"]),
    ],
)
def test_a_tab_proposes_what_can_be_typed(line, expected):
    assert proposed(line) == expected


def test_every_shipped_scenario_and_study_is_proposed():
    assert proposed("cardionets-sim run ") == sorted(shipped_scenarios())
    studies = proposed("cardionets-server plan ")
    assert [read_study(SHIPPED / f"{name}.yaml").name for name in studies] == studies
    assert set(studies) == {path.stem for path in SHIPPED.glob("*.yaml")}


def test_sites_of_the_workspace_on_the_line_are_proposed(tmp_path, run):
    hub = tmp_path / "hub"
    for words in (
        ("init", hub, "--address", "127.0.0.1:9092", "--consortium", "heart"),
        ("provision", hub, "--site", "lakeside", "--site", "riverside"),
    ):
        done = run("cardionets-server", *words)
        assert done.returncode == 0, done.stderr
    assert proposed(f"cardionets-server renew {hub} --site ") == ["lakeside", "riverside"]
    assert proposed(f"cardionets-server revoke {hub} --site ri") == ["riverside"]
    assert proposed(f"cardionets-server renew {tmp_path} --site ") == []
