"""A fuzzer of all readers over the real files: ``python tests/data/fuzz_readers.py SHARED_DATA --count N``.

Each case mutates or truncates one real recording and gives it to its reader. Allowed are a ``RecordRefused``
and a valid record; anything else ends the run with the case's number, which ``--first`` repeats. Prints one
JSON line.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import io
import json
import math
import resource
import shutil
import signal
import sys
import tempfile
import time
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np

from cardionets_core.data.readers.base import Reader, ReadOptions
from cardionets_core.data.readers.registry import recognise
from cardionets_core.data.records import LEADS, VIEWS, EcgRecord
from cardionets_core.errors import RecordRefused

LIMIT_MB = 500
LIMIT_S = 30
OPTIONS = ReadOptions(rate_hz=500.0, unit="mV", leads=LEADS)
NUMBERS = (b"0", b"-1", b"99999999999", b"4294967295", b"1e308", b"nan", b"", b"\xff\xff\xff\x7f")


def recordings(shared: Path) -> list[tuple[Reader, Path]]:
    """Every real recording with its reader; of large families only the first few."""
    found, seen = [], Counter()
    roots = [shared / "ecg", shared / "cmr", shared / "replicas"]
    for path in sorted(p for root in roots for p in root.rglob("*") if p.is_file()):
        try:
            reader = recognise(path)
        except RecordRefused:
            continue
        family = (reader.name, path.parent.parent.name if reader.kind == "cine" else path.parent.name)
        seen[family] += 1
        if seen[family] <= 3:
            found.append((reader, path))
    return found


def made(folder: Path) -> list[tuple[Reader, Path]]:
    """Small files of the formats of which no real example is at hand."""
    from scipy.io import savemat

    rows = np.random.default_rng(0).normal(0, 0.3, (12, 5000)).astype(np.float32)
    np.save(folder / "array.npy", rows)
    savemat(folder / "array.mat", {"feats": rows})
    lines = [",".join(LEADS)] + [",".join(f"{v:.4f}" for v in column) for column in rows[:, :3000].T]
    (folder / "table.csv").write_text("\n".join(lines))
    _write_edf(folder / "record.edf", rows)
    found = []
    for name in ("array.npy", "array.mat", "table.csv", "record.edf"):
        try:
            found.append((recognise(folder / name), folder / name))
        except RecordRefused:
            continue
    return found


def _write_edf(path: Path, rows: np.ndarray) -> None:
    try:
        import pyedflib
    except ImportError:
        return
    heads = [
        {"label": f"ECG {lead}", "dimension": "mV", "sample_frequency": 500, "physical_min": -3.0,
         "physical_max": 3.0, "digital_min": -32768, "digital_max": 32767, "transducer": "", "prefilter": ""}
        for lead in LEADS
    ]  # fmt: skip
    with pyedflib.EdfWriter(str(path), len(LEADS)) as writer:
        writer.setSignalHeaders(heads)
        writer.writeSamples(list(rows.astype(np.float64)))


def mutate(content: bytes, rng: np.random.Generator) -> bytes:
    """One to four random wounds."""
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 5))):
        if not data:
            break
        # Headers decide most: half of the wounds fall into the first kilobytes.
        reach = min(len(data), 2048) if rng.random() < 0.5 else len(data)
        place = int(rng.integers(0, reach))
        size = int(min(len(data) - place, 2 ** rng.integers(0, 10)))
        kind = int(rng.integers(0, 8))
        if kind == 0:
            del data[place:]
        elif kind == 1:
            data[place : place + size] = rng.integers(0, 256, size, dtype=np.uint8).tobytes()
        elif kind == 2:
            data[place] ^= 1 << int(rng.integers(0, 8))
        elif kind == 3:
            del data[place : place + size]
        elif kind == 4:
            data[place:place] = data[place : place + size] * int(rng.integers(1, 4))
        elif kind == 5:
            data[place : place + size] = bytes(size) if rng.random() < 0.5 else b"\xff" * size
        elif kind == 6:
            digits = [i for i in range(place, min(len(data), place + 400)) if 48 <= data[i] <= 57]
            if digits:
                data[digits[0] : digits[0] + 1] = NUMBERS[int(rng.integers(0, len(NUMBERS)))]
        else:
            other = int(rng.integers(0, len(data)))
            data[place : place + size] = data[other : other + size]
    return bytes(data)


def wounded(path: Path, rng: np.random.Generator) -> bytes:
    """Bytes of a file with wounds; of a container, in half of the cases, inside it."""
    content = path.read_bytes()
    inside = rng.random() < 0.5
    if inside and path.name.endswith(".gz"):
        return gzip.compress(mutate(gzip.decompress(content), rng), compresslevel=1)
    if path.suffix == ".zip":
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = [entry.filename for entry in archive.infolist()][: int(rng.integers(20, 60))]
            members = {name: archive.read(name) for name in names}
        if inside:
            for name in rng.choice(names, size=int(rng.integers(1, 8))):
                members[name] = mutate(members[name], rng)
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            for name, member in members.items():
                archive.writestr(name, member)
        return stream.getvalue() if inside else mutate(stream.getvalue(), rng)
    return mutate(content, rng)


def check(record: object) -> None:
    """Whether what a reader gave is a valid record."""
    if isinstance(record, EcgRecord):
        signal_mv = record.signal_mv
        assert signal_mv.dtype == np.float32 and signal_mv.ndim == 2 and signal_mv.size, "signal"
        assert len(record.leads) == len(signal_mv), "leads"
        assert math.isfinite(record.fs_hz) and record.fs_hz > 0, "rate"
        return
    assert isinstance(record, tuple) and record, "no cine"
    for stack in record:
        assert stack.pixels.dtype == np.float32 and stack.pixels.ndim in (3, 4) and stack.pixels.size, (
            "pixels"
        )
        assert len(stack.spacing_mm) == 2 and stack.view in (*VIEWS, "unknown"), "spacing or view"
        assert stack.mask is None or stack.mask.shape == stack.pixels.shape, "mask"
        for frame in (stack.ed_frame, stack.es_frame):
            assert frame is None or 0 <= frame < len(stack.pixels), "phase"


def peak_mb() -> float:
    """Peak resident memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run_case(case: int, targets: list[tuple[Reader, Path]], folder: Path) -> tuple[str, str]:
    """One case; gives the reader's name and its answer."""
    rng = np.random.default_rng([20221, case])
    reader, source = targets[case % len(targets)]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    parts = [source]
    if reader.name == "wfdb":
        parts = sorted(p for p in source.parent.iterdir() if p.stem == source.stem)
    chosen = int(rng.integers(0, len(parts)))
    for index, part in enumerate(parts):
        content = wounded(part, rng) if index == chosen else part.read_bytes()
        (folder / part.name).write_bytes(content)
    try:
        record = reader.read(folder / source.name, OPTIONS)
    except RecordRefused as refusal:
        return reader.name, refusal.reason
    check(record)
    return reader.name, "read"


