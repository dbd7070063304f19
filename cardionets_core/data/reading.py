"""Recordings are read by several processes; each outcome comes back as soon as it is there (step 2 to 4).

Comes in: recordings with what is already known of their bytes. Goes out: for each the packed arrays, or the
reason why not, or that its bytes are the known ones after all. The order is that of completion; whoever needs
another one sorts. Imports no torch, for every worker would pay for it.
"""

from __future__ import annotations

import atexit
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process

from cardionets_core.config.site import SiteConfig
from cardionets_core.data.listing import content_digest, look_at
from cardionets_core.data.pack import Packed, pack_recording, packed_arrays, packed_digest
from cardionets_core.data.records import Recording
from cardionets_core.data.sources import open_source
from cardionets_core.errors import DataError

RECORDINGS_AT_ONCE = 8
CHUNKS_AHEAD = 4
ECG_SECONDS, CINE_SECONDS = 0.003, 0.3
"""About what one recording takes."""
HASHED_BYTES = 2_000_000_000
"""Files larger than this are not read twice: their sizes stand for their bytes."""
WORTH_SECONDS = 6.0
"""Work under which starting workers, which is some seconds of imports, takes longer than reading."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One recording to be read.

    Attributes:
        key: of the recording.
        recording: what to read.
        content: keyed digest of its bytes when it was read last; empty where it never was.
    """

    key: str
    recording: Recording
    content: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a job.

    Attributes:
        key: of the recording.
        content: keyed digest of its bytes, or of their number where they are too many; empty where they could
            not be read, or changed meanwhile.
        packed: None where the bytes are those that were read last: nothing was decoded.
        digest: of the packed arrays; empty where refused.
    """

    key: str
    content: str
    packed: Packed | None = None
    digest: str = ""


class JobReader:
    """Reads jobs in the process that makes it.

    Args:
        config: of the site.
        key: the site's.
    """

    def __init__(self, config: SiteConfig, key: bytes) -> None:
        self._source = open_source(config)
        self._views = config.prepare.views
        self._key = key

    def read(self, job: Job) -> Outcome:
        """Read, check and pack one recording, unless its bytes are those that were read last."""
        source, recording, key = self._source, job.recording, self._key
        look, content = look_at(source, recording, key=key), ""
        # What is new has nothing to be compared with, and what is too large is refused before it is read.
        if job.content not in ("", look.size_mark) and look.total_bytes <= HASHED_BYTES:
            content = content_digest(source, recording, key=key)
            if content and content == job.content:
                return Outcome(key=job.key, content=content)
        packed = pack_recording(source, recording, views=self._views)
        if packed.reason.endswith("-too-large") or look.total_bytes > HASHED_BYTES:
            content = look.size_mark
        elif not content:
            content = content_digest(source, recording, key=key)
            if look_at(source, recording, key=key) != look:  # the digest may be of other bytes
                content = ""
        arrays = packed_arrays(packed)
        digest = packed_digest(arrays) if arrays else ""
        return Outcome(key=job.key, content=content, packed=packed, digest=digest)


def read_all(config: SiteConfig, jobs: Sequence[Job], *, key: bytes) -> Iterator[Outcome]:
    """Read recordings, in as many processes as are worth starting.

    Args:
        config: of the site; ``prepare.workers`` is the most processes, 1 = this one.
        jobs: what to read.
        key: the site's.

    Raises:
        DataError: a worker died. What came before is good.
    """
    cines = sum(job.recording.kind == "cine" for job in jobs)
    work_s = cines * CINE_SECONDS + (len(jobs) - cines) * ECG_SECONDS
    workers = config.prepare.workers
    if workers == 1 or work_s < WORTH_SECONDS:
        reader = JobReader(config, key)
        for job in jobs:
            yield reader.read(job)
        return
    chunks = (jobs[start : start + RECORDINGS_AT_ONCE] for start in range(0, len(jobs), RECORDINGS_AT_ONCE))
    # A fresh interpreter a worker: forking a process that holds threads of torch or arrow can hang.
    pool = ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=_begin, initargs=(config, key)
    )
    waiting: set[Future[list[Outcome]]] = set()
    try:
        for chunk in chunks:
            waiting.add(_submit(pool, chunk))
            if len(waiting) >= CHUNKS_AHEAD * workers:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    yield from future.result()
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                yield from future.result()
    except BrokenProcessPool as error:
        raise DataError(
            "a worker process died", where="prepare.workers",
            remedy="lower prepare.workers, most likely the memory ran out, and run `prepare` again: what has "
            "been read is kept",
        ) from error  # fmt: skip
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _submit(pool: ProcessPoolExecutor, chunk: Sequence[Job]) -> Future[list[Outcome]]:
    """Hand out work. Ctrl-C reaches the workers too; held back while they start, it is this process's."""
    held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return pool.submit(_read_jobs, chunk)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)


_WORKER: list[JobReader] = []
"""The reader of a worker process; empty in any other."""


def _read_jobs(jobs: Sequence[Job]) -> list[Outcome]:
    return [_WORKER[0].read(job) for job in jobs]


def _begin(config: SiteConfig, key: bytes) -> None:
    """What a worker does first: open the source for all its jobs, and see to its end.

    A worker whose parent was killed would wait for its next job for ever. One that has nothing more to do
    would take seconds to clear away the libraries that it loaded; it has nothing to clear, so it just ends.
    """
    _WORKER.append(JobReader(config, key))
    atexit.register(os._exit, 0)
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_watch, args=(parent.sentinel,), daemon=True).start()


def _watch(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)
