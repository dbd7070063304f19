"""Published checkpoints in our names: which of their tensors becomes which of our parameters.

Comes in: named tensors as their publisher saved them, and a recipe of one family. Goes out: float32 arrays by
module and parameter, and an account of every tensor on either side. No file is read here and no weight drawn;
what does not fit is refused, all of it at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from cardionets_core.errors import CheckpointError, ConfigError
from cardionets_core.models.presets import get_preset
from cardionets_core.models.registry import build_module

Named = Mapping[str, torch.Tensor | np.ndarray]
Shape = tuple[int, ...]

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
WRAPPERS = ("module.", "_orig_mod.", "model.")
SHOWN = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where one of our parameters comes from.

    Attributes:
        keys: published names: one, or as many as the parameter has rows where ``stacked``.
        ones: axes of length one in front of the published tensor.
        stacked: the parameter is a table; each published tensor is one row of it.
    """

    keys: tuple[str, ...]
    ones: int = 0
    stacked: bool = False

    def shape_of(self, parameter: Shape) -> Shape:
        """The shape of each published tensor for a parameter of this shape."""
        return (1,) * self.ones + (parameter[1:] if self.stacked else parameter)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mended:
    """What a recipe makes of a tensor whose shape does not fit.

    Attributes:
        value: float32 of the parameter's shape; None leaves the parameter at its initial value.
        note: what was done, or why nothing could be.
    """

    value: torch.Tensor | None
    note: str


