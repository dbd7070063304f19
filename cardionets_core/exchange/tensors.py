"""Named tensors of a module as one flat float32 array, and their digests.

Many small arrays are slow on Flower's wire, so a module travels as one array with its layout beside it
(step 8 of the walk). Packing keeps every bit.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cardionets_core.errors import PeerError
from cardionets_core.exchange.names import is_plain_name
from cardionets_core.plain_json import parse_json

LONGEST_TEXT = 4_000_000
"""Of a layout: tens of thousands of tensors."""
MOST_SIDES = 16
MOST_VALUES = 2**48
Tensors = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Names and shapes of a module's tensors, in the order in which they are packed.

    Attributes:
        names: tensor names, each once.
        shapes: one shape a name.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @property
    def size(self) -> int:
        """Number of float32 values."""
        return sum(math.prod(shape) for shape in self.shapes)

    def to_json(self) -> str:
        """Compact JSON: a list of [name, shape]."""
        return json.dumps(
            [[name, list(shape)] for name, shape in zip(self.names, self.shapes, strict=True)],
            separators=(",", ":"),
        )

    @staticmethod
    def from_json(text: str) -> Layout:
        """Read what ``to_json`` wrote.

        Raises:
            PeerError: the text is not a layout.
        """
        if len(text) > LONGEST_TEXT:
            raise PeerError("a module's layout is longer than any of ours", where="exchange")
        try:
            rows = parse_json(text)
            names = tuple(str(name) for name, _ in rows)
            shapes = tuple(tuple(int(side) for side in shape) for _, shape in rows)
        except (ValueError, TypeError) as error:
            raise PeerError("a module's layout is not readable", where="exchange") from error
        layout = Layout(names=names, shapes=shapes)
        if len(set(names)) != len(names) or not all(is_plain_name(name) for name in names):
            raise PeerError("a module's layout repeats a name or holds none of ours", where="exchange")
        if any(len(shape) > MOST_SIDES or min(shape, default=0) < 0 for shape in shapes):
            raise PeerError("a module's layout has a shape that no tensor has", where="exchange")
        # Beside a side of zero can stand others beyond all memory.
        if any(math.prod(side for side in shape if side) > MOST_VALUES for shape in shapes):
            raise PeerError("a module's layout has a tensor that fits no machine", where="exchange")
        # Half a side, a truth value or a digit in quotes is none of what we write.
        if layout.to_json() != text:
            raise PeerError("a module's layout is not written as ours are", where="exchange")
        return layout


def layout_of(tensors: Tensors) -> Layout:
    """The layout of some named tensors, in their order."""
    return Layout(names=tuple(tensors), shapes=tuple(tuple(value.shape) for value in tensors.values()))


def pack(tensors: Tensors) -> np.ndarray:
    """One flat float32 array of all tensors, in their order.

    Raises:
        PeerError: a tensor is not float32.
    """
    for name, value in tensors.items():
        if value.dtype != np.float32:
            raise PeerError(f"tensor {name} is {value.dtype}, not float32", where="exchange")
    if not tensors:
        return np.zeros(0, dtype=np.float32)
    return np.concatenate([np.ascontiguousarray(value).reshape(-1) for value in tensors.values()])


def unpack(layout: Layout, flat: np.ndarray) -> dict[str, np.ndarray]:
    """The named tensors of a flat array; views, not copies.

    Raises:
        PeerError: the array is not flat float32 of the layout's size.
    """
    if flat.dtype != np.float32 or flat.ndim != 1 or flat.size != layout.size:
        raise PeerError(
            f"a module came as {flat.dtype} of shape {flat.shape}, not as {layout.size} float32 values",
            where="exchange",
        )
    tensors: dict[str, np.ndarray] = {}
    start = 0
    for name, shape in zip(layout.names, layout.shapes, strict=True):
        stop = start + math.prod(shape)
        tensors[name] = flat[start:stop].reshape(shape)
        start = stop
    return tensors


def module_digest(layout: Layout, flat: np.ndarray) -> str:
    """SHA-256 over the layout and the little-endian bytes of a module."""
    state = hashlib.sha256(layout.to_json().encode())
    state.update(b"\0")
    state.update(np.ascontiguousarray(flat, dtype="<f4").data)
    return state.hexdigest()


def model_digest(modules: Mapping[str, str]) -> str:
    """SHA-256 over the names and digests of a model's modules, whatever their order."""
    text = "".join(f"{name}={digest}\n" for name, digest in sorted(modules.items()))
    return hashlib.sha256(text.encode()).hexdigest()
