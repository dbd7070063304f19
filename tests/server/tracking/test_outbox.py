"""Whatever call fails, before or after its effect, the store holds every point once in the end."""

import copy
import json

import pytest

from cardionets_core.errors import CheckpointError
from server.tracking.note import TRACKED, StoreNote, open_note
from server.tracking.outbox import Outbox
from server.tracking.points import measured_points, round_points

STUDY = {"name": "s", "phases": [{"task": "ecg_mae", "rounds": 2}, {"task": "probe", "rounds": 1}]}
DIGEST = "ab" * 32


class LostError(Exception):
    """The store did not answer."""


class MemoryStore:
    """A store that forgets to answer at one call, having done what it was asked or not.

    Args:
        fail: number of the call, from 1.
        after: whether it was done.
    """

    experiment = "1"

    def __init__(self, *, fail=0, after=False):
        self.calls, self.fail, self.after = 0, fail, after
        self.runs, self.metrics, self.ended, self.tagged, self.params, self.sent = {}, [], [], {}, {}, []

    def _call(self, work):
        self.calls += 1
        if self.calls == self.fail and not self.after:
            raise LostError
        found = work()
        if self.calls == self.fail:
            raise LostError
        return found

    def run(self, key, *, name, tags, parent=""):
        if key in self.runs:
            return self.runs[key][0]
        return self._call(lambda: self.runs.setdefault(key, (f"run{len(self.runs)}", name, parent))[0])

    def points(self, run, points, *, step, at_ms, in_doubt):
        held = {(r, n, s) for r, n, s, _ in self.metrics} if in_doubt else set()
        new = [(run, n, step, v) for n, v in points.items() if (run, n, step) not in held]
        half = len(new) // 2  # a call is several batches: one may have gone before the store was lost
        self._call(lambda: self.metrics.extend(new[:half]))
        self._call(lambda: self.metrics.extend(new[half:]))

    def parameters(self, run, values):
        held = self.params.setdefault(run, {})
        assert all(held.get(name, value) == value for name, value in values.items())
        self._call(lambda: held.update(values))

    def tags(self, run, values):
        self._call(lambda: self.tagged.setdefault(run, {}).update(values))

    def file(self, run, path, *, under=""):
        self._call(lambda: self.sent.append((run, under, path.name)))

    def end(self, run):
        self._call(lambda: self.ended.append(run))

    def go_on(self, run):
        self.ended.remove(run)


def history(pending=False):
    found = []
    for phase, task, number in ((0, "ecg_mae", 1), (0, "ecg_mae", 2), (1, "probe", 1)):
        found.append(
            {
                "phase": phase,
                "task": task,
                "round": number,
                "attempt": 1,
                "primary": "m",
                "seconds": 1.0 + number,
                "bytes_sent": 3,
                "bytes_received": 4,
                "pooled": {"m": 0.5 * number},
                "sites": [{"site": "a", "loss": 1.0 / number, "metrics": {"m": 0.25 * number}}],
            }
        )
    if pending:
        found[0] = {**found[0], "pooled": {}, "pending": True, "sites": [{"site": "a", "loss": 1.0}]}
    return found


def content():
    return {"model_digest": "cd" * 32, "sites": [{}], "rounds": history()}


def expected():
    """What the children must hold, from the history alone."""
    return sorted(
        (entry["phase"], name, entry["round"], value)
        for entry in history()
        for name, value in {**round_points(entry), **measured_points(entry)}.items()
    )


def send_all(store, note):
    """As a study does: a send a round, the first of them still without its measurement, then the end."""
    outbox = Outbox(store, note, study=STUDY, digest=DIGEST)
    outbox.rounds(history(pending=True)[:1])
    for count in (2, 3):
        outbox.rounds(history()[:count])
    outbox.final(content())
    outbox.finish(text="a card")


def held(store):
    phases = {found[0]: int(key[-1]) for key, found in store.runs.items() if "/" in key}
    return sorted((phases[run], *rest) for run, *rest in store.metrics if run in phases)


