"""A server that is killed at any instant goes on to the same model, and asks no site for what it has."""

import json
import os
import shutil

import numpy as np
import pytest

from cardionets_core.config.study import Study
from cardionets_core.errors import CheckpointError, QuorumNotMetError
from cardionets_core.exchange.messages import PackedModule, Reply, RoundName
from cardionets_core.exchange.tensors import Layout
from server.app import run_study
from server.checkpoints import CheckpointStore
from server.round_store import RoundStore
from server.study_run import check_history
from simulation.local_grid import LocalGrid

NAMES = ("alpha", "beta", "gamma")


class Killed(BaseException):
    """The process is gone."""


class KilledGrid(LocalGrid):
    """Dies at the n-th call that sends or fetches, before or after the call."""

    calls = 0
    at = 0
    after = False

    def _step(self, call):
        type(self).calls += 1
        if self.calls == self.at and not self.after:
            raise Killed
        found = call()
        if self.calls == self.at:
            raise Killed
        return found

    def push_messages(self, messages):
        return self._step(lambda: LocalGrid.push_messages(self, messages))

    def pull_messages(self, message_ids):
        return self._step(lambda: LocalGrid.pull_messages(self, message_ids))


def run(study, sites, folder, grid=LocalGrid):
    return run_study(grid([site.app() for site in sites.values()]), study, folder=folder, track=False)


def shared_study(trips="one", generation="cardionets"):
    """A task that shares statistics first, then trains, then measures; and a measured end."""
    phase = {"rounds": 2, "local_steps": 2, "batch_size": 8, "optimiser": {"lr": 1e-3}}
    return Study.model_validate(
        {
            "name": "shared",
            "seed": 2,
            "sites": {"minimum": 3, "deadline_s": 20, "attempts": 2},
            "evaluation": {"trips": trips},
            "generation": generation,
            # The earlier generation aligns to heads that a phase before has trained.
            "phases": [
                *([{"task": "cmr_mae", **phase}] if generation == "cardiacnets" else []),
                {"task": "align", "options": {"loss": "dcco"}, **phase},
            ],
        }
    )


def content(result):
    """What must not depend on when the server died: all but clocks, bytes and attempts."""
    passing = ("seconds", "bytes_sent", "bytes_received", "attempt")
    rounds = [{k: v for k, v in entry.items() if k not in passing} for entry in result["rounds"]]
    return {"rounds": rounds, "model": result["model_digest"], "summary": result["summary"]}


def asked_twice(site):
    """Orders to which the site was asked again after its reply had reached the server."""
    seen, twice = {}, []
    for order in site.asked:
        key = (order.kind, order.split, order.name.phase, order.name.round)
        if order.kind != "census":
            seen[key] = seen.get(key, 0) + 1
            if seen[key] > 1:
                twice.append(key)
    return twice


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_at_every_message_it_resumes_to_the_same_result(after, generation, fake_sites, tmp_path):
    study = shared_study(generation=generation)
    whole = run(study, fake_sites(*NAMES), tmp_path / "whole", KilledGrid)
    total, KilledGrid.calls = KilledGrid.calls, 0
    assert total > 20
    # One run that is killed again and again: at its 2nd, 4th, 6th ... message of each life.
    lives, sites, result = 0, fake_sites(*NAMES), None
    while result is None:
        lives += 1
        KilledGrid.calls, KilledGrid.at, KilledGrid.after = 0, 5 + lives % 4, after
        try:
            result = run(study, sites, tmp_path / "run", KilledGrid)
        except Killed:
            assert lives < 60
    KilledGrid.calls, KilledGrid.at = 0, 0
    assert lives > 4
    assert content(result) == content(whole)
    for site in sites.values():
        # What was fetched in the instant of a kill may be asked again; what was stored never is.
        assert len(asked_twice(site)) <= lives


