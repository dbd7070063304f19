"""Modules on a site: built from the study's preset, filled from the order, kept by digest.

Step 0 and 7 of the walk: every tensor of an order is checked against what the preset says before any of it
is used. What came once is named by its digest from then on: frozen modules travel once, and a trained one
does not travel again from one order of a round to the next. Modules lie as safetensors under their digest;
one that is torn counts as absent, and is sent again.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from cardionets_core.durable import on_disk
from cardionets_core.errors import FrozenModuleMissingError, OrderRefusedError, PeerError
from cardionets_core.exchange.fields import DIGEST
from cardionets_core.exchange.messages import Order, PackedModule
from cardionets_core.exchange.tensors import Layout, layout_of, module_digest, pack, unpack
from cardionets_core.models import build_module
from cardionets_core.tasks import Task
from cardionets_core.training.tensors import export_tensors, load_tensors
from client.permitted import check_shared

FROZEN = "frozen"
TRAINED = "trained"
# The model that is trained on, and the one that was measured: an average stands beside its module.
TRAINED_KEPT = 3
MAXIMUM_FROZEN_BYTES = 20_000_000_000


def held_digests(state: Path) -> list[str]:
    """Digests of the modules that lie on the site.

    Args:
        state: the site's state folder.
    """
    found = [*(state / FROZEN).glob("*.safetensors"), *(state / TRAINED).glob("*/*.safetensors")]
    return sorted({path.stem for path in found if not path.name.startswith(".")})


def build_modules(
    order: Order,
    task: Task,
    *,
    preset: str,
    state: Path,
    device: torch.device,
    extras: Collection[str] = (),
) -> dict[str, torch.nn.Module]:
    """The modules of a phase, filled with the order's tensors or with what the site holds.

    Args:
        order: carries the modules that the site lacked, and the digests of all.
        task: says which modules it trains and reads.
        preset: the study's preset.
        state: the site's state folder, where modules are kept.
        device: where they go.
        extras: names of the tensors that the study's strategy sends beside the trained modules, always by
            value; they are checked like these, and left in the order.

    Raises:
        OrderRefusedError: names, shapes, dtype, digest or values are wrong.
        FrozenModuleMissingError: a module is neither in the order nor on the site.
        StorageFailedError: the disk did not take a module that came.
    """
    named = {name: order.trained.get(name, "") for name in task.trains}
    strangers = (set(order.modules) - {*task.trains, *extras}) | (set(order.trained) - set(task.trains))
    strangers |= set(order.frozen_modules) - set(task.reads)
    absent = [name for name in (*task.trains, *extras) if not named.get(name) and name not in order.modules]
    if strangers or absent or set(order.frozen) != set(task.reads):
        raise OrderRefusedError("the order's modules are not those of its phase", where="order")
    check_shared(order, task, preset=preset)
    modules: dict[str, torch.nn.Module] = {}
    layouts: dict[str, Layout] = {}
    for name, digest in {**named, **{name: order.frozen[name] for name in task.reads}}.items():
        came = order.modules.get(name) if name in named else order.frozen_modules.get(name)
        tensors = _held(digest, state) if came is None else _checked(came, digest)
        # Filled first: what does not fit the study is not kept.
        modules[name] = _filled(name, preset, tensors, device)
        layouts[name] = layout_of(tensors)
        if came is not None and digest:
            folder = state / TRAINED / name if name in named else state / FROZEN
            _keep(tensors, digest, folder)
            _prune(folder, most_files=TRAINED_KEPT if name in named else None)
    for name in extras:
        _check_extra(name, order.modules[name], layouts[name.partition(".")[0]])
    return modules


def with_held(order: Order, *, state: Path) -> Order:
    """The order with the tensors of its trained modules that it only names: those that the site holds.

    Raises:
        FrozenModuleMissingError: the site holds one no more.
    """
    modules = dict(order.modules)
    for name, digest in order.trained.items():
        if name not in modules:
            tensors = _held(digest, state)
            modules[name] = PackedModule(layout=layout_of(tensors), values=pack(tensors))
    return replace(order, modules=modules)


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


def _checked(module: PackedModule, digest: str) -> dict[str, np.ndarray]:
    """The tensors of a module that came; they must have the digest that the order names, if it names one."""
    try:
        tensors = unpack(module.layout, module.values)
    except PeerError as error:
        raise OrderRefusedError(error.what, where="order") from error
    if digest and module_digest(module.layout, module.values) != digest:
        raise OrderRefusedError("a module does not have the digest that the order names", where="order")
    return tensors


def _check_extra(name: str, extra: PackedModule, layout: Layout) -> None:
    _checked(extra, "")
    if extra.layout != layout or not np.isfinite(extra.values).all():
        raise OrderRefusedError(
            f"the order's {name} does not fit its module, or is not finite", where="order"
        )


def _keep(tensors: Mapping[str, np.ndarray], digest: str, folder: Path) -> None:
    target = folder / f"{digest}.safetensors"
    part = folder / f".{digest}.{os.getpid()}.part"
    with on_disk(folder, keeps="nothing was trained"):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            plain = {name: np.asarray(value, order="C") for name, value in tensors.items()}
            save_file(plain, part, metadata={"layout": layout_of(plain).to_json()})
            part.replace(target)
        except BaseException:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            raise


def _held(digest: str, state: Path) -> dict[str, np.ndarray]:
    """The tensors of a module by its digest; judged again: they were kept without waiting for the disk."""
    found = []
    if DIGEST.fullmatch(digest):
        found = [state / FROZEN / f"{digest}.safetensors", *(state / TRAINED).glob(f"*/{digest}.safetensors")]
    for path in found:
        try:
            with safe_open(path, framework="numpy") as handle:
                # The file sorts its tensors in its own way; a digest is over the layout's order.
                layout = Layout.from_json((handle.metadata() or {}).get("layout", ""))
                tensors = {name: handle.get_tensor(name) for name in layout.names}
            is_whole = module_digest(layout_of(tensors), pack(tensors)) == digest
        # Of a type that numpy does not have, the library makes a KeyError or an AttributeError.
        except (OSError, SafetensorError, PeerError, KeyError, AttributeError, TypeError, ValueError):
            is_whole = False
        if is_whole:
            os.utime(path)
            return tensors
        path.unlink(missing_ok=True)
    raise FrozenModuleMissingError("this site does not hold a module of the phase", where="order")


def _prune(folder: Path, *, most_files: int | None) -> None:
    """Let the modules go that were not used for longest."""
    paths = sorted(folder.glob("*.safetensors"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    total = 0
    for number, path in enumerate(paths, start=1):
        total += path.stat().st_size
        over = total > MAXIMUM_FROZEN_BYTES if most_files is None else number > most_files
        if over and number > 1:
            path.unlink(missing_ok=True)
