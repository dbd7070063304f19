"""Modules on a site: built from the study's preset, filled from the order, frozen ones kept by digest.

Step 0 and 7 of the walk: every tensor of an order is checked against what the preset says before any of it
is used. Frozen modules lie as safetensors under their digest, so they travel once.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from cardionets_core.errors import FrozenModuleMissingError, OrderRefusedError, PeerError
from cardionets_core.exchange.messages import Order, PackedModule
from cardionets_core.exchange.tensors import layout_of, module_digest, pack, unpack
from cardionets_core.models import build_module
from cardionets_core.tasks import Task
from cardionets_core.training.tensors import export_tensors, load_tensors


def held_digests(folder: Path) -> list[str]:
    """Digests of the frozen modules that lie on the site."""
    return sorted(path.stem for path in folder.glob("*.safetensors"))


def build_modules(
    order: Order,
    task: Task,
    *,
    preset: str,
    frozen_folder: Path,
    device: torch.device,
    extras: Collection[str] = (),
) -> dict[str, torch.nn.Module]:
    """The modules of a phase, filled with the order's tensors.

    Args:
        order: carries the trained modules, and the frozen ones that the site lacked.
        task: says which modules it trains and reads.
        preset: the study's preset.
        frozen_folder: where frozen modules are kept.
        device: where they go.
        extras: names of the tensors that the study's strategy sends beside the trained modules; they are
        checked
            like these, and left in the order.

    Raises:
        OrderRefusedError: names, shapes, dtype, digest or values are wrong.
        FrozenModuleMissingError: a frozen module is neither in the order nor on the site.
    """
    if set(order.modules) != {*task.trains, *extras} or set(order.frozen) != set(task.reads):
        raise OrderRefusedError("the order's modules are not those of its phase", where="order")
    modules: dict[str, torch.nn.Module] = {}
    for name in task.trains:
        modules[name] = _filled(name, preset, _named(order.modules[name]), device)
    for name in extras:
        _check_extra(name, order)
    for name in task.reads:
        digest = order.frozen[name]
        if name in order.frozen_modules:
            _keep(order.frozen_modules[name], digest, frozen_folder)
        modules[name] = _filled(name, preset, _held(digest, frozen_folder), device)
    return modules


def pack_module(module: torch.nn.Module) -> PackedModule:
    """A module's tensors as they leave the site."""
    tensors = export_tensors(module)
    return PackedModule(layout=layout_of(tensors), values=pack(tensors))


def _filled(
    name: str, preset: str, tensors: Mapping[str, np.ndarray], device: torch.device
) -> torch.nn.Module:
    module = build_module(name, preset, seed=0)
    load_tensors(module, tensors)
    return module.to(device)


def _named(module: PackedModule) -> dict[str, np.ndarray]:
    try:
        return unpack(module.layout, module.values)
    except PeerError as error:
        raise OrderRefusedError(error.what, where="order") from error


def _check_extra(name: str, order: Order) -> None:
    extra, module = order.modules[name], order.modules[name.partition(".")[0]]
    if extra.layout != module.layout or not np.isfinite(_flat(extra)).all():
        raise OrderRefusedError(
            f"the order's {name} does not fit its module, or is not finite", where="order"
        )


def _flat(module: PackedModule) -> np.ndarray:
    _named(module)
    return module.values


def _keep(module: PackedModule, digest: str, folder: Path) -> None:
    if module.values.dtype != np.float32 or module_digest(module.layout, module.values) != digest:
        raise OrderRefusedError(
            "a frozen module does not have the digest that the order names", where="order"
        )
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".{digest}.{os.getpid()}.part"
    tensors = {name: np.ascontiguousarray(value) for name, value in _named(module).items()}
    save_file(tensors, part, metadata={"layout": module.layout.to_json()})
    part.replace(folder / f"{digest}.safetensors")


def _held(digest: str, folder: Path) -> dict[str, np.ndarray]:
    path = folder / f"{digest}.safetensors"
    if not digest.isalnum() or not path.exists():
        raise FrozenModuleMissingError("this site does not hold a frozen module of the phase", where="order")
    return load_file(path)