@pytest.mark.parametrize("at", range(1, 25, 2))
def test_killed_once_at_any_message(at, fake_sites, quick, tmp_path):
    whole = run(quick, fake_sites(*NAMES), tmp_path / "whole")
    sites = fake_sites(*NAMES)
    KilledGrid.calls, KilledGrid.at, KilledGrid.after = 0, at, True
    try:
        with pytest.raises(Killed):
            run(quick, sites, tmp_path / "run", KilledGrid)
    finally:
        KilledGrid.calls, KilledGrid.at = 0, 0
    stored = {
        (path.parts[-4], path.parts[-3], path.parts[-2])
        for path in (tmp_path / "run" / "rounds").glob("*/*/*/reply.json")
    }
    before = {name: len(site.asked) for name, site in sites.items()}
    result = run(quick, sites, tmp_path / "run")
    assert content(result) == content(whole)
    for name, site in sites.items():
        for order in site.asked[before[name] :]:
            if order.kind != "census":
                part = "train" if order.kind == "train" else order.split
                assert (f"{order.name.phase:02d}-{order.name.round:05d}", part, name) not in stored


@pytest.mark.parametrize("function", ["os.fsync", "os.rename", "os.replace"])
def test_killed_between_writing_and_naming(function, fake_sites, quick, tmp_path, monkeypatch):
    """Every fsync and rename of checkpoints, store and journal is a place to die, a few at a time."""
    short = quick.model_copy(update={"phases": (quick.phases[0].model_copy(update={"rounds": 2}),)})
    whole = run(short, fake_sites(*NAMES), tmp_path / "whole")
    sites, lives, result = fake_sites(*NAMES), 0, None
    owner, name = {"os.fsync": (os, "fsync"), "os.rename": (type(tmp_path), "rename")}.get(
        function, (type(tmp_path), "replace")
    )
    real, count = getattr(owner, name), [0, 0]

    def dying(*arguments):
        count[0] += 1
        if count[0] == count[1]:
            raise Killed
        return real(*arguments)

    monkeypatch.setattr(owner, name, dying)
    while result is None:
        lives += 1
        # Each life gets a little further than the one before.
        count[:] = [0, 2 * lives]
        try:
            result = run(short, sites, tmp_path / "run")
        except Killed:
            assert lives < 200
    assert lives > 2
    assert content(result) == content(whole)


# -- the store -----------------------------------------------------------------------------------------------


def reply(site, value=1.0):
    layout = Layout(names=("w",), shapes=((5,),))
    module = PackedModule(layout=layout, values=np.full(5, value, dtype=np.float32))
    name = RoundName(study_digest="0" * 64, phase=0, round=1, attempt=1)
    return Reply(site=site, name=name, modules={"m": module}, samples={"m": 3}, sums={"a/b": np.arange(3.0)})


def test_a_store_that_is_opened_again_keeps_whole_replies_and_drops_torn_ones(tmp_path):
    store = RoundStore(tmp_path / "train")
    for name in ("whole", "short", "flipped", "no-json", "no-array", "no-sum"):
        store.accept(reply(name), nbytes=44)
    folder = tmp_path / "train"
    (folder / "short" / "m.f32").write_bytes(b"123")
    flipped = bytearray((folder / "flipped" / "m.f32").read_bytes())
    flipped[3] ^= 1
    (folder / "flipped" / "m.f32").write_bytes(flipped)
    (folder / "no-json" / "reply.json").write_text("{")
    (folder / "no-array" / "m.f32").unlink()
    shutil.rmtree(folder / "no-sum" / "sums")
    (folder / ".half.part").mkdir()
    again = RoundStore(folder)
    assert again.sites() == ["whole"]
    assert sorted(path.name for path in folder.iterdir()) == ["whole"]
    assert again.facts("whole")["bytes"] == 44
    np.testing.assert_array_equal(again.sums("whole")["a/b"], np.arange(3.0))


def test_a_round_from_another_model_begins_anew(fake_sites, quick, tmp_path):
    sites = fake_sites(*NAMES)
    KilledGrid.calls, KilledGrid.at, KilledGrid.after = 0, 8, True
    try:
        with pytest.raises(Killed):
            run(quick, sites, tmp_path, KilledGrid)
    finally:
        KilledGrid.calls, KilledGrid.at = 0, 0
    assert list((tmp_path / "rounds").glob("*/train/*/reply.json"))
    shutil.rmtree(tmp_path / "checkpoints")
    other = quick.model_copy(update={"seed": 12})
    result = run(other, fake_sites(*NAMES), tmp_path)
    assert result["model_digest"] == run(other, fake_sites(*NAMES), tmp_path / "clean")["model_digest"]


