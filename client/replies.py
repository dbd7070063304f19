"""Replies that passed the gate, kept so that a round is trained once however often it is asked for.

Between the gate and the wire (step 10 of the walk). Comes in: an order, and the reply that was released to
it. Goes out: the same reply when the same is asked again, byte for byte in the same attempt, under the new
number in another one. A torn one counts as absent: it is computed anew. A census is never kept. The head of
the site's journal is not kept with it: each time that a reply leaves it gets the head of that time's line.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from cardionets_core.durable import on_disk, place_folder, sync_file, write_whole
from cardionets_core.errors import CardioNetsError
from cardionets_core.exchange.heads import NO_HEAD
from cardionets_core.exchange.messages import (
    Envelope,
    Order,
    Reply,
    order_to_envelope,
    reply_from_envelope,
    reply_to_envelope,
)
from cardionets_core.exchange.tensors import module_digest
from cardionets_core.plain_json import read_json

ARRAYS = "arrays.safetensors"
FACTS = "reply.json"
ROUNDS_KEPT = 2
BY_DIGEST = ("layout/module/", "layout/frozen/")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class KeptReply:
    """A reply that lay on the disk.

    Attributes:
        reply: under the attempt that is asked for now.
        patients: people behind it.
        measured: people behind the sums that it measured on the way, or None if it measured nothing.
    """

    reply: Reply
    patients: int
    measured: int | None


class ReplyStore:
    """The kept replies of one site.

    Args:
        folder: ``replies`` of the site's state folder.
        maximum_bytes: the oldest go when there is more.
    """

    def __init__(self, folder: Path, *, maximum_bytes: int) -> None:
        self._folder = folder
        self._maximum_bytes = maximum_bytes

    def find(self, order: Order) -> KeptReply | None:
        """The whole reply to an order, or None."""
        folder = self._place(order)
        try:
            facts = read_json(folder / FACTS, finite=False)
            path = folder / ARRAYS
            if path.stat().st_size != facts["bytes"] or _sha256(path) != facts["sha256"]:
                return None
            arrays: dict[str, np.ndarray] = load_file(path)
            # The order of the arrays, as of the fields, is part of the message's bytes.
            ordered = {name: arrays[name] for name in facts["arrays"]}
            reply = reply_from_envelope(Envelope(fields=dict(facts["fields"]), arrays=ordered))
            kept = KeptReply(
                reply=dataclasses.replace(reply, name=order.name),
                patients=int(facts["patients"]),
                measured=None if facts["measured"] is None else int(facts["measured"]),
            )
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            OverflowError,
            SafetensorError,
            CardioNetsError,
        ):
            return None
        os.utime(folder)
        return kept

    def keep(self, order: Order, reply: Reply, *, patients: int, measured: int | None) -> None:
        """Write a reply whole, or not at all; then let earlier ones go.

        Raises:
            StorageFailedError: the disk did not take it.
        """
        target = self._place(order)
        part = target.with_name(f".{target.name}.{os.getpid()}.part")
        envelope = reply_to_envelope(dataclasses.replace(reply, head=NO_HEAD))
        with on_disk(self._folder, keeps="nothing left the site"):
            try:
                part.mkdir(parents=True, exist_ok=True)
                arrays = {name: np.asarray(value, order="C") for name, value in envelope.arrays.items()}
                save_file(arrays, part / ARRAYS)
                sync_file(part / ARRAYS)
                facts: dict[str, Any] = {
                    "fields": dict(envelope.fields),
                    "arrays": list(envelope.arrays),
                    "bytes": (part / ARRAYS).stat().st_size,
                    "sha256": _sha256(part / ARRAYS),
                    "patients": patients,
                    "measured": measured,
                }
                write_whole(part / FACTS, json.dumps(facts).encode())
                place_folder(part, target)
            except BaseException:
                shutil.rmtree(part, ignore_errors=True)
                raise
        self._prune(target, order)

    def _place(self, order: Order) -> Path:
        key = f"{order.name.round:05d}-{order.kind}-{order.split}-{order_digest(order)[:24]}"
        return self._phase_folder(order.name.study_digest, order.name.phase) / key

    def _phase_folder(self, study_digest: str, phase: int) -> Path:
        return self._folder / f"{hashlib.sha256(study_digest.encode()).hexdigest()[:24]}-{phase:02d}"

    def _prune(self, target: Path, order: Order) -> None:
        for phase in range(order.name.phase - 1):
            shutil.rmtree(self._phase_folder(order.name.study_digest, phase), ignore_errors=True)
        for path in target.parent.iterdir():
            number = path.name.partition("-")[0]
            old = number.isdecimal() and int(number) <= order.name.round - ROUNDS_KEPT
            if path.name.startswith(".") or old:
                shutil.rmtree(path, ignore_errors=True)
        kept = [path for path in self._folder.glob("*/[0-9]*") if path != target and path.is_dir()]
        sizes = {path: sum(file.stat().st_size for file in path.iterdir()) for path in kept}
        total = sum(sizes.values()) + sum(file.stat().st_size for file in target.iterdir())
        for path in sorted(kept, key=lambda folder: folder.stat().st_mtime_ns):
            if total <= self._maximum_bytes:
                break
            shutil.rmtree(path, ignore_errors=True)
            total -= sizes[path]


def order_digest(order: Order) -> str:
    """SHA-256 over all that an order's answer depends on but its attempt; the heads of journals take no part.

    A module counts by its digest, so an order that names what the site holds equals one that brings it. So
    do the tensors that a strategy sends beside the modules; what it shares counts by its bytes.
    """
    envelope = order_to_envelope(dataclasses.replace(order, head=NO_HEAD, known_head=NO_HEAD, secure=None))
    fields = {key: value for key, value in envelope.fields.items() if not key.startswith(BY_DIGEST)}
    del fields["attempt"]
    for name, module in order.modules.items():
        # What an order claims of its tensors is checked before anything is trained on them.
        if f"trained/{name}" not in fields:
            fields[f"trained/{name}"] = module_digest(module.layout, module.values)
    state = hashlib.sha256(json.dumps(fields, sort_keys=True).encode())
    for name, value in sorted(envelope.arrays.items()):
        if not name.startswith(("module/", "frozen/")):
            state.update(f"{name}:{value.dtype}:{value.shape}\n".encode())
            state.update(np.ascontiguousarray(value).tobytes())
    return state.hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
