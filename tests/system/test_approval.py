"""Code and studies that IT did not approve do not run, and the coordinator reads why."""

from __future__ import annotations

import itertools
import json

import pytest

from client.approvals import ApprovalStore

pytestmark = pytest.mark.system
SEEDS = itertools.count(500)


def test_a_study_that_was_not_approved_does_not_run_until_it_is(field, undisturbed):
    study = field.small_study(next(SEEDS), sites={"minimum": 3, "deadline_s": 60, "attempts": 1})
    out = field.begin(study, approve=False)
    assert field.outcome(seconds=400)["state"] == "paused"
    result = json.loads((out / "result.json").read_text())
    assert result["paused"]["code"] == "quorum-not-met"
    assert {site["phases"]["ecg_mae"] for site in result["sites"]} == {"study-not-approved"}
    assert any("study-not-approved" in str(row) for row in field.status()["sites"])
    for name in field.sites_in_order:
        done = field.run("cardionets-client", "approve", field.sites[name], check=False)
        assert done.code == 5, "something waits, and nobody said yes"
        field.run("cardionets-client", "approve", field.sites[name], "--yes")
    field.run("cardionets-server", "resume", field.server)
    assert field.outcome(seconds=900)["state"] == "completed"
    assert json.loads((out / "result.json").read_text())["model_digest"] == undisturbed(study)


def test_code_whose_approval_was_withdrawn_does_not_run(field):
    package = json.loads((field.workspace.code / "package.json").read_text())
    study = field.small_study(next(SEEDS), sites={"minimum": 3, "deadline_s": 60, "attempts": 1})
    store = ApprovalStore(field.sites["beta"] / "approvals")
    store.withdraw(package["sha256"], note="test")
    try:
        out = field.begin(study)
        assert field.outcome(seconds=400)["state"] == "paused"
        result = json.loads((out / "result.json").read_text())
        assert result["paused"]["code"] == "quorum-not-met"
        row = field.row("beta")
        assert row["code"] == "code-not-approved", row
    finally:
        store.approve_code((field.workspace.code / package["fab"]).read_bytes())
