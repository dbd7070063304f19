"""A full, read-only or torn disk at the coordinator: the study pauses, says why, and loses nothing."""

import errno
import json
import os
import pkgutil
import shutil

import numpy as np
import pytest

from cardionets_core import durable
from cardionets_core.audit import journal
from cardionets_core.durable import little_room, on_disk, place_folder, write_json, write_whole
from cardionets_core.errors import StorageFailedError
from server.app import run_study
from server.checkpoints import CheckpointStore
from simulation.local_grid import LocalGrid

NAMES = ("alpha", "beta", "gamma")


def run(study, sites, folder, **options):
    grid = LocalGrid([site.app() for site in sites.values()])
    return run_study(grid, study, folder=folder, track=False, **options)


def short(study, rounds=2):
    return study.model_copy(update={"phases": (study.phases[0].model_copy(update={"rounds": rounds}),)})


# Where the disk fails, and how many calls it takes before that.
PLACES = {
    "a reply": ("server.round_store._write", 3),
    "a checkpoint": ("server.checkpoints.sync_file", 3),
    "its state": ("server.checkpoints.write_whole", 1),
    "its name": ("server.checkpoints.place_folder", 1),
    "the next model": ("server.round_run.combine_replies", 1),
    "the journal": ("cardionets_core.audit.journal.append", 3),
    "a round": ("server.round_folder.write_json", 3),
}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
@pytest.mark.parametrize("place, good", PLACES.values(), ids=list(PLACES))
def test_a_disk_that_fails_pauses_the_study_with_the_folder_named(
    place, good, number, fake_sites, quick, tmp_path, monkeypatch
):
    study, sites = short(quick), fake_sites(*NAMES)
    whole = run(study, fake_sites(*NAMES), tmp_path / "whole")
    folder, calls, real = tmp_path / "run", [], pkgutil.resolve_name(place)

    def fails(*arguments, **options):
        calls.append(1)
        if len(calls) > good:
            raise OSError(number, os.strerror(number))
        return real(*arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(place, fails)
        with pytest.raises(StorageFailedError) as error:
            run(study, sites, folder)
    assert str(tmp_path) in error.value.where and "free space" in error.value.remedy
    assert json.loads((folder / "result.json").read_text())["paused"]["code"] == "storage-failed"
    assert CheckpointStore(folder / "checkpoints", study_digest=study.digest).latest() is not None
    assert not list((folder / "checkpoints").glob(".*.part"))
    result = run(study, sites, folder)
    assert result["model_digest"] == whole["model_digest"]


def test_a_round_is_not_begun_where_the_disk_has_less_than_asked_for(fake_sites, quick, tmp_path):
    sites = fake_sites(*NAMES)
    with pytest.raises(StorageFailedError, match="bytes are free"):
        run(quick, sites, tmp_path, minimum_free_bytes=10**18)
    assert all(not site.asked for site in sites.values())
    status = json.loads((tmp_path / "status.json").read_text())
    assert status["state"] == "paused" and status["failure"]["code"] == "storage-failed"
    assert run(quick, sites, tmp_path, minimum_free_bytes=1)["status"] == "completed"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to a read-only folder")
def test_a_read_only_folder_is_told_at_once(fake_sites, quick, tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(StorageFailedError):
            run(quick, fake_sites(*NAMES), tmp_path / "run")
    finally:
        tmp_path.chmod(0o700)


def test_other_errors_are_not_taken_for_a_disk(tmp_path):
    with pytest.raises(FileNotFoundError), on_disk(tmp_path, keeps="all"):
        (tmp_path / "absent").read_bytes()
    with pytest.raises(KeyError), on_disk(tmp_path, keeps="all"):
        raise KeyError("bug")
    with pytest.raises(StorageFailedError, match="all is kept"), on_disk(tmp_path, keeps="all is kept"):
        raise OSError(errno.ENOSPC, "full")


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "state.json"
    write_json(path, {"a": 1})
    monkeypatch.setattr(os, "fsync", _full)
    with pytest.raises(OSError):
        write_whole(path, b"half")
    assert json.loads(path.read_text()) == {"a": 1}
    assert [found.name for found in path.parent.iterdir()] == ["state.json"]


def test_a_folder_takes_the_place_of_another(tmp_path):
    for number in (1, 2):
        part = tmp_path / ".x.part"
        part.mkdir()
        (part / "n").write_text(str(number))
        place_folder(part, tmp_path / "x")
    assert (tmp_path / "x" / "n").read_text() == "2"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_journal_line_that_did_not_fit_leaves_no_half(tmp_path, monkeypatch):
    path = tmp_path / "journal.jsonl"
    journal.append(path, "first", {})
    real = os.write

    def half(descriptor, content):
        if len(content) > 20:
            return real(descriptor, content[:20])
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", half)
        with pytest.raises(OSError):
            journal.append(path, "second", {"x": "y" * 13})
    assert journal.verify(path) == 1
    journal.append(path, "third", {})
    assert journal.verify(path) == 2


def test_half_a_line_after_a_power_cut_is_set_aside(tmp_path):
    path = tmp_path / "journal.jsonl"
    for name in ("first", "second"):
        journal.append(path, name, {})
    whole = path.read_bytes()
    path.write_bytes(whole + b"abc {")
    assert journal.mend(path) == 5
    assert path.read_bytes() == whole
    assert path.with_name("journal.jsonl.torn").read_bytes() == b"abc {\n"
    assert journal.mend(path) == 0 and journal.mend(tmp_path / "absent") == 0
    journal.append(path, "third", {})
    assert journal.verify(path) == 3


def test_what_a_checkpoint_is_made_of_is_left_as_it_was(fake_sites, quick, tmp_path, monkeypatch):
    """A checkpoint that fails half way leaves the one before it bit for bit."""
    run(short(quick), fake_sites(*NAMES), tmp_path)
    store = CheckpointStore(tmp_path / "checkpoints", study_digest=short(quick).digest)
    latest = store.latest()
    before = {path: path.read_bytes() for path in latest.folder.iterdir()}
    new = tmp_path / "new.f32"
    np.zeros(latest.layouts["ecg_encoder"].size, dtype="<f4").tofile(new)
    monkeypatch.setattr("server.checkpoints.place_folder", _full)
    with pytest.raises(StorageFailedError):
        store.write(
            phase=0,
            round_number=3,
            layouts=latest.layouts,
            files={**{n: latest.path(n) for n in latest.digests}, "ecg_encoder": new},
            history=latest.history,
            previous=latest,
        )
    assert {path: path.read_bytes() for path in latest.folder.iterdir()} == before
    assert store.latest().model_digest == latest.model_digest


def _full(*arguments, **options):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_disk_with_little_room_is_told_before_it_fails(tmp_path, monkeypatch):
    assert little_room(tmp_path / "nowhere") == ""
    free = shutil.disk_usage(tmp_path).free
    monkeypatch.setattr(durable, "LITTLE_BYTES", 0)
    assert little_room(tmp_path) == ""
    monkeypatch.setattr(durable, "LITTLE_BYTES", 2 * free)
    assert str(tmp_path) in little_room(tmp_path)
