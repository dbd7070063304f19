"""Modules and sums as named arrays of an envelope, and back (steps 0, 8 and 10 of the walk).

Comes in: packed modules and sums by name. Goes out: entries of an envelope's fields and arrays. Reading is
strict. What an order or a reply is made of beside them, ``messages`` knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from cardionets_core.errors import PeerError
from cardionets_core.exchange.fields import Scalar, text
from cardionets_core.exchange.precision import FORMS, NO_SCALES, Form
from cardionets_core.exchange.tensors import Layout


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """What lies in a Flower message: named scalars and named arrays."""

    fields: Mapping[str, Scalar]
    arrays: Mapping[str, np.ndarray]

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays; the scalars are small."""
        return sum(value.nbytes for value in self.arrays.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedModule:
    """A module's tensors on the wire.

    Attributes:
        layout: names and shapes of the tensors.
        values: flat float32, laid out so; of another form, the codes of the module's change.
        form: ``fp32`` for the tensors themselves. Only a trained module of a reply may come in another one.
        scales: of the form int8, a float32 a block of codes; else empty.
    """

    layout: Layout
    values: np.ndarray
    form: Form = "fp32"
    scales: np.ndarray = field(default_factory=lambda: NO_SCALES)


def put_modules(
    fields: dict[str, Scalar], arrays: dict[str, np.ndarray], prefix: str, modules: Mapping[str, PackedModule]
) -> None:
    """Lay modules out under a prefix."""
    for name, module in modules.items():
        fields[f"layout/{prefix}/{name}"] = module.layout.to_json()
        arrays[f"{prefix}/{name}"] = module.values
        # A module in fp32 travels as it always did: an array that is all, and no word on its form.
        if module.form != "fp32":
            fields[f"form/{prefix}/{name}"] = module.form
        if module.scales.size:
            arrays[f"scale/{prefix}/{name}"] = module.scales


def take_modules(envelope: Envelope, prefix: str) -> dict[str, PackedModule]:
    """The modules under a prefix.

    Raises:
        PeerError: a layout, form or scales of a module cannot be read.
    """
    found: dict[str, PackedModule] = {}
    for key, values in envelope.arrays.items():
        if key.startswith(f"{prefix}/"):
            layout = Layout.from_json(text(envelope.fields, f"layout/{key}"))
            form = _form(envelope.fields, f"form/{key}")
            scales = envelope.arrays.get(f"scale/{key}", NO_SCALES)
            if scales.size and form != "int8":
                raise PeerError(f"a module in {form} came with scales", where="exchange")
            found[key.removeprefix(f"{prefix}/")] = PackedModule(
                layout=layout, values=values, form=form, scales=scales
            )
    return found


def _form(fields: Mapping[str, Scalar], key: str) -> Form:
    if key not in fields:
        return "fp32"
    named: list[Form] = [form for form in FORMS if form == text(fields, key)]
    if not named:
        raise PeerError("a module came in an unknown form", where="exchange")
    return named[0]


def put_sums(arrays: dict[str, np.ndarray], prefix: str, sums: Mapping[str, np.ndarray]) -> None:
    """Lay sums out under a prefix, as float64."""
    arrays.update({f"{prefix}/{name}": np.asarray(value, dtype=np.float64) for name, value in sums.items()})


def take_sums(envelope: Envelope, prefix: str) -> dict[str, np.ndarray]:
    """The sums under a prefix.

    Raises:
        PeerError: one is not of float64.
    """
    found = {
        key.removeprefix(f"{prefix}/"): value
        for key, value in envelope.arrays.items()
        if key.startswith(f"{prefix}/")
    }
    for name, value in found.items():
        if value.dtype != np.float64:
            raise PeerError(f"the sum {name} came as {value.dtype}, not as float64", where="exchange")
    return found
