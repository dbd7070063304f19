"""The store: what is written can be read, a kill costs the record in hand, dead bytes are zeros."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cardionets_core.data import store as store_module
from cardionets_core.data.pack import packed_digest
from cardionets_core.data.storage import FlatFile, writing_to
from cardionets_core.data.store import LOG, PARTS, Store
from cardionets_core.data.store_log import Entry, LogTornError, log_line, parse_line, read_log
from cardionets_core.errors import CacheForeignError, DataError


def opened(folder: Path, **changes: Any) -> Store:
    """The store of a site that has published nothing."""
    given_ = {"site": "here", "key": "k", "chain": "c", "unpublish": lambda: None}
    return Store(folder, **{**given_, **changes})


def arrays_of(seed: int, *, samples: int = 40, cine: bool = False) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    if cine:
        return {view: rng.integers(1, 255, 50 * 96 * 96, dtype=np.uint8) for view in ("4ch", "2ch")}
    return {"ecg": rng.integers(1, 30000, (12, samples)).astype("<i2"),
            "signature": rng.random(8).astype("<f4") + 1}  # fmt: skip


def put(store: Store, name: str, seed: int, **options: Any) -> dict[str, np.ndarray]:
    arrays = arrays_of(seed, **options)
    kind = "cine" if options.get("cine") else "ecg"
    entry = Entry(key=name, kind=kind, stamp=f"s{seed}", content=f"c{seed}", digest=packed_digest(arrays),
                  flags=("lead-derived",), facts={"fs_hz": 500.0, "view": "4ch"})  # fmt: skip
    store.put(entry, arrays)
    return arrays


def assert_holds(store: Store, name: str, arrays: dict[str, np.ndarray]) -> None:
    entry = store.entries[name]
    assert set(entry.places) == set(arrays)
    for part, array in arrays.items():
        np.testing.assert_array_equal(store.read(entry, part, array.dtype.str), array.reshape(-1))


def all_bytes(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


def test_what_is_put_is_there_when_the_store_is_opened_again(folder: Path) -> None:
    with opened(folder) as store:
        first, cines = put(store, "a", 1), put(store, "b", 2, cine=True)
        store.put(Entry(key="c", kind="ecg", stamp="s", content="x", reason="ecg-flat"))
    with opened(folder) as store:
        assert_holds(store, "a", first)
        assert_holds(store, "b", cines)
        assert list(store.entries) == ["a", "b", "c"] and store.damaged() == []
        kept = store.entries["c"]
        assert (kept.reason, kept.accepted, kept.places) == ("ecg-flat", False, {})
        assert store.entries["a"].facts == {"fs_hz": 500.0, "view": "4ch"}
        assert store.entries["a"].flags == ("lead-derived",)


@given(
    st.dictionaries(
        st.text(max_size=5),
        st.one_of(st.text(max_size=5), st.integers(), st.floats(allow_nan=False), st.lists(st.booleans())),
        max_size=4,
    ),
    st.data(),
)
def test_a_line_of_the_log_is_read_whole_or_not_at_all(content: dict[str, Any], data: st.DataObject) -> None:
    content = {name: value for name, value in content.items() if name not in ("key", "sum")}
    line = log_line({"key": "k", **content})
    assert parse_line(line) == {"key": "k", **content} and json.loads(line)["key"] == "k"
    place = data.draw(st.integers(0, len(line) - 1))
    changed = bytes([line[place] ^ data.draw(st.integers(1, 255))])
    for torn in (line[:place], line[:place] + changed + line[place + 1 :]):
        with pytest.raises(ValueError):
            parse_line(torn)


def test_every_length_of_a_cut_log_gives_the_whole_lines_before_the_cut(folder: Path) -> None:
    with opened(folder) as store:
        arrays = {name: put(store, name, seed) for seed, name in enumerate("abc")}
    whole = (folder / LOG).read_bytes()
    lines = whole.splitlines(keepends=True)
    data = {path: path.read_bytes() for path in folder.glob("*.bin")}
    ends = np.cumsum([len(line) for line in lines])
    for length in range(len(lines[0]), len(whole), 23):
        for path, content in data.items():
            path.write_bytes(content + b"in hand")
        (folder / LOG).write_bytes(whole[:length])
        with opened(folder) as store:
            names = [json.loads(line).get("key") for line in lines[1 : int((ends <= length).sum())]]
            assert list(store.entries) == [name for name in names if name]
            for name in store.entries:
                assert_holds(store, name, arrays[name])
            later = put(store, "later", 9)
        with opened(folder) as store:
            assert_holds(store, "later", later)
            assert all(path.stat().st_size == store.ends[part] for part, path in paths(store, folder).items())


def paths(store: Store, folder: Path) -> dict[str, Path]:
    return {part: folder / name for part, name in store.files.items()}


def test_bytes_that_did_not_reach_the_disk_are_not_trusted(folder: Path) -> None:
    """As after a power cut: the log is there, the bytes of its last records are not, or are zeros."""
    with opened(folder) as store:
        first, second = put(store, "a", 1), put(store, "b", 2)
        ecg = paths(store, folder)["ecg"]
    log = read_log(folder / LOG)
    assert log.synced == 2
    lines = (folder / LOG).read_bytes().splitlines(keepends=True)
    (folder / LOG).write_bytes(b"".join([*lines[:2], log_line({"synced": True}), *lines[2:3]]))
    content = ecg.read_bytes()
    start, length = log.entries[1].places["ecg"]
    for torn in (content[:start], content[: start + 5], content[:start] + bytes(length)):
        ecg.write_bytes(torn)
        with opened(folder) as store:
            assert list(store.entries) == ["a"]
            assert_holds(store, "a", first)
    assert second["ecg"].tobytes() not in all_bytes(folder)


def test_damage_inside_is_found_by_key(folder: Path) -> None:
    with opened(folder) as store:
        for seed, name in enumerate("abc"):
            put(store, name, seed)
        place = store.entries["b"].places["ecg"][0]
        ecg = paths(store, folder)["ecg"]
    content = bytearray(ecg.read_bytes())
    content[place + 3] ^= 1
    ecg.write_bytes(content)
    with opened(folder) as store:
        assert store.damaged() == ["b"]
        store.forget(["b"])
        store.settle()
    with opened(folder) as store:
        assert list(store.entries) == ["a", "c"] and store.damaged() == []


def test_what_is_forgotten_or_replaced_is_blank_in_place_and_gone_from_the_log(folder: Path) -> None:
    taken_down: list[int] = []
    with opened(folder, unpublish=lambda: taken_down.append(1)) as store:
        taken_down.clear()
        old, kept, gone = put(store, "a", 1), put(store, "b", 2), put(store, "c", 3)
        cines = put(store, "d", 4, cine=True)
        store.settle()
        assert not taken_down
        ecg = paths(store, folder)["ecg"]
        held = np.memmap(ecg, dtype="<i2", mode="r")
        assert (held != 0).all()
        new = put(store, "a", 5)
        store.forget(["c", "d"])
        store.settle()
        assert taken_down == [1]
        everything = all_bytes(folder)
        for array in (*old.values(), *gone.values(), *cines.values()):
            assert array.tobytes() not in everything
        # Who holds a map sees the zeros, and everything else where it was.
        assert (held[480:960] == kept["ecg"].reshape(-1)).all() and not held[:480].any()
        assert not held[960:1440].any()
        for name in ("c", "d"):
            assert f'"key":"{name}"'.encode() not in everything
        assert everything.count(b'"key":"a"') == 1
    with opened(folder) as store:
        assert_holds(store, "a", new)
        assert_holds(store, "b", kept)


def test_a_new_stamp_moves_nothing(folder: Path) -> None:
    with opened(folder) as store:
        arrays = put(store, "a", 1)
        ends = store.ends
        store.put(replace(store.entries["a"], stamp="later"))
        store.settle()
        assert store.ends == ends
    with opened(folder) as store:
        assert store.entries["a"].stamp == "later"
        assert_holds(store, "a", arrays)
        store.forget(["a"])
        store.settle()
    assert arrays["ecg"].tobytes() not in all_bytes(folder) and b'"a"' not in all_bytes(folder)


def test_a_file_that_is_mostly_blank_is_rewritten(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "DEAD_BYTES", 1000)
    with opened(folder) as store:
        arrays = {str(seed): put(store, str(seed), seed) for seed in range(8)}
        before = paths(store, folder)
        held = np.memmap(before["ecg"], dtype="<i2", mode="r")
        store.forget(["0", "1"])
        store.settle()
        assert paths(store, folder) == before  # a quarter, and no more
        store.forget(["4"])
        store.settle()
        after = paths(store, folder)
        assert after["ecg"] != before["ecg"] and not before["ecg"].exists() and after["cines"].exists()
        assert after["ecg"].stat().st_size == 5 * 960 and not held[:960].any() and held[960:1920].all()
        later = put(store, "later", 99)
    assert {path.name for path in folder.iterdir()} == {LOG, *(path.name for path in after.values())}
    with opened(folder) as store:
        for name in "23567":
            assert_holds(store, name, arrays[name])
        assert_holds(store, "later", later)


def test_a_file_is_never_cut_under_what_somebody_may_hold(folder: Path) -> None:
    """Cutting a file under a memory map kills the process that holds the map."""
    with opened(folder) as store:
        put(store, "a", 1)
        put(store, "b", 2)
        held = np.memmap(paths(store, folder)["ecg"], dtype="<i2", mode="r")
        store.forget(["b"])
        store.settle()
    with opened(folder) as store:
        assert store.ends["ecg"] == 2 * 960 and held[480:].sum() == 0


@pytest.mark.parametrize("lost", [1, 5, 960, 1000, 2 * 960])
def test_a_file_that_became_shorter_is_filled_up_and_every_place_stays(folder: Path, lost: int) -> None:
    with opened(folder) as store:
        first, second = put(store, "a", 1), put(store, "b", 2)
        ecg = paths(store, folder)["ecg"]
    os.truncate(ecg, 2 * 960 - lost)
    with opened(folder) as store:
        kept = [] if lost > 960 else ["a"]
        assert list(store.entries) == kept and store.ends["ecg"] == ecg.stat().st_size == 2 * 960
        store.settle()
        put(store, "b", 2)
        assert store.entries["b"].places["ecg"] == (2 * 960, 960) and not store.damaged()
        if kept:
            assert_holds(store, "a", first)
    with opened(folder) as store:
        assert_holds(store, "b", second)


def test_what_a_log_has_lost_is_blanked_where_somebody_may_hold_it(folder: Path) -> None:
    taken_down: list[int] = []
    with opened(folder) as store:
        first, second = put(store, "a", 1), put(store, "b", 2)
        ecg = paths(store, folder)["ecg"]
    lines = (folder / LOG).read_bytes().splitlines(keepends=True)
    (folder / LOG).write_bytes(b"".join(lines[:3]))  # the head, that it was on the disk, and a
    held = {ecg.name: 2 * 960, "cines-1.bin": 10**18}
    with opened(folder, held=held, unpublish=lambda: taken_down.append(1)) as store:
        assert list(store.entries) == ["a"] and taken_down
        assert store.ends == {"ecg": 2 * 960, "cines": 0, "signatures": 32}
        assert second["ecg"].tobytes() not in all_bytes(folder)
        assert_holds(store, "a", first)


@pytest.mark.parametrize("name", [LOG, "ecg-1.bin", "cines-1.bin", "signatures-1.bin", f"{LOG}.draft"])
def test_a_pipe_or_a_link_to_nowhere_is_replaced(folder: Path, tmp_path: Path, name: str) -> None:
    with opened(folder) as store:
        put(store, "a", 1)
        put(store, "b", 2, cine=True)
    for make in (os.mkfifo, lambda path: path.symlink_to(tmp_path / "nowhere")):
        (folder / name).unlink(missing_ok=True)
        make(folder / name)
        with opened(folder) as store:
            arrays = put(store, "a", 1), put(store, "b", 2, cine=True)
            store.forget(["a"])
            store.settle()
            assert_holds(store, "b", arrays[1])
            for part, path in paths(store, folder).items():
                assert path.is_file() and not path.is_symlink() and path.stat().st_size == store.ends[part]
        assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("name", [LOG, "ecg-1.bin", "theirs"])
def test_a_folder_among_the_files_is_never_deleted(folder: Path, name: str) -> None:
    with opened(folder) as store:
        arrays = put(store, "a", 1)
    (folder / name).unlink(missing_ok=True)
    (folder / name).mkdir()
    (folder / name / "theirs").write_text("kept")
    if name == "theirs":
        with opened(folder) as store:
            assert_holds(store, "a", arrays)
    else:
        with pytest.raises(DataError, match="a folder lies"):
            opened(folder)
    assert (folder / name / "theirs").read_text() == "kept"


def test_another_chain_empties_the_store_and_another_site_or_key_is_refused(folder: Path) -> None:
    with opened(folder) as store:
        arrays = put(store, "a", 1)
    taken_down: list[int] = []
    with opened(folder, chain="new", unpublish=lambda: taken_down.append(1)) as store:
        assert not store.entries and taken_down == [1]
        assert arrays["ecg"].tobytes() not in all_bytes(folder)
        put(store, "a", 1)
    before = all_bytes(folder)
    with pytest.raises(CacheForeignError, match="here"):
        opened(folder, site="there")
    with pytest.raises(CacheForeignError, match="another key"):
        opened(folder, key="new", chain="new")
    assert all_bytes(folder) == before


def test_a_log_that_is_torn_inside_is_not_trusted_at_all(folder: Path) -> None:
    with opened(folder) as store:
        put(store, "a", 1)
        put(store, "b", 2)
    log = folder / LOG
    lines = log.read_bytes().splitlines(keepends=True)
    for torn in ([lines[0], b"x" + lines[1], *lines[2:]], [lines[0][:-9] + b"\n", *lines[1:]], []):
        log.write_bytes(b"".join(torn))
        with pytest.raises(LogTornError):
            read_log(log)
    with opened(folder) as store:
        assert not store.entries
    assert len(list(folder.glob("*.bin"))) == len(PARTS)


@pytest.mark.parametrize("refused", ["pwrite", "write"])
def test_a_full_disk_is_a_typed_error_and_loses_only_the_record_in_hand(
    folder: Path, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    with opened(folder) as store:
        first = put(store, "a", 1)
    real = getattr(os, refused)

    def full(handle: int, content: Any, *place: int) -> int:
        if len(content) < 100:  # the closing mark of the log still fits
            return real(handle, content, *place)
        written = real(handle, content[: len(content) // 2], *place)
        monkeypatch.setattr(os, refused, nothing_more)
        return written

    def nothing_more(handle: int, content: Any, *place: int) -> int:
        if len(content) < 100:
            return real(handle, content, *place)
        raise OSError(errno.ENOSPC, "No space left on device")

    with (
        pytest.raises(DataError, match="disk is full") as caught,
        writing_to(folder),
        opened(folder) as store,
    ):
        monkeypatch.setattr(os, refused, full)
        put(store, "b", 2)
    assert "what has been read is kept" in caught.value.remedy
    monkeypatch.undo()
    with opened(folder) as store:
        assert list(store.entries) == ["a"]
        assert_holds(store, "a", first)
        later = put(store, "b", 3)
    with opened(folder) as store:
        assert_holds(store, "b", later)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), max_size=5))
def test_blanks_are_zeros_where_asked_and_nowhere_else(ranges: list[tuple[int, int]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "f"
        path.write_bytes(b"\1" * 100)
        expected = np.ones(80, dtype=np.uint8)
        with FlatFile(path, end=80) as file:
            for start, length in ranges:
                file.blank(start, length)
                expected[start : start + length] = 0
            assert file.append(b"\2" * 5) == 80 and file.end == 85
        assert path.read_bytes() == expected.tobytes() + b"\2" * 5
