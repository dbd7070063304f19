"""Replies to one question of one round on disk, each written and fsynced as it arrives (step 11 of the walk).

Memory holds one reply at a time, whatever the number of sites. A folder that a killed server left behind is
opened again: replies that are whole are kept, torn ones removed. The arrays go when the round's checkpoint
is safe; the small JSON beside them stays as the record of who took part.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from cardionets_core.durable import on_disk, place_folder, write_whole
from cardionets_core.errors import CheckpointError, PeerError
from cardionets_core.exchange.messages import Reply
from cardionets_core.exchange.names import is_plain_name
from cardionets_core.exchange.npy import from_npy
from cardionets_core.plain_json import read_json
from strategies.strategy import StoredModule

REPLY = "reply.json"
MASKED, SECURE = "masked.npy", "secure.json"
"""The vector and the message of a secure sum."""


class RoundStore:
    """The stored replies to one question.

    Args:
        folder: of this question; made if absent, and opened again if an interrupted try left something.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with on_disk(folder, keeps="all finished rounds are whole"):
            folder.mkdir(parents=True, exist_ok=True)
            for path in folder.iterdir():
                if path.is_dir() and (path.name.startswith(".") or not _is_whole(path)):
                    shutil.rmtree(path)

    def accept(
        self,
        reply: Reply,
        *,
        weight: float = 1.0,
        nbytes: int = 0,
        seconds: float = 0.0,
    ) -> str:
        """Write a checked reply; when this returns, the disk has it.

        Args:
            reply: of one site.
            weight: share of its samples that counts; at least one sample always does.
            nbytes: bytes of its arrays on the wire.
            seconds: from the order to its arrival.

        Returns:
            The digest of what was stored.

        Raises:
            StorageFailedError: the disk did not take it; then nothing of it is there.
        """
        target = self.folder / reply.site
        part = self.folder / f".{reply.site}.part"
        with on_disk(self.folder, keeps="the replies stored before and all finished rounds are whole"):
            try:
                if part.exists():
                    shutil.rmtree(part)
                part.mkdir()
                files: dict[str, list[Any]] = {}
                for name, module in reply.modules.items():
                    values = np.ascontiguousarray(module.values, dtype="<f4")
                    files[f"{name}.f32"] = _write(part / f"{name}.f32", values)
                for name, value in reply.sums.items():
                    path = part / "sums" / f"{name}.npy"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    files[f"sums/{name}.npy"] = _save(path, value)
                if reply.masked is not None:
                    files[MASKED] = _save(part / MASKED, reply.masked)
                if reply.secure:
                    files[SECURE] = _write(part / SECURE, np.frombuffer(reply.secure, dtype=np.uint8))
                digest = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
                facts = {
                    "site": reply.site,
                    "samples": dict(reply.samples),
                    # Whole numbers: their products with float32 values are exact in float64.
                    "weights": {name: max(1, round(weight * count)) for name, count in reply.samples.items()},
                    "sizes": {name: module.layout.size for name, module in reply.modules.items()},
                    "values": dict(reply.values),
                    "measure_code": reply.measure_code,
                    "attempt": reply.name.attempt,
                    "bytes": nbytes,
                    "seconds": seconds,
                    "files": files,
                    "digest": digest,
                }
                write_whole(part / REPLY, json.dumps(facts, indent=1, sort_keys=True).encode())
                place_folder(part, target)
            except BaseException:
                shutil.rmtree(part, ignore_errors=True)
                raise
        return digest

    def sites(self) -> list[str]:
        """Sites whose reply is stored, sorted by name."""
        return sorted(path.parent.name for path in self.folder.glob(f"[!.]*/{REPLY}"))

    def has(self, site: str) -> bool:
        """Whether a site's reply is stored; asked at each reply, so it does not look at all the others'."""
        return (self.folder / site / REPLY).exists()

    def module(self, name: str) -> list[StoredModule]:
        """What each site sent of a module, sorted by site; sites that did not train it are absent."""
        found = []
        for site in self.sites():
            facts = self.facts(site)
            beside = (other for other in facts["sizes"] if other.startswith(f"{name}."))
            if name in facts["samples"]:
                found.append(
                    StoredModule(
                        site=site,
                        samples=int(facts["weights"][name]),
                        path=self.folder / site / f"{name}.f32",
                        size=int(facts["sizes"][name]),
                        values=facts["values"],
                        extras={
                            other.removeprefix(f"{name}."): self.folder / site / f"{other}.f32"
                            for other in beside
                        },
                    )
                )
        return found

    def facts(self, site: str) -> dict[str, Any]:
        """The scalars of a site's reply, and what was noted when it came.

        Raises:
            CheckpointError: it is torn.
        """
        try:
            return _facts(self.folder / site)
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise _torn(self.folder / site) from error

    def sums(self, site: str) -> dict[str, np.ndarray]:
        """The sums of a site's reply.

        Raises:
            CheckpointError: one is torn.
        """
        root = self.folder / site / "sums"
        try:
            return {
                path.relative_to(root).with_suffix("").as_posix(): from_npy(path.read_bytes())
                for path in sorted(root.rglob("*.npy"))
            }
        except (OSError, PeerError) as error:
            raise _torn(root) from error

    def forget_arrays(self) -> None:
        """Remove the tensors once the checkpoint that they led to is safe."""
        for path in self.folder.glob("*/*.f32"):
            path.unlink()
        for folder in self.folder.glob("*/sums"):
            shutil.rmtree(folder)


