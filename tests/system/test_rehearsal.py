"""The dress rehearsal of docs/operators.md, word for word: from nothing to the final model."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cardionets_core.audit import journal
from cardionets_core.service.state import end_tree, living, running_service
from simulation.deployment import free_ports

pytestmark = pytest.mark.system
ROOT = Path(__file__).resolve().parents[2]
REHEARSAL_S = 2400


def commands() -> str:
    """The block of the runbook."""
    text = (ROOT / "docs" / "operators.md").read_text(encoding="utf-8")
    found = re.search(r"<!-- rehearsal:.*?-->\n```\n(.*?)```", text, re.DOTALL)
    assert found, "the runbook has no rehearsal"
    return found[1]


def test_the_rehearsal_of_the_runbook(tmp_path):
    script = commands()
    # The only change: ports that nobody uses on this machine.
    outer, inner, health, *site_ports = free_ports(9)
    first = min(port for port in range(20000, 60000) if not {port + n for n in range(6)} & set(site_ports))
    script = script.replace("127.0.0.1:9092", f"127.0.0.1:{outer}").replace("port=9211", f"port={first}")
    changes = {"inner_port": inner, "health_port": health, "listen_host": "127.0.0.1"}
    edit = "; ".join(f"s/^{key}:.*/{key}: {value}/" for key, value in changes.items())
    plan = "cardionets-server plan coordinator --approve\n"
    script = script.replace(plan, f"sed -i '{edit}' coordinator/server.yaml\n{plan}")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    try:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script], cwd=tmp_path, env=environment, text=True,
            capture_output=True, timeout=REHEARSAL_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    finally:
        for folder in (*tmp_path.glob("hospitals/*/service"), tmp_path / "coordinator" / "state"):
            content = running_service(folder)
            if content and (process := living(content["supervisor"])):
                end_tree(process, grace_s=10)
    (result,) = (json.loads(path.read_text()) for path in tmp_path.glob("coordinator/runs/*/result.json"))
    assert result["status"] == "completed"
    assert {site["site"] for site in result["sites"]} == {"biobank", "intensive", "riverside"}
    assert (tmp_path / "coordinator" / "runs").glob("*/model/model.json")
    lines = journal.bodies(tmp_path / "hospitals" / "riverside" / "state" / "journal.jsonl")
    left = [line["digest"][:12] for line in lines if line["event"] == "reply-left"]
    assert left and set(left) <= set(done.stdout.split())