# -- checkpoints ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["values", "state", "absent"])
def test_a_torn_newest_checkpoint_costs_its_round_and_nothing_else(kind, fake_sites, quick, tmp_path):
    sites = fake_sites(*NAMES)
    whole = run(quick, sites, tmp_path)
    newest = tmp_path / "checkpoints" / "00-00003"
    if kind == "values":
        torn = (newest / "ecg_encoder.f32").read_bytes()
        (newest / "ecg_encoder.f32").write_bytes(torn[:-8])
    elif kind == "state":
        (newest / "state.json").write_text('{"study_digest": "')
    else:
        (newest / "ecg_decoder.f32").unlink()
    events = []
    grid = LocalGrid([site.app() for site in sites.values()])
    again = run_study(grid, quick, folder=tmp_path, track=False, progress=events.append)
    assert content(again) == content(whole)
    (warning,) = [event for event in events if event.kind == "warning"]
    assert "00-00003" in warning.text
    assert json.loads((tmp_path / "status.json").read_text())["warnings"] == [warning.text]


def test_all_checkpoints_torn_is_an_error_and_another_study_is_never_passed_over(fake_sites, quick, tmp_path):
    run(quick, fake_sites(*NAMES), tmp_path)
    store = CheckpointStore(tmp_path / "checkpoints", study_digest=quick.digest)
    folders = sorted(path for path in store.folder.iterdir() if path.is_dir())
    with pytest.raises(CheckpointError, match="another study"):
        CheckpointStore(store.folder, study_digest="f" * 64).latest()
    for folder in folders:
        (folder / "state.json").write_text("{}")
    with pytest.raises(CheckpointError, match="cannot be read"):
        store.latest()


def test_a_study_that_is_taken_up_when_all_is_done_says_where_it_stands(fake_sites, quick, tmp_path):
    run(quick, fake_sites(*NAMES), tmp_path)
    before = json.loads((tmp_path / "status.json").read_text())
    run(quick, fake_sites(*NAMES), tmp_path)
    after = json.loads((tmp_path / "status.json").read_text())
    place = ("state", "phase", "phases", "task", "round", "rounds", "primary", "best", "model_digest")
    assert {key: after[key] for key in place} == {key: before[key] for key in place}
    assert (after["phase"], after["round"]) == (len(quick.phases), quick.phases[-1].rounds)


def names(folder):
    return sorted(path.name for path in (folder / "checkpoints").iterdir() if path.is_dir())


@pytest.mark.parametrize("keep_last, keep_best", [(1, False), (2, True), (3, False)])
def test_the_last_ones_the_best_and_the_phase_ends_are_kept(
    keep_last, keep_best, fake_sites, quick, tmp_path
):
    phase = quick.phases[0]
    study = quick.model_copy(
        update={
            "phases": tuple(phase.model_copy(update={"rounds": rounds}) for rounds in (4, 5)),
            "checkpoints": quick.checkpoints.model_copy(
                update={"keep_last": keep_last, "keep_best": keep_best}
            ),
        }
    )
    result = run(study, fake_sites(*NAMES), tmp_path)
    best = {}
    for entry in result["rounds"]:
        value = entry["pooled"][entry["primary"]]
        if entry["phase"] not in best or value > best[entry["phase"]][0]:
            best[entry["phase"]] = (value, f"{entry['phase']:02d}-{entry['round']:05d}")
    told = json.loads((tmp_path / "checkpoints" / "best.json").read_text())["phases"]
    expected = {"00-00004", "01-00005"} | {f"01-{5 - back:05d}" for back in range(keep_last)}
    if keep_best:
        assert {phase: row["folder"] for phase, row in told.items()} == {
            str(phase): name for phase, (_, name) in best.items()
        }
        expected |= {name for _, name in best.values()}
    else:
        assert told == {}
    assert names(tmp_path) == sorted(expected)
    for name in names(tmp_path):
        CheckpointStore(tmp_path / "checkpoints", study_digest=study.digest).read(
            tmp_path / "checkpoints" / name
        )


def test_a_study_on_too_few_sites_is_never_complete(fake_sites, quick, tmp_path):
    result = run(quick, fake_sites(*NAMES), tmp_path)
    check_history(quick, result["rounds"])
    rows = result["rounds"][1]["sites"]
    rows[0]["status"] = rows[1]["status"] = "left-out"
    with pytest.raises(QuorumNotMetError, match="1 site"):
        check_history(quick, result["rounds"])
    with pytest.raises(QuorumNotMetError):
        check_history(quick, result["rounds"][:2])
