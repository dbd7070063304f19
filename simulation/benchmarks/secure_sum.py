"""What a secure sum costs a site and the server, beside a plain sum of the same float32 vectors in the same
run.

Each case has as many sites as it says, a threshold of two thirds, and is played to the end twice from the
same masked vectors: with every site, and with as many drop-outs as the threshold allows after the shares were
dealt. All sites take part for real, one after the other; the seconds of "one site" are those of the first in
name, with its state read and written at each step as in a fresh process, and are not multiplied. Sites and
server run in a process of their own, so that peak memory is each one's: what came on top of the imports.
Vectors lie in files that are mapped, hot in the page cache; the plain sum reads float32 files in the same
way. Starting processes, the network and training are not in it.

The first line compares the two ciphers that could make the masks. ``python -m
simulation.benchmarks.secure_sum`` prints one JSON line a case; the last cases need about 3 GB of disk and
take most of the time.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

SITES = (3, 10, 50)
MEGABYTES = (1, 50)
LARGEST = 8.0
STREAM_BYTES = 50_000_000


def main(arguments: Sequence[str] | None = None) -> None:
    """Run every case, each role in a process of its own; or one role of a case in this one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sites", type=int, nargs="+", default=SITES)
    parser.add_argument("--megabytes", type=int, nargs="+", default=MEGABYTES, help="of float32 a site")
    parser.add_argument("--folder", type=Path, help="for the vectors; by default a temporary one")
    parser.add_argument("--role", choices=("sites", "server"), help=argparse.SUPPRESS)
    parser.add_argument("--gone", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.role:
        sites, values = options.sites[0], options.megabytes[0] * 250_000
        if options.role == "sites":
            found = play_sites(options.folder, sites=sites, values=values)
        else:
            found = play_server(options.folder, gone=options.gone, values=values)
        sys.stdout.write(json.dumps(found) + "\n")
        return
    write({"streams_gigabytes_per_s": stream_speeds()})
    for megabytes in options.megabytes:
        for sites in options.sites:
            with tempfile.TemporaryDirectory(prefix="secure-sum-", dir=options.folder) as folder:
                one_case(Path(folder), sites=sites, megabytes=megabytes)


def write(content: dict[str, object]) -> None:
    """One JSON line on stdout."""
    sys.stdout.write(json.dumps({"schema_version": 1, "benchmark": "secure-sum", **content}) + "\n")
    sys.stdout.flush()


def threshold_of(sites: int) -> int:
    """Two thirds, rounded up."""
    return max(2, -(-2 * sites // 3))


def one_case(folder: Path, *, sites: int, megabytes: int) -> None:
    """The sites' part once, the server's part with and without drop-outs."""

    def run(role: str, *more: str) -> dict[str, float]:
        case = ["--sites", str(sites), "--megabytes", str(megabytes), "--folder", str(folder)]
        command = [sys.executable, "-m", "simulation.benchmarks.secure_sum", "--role", role, *case, *more]
        found: dict[str, float] = json.loads(
            subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        )
        return found

    early = run("sites")
    for gone in sorted({0, sites - threshold_of(sites)}):
        late = run("server", "--gone", str(gone))
        server_s, plain_s = late["server_s"], early["plain_sum_s"] * (sites - gone) / sites
        site_s = early["site_s"] + late["site_s"]
        write(
            {
                "sites": sites,
                "threshold": threshold_of(sites),
                "dropped_out": gone,
                "megabytes": megabytes,
                "one_site_s": round(site_s, 3),
                "of_it_mask_s": round(early["mask_s"], 3),
                "server_s": round(server_s, 3),
                "of_it_sum_s": round(late["sum_s"], 3),
                "plain_sum_s": round(plain_s, 4),
                "server_ratio_to_plain_sum": round(server_s / plain_s, 1),
                "site_peak_megabytes": round(early["peak_bytes"] / 1e6, 1),
                "server_peak_megabytes": round(late["peak_bytes"] / 1e6, 1),
                "site_sends_bytes": int(early["sent_bytes"] + late["sent_bytes"]),
                "site_gets_bytes": int(early["got_bytes"] + late["got_bytes"]),
                "plain_site_sends_bytes": megabytes * 1_000_000,
                "largest_error_in_bounds": round(late["error_in_bounds"], 3),
            }
        )


class Clock:
    """Adds up the seconds of blocks by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def at(self, *names: str) -> Iterator[None]:
        """Count a block under these names."""
        start = time.perf_counter()
        yield
        for name in names:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def of(self, name: str) -> float:
        """So far."""
        return self.seconds.get(name, 0.0)


def peak_bytes() -> int:
    """Of this process until now."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def play_sites(folder: Path, *, sites: int, values: int) -> dict[str, float]:
    """All sites up to their masked vectors, which lie in the folder with every message and state after it."""
    import numpy as np

    from cardionets_core.privacy.secure_sum import Coordinator, FixedPoint, SecureSite, SessionName, Terms
    from cardionets_core.trust.keys import make_key, private_pem

    # The plain sum is no part of a site's memory: touched here, it lies below the base.
    plain, exact = np.full(values, 0.0, dtype=np.float32), np.zeros(min(values, 100_000))
    base, clock = peak_bytes(), Clock()
    names = [f"site-{number:03d}" for number in range(sites)]
    keys = {name: make_key() for name in names}
    terms = Terms(
        session=SessionName(study_digest="ab" * 32, phase=0, round=1, attempt=1, purpose="update"),
        threshold=threshold_of(sites),
        roster={name: key.public_key() for name, key in keys.items()},
    )
    for name in names:
        (folder / f"{name}.pem").write_bytes(private_pem(keys[name]))
    server, states, sent, got = Coordinator(terms), {}, 0, 0
    for name in names:
        with clock.at(name):
            site = SecureSite.begin(terms, site=name, identity=keys[name])
            states[name], advert = site.to_bytes(), site.advertise()
        (folder / f"{name}.advert").write_bytes(advert.to_bytes())
        server.add_advert(advert)
    participants = server.close_adverts()
    for name in names:
        with clock.at(name):
            site = SecureSite.resume(states[name], terms, site=name)
            bundle = site.share(participants)
            states[name] = site.to_bytes()
        (folder / f"{name}.bundle").write_bytes(bundle.to_bytes())
        server.add_bundle(bundle)
    form, first = FixedPoint.finest(32, largest=LARGEST, parties=sites), names[0]
    for number, name in enumerate(names):
        path, delivery = folder / f"{name}.f32", server.close_bundles()[name]
        np.random.default_rng(number).standard_normal(values, dtype=np.float32).clip(
            -LARGEST, LARGEST
        ).tofile(path)
        vector = np.memmap(path, dtype=np.float32, mode="r")
        with clock.at("plain"):
            np.add(plain, vector, out=plain)
        exact += vector[: exact.size]
        exact.tofile(folder / f"{number + 1}.exact")
        with clock.at(name, f"{name}/mask"):
            site = SecureSite.resume(states[name], terms, site=name)
            masked = site.mask(delivery, form.encode(vector, name="update"))
            states[name] = site.to_bytes()
        masked.tofile(folder / f"{name}.u32")
        (folder / f"{name}.state").write_bytes(states[name])
        if name == first:
            sent = masked.nbytes + sum(
                (folder / f"{name}.{end}").stat().st_size for end in ("advert", "bundle")
            )
            got = len(participants.to_bytes()) + len(delivery.to_bytes())
        del vector, masked
        path.unlink()
    return {
        "site_s": clock.of(first),
        "mask_s": clock.of(f"{first}/mask"),
        "plain_sum_s": clock.of("plain"),
        "peak_bytes": peak_bytes() - base,
        "sent_bytes": sent,
        "got_bytes": got,
    }


def play_server(folder: Path, *, gone: int, values: int) -> dict[str, float]:
    """The server from the first message to the sum; the sites of the last names have dropped out."""
    import numpy as np

    from cardionets_core.privacy.secure_sum import (
        Coordinator,
        FixedPoint,
        KeyAdvert,
        SecureSite,
        SessionName,
        ShareBundle,
        Terms,
    )
    from cardionets_core.trust.keys import read_private

    base, clock = peak_bytes(), Clock()
    names = sorted(path.stem for path in folder.glob("*.pem"))
    keys = {name: read_private((folder / f"{name}.pem").read_bytes(), where=name) for name in names}
    terms = Terms(
        session=SessionName(study_digest="ab" * 32, phase=0, round=1, attempt=1, purpose="update"),
        threshold=threshold_of(len(names)),
        roster={name: key.public_key() for name, key in keys.items()},
    )
    survivors, server = names[: len(names) - gone], Coordinator(terms)
    with clock.at("server"):
        for name in names:
            server.add_advert(KeyAdvert.from_bytes((folder / f"{name}.advert").read_bytes()))
        server.close_adverts().to_bytes()
        for name in names:
            server.add_bundle(ShareBundle.from_bytes((folder / f"{name}.bundle").read_bytes()))
        for delivery in server.close_bundles().values():
            delivery.to_bytes()
        listed = server.close_masked(survivors)
    states = {name: (folder / f"{name}.state").read_bytes() for name in survivors}
    sent, got = 0, len(listed.to_bytes())
    for name in survivors:
        with clock.at(name):
            site = SecureSite.resume(states[name], terms, site=name)
            signed = site.confirm(listed, identity=keys[name])
            states[name] = site.to_bytes()
        with clock.at("server"):
            server.add_confirmation(signed)
    with clock.at("server"):
        request = server.unmask_request()
    got += len(request.to_bytes())
    for name in survivors:
        with clock.at(name):
            site = SecureSite.resume(states[name], terms, site=name)
            reply = site.unmask(request)
            site.to_bytes()
        with clock.at("server"):
            server.add_reply(reply)
        if name == survivors[0]:
            sent += len(signed.to_bytes()) + len(reply.to_bytes())
    form = FixedPoint.finest(32, largest=LARGEST, parties=len(names))
    with clock.at("server", "sum"):
        total = server.total(
            (name, np.memmap(folder / f"{name}.u32", dtype=np.uint32, mode="r")) for name in survivors
        )
        result = form.decode(total, dtype=np.float32)
    exact = np.fromfile(folder / f"{len(survivors)}.exact")
    # The result is rounded once more, to float32.
    bound = len(survivors) * form.error + np.spacing(np.abs(result[: exact.size]))
    error = float((np.abs(result[: exact.size] - exact) / bound).max())
    if not (error <= 1.0 and result.size == values):
        raise SystemExit("the sum is wrong")
    return {
        "site_s": clock.of(survivors[0]),
        "server_s": clock.of("server"),
        "sum_s": clock.of("sum"),
        "peak_bytes": peak_bytes() - base,
        "sent_bytes": sent,
        "got_bytes": got,
        "error_in_bounds": error,
    }


def stream_speeds() -> dict[str, float]:
    """Gigabytes of key stream a second, the best of five turns."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    from cardionets_core.privacy.secure_sum.masks import TILE_BYTES

    makers: dict[str, Callable[[], object]] = {
        "aes_256_ctr": lambda: Cipher(algorithms.AES(bytes(32)), modes.CTR(bytes(16))),
        "chacha20": lambda: Cipher(algorithms.ChaCha20(bytes(32), bytes(16)), mode=None),
    }
    zeros, room, best = bytes(TILE_BYTES), bytearray(TILE_BYTES + 16), dict.fromkeys(makers, 0.0)
    for _ in range(5):
        for name, make in makers.items():
            stream, start = make().encryptor(), time.perf_counter()  # type: ignore[attr-defined]
            for _ in range(STREAM_BYTES // TILE_BYTES):
                stream.update_into(zeros, room)
            best[name] = max(best[name], STREAM_BYTES / (time.perf_counter() - start) / 1e9)
    return {name: round(speed, 2) for name, speed in best.items()}


if __name__ == "__main__":
    main()