def test_a_store_that_answers_holds_every_point_once_and_runs_nest():
    store, note = MemoryStore(), StoreNote()
    send_all(store, note)
    assert held(store) == expected()
    parent = store.runs[note.key][0]
    assert [found[2] for found in store.runs.values()] == ["", parent, parent]
    assert store.ended == [note.phases[0].run, note.phases[1].run, parent]
    assert store.params[parent]["model_digest"] == "cd" * 32
    before = copy.deepcopy(store.metrics)
    send_all(store, note)
    assert store.metrics == before


def kept_note(disk):
    """The note as it was saved last; ``disk`` is what was saved."""
    note = copy.deepcopy(disk[-1]) if disk else StoreNote()
    note.save = lambda: disk.append(copy.deepcopy(note))
    return note


@pytest.mark.parametrize("after", [False, True])
def test_every_call_may_fail_once(after):
    whole = MemoryStore()
    send_all(whole, StoreNote())
    assert whole.calls > 15
    for number in range(1, whole.calls + 1):
        store, disk = MemoryStore(fail=number, after=after), []
        with pytest.raises(LostError):
            send_all(store, kept_note(disk))
        # The process is gone: only what was saved is known.
        send_all(store, kept_note(disk))
        assert held(store) == expected(), number
        final = [point for point in store.metrics if point[0] == disk[-1].run]
        assert final and len(final) == len({point[:3] for point in final}), number
        assert len(store.runs) == 3, number


def test_a_note_is_read_as_it_was_written(tmp_path):
    note = open_note(tmp_path, label="x")
    note.phase(1).first, note.asked, note.asked_ms, note.files = 3, "phase 1", 5, {"a": "b"}
    note.save()
    assert open_note(tmp_path, label="x") == note


def test_a_note_keeps_several_stores_apart(tmp_path):
    first, second = open_note(tmp_path, label="one"), open_note(tmp_path, label="two")
    first.run = "r1"
    first.save()
    second.run = "r2"
    second.save()
    assert open_note(tmp_path, label="one").run == "r1"
    assert open_note(tmp_path, label="two").run == "r2"


def test_a_file_is_sent_again_only_where_it_changed(tmp_path):
    store, note = MemoryStore(), StoreNote()
    outbox = Outbox(store, note, study=STUDY, digest=DIGEST)
    outbox.begin()
    (tmp_path / "plots").mkdir()
    for name in ("result.json", "plots/rounds.png", "plots/rounds.npz", "journal.jsonl"):
        (tmp_path / name).write_text(name)
    (tmp_path / "study.json").write_text("study")
    outbox.files(tmp_path, running=True)
    assert store.sent == [(note.run, "", "study.json")]
    store.sent.clear()
    outbox.files(tmp_path)
    outbox.files(tmp_path)
    assert store.sent == [(note.run, "", "result.json"), (note.run, "plots", "rounds.png")]
    (tmp_path / "result.json").write_text(json.dumps({}))
    outbox.files(tmp_path)
    assert store.sent[2:] == [(note.run, "", "result.json")]


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"schema_version": 2, "stores": {}}',
        '{"schema_version": 1, "stores": []}',
        '{"schema_version": 1, "stores": {"x": 5}}',
        '{"schema_version": 1, "stores": {"x": {"run": 5}}}',
        '{"schema_version": 1, "stores": {"x": {"unknown": ""}}}',
        '{"schema_version": 1, "stores": {"x": {"files": {"a": 1}}}}',
        '{"schema_version": 1, "stores": {"x": {"phases": [{"first": "1"}]}}}',
        '{"schema_version": 1, "stores": {"x": {"phases": {"first": 1}}}}',
    ],
)
def test_a_note_that_is_none_of_ours_is_refused(text, tmp_path):
    (tmp_path / TRACKED).write_text(text)
    with pytest.raises(CheckpointError, match="cannot be read"):
        open_note(tmp_path, label="x")


def test_a_model_that_is_not_registered_is_sent_as_files(tmp_path):
    store, note = MemoryStore(), StoreNote()
    outbox = Outbox(store, note, study=STUDY, digest=DIGEST)
    outbox.begin()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.json").write_text("{}")
    for _ in range(2):
        outbox.model_files(tmp_path / "model")
    assert store.sent == [(note.run, "model", "model.json")]
