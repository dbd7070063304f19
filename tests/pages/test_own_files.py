"""Files that are not Python are found beside the code, and by code that runs from a package without them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cardionets_core.errors import ConfigError
from cardionets_core.pages.own_files import own_folder
from server.bundle.contents import staged_files

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import server.page.render
assert Path(server.page.render.__file__).is_relative_to(sys.argv[1]), server.page.render.__file__
from server.page.facts import RunReader
from server.page.samples import read_samples
print(len(read_samples().names), len(server.page.render.report_html(RunReader(Path(sys.argv[2])).read())))
"""


def test_they_lie_beside_the_modules_and_absent_ones_are_told():
    assert own_folder("server.page", "templates") == ROOT / "server" / "page" / "templates"
    with pytest.raises(ConfigError, match="nowhere"):
        own_folder("server.page", "nowhere")


def test_the_package_that_flower_runs_makes_the_page(tmp_path):
    files = staged_files()
    assert not [name for name in files if name.endswith((".html", ".css", ".js", ".npz"))]
    for name, content in files.items():
        (tmp_path / "app" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "app" / name).write_bytes(content)
    run = tmp_path / "run"
    run.mkdir()
    (run / "study.json").write_text(
        '{"name": "quick", "seed": 1, "phases": [{"task": "ecg_mae", "rounds": 1, "local_steps": 1,'
        ' "batch_size": 4, "optimiser": {"lr": 0.001}}]}'
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", SCRIPT, tmp_path / "app", run],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    hearts, letters = map(int, done.stdout.split())
    assert hearts == 4 and letters > 5000