Mend = Callable[[str, torch.Tensor, Shape], Mended | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How the checkpoints of one family are read.

    Attributes:
        shapes: module to parameter to shape, in the module's order.
        sources: module to parameter to its source.
        without: ``module.parameter`` to why no checkpoint of the family holds it.
        spare: published names, or beginnings of names (they end with a dot or underscore), to why they are
            left out.
        mend: called with ``module.parameter``, a float32 tensor of another shape than the source's, and the
            parameter's shape; gives None where it must be refused. Absent: every other shape is refused.
    """

    shapes: Mapping[str, Mapping[str, Shape]]
    sources: Mapping[str, Mapping[str, Source]]
    without: Mapping[str, str] = field(default_factory=dict)
    spare: Mapping[str, str] = field(default_factory=dict)
    mend: Mend | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Translation:
    """A checkpoint in our names, and what became of each tensor.

    Attributes:
        modules: module to parameter to float32 array, C-contiguous; parameters of ``kept`` are absent.
        imported: ``module.parameter`` to the published names that it came from.
        skipped: published name to why it is not used.
        kept: ``module.parameter`` to why it stays at its initial value.
        notes: what was changed on the way: dtypes, adapted shapes.
    """

    modules: dict[str, dict[str, np.ndarray]]
    imported: dict[str, tuple[str, ...]]
    skipped: dict[str, str]
    kept: dict[str, str]
    notes: tuple[str, ...]


def require_part(preset: str, part: str, *, name: str) -> None:
    """Refuse a preset whose part is of another generation than the weights.

    Raises:
        ConfigError: says which name of the part the weights are for.
        UnknownNameError: no such preset.
    """
    chosen = getattr(get_preset(preset).parts, part)
    if chosen != name:
        raise ConfigError(
            f"these weights are for {part}: {name}, and {preset} has {part}: {chosen}",
            where="--preset",
            remedy=f"name a preset that keeps {part}: {name}",
        )


def module_shapes(names: Sequence[str], *, preset: str) -> dict[str, dict[str, Shape]]:
    """Shapes of all parameters of some modules at a preset.

    Raises:
        UnknownNameError: no such module or preset.
    """
    return {
        name: {
            parameter: tuple(value.shape)
            for parameter, value in build_module(name, preset, seed=0, device="meta").named_parameters()
        }
        for name in names
    }


def unwrap(tensors: Named) -> dict[str, torch.Tensor | np.ndarray]:
    """The same tensors without what trainers and compilers write in front of every name."""
    named = dict(tensors)
    while named:
        prefix = next((front for front in WRAPPERS if all(key.startswith(front) for key in named)), None)
        if prefix is None:
            break
        named = {key.removeprefix(prefix): value for key, value in named.items()}
    return named


def translate(tensors: Named, recipe: Recipe) -> Translation:
    """Give every parameter of a recipe its published values, or say why it has none.

    Args:
        tensors: by published name, already unwrapped.
        recipe: of the checkpoint's family.

    Raises:
        CheckpointError: tensors are absent, unknown, of another shape, not floats or not finite; every one of
            them is named.
    """
    account = _Account(tensors, recipe)
    modules: dict[str, dict[str, np.ndarray]] = {}
    for module, parameters in recipe.shapes.items():
        modules[module] = {}
        for parameter, shape in parameters.items():
            name = f"{module}.{parameter}"
            if name in recipe.without:
                continue
            value = account.value_of(name, source=recipe.sources[module][parameter], shape=shape)
            if value is not None:
                modules[module][parameter] = value
    known = {key for table in recipe.sources.values() for source in table.values() for key in source.keys}
    account.faults += [
        f"{shown(key)} is unknown" for key in tensors if key not in known and key not in account.skipped
    ]
    if account.faults:
        raise CheckpointError(
            f"the checkpoint does not fit: {'; '.join(account.faults)}",
            where="published weights",
            remedy="choose the family and preset of these weights, or have sizes adapted (--adapt)",
        )
    account.notes += [
        f"{count} tensors of {_name(dtype)} became float32" for dtype, count in account.converted.items()
    ]
    return Translation(
        modules=modules,
        imported=account.imported,
        skipped=account.skipped,
        kept=account.kept,
        notes=tuple(account.notes),
    )


def shown(key: str) -> str:
    """A name from a file, safe to print: no control characters, and not without end."""
    plain = key if key.isprintable() else ascii(key)
    return plain if len(plain) <= SHOWN else f"{plain[:SHOWN]}..."


class _Account:
    """What became of each tensor so far."""

    def __init__(self, tensors: Named, recipe: Recipe) -> None:
        self.tensors = tensors
        self.mend = recipe.mend
        self.faults: list[str] = []
        self.notes: list[str] = []
        self.imported: dict[str, tuple[str, ...]] = {}
        self.kept = dict(recipe.without)
        self.converted: dict[torch.dtype, int] = {}
        self.skipped = {
            key: reason
            for key in tensors
            for name, reason in recipe.spare.items()
            if key == name or (name.endswith((".", "_")) and key.startswith(name))
        }

    def value_of(self, name: str, *, source: Source, shape: Shape) -> np.ndarray | None:
        """The values of one parameter; None where it is kept, or where a fault was noted."""
        found = {key: tensor for key in source.keys if (tensor := self._floats(key)) is not None}
        wanted = source.shape_of(shape)
        wrong = {key: tensor for key, tensor in found.items() if tuple(tensor.shape) != wanted}
        value: torch.Tensor | None
        if wrong:
            mended = self._mended(name, found, source=source, shape=shape)
            if mended is None:
                self.faults += [
                    f"{key} has shape {tuple(tensor.shape)}, not {wanted}" for key, tensor in wrong.items()
                ]
                return None
            value = mended.value
            if value is None:
                self.kept[name] = mended.note
                self.skipped[source.keys[0]] = mended.note
                return None
            self.notes.append(f"{name}: {mended.note}")
        elif len(found) < len(source.keys):
            return None
        else:
            rows = [tensor.float() for tensor in found.values()]
            value = torch.stack(rows) if source.stacked else rows[0].reshape(shape)
        array = np.ascontiguousarray(value.detach().float().numpy())
        if not np.isfinite(array).all():
            self.faults.append(f"{', '.join(source.keys)} is not finite as float32")
        self.imported[name] = source.keys
        return array

    def _mended(
        self, name: str, found: Mapping[str, torch.Tensor], *, source: Source, shape: Shape
    ) -> Mended | None:
        if self.mend is None or source.stacked:
            return None
        return self.mend(name, found[source.keys[0]].float(), shape)

    def _floats(self, key: str) -> torch.Tensor | None:
        """One published tensor of a float type, or None with the fault noted."""
        if key not in self.tensors:
            self.faults.append(f"{key} is absent")
            return None
        raw = self.tensors[key]
        if isinstance(raw, np.ndarray):
            if raw.dtype.kind != "f" or raw.dtype.itemsize > 8:
                self.faults.append(f"{key} is {raw.dtype}, not a float tensor")
                return None
            raw = torch.from_numpy(np.array(raw, dtype=raw.dtype.newbyteorder("=")))
        if raw.dtype not in FLOATS:
            self.faults.append(f"{key} is {_name(raw.dtype)}, not a float tensor")
            return None
        if raw.dtype != torch.float32:
            self.converted[raw.dtype] = self.converted.get(raw.dtype, 0) + 1
        return raw


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
