"""The append-only store of packed recordings (step 4 of the walk).

Comes in: the outcome for one recording after another, in any order. Goes out: entries that say where its
bytes lie. First the bytes are written, then the line of the log that vouches for them, so a process that is
killed loses the recording in hand and no other. The store knows keys, never people; which recordings are
shown to training is the business of the publication.

    <folders.cache>/store/
        log.jsonl           one line a recording, see store_log.py
        ecg-1.bin           int16 [12, T] one after another, microvolts
        cines-1.bin         uint8 [50, 96, 96]
        signatures-1.bin    float32

Bytes that nobody may see any more are overwritten with zeros where they lie, and only then does the log
forget them: killed in between, the next run finds them again and starts over. A file that became shorter than
what the log covers is filled up with zeros, and what was lost is forgotten.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType, TracebackType

import numpy as np

from cardionets_core.data.pack import packed_digest
from cardionets_core.data.pseudonym import other_key
from cardionets_core.data.storage import FlatFile, make_way, write_whole
from cardionets_core.data.store_log import SYNCED, Entry, Head, LogTornError, log_line, read_log, whole_log
from cardionets_core.durable import sync_folder
from cardionets_core.errors import CacheForeignError

LOG = "log.jsonl"
DEAD_SHARE = 0.25
DEAD_BYTES = 1 << 24
"""A file is rewritten when more than this share of it, and at least so many bytes, are blank."""
SYNC_SECONDS = 1.0
PARTS = ("ecg", "cines", "signatures")
STEP_BYTES = {"ecg": 24, "cines": 50 * 96 * 96, "signatures": 4}
"""What is published counts in samples of 12 leads and in cines: a place begins at a multiple of these."""


def file_of(name: str) -> str:
    """Which of ``PARTS`` a packed array belongs to: ``ecg``, ``signature`` or the name of a view."""
    return {"ecg": "ecg", "signature": "signatures"}.get(name, "cines")


class Store:
    """The store of one site, opened for writing by one process; use as a context manager.

    Args:
        folder: made where it is absent.
        site: name of the site.
        key: tells which key made the keyed digests.
        chain: digest of the code and settings that shape the bytes; another one empties the store.
        unpublish: takes down what is published; called before any byte goes that it may show.
        held: name of a file to its published bytes, which somebody may have mapped.

    Raises:
        CacheForeignError: the store is another site's, or was made with another key.
        DataError: a folder lies where a file belongs.
    """

    def __init__(
        self, folder: Path, *, site: str, key: str, chain: str, unpublish: Callable[[], None],
        held: Mapping[str, int] = MappingProxyType({}),
    ) -> None:  # fmt: skip
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        make_way(folder / LOG)
        self._folder = folder
        self._unpublish = unpublish
        self._held = held
        self.entries: dict[str, Entry] = {}
        self._dead: list[tuple[str, int, int]] = []
        self._forgotten = False
        self._files: dict[str, FlatFile] = {}
        try:
            log = read_log(folder / LOG)
            if log.head.site != site:
                raise CacheForeignError(
                    f"the cache was made for the site {log.head.site!r}, not for {site!r}", where=str(folder),
                    remedy="give each site its own folders.cache",
                )  # fmt: skip
            if log.head.key != key:
                raise other_key(folder.parent)
            if log.head.chain != chain or set(log.head.files) != {*PARTS}:
                raise LogTornError("made from something else")
        except (FileNotFoundError, LogTornError):
            unpublish()
            number = 1 + max((_number(path) for path in folder.glob("*.bin")), default=0)
            names = {part: f"{part}-{number}.bin" for part in PARTS}
            head = Head(site=site, key=key, chain=chain, files=names, ends=dict.fromkeys(PARTS, 0))
            write_whole(folder / LOG, whole_log(head, []))
            log = read_log(folder / LOG)
        self._head = log.head
        self._sweep()
        with contextlib.ExitStack() as stack:
            self._replay(log.entries, synced=log.synced, stack=stack)
            self._log = os.open(folder / LOG, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            os.ftruncate(self._log, log.good_bytes)
            stack.callback(lambda: os.close(self._log))
            self._stack = stack.pop_all()
        self._synced_at = time.monotonic()
        self._unsynced = False

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Bring everything to the disk, also when something else went wrong."""
        try:
            self.sync()
        except OSError:
            if kind is None:
                raise
        finally:
            self._stack.close()

    @property
    def files(self) -> dict[str, str]:
        """Part to the name of its file."""
        return dict(self._head.files)

    @property
    def ends(self) -> dict[str, int]:
        """Part to its length in bytes."""
        return {part: file.end for part, file in self._files.items()}

    def put(self, entry: Entry, arrays: Mapping[str, np.ndarray] | None = None) -> None:
        """Record an outcome; an earlier one of the same key is dead from now on.

        Args:
            entry: its places are filled in here where there are arrays.
            arrays: ``ecg``, ``signature`` or a view to its packed array.
        """
        if arrays:
            places = {}
            for name, array in arrays.items():
                content = np.ascontiguousarray(array)
                start = self._files[file_of(name)].append(content.reshape(-1).view(np.uint8).data)
                places[name] = (start, content.nbytes)
            entry = replace(entry, places=places)
        self._write_log(entry.line())
        self._unsynced = True
        self._take(entry)
        if time.monotonic() - self._synced_at > SYNC_SECONDS:
            self.sync()

    def read(self, entry: Entry, name: str, dtype: str) -> np.ndarray:
        """One packed array of an entry, flat."""
        return np.frombuffer(self._files[file_of(name)].read(*entry.places[name]), dtype=dtype)

    def sync(self) -> None:
        """Bytes first, then the log, reach the disk."""
        if self._unsynced:
            for file in self._files.values():
                file.sync()
            self._write_log(log_line(SYNCED))
            os.fsync(self._log)
            self._unsynced = False
        self._synced_at = time.monotonic()

    def damaged(self) -> list[str]:
        """Keys of the entries whose bytes are not those that were written."""
        return [key for key, entry in self.entries.items() if not self._is_whole(entry)]

    def forget(self, keys: Collection[str]) -> None:
        """Their bytes are dead; ``settle`` blanks them, if not in this run then in the next."""
        for key in keys:
            self._write_log(Entry(key=key, kind=self.entries[key].kind, gone=True).line())
            self._drop(key)
            self._unsynced = True

    def settle(self) -> None:
        """Blank all dead bytes and rewrite the log without their lines; nothing where nothing is dead."""
        if not self._dead and not self._forgotten:
            return
        self.sync()
        self._unpublish()
        alive = {place for entry in self.entries.values() for place in self._places(entry)}
        for part, start, length in set(self._dead) - alive:
            self._files[part].blank(start, length)
        for file in self._files.values():
            file.sync()
        outgrown = [self._compact(part) for part in PARTS]
        self._head = replace(self._head, ends=self.ends)
        write_whole(self._folder / LOG, whole_log(self._head, self.entries.values()))
        os.close(self._log)
        self._log = os.open(self._folder / LOG, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        for path in outgrown:
            if path is not None:
                path.unlink()
        self._dead, self._forgotten, self._unsynced = [], False, False

    def _compact(self, part: str) -> Path | None:
        """Move what lives into a new file if too much is dead; gives the old one. The log does the switch."""
        file = self._files[part]
        living = sorted(
            (start, length, key, name)
            for key, entry in self.entries.items()
            for name, (start, length) in entry.places.items()
            if file_of(name) == part
        )
        dead_bytes = file.end - sum(length for _, length, _, _ in living)
        if dead_bytes < DEAD_BYTES or dead_bytes <= DEAD_SHARE * file.end:
            return None
        name_of_file = f"{part}-{1 + _number(file.path)}.bin"
        moved = self._stack.enter_context(FlatFile(self._folder / name_of_file, end=0, step=STEP_BYTES[part]))
        try:
            places = {
                (key, name): (moved.append(file.read(start, length)), length)
                for start, length, key, name in living
            }
            moved.sync()
            sync_folder(self._folder)
        except OSError:  # the disk is full: the blanks stay for now
            moved.path.unlink()
            return None
        for (key, name), place in places.items():
            entry = self.entries[key]
            self.entries[key] = replace(entry, places={**entry.places, name: place})
        self._files[part] = moved
        self._head = replace(self._head, files={**self._head.files, part: name_of_file})
        return file.path

    def _replay(self, entries: list[Entry], *, synced: int, stack: contextlib.ExitStack) -> None:
        """Take the lines of the log as far as their bytes are there, and bring the files to their length."""
        ends = dict(self._head.ends)
        for entry in entries:
            for part, start, length in self._places(entry):
                ends[part] = max(ends[part], start + length)
        for part in PARTS:
            path = self._folder / self._head.files[part]
            make_way(path)
            held = self._held.get(path.name, 0)
            if held > ends[part]:  # the log has lost lines: whose the bytes were that it covered is unknown
                self._unpublish()
            file = FlatFile(path, end=ends[part], held=held, step=STEP_BYTES[part])
            self._files[part] = stack.enter_context(file)
        for number, entry in enumerate(entries):
            if entry.gone:
                self._drop(entry.key)
                continue
            self._take(entry)
            if number >= synced and not self._is_whole(entry):
                self._drop(entry.key)  # the log reached the disk before the bytes did
        for key, entry in list(self.entries.items()):
            if any(start + length > self._files[part].found for part, start, length in self._places(entry)):
                self._drop(key)

    def _drop(self, key: str) -> None:
        self._forgotten = True
        if key in self.entries:
            self._dead += self._places(self.entries.pop(key))

    def _take(self, entry: Entry) -> None:
        earlier = self.entries.get(entry.key)
        if earlier is not None:
            self._dead += [place for place in self._places(earlier) if place not in self._places(entry)]
        self.entries[entry.key] = entry

    def _is_whole(self, entry: Entry) -> bool:
        return not entry.places or entry.digest == packed_digest(
            {name: self.read(entry, name, "|u1") for name in entry.places}
        )

    def _places(self, entry: Entry) -> list[tuple[str, int, int]]:
        return [(file_of(name), start, length) for name, (start, length) in entry.places.items()]

    def _write_log(self, line: bytes) -> None:
        before, written = os.fstat(self._log).st_size, 0
        try:
            while written < len(line):
                written += os.write(self._log, line[written:])
        except BaseException:  # half a line must not stand before the next one
            os.ftruncate(self._log, before)
            raise

    def _sweep(self) -> None:
        """Remove the files of an earlier log, and drafts of a killed run."""
        known = {LOG, *self._head.files.values()}
        for path in self._folder.iterdir():
            if path.name not in known and (path.is_symlink() or not path.is_dir()):
                path.unlink()


def _number(path: Path) -> int:
    """The number in ``ecg-3.bin``; 0 where there is none."""
    digits = path.stem.rpartition("-")[2]
    return int(digits) if digits.isdigit() else 0