def main() -> None:
    """Run the cases and print what came of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shared", type=Path)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--reader", help="only this reader")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        (work / "made").mkdir()
        targets = recordings(options.shared) + made(work / "made")
        targets = [t for t in targets if options.reader in (None, t[0].name)]
        for reader, path in targets:  # loads the libraries, which count as no case's memory
            with contextlib.suppress(RecordRefused):
                reader.read(path, OPTIONS)
        base, found, slowest = peak_mb(), Counter(), 0.0
        signal.signal(signal.SIGALRM, _hang)
        for case in range(options.first, options.first + options.count):
            signal.alarm(LIMIT_S)
            start = time.monotonic()
            try:
                found[run_case(case, targets, work / "case")] += 1
            except BaseException as error:
                sys.stderr.write(f"case {case} ({targets[case % len(targets)][0].name}): {error!r}\n")
                raise
            slowest = max(slowest, time.monotonic() - start)
            signal.alarm(0)
            if peak_mb() - base > LIMIT_MB:
                raise SystemExit(f"case {case} took {peak_mb() - base:.0f} MB")
        report = {
            "schema_version": 1,
            "cases": options.count,
            "first": options.first,
            "extra_mb": round(peak_mb() - base),
            "slowest_s": round(slowest, 2),
            "readers": sorted({reader.name for reader, _ in targets}),
            "answers": {f"{name}: {answer}": count for (name, answer), count in sorted(found.items())},
        }
        sys.stdout.write(json.dumps(report) + "\n")


def _hang(*_: object) -> None:
    raise TimeoutError(f"a case took more than {LIMIT_S} s")


if __name__ == "__main__":
    main()
