"""Replies of one round on disk, each written and fsynced as it arrives (step 11 of the walk).

Memory holds one reply at a time, whatever the number of sites. The arrays go when the round's checkpoint
is safe; the small JSON beside them stays as the record of who took part.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np

from cardionets_core.exchange.messages import Reply
from strategies.strategy import StoredModule


class RoundStore:
    """The replies of one attempt at one round.

    Args:
        folder: of this attempt; emptied if an earlier, interrupted try left something.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)

    def accept(self, reply: Reply, *, weight: float = 1.0) -> None:
        """Write a checked reply; when this returns, the disk has it.

        Args:
            reply: of one site.
            weight: share of its samples that counts; at least one sample always does.
        """
        folder = self.folder / reply.site
        folder.mkdir()
        for name, module in reply.modules.items():
            _write(folder / f"{name}.f32", np.ascontiguousarray(module.values, dtype="<f4").data)
        for name, value in reply.sums.items():
            path = folder / "sums" / f"{name}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as handle:
                np.save(handle, value, allow_pickle=False)
                _sync(handle)
        facts = {
            "site": reply.site,
            "samples": dict(reply.samples),
            # Whole numbers: their products with float32 values are exact in float64.
            "weights": {name: max(1, round(weight * count)) for name, count in reply.samples.items()},
            "sizes": {name: module.layout.size for name, module in reply.modules.items()},
            "values": dict(reply.values),
        }
        _write(folder / "reply.json", json.dumps(facts, indent=1, sort_keys=True).encode())
        _sync_folder(folder)
        _sync_folder(self.folder)

    def sites(self) -> list[str]:
        """Sites whose reply is whole, sorted by name."""
        return sorted(path.parent.name for path in self.folder.glob("*/reply.json"))

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

    def facts(self, site: str) -> dict[str, dict[str, float]]:
        """The scalars of a site's reply."""
        return json.loads((self.folder / site / "reply.json").read_text(encoding="utf-8"))

    def sums(self, site: str) -> dict[str, np.ndarray]:
        """The sums of a site's reply."""
        root = self.folder / site / "sums"
        return {
            path.relative_to(root).with_suffix("").as_posix(): np.load(path, allow_pickle=False)
            for path in sorted(root.rglob("*.npy"))
        }

    def forget_arrays(self) -> None:
        """Remove the tensors once the checkpoint that they led to is safe."""
        for path in self.folder.glob("*/*.f32"):
            path.unlink()
        for folder in self.folder.glob("*/sums"):
            shutil.rmtree(folder)


def _write(path: Path, content: bytes | memoryview) -> None:
    with path.open("wb") as handle:
        handle.write(content)
        _sync(handle)


def _sync(handle) -> None:  # type: ignore[no-untyped-def]
    handle.flush()
    os.fsync(handle.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
