"""Worker processes: one that dies costs no outcome, and none outlives a parent that was killed."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from cardionets_core.config.site import SiteConfig
from cardionets_core.data.manifest import store_folder
from cardionets_core.data.prepare import prepare
from cardionets_core.data.store import LOG
from cardionets_core.data.store_log import read_log
from cardionets_core.errors import DataError

pytestmark = pytest.mark.slow
RECORDINGS = 120

PARENT = """
import sys
from cardionets_core.config.site import SiteConfig
from cardionets_core.data import reading
from cardionets_core.data.prepare import prepare

if __name__ == "__main__":
    reading.WORTH_SECONDS = 0
    prepare(SiteConfig.model_validate_json(sys.argv[1]), progress=lambda *told: print(*told, flush=True))
"""


@pytest.fixture
def site(tmp_path: Path) -> SiteConfig:
    folder = tmp_path / "ecg"
    folder.mkdir()
    t = np.arange(500 * 10) / 500
    for seed in range(RECORDINGS):
        rng = np.random.default_rng(seed)
        beat = np.exp(-0.5 * (((t % 0.8) - 0.4) / 0.02) ** 2)
        one, two, *chest = rng.normal(0.8, 0.2, 8)[:, None] * beat + 0.01 * rng.normal(size=(8, len(t)))
        rows = [one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2, *chest]
        np.save(folder / f"{seed}.npy", np.stack(rows).astype(np.float32))
    leads = ["I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"]
    ecg = {"format": "npy", "folder": folder, "rate_hz": 500, "unit": "mV", "leads": leads}
    return SiteConfig(
        site="here",
        source={"kind": "local_site", "ecg": ecg},
        policy={"phases": ["ecg_mae"]},
        prepare={"workers": 2},
        folders={"cache": tmp_path / "cache", "state": tmp_path / "state", "secret": tmp_path / "key"},
    )


def kept(site: SiteConfig) -> int:
    return len(read_log(store_folder(site) / LOG).entries)


def finish(site: SiteConfig, *, before: int) -> None:
    told: list[tuple[str, int, int]] = []
    cohort = prepare(site, progress=lambda *what: told.append(what))
    assert told[1] == ("read", before, RECORDINGS) and len(cohort.row_ecg) == RECORDINGS


def test_a_worker_that_dies_ends_with_a_typed_error_and_nothing_is_lost(
    site: SiteConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cardionets_core.data.reading.WORTH_SECONDS", 0)

    def shoot(stage: str, done: int, total: int) -> None:
        if stage == "read" and done == 9:
            for child in multiprocessing.active_children():
                os.kill(child.pid or 0, signal.SIGKILL)

    with pytest.raises(DataError, match="worker process died") as caught:
        prepare(site, progress=shoot)
    assert caught.value.where == "prepare.workers" and "kept" in caught.value.remedy
    before = kept(site)
    assert 9 <= before < RECORDINGS
    finish(site, before=before)


def test_workers_end_with_a_parent_that_was_killed(site: SiteConfig, tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    with subprocess.Popen(
        [sys.executable, script, json.dumps(site.model_dump(mode="json"))], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        for line in parent.stdout:
            if line.split()[:2] == ["read", "9"]:
                break
        workers = psutil.Process(parent.pid).children(recursive=True)
        assert len(workers) >= 2
        parent.kill()
    before = kept(site)
    assert 9 <= before <= RECORDINGS
    deadline = time.monotonic() + 30
    while any(worker.is_running() and worker.status() != "zombie" for worker in workers):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.1)
    finish(site, before=before)
