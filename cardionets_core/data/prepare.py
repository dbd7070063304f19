"""From a site's folders to its cache (steps 2 to 4 of the walk).

List, pair, read, judge, pack. Recordings are read by ``prepare.workers`` processes; their results are taken
in the order of the rows, so the bytes are the same whatever the number. A recording that cannot be used is
counted by reason and never named.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

from cardionets_core.config.site import SiteConfig
from cardionets_core.data.cache import cohort_folder, open_cache
from cardionets_core.data.cache_writer import CacheWriter, sole_writer
from cardionets_core.data.cohort import Cohort
from cardionets_core.data.fingerprint import fingerprint
from cardionets_core.data.pack import Packed, pack_recordings
from cardionets_core.data.pairs import Visit, pair_visits
from cardionets_core.data.pseudonym import ensure_key
from cardionets_core.data.records import Recording
from cardionets_core.data.sources import Source, open_source
from cardionets_core.data.split import split_of
from cardionets_core.errors import CacheForeignError, CacheStaleError, DataError

Progress = Callable[[str, int, int], None]

_RECORDINGS_AT_ONCE = 8
_CHUNKS_AHEAD = 4
_WORTH_A_PROCESS = 200
"""Recordings under which starting workers (some seconds) takes longer than reading."""


def prepare(config: SiteConfig, *, progress: Progress | None = None) -> Cohort:
    """Make the cache of a site, or open the one that is up to date.

    Args:
        config: of the site.
        progress: told (stage, done, total) in recordings; the stages are ``list`` and ``read``.

    Returns:
        The opened cache. It may hold nobody: whether there are enough people is the caller's question.

    Raises:
        FolderMissingError: a path of the document is not there.
        SourceInvalidError: the files are not laid out as the source reads them.
        CacheForeignError: the cache's folder holds the cache of another site.
        DataError: the key or the cache's folder cannot be used, or a worker died.
    """
    tell = progress or (lambda stage, done, total: None)
    folder = cohort_folder(config)
    with sole_writer(folder):
        key = ensure_key(config.folders.secret)
        try:
            return open_cache(config)
        except CacheStaleError:
            pass
        except CacheForeignError as error:
            if "made for the site" in error.what:
                raise
        source = open_source(config)
        state = fingerprint(config, key=key, source=source)
        recordings = source.recordings()
        tell("list", len(recordings), len(recordings))
        visits = pair_visits(recordings, key=key)
        refusals = Counter(source.refusals)
        with CacheWriter(folder) as writer:
            done = 0
            for visit, packed in _packed_visits(config, visits):
                refusals.update(
                    _write_visit(writer, visit, packed=packed, config=config, key=key, source=source)
                )
                done += len(packed)
                tell("read", done, len(recordings))
            listed = len(recordings) + sum(source.refusals.values())
            writer.commit(site=config.site, fingerprint=state, listed=listed, refusals=refusals)
    return open_cache(config)


def _write_visit(
    writer: CacheWriter, visit: Visit, *, packed: list[Packed], config: SiteConfig, key: bytes, source: Source
) -> Counter[str]:
    """Append a visit's rows: one for each ECG, or one for a cine alone. Gives the refusals."""
    refusals = Counter(item.reason for item in packed if item.reason)
    writer.flags.update(flag for item in packed for flag in item.flags)
    cines = [item.cines["4ch"] for item in packed[: len(visit.cines)] if "4ch" in item.cines]
    ecgs = [item.ecg for item in packed[len(visit.cines) :] if item.ecg is not None]
    if cines or ecgs:
        split = config.prepare.split
        side = split_of(key, visit.pseudonym, validation=split.validation, test=split.test)
        person = source.person(visit.patient, visit.visit)
        cine = writer.add_cine(cines[-1]) if cines else -1
        for ecg in [writer.add_ecg(counts) for counts in ecgs] or [-1]:
            writer.add_row(pseudonym=visit.pseudonym, split=side, ecg=ecg, cine=cine, person=person)
    return refusals


def _packed_visits(config: SiteConfig, visits: list[Visit]) -> Iterator[tuple[Visit, list[Packed]]]:
    """Each visit with the outcomes of its cines, then of its ECGs, in the order of the visits."""
    chunks = _chunks(visits)
    reader = open_source(config)  # has loaded no table, so it is small to send
    recordings = sum(len(visit.cines) + len(visit.ecgs) for visit in visits)
    if config.prepare.workers == 1 or recordings < _WORTH_A_PROCESS:
        for chunk in chunks:
            yield from _apart(chunk, pack_recordings(reader, _recordings(chunk)))
        return
    # A fresh interpreter a worker: forking a process that holds threads of torch or arrow can hang.
    context = get_context("spawn")
    try:
        with ProcessPoolExecutor(config.prepare.workers, mp_context=context) as pool:
            waiting: deque[tuple[list[Visit], Future[list[Packed]]]] = deque()
            for chunk in chunks:
                waiting.append((chunk, pool.submit(pack_recordings, reader, _recordings(chunk))))
                if len(waiting) >= _CHUNKS_AHEAD * config.prepare.workers:
                    first, future = waiting.popleft()
                    yield from _apart(first, future.result())
            for first, future in waiting:
                yield from _apart(first, future.result())
    except BrokenProcessPool as error:
        raise DataError(
            "a worker process died", where="prepare.workers",
            remedy="lower prepare.workers: most likely the memory ran out",
        ) from error  # fmt: skip


def _chunks(visits: list[Visit]) -> Iterator[list[Visit]]:
    chunk: list[Visit] = []
    for visit in visits:
        chunk.append(visit)
        if len(_recordings(chunk)) >= _RECORDINGS_AT_ONCE:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _recordings(visits: list[Visit]) -> tuple[Recording, ...]:
    return tuple(recording for visit in visits for recording in (*visit.cines, *visit.ecgs))


def _apart(visits: list[Visit], packed: list[Packed]) -> Iterator[tuple[Visit, list[Packed]]]:
    start = 0
    for visit in visits:
        stop = start + len(visit.cines) + len(visit.ecgs)
        yield visit, packed[start:stop]
        start = stop
