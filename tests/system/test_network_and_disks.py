"""A wire that is cut or slow, and full disks: real ones, in a namespace and on small file systems."""

from __future__ import annotations

import itertools
import json
import time

import pytest

pytestmark = pytest.mark.system
SEEDS = itertools.count(700)
STUDY_S = 1200.0
CUT_S = 60.0


@pytest.fixture
def study(rough_field):
    return rough_field.small_study(next(SEEDS))


def test_a_network_cut_of_a_minute(rough_field, study, undisturbed):
    out = rough_field.begin(study)
    rough_field.until(lambda: rough_field.in_second_round(out))
    rough_field.until(lambda: rough_field.orders_in_work("gamma"))
    rough_field.wire.cut()
    time.sleep(CUT_S)
    assert not (out / "checkpoints" / "00-00002").exists(), "gamma was not needed, or not cut off"
    rough_field.wire.mend()
    rough_field.check_whole(out, study, undisturbed)


def test_a_slow_link(rough_field, study, undisturbed):
    rough_field.wire.slow("2mbit")
    out = rough_field.begin(study)
    rough_field.check_whole(out, study, undisturbed)


def test_a_full_disk_at_a_site(rough_field, study, undisturbed):
    out = rough_field.begin(study)
    rough_field.until(lambda: rough_field.in_second_round(out))
    service = rough_field.process("beta", "supernode")
    filler = rough_field.fill_disk("beta")
    try:
        rough_field.until(lambda: rough_field.row("beta")["code"] == "storage-failed")
        said = rough_field.run("cardionets-client", "status", rough_field.sites["beta"]).stdout
        assert "bytes are free" in said
    finally:
        filler.unlink()
    assert rough_field.process("beta", "supernode") == service, "the disk ended the SuperNode"
    rough_field.check_whole(out, study, undisturbed)


def test_a_full_disk_at_the_coordinator(rough_field, study, undisturbed):
    out = rough_field.begin(study)
    rough_field.until(lambda: rough_field.in_second_round(out))
    finished = sorted(path.name for path in (out / "checkpoints").iterdir())
    filler = rough_field.fill_disk("server")
    try:
        time.sleep(45.0)
        said = rough_field.run("cardionets-server", "status", rough_field.server).stdout
        assert "bytes are free" in said
    finally:
        filler.unlink()
    assert finished == sorted(path.name for path in (out / "checkpoints").iterdir())[: len(finished)]
    state = rough_field.outcome(seconds=STUDY_S)["state"]
    if state == "paused":
        result = json.loads((out / "result.json").read_text())
        assert result["paused"]["code"] == "storage-failed"
        rough_field.run("cardionets-server", "resume", rough_field.server)
    rough_field.check_whole(out, study, undisturbed)