def _torn(folder: Path) -> CheckpointError:
    return CheckpointError(
        "a stored reply is torn",
        where=str(folder),
        remedy="remove this folder and resume: the site is asked again",
    )


def _write(path: Path, values: np.ndarray) -> list[Any]:
    """Write raw values; returns their bytes and SHA-256."""
    raw = values.reshape(-1).view(np.uint8).data
    with path.open("wb") as handle:
        handle.write(raw)
        handle.flush()
        os.fsync(handle.fileno())
    return [raw.nbytes, hashlib.sha256(raw).hexdigest()]


def _save(path: Path, value: np.ndarray) -> list[Any]:
    """Write an array with its shape; returns the file's bytes and SHA-256."""
    with path.open("wb") as handle:
        np.save(handle, value, allow_pickle=False)
        handle.flush()
        os.fsync(handle.fileno())
    return [path.stat().st_size, _sha256(path)]


def _is_whole(folder: Path) -> bool:
    """Whether a stored reply has all its files, with the bytes that were written."""
    if not (folder / REPLY).exists():
        # A folder of another question, or a torn reply: only the latter holds files of its own.
        return not any(path.is_file() for path in folder.iterdir())
    try:
        facts = _facts(folder)
        return all(
            (folder / name).stat().st_size == size and _sha256(folder / name) == digest
            for name, (size, digest) in facts["files"].items()
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False


def _facts(folder: Path) -> dict[str, Any]:
    """What ``reply.json`` says, if all of it is what the rest reads.

    Raises:
        OSError, ValueError, LookupError, TypeError, AttributeError: it is torn, or none of ours.
    """
    found: dict[str, Any] = read_json(folder / REPLY, finite=False)
    names = {*(name.removesuffix(".f32") for name in found["files"]), *found["samples"], *found["sizes"]}
    numbers = [*found["samples"].values(), *found["weights"].values(), *found["sizes"].values()]
    values = found["values"].values()
    fits = (
        found["site"] == folder.name
        and all(is_plain_name(name) for name in names)
        and found["samples"].keys() == found["weights"].keys() <= found["sizes"].keys()
        and all(type(number) is int and number >= 0 for number in (*numbers, found["bytes"]))
        and all(type(value) in (int, float) for value in (*values, found["seconds"]))
        and isinstance(found["measure_code"], str)
        and all(found["files"][f"{name}.f32"][0] == 4 * size for name, size in found["sizes"].items())
    )
    if not fits:
        raise ValueError("not a reply's facts")
    return found


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
