"""A fuzzer of all that another hand may have written: ``python tests/hostile/fuzz_wire.py --count N``.

Each case wounds one valid artefact and gives it to its reader. Allowed are a ``CardioNetsError`` and what is
valid by itself; anything else ends the surface with the case's number, which ``--first`` repeats. Each of the
surfaces runs in a process of its own, whose memory is bounded. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np

from cardionets_core.errors import CardioNetsError

LIMIT_MB = 400
"""By which the memory of a surface may grow after its first cases."""
ADDRESS_MB = 3000
"""By which its address space may: a case that asks for more ends in a ``MemoryError``."""
LIMIT_S = 20
WARM = 5


def surfaces() -> dict[str, object]:
    """All surfaces by name; their libraries are loaded here."""
    import disk_surfaces
    import site_surfaces
    import trust_surfaces
    import wire_surfaces

    modules = (wire_surfaces, trust_surfaces, disk_surfaces, site_surfaces)
    return {name: make for module in modules for name, make in module.SURFACES.items()}


def run_surface(name: str, *, count: int, first: int) -> dict[str, object]:
    """All cases of one surface, in this process."""
    warnings.simplefilter("ignore")
    make = surfaces()[name]
    found: Counter[str] = Counter()
    slowest, slowest_case, base = 0.0, first, 0.0
    with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch:
        case = make(_empty(Path(scratch) / "made"))  # type: ignore[operator]
        signal.signal(signal.SIGALRM, _hang)
        for number in range(first, first + count):
            if number == first + WARM:
                base = _peak_mb()
                used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
                # The soft limit alone, so that the next surface of this process can set its own.
                most = used + (ADDRESS_MB << 20)
                resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))
            rng = np.random.default_rng([20226, number])
            start = time.monotonic()
            signal.alarm(LIMIT_S)
            try:
                found[case(rng)] += 1
            except CardioNetsError as error:
                assert error.what and error.code, "a refusal without words"
                str(error).encode()
                found[f"refused: {error.code}"] += 1
            except BaseException as error:
                sys.stderr.write(f"surface {name}, case {number}: {error!r:.600}\n")
                raise
            signal.alarm(0)
            if (took := time.monotonic() - start) > slowest:
                slowest, slowest_case = took, number
            if base and _peak_mb() - base > LIMIT_MB:
                raise SystemExit(f"surface {name}, case {number} took {_peak_mb() - base:.0f} MB")
        grown = _peak_mb() - base if base else 0.0
    return {
        "tried": count,
        "slowest_s": round(slowest, 2),
        "slowest_case": slowest_case,
        "extra_mb": round(grown),
        "answers": dict(sorted(found.items())),
    }


def main() -> None:
    """Run the surfaces one after another and print what came of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=300, help="cases of each surface")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--surface", action="append", help="only this one; may be given again")
    parser.add_argument("--together", action="store_true", help="all surfaces in this process")
    parser.add_argument("--without", action="append", default=[], help="not this one; may be given again")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        found = run_surface(options.inside, count=options.count, first=options.first)
        sys.stdout.write(json.dumps(found) + "\n")
        return
    report: dict[str, object] = {}
    failed = False
    for name in [each for each in options.surface or surfaces() if each not in options.without]:
        if options.together:
            report[name] = run_surface(name, count=options.count, first=options.first)
            continue
        done = subprocess.run(
            [sys.executable, __file__, "--inside", name, "--count", str(options.count),
             "--first", str(options.first)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            failed = True
            sys.stderr.write(done.stderr[-3000:] + f"surface {name} ended with {done.returncode}\n")
        else:
            report[name] = json.loads(done.stdout.splitlines()[-1])
    content = {"schema_version": 1, "first": options.first, "surfaces": report}
    sys.stdout.write(json.dumps(content) + "\n")
    raise SystemExit(1 if failed else 0)


def _empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _hang(*_: object) -> None:
    raise TimeoutError(f"a case took more than {LIMIT_S} s")


if __name__ == "__main__":
    main()
