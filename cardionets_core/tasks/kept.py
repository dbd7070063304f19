"""Arrays that a site derives from its data with frozen modules, made once and kept (between steps 5 and 6).

Features of all cines, latents of a tokenizer, cines drawn from ECGs: they follow from the cohort and from the
digests of the modules that made them. Each lies in one safetensors file that names both; a file that names
another cohort or another digest is refused, never read. They hold what a person's record holds, so they lie
inside the site's cache and `prepare` removes those of a cohort that is no more.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from cardionets_core.data.derived import DERIVED_SUFFIX
from cardionets_core.errors import CacheForeignError
from cardionets_core.exchange.tensors import layout_of, module_digest, pack

Tensors = dict[str, torch.Tensor]
MOST_FILES = 24


class Kept:
    """The derived arrays of one cohort.

    Args:
        folder: where they lie; None keeps them in this object alone.
        cohort: digest of the cohort.
        digests: module to digest, of the frozen modules of the phase; others are computed where needed.
    """

    def __init__(
        self, folder: Path | None = None, *, cohort: str = "", digests: Mapping[str, str] | None = None
    ) -> None:
        self._folder = folder
        self._cohort = cohort
        self._digests = dict(digests or {})
        self._held: dict[str, Tensors] = {}
        self._view = ""

    def of_view(self, view: str, names: Mapping[str, str]) -> Kept:
        """The derived arrays of another view of the same cohort, in the same place under names of their own.

        Args:
            view: its name.
            names: module as it is called here to the view's own, whose digest it then has.
        """
        own = {name: digest for name, digest in self._digests.items() if name not in names}
        own |= {name: self._digests[other] for name, other in names.items() if other in self._digests}
        twin = Kept(self._folder, cohort=self._cohort, digests=own)
        twin._held, twin._view = self._held, f"{view}-"  # what is kept in memory is kept in one place
        return twin

    def of(
        self,
        kind: str,
        modules: Mapping[str, nn.Module],
        names: Sequence[str],
        make: Callable[[], Tensors],
        *,
        settings: str = "",
    ) -> Tensors:
        """What ``make`` gives, made once for these modules, settings and cohort.

        Args:
            kind: what it is, a kebab-case word.
            modules: by name.
            names: modules that ``make`` runs; they are frozen while this object lives.
            make: gives named tensors.
            settings: anything else that the result follows from, as text.

        Returns:
            CPU tensors.

        Raises:
            CacheForeignError: the file at this place was made with another tokenizer, encoder or cohort.
        """
        kind = self._view + kind
        digests = {name: self._digest(name, modules[name]) for name in names}
        stamp = {"kind": kind, "cohort": self._cohort, "settings": settings, "modules": digests}
        text = json.dumps(stamp, sort_keys=True, separators=(",", ":"))
        name = f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:24]}"
        if name in self._held:
            return self._held[name]
        path = None if self._folder is None else self._folder / f"{name}{DERIVED_SUFFIX}"
        if path is not None and path.exists():
            found = _read(path, text)
        else:
            found = {key: value.detach().cpu().contiguous() for key, value in make().items()}
            if path is not None:
                _write(path, found, text)
        if path is None:
            self._held[name] = found
        return found

    def _digest(self, name: str, module: nn.Module) -> str:
        if name not in self._digests:
            tensors = {key: value.detach().float().cpu().numpy() for key, value in module.named_parameters()}
            self._digests[name] = module_digest(layout_of(tensors), pack(tensors))
        return self._digests[name]


def _read(path: Path, stamp: str) -> Tensors:
    try:
        with safe_open(path, framework="pt") as handle:
            found = (handle.metadata() or {}).get("stamp")
            if found == stamp:
                os.utime(path)
                return {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118
    # Of a type that torch does not have, the library makes a KeyError or an AttributeError.
    except (SafetensorError, OSError, KeyError, AttributeError, TypeError, ValueError) as error:
        raise CacheForeignError(
            "a derived array is torn", where=path.name, remedy="remove this file; it is made again"
        ) from error
    raise CacheForeignError(
        "a derived array was made by other modules or from other data than this phase names",
        where=path.name,
        remedy="remove this file; it is made again from the tokenizer or encoder of this study",
    )


def _write(path: Path, tensors: Tensors, stamp: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    save_file(tensors, part, metadata={"stamp": stamp, "cohort": json.loads(stamp)["cohort"]})
    part.replace(path)
    # The oldest go first: a study reads at most a few kinds at a time.
    others = sorted(path.parent.glob(f"*{DERIVED_SUFFIX}"), key=lambda each: each.stat().st_mtime)
    for old in others[:-MOST_FILES]:
        old.unlink(missing_ok=True)
