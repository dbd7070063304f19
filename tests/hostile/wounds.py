"""How a fuzzer wounds what was valid: bytes, JSON texts, envelopes, zips. All from one generator."""

from __future__ import annotations

import io
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "data"))
from fuzz_readers import mutate  # the wounds of the readers' fuzzer

from cardionets_core.exchange.messages import Envelope
from cardionets_core.exchange.npy import from_npy, to_npy

__all__ = ["mutate", "pick", "wounded_arrays", "wounded_envelope", "wounded_json", "wounded_zip"]

DEEP = "@deep@"
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 2**31, 2**53, 2**63, -(2**63), 10**30, 0.5, -0.0, 1e308, -1e308, 5e-324,
    float("nan"), float("inf"), float("-inf"), "", "0", "x", "..", "../x", "../../etc/passwd", "a/../../b",
    "/abs", "a\\b", "a\nb", "\x1b[2J", "\x00", "\ud800", "é", "x" * 3000, [], {}, [[]], {"a": 1}, [1, "a"],
    "a" * 64, "g" * 64, DEEP,
)  # fmt: skip
NAMES = (
    "", ".", "..", "../x", "a/../b", "/abs", "a//b", "a/", ".hidden", "a\\b", "a b", "\x1b[2J", "\x00",
    "\ud800", "x" * 400, "module/../../x", "sum/n_rows", "value/site", "samples/../x",
    "frozen/ecg_encoder", "é",
)  # fmt: skip
SCALARS = tuple(value for value in VALUES if isinstance(value, str | int | float) and value != DEEP)


def pick(items: Any, rng: np.random.Generator) -> Any:
    """One of some items."""
    items = list(items)
    return items[int(rng.integers(0, len(items)))]


def wounded_json(content: Any, rng: np.random.Generator) -> str:
    """The text of a value in which one to three places were changed; sometimes its bytes were, too."""
    content = json.loads(json.dumps(content))
    for _ in range(int(rng.integers(1, 4))):
        content = _changed(content, rng)
    text = json.dumps(content)
    if json.dumps(DEEP) in text:
        depth = int(rng.integers(50, 60_000))
        text = text.replace(json.dumps(DEEP), "[" * depth + "]" * depth, 1)
    kind = int(rng.integers(0, 10))
    if kind == 0:
        text = mutate(text.encode("utf-8", "replace"), rng).decode("utf-8", "replace")
    elif kind == 1:
        text = text.replace("1", pick(("1e999", "9" * 5000, "NaN", "-", "1.5", "01"), rng), 1)
    elif kind == 2 and text.startswith("{") and len(text) > 2:
        text = '{"site":1,' + text[1:]
    return text


def _changed(content: Any, rng: np.random.Generator) -> Any:
    if not isinstance(content, dict | list) or not content or rng.random() < 0.15:
        return pick(VALUES, rng)
    if isinstance(content, list):
        place = int(rng.integers(0, len(content)))
        return [*content[:place], _changed(content[place], rng), *content[place + 1 :]]
    key = pick(content, rng)
    kind = int(rng.integers(0, 8))
    if kind == 0:
        return {name: value for name, value in content.items() if name != key}
    if kind == 1:
        return {**content, pick(NAMES, rng): content[key]}
    return {**content, key: _changed(content[key], rng)}


def wounded_arrays(arrays: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, bytes]:
    """The arrays as npy bytes, one to two of them wounded or renamed."""
    found = {name: to_npy(value) for name, value in arrays.items()}
    for _ in range(int(rng.integers(0, 3)) if found else 0):
        name = pick(found, rng)
        kind = int(rng.integers(0, 7))
        if kind == 0:
            found[name] = mutate(found[name], rng)
        elif kind == 1:
            found[pick(NAMES, rng)] = found[name]
        elif kind == 2:
            del found[name]
        elif name in arrays:
            found[name] = to_npy(_strange(arrays[name], kind, rng))
        if not found:
            break
    return found


def _strange(value: np.ndarray, kind: int, rng: np.random.Generator) -> np.ndarray:
    if kind == 3:
        return value.astype(
            pick(("<f8", "<f4", "<f2", "|i1", "<u8", "|b1", ">f4", "<c8", "<U3", "<M8[s]"), rng)
        )
    if kind == 4:
        return np.concatenate([value.reshape(-1), value.reshape(-1)[:1]])
    if kind == 5:
        return value.reshape(1, *value.shape)
    changed = np.array(value, copy=True)
    if changed.size:
        with np.errstate(all="ignore"):
            wrong = np.array(pick((np.nan, np.inf, -1, 1e300, 1e-320), rng)).astype(changed.dtype)
            changed.reshape(-1)[int(rng.integers(0, changed.size))] = wrong
    return changed


def wounded_envelope(envelope: Envelope, rng: np.random.Generator) -> Envelope:
    """An envelope as a stranger might send it; its arrays were read as the programs read them.

    Raises:
        PeerError: an array cannot be read.
    """
    fields = dict(envelope.fields)
    for _ in range(int(rng.integers(0, 3))):
        name = pick(fields, rng)
        kind = int(rng.integers(0, 5))
        if kind == 0:
            del fields[name]
        elif kind == 1:
            fields[pick(NAMES, rng)] = fields[name]
        elif kind == 2 and isinstance(fields[name], str) and str(fields[name])[:1] in ("[", "{"):
            fields[name] = wounded_json(json.loads(str(fields[name])), rng)
        else:
            fields[name] = pick(SCALARS, rng)
        if not fields:
            break
    contents = wounded_arrays(dict(envelope.arrays), rng)
    return Envelope(fields=fields, arrays={name: from_npy(content) for name, content in contents.items()})


def wounded_zip(content: bytes, rng: np.random.Generator) -> bytes:
    """A zip with wounds, half of them in its members, some in how it is packed."""
    if rng.random() < 0.4:
        return mutate(content, rng)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    packing = pick((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA), rng)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", packing if rng.random() < 0.3 else zipfile.ZIP_DEFLATED) as archive:
        for name, member in members:
            kind = int(rng.integers(0, 14))
            if kind == 0:
                member = mutate(member, rng)
            elif kind == 1:
                name = pick([each for each in NAMES if "\ud800" not in each], rng)
            elif kind == 2:
                member = bytes(int(2 ** rng.integers(10, 24)))
            elif kind == 3:
                continue
            entry = zipfile.ZipInfo(name or "x")
            entry.compress_type = archive.compression
            entry.external_attr = (0o120777 if kind == 4 else 0o100644) << 16
            archive.writestr(entry, member)
            if kind == 5 and name in archive.namelist() and rng.random() < 0.5:
                archive.filelist.append(archive.filelist[-1])
    return mutate(stream.getvalue(), rng) if rng.random() < 0.1 else stream.getvalue()
