"""An opened site: its permissions, its data, its device (steps 1 to 4 of the walk).

Comes in: the path of ``site.yaml``. Goes out: a frozen ``Site``. The cache must have been prepared; a stale
or foreign one is refused here, never mended silently.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from cardionets_core.config.site import SiteConfig, read_site
from cardionets_core.data.cache import MANIFEST, cohort_folder, open_cache
from cardionets_core.data.cohort import Cohort
from cardionets_core.data.windows import InputShape
from cardionets_core.errors import (
    ConfigError,
    ModalityMissingError,
    PhaseNotPermittedError,
    TooFewPatientsError,
)
from cardionets_core.tasks import Role, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A site that is ready to serve.

    Attributes:
        config: what the hospital permits.
        cohort: its data.
        device: where it computes.
    """

    config: SiteConfig
    cohort: Cohort
    device: torch.device

    @property
    def name(self) -> str:
        """The site's name in the study."""
        return self.config.site


def open_site(path: Path, *, check: Literal["full", "quick"] = "full") -> Site:
    """Open a site; within one process the same document and cache are opened once.

    Args:
        path: of ``site.yaml``.
        check: ``full`` compares the cache with the files that it was made from; ``quick`` does not.

    Raises:
        ConfigError: the document is wrong.
        CacheStaleError: the data changed since the last prepare, or was never prepared.
        CacheForeignError: the cache is torn or another site's.
    """
    manifest = cohort_folder(read_site(path)) / MANIFEST
    stamp = (path.stat().st_mtime_ns, manifest.stat().st_mtime_ns if manifest.exists() else 0)
    return _open(path.resolve(), stamp, check)


@functools.lru_cache(maxsize=32)
def _open(path: Path, stamp: tuple[int, int], check: Literal["full", "quick"]) -> Site:
    config = read_site(path)
    return Site(config=config, cohort=open_cache(config, check=check), device=resolve_device(config))


def resolve_device(config: SiteConfig) -> torch.device:
    """The device that the site's document names.

    Raises:
        ConfigError: it names a GPU that is not there.
    """
    name = config.device.name
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(
            f"the site asks for {name}, but torch finds no GPU here",
            where="site.yaml: device.name",
            remedy="install the GPU's driver, or set device.name to cpu or auto",
        )
    return torch.device(name)


def serving_role(site: Site, task: Task, shape: InputShape) -> Role:
    """How the site takes part in a phase: the first role for which it has enough people.

    A site that only measures (``policy.role: external``) needs no training patients: it has the fullest role.

    Raises:
        PhaseNotPermittedError: the policy does not list the task.
        ModalityMissingError: there is no row of any kind that the task takes.
        TooFewPatientsError: there are fewer patients than the policy asks for.
    """
    policy = site.config.policy
    if task.name not in policy.phases:
        raise PhaseNotPermittedError(
            f"this site does not permit the phase {task.name}",
            where="site.yaml: policy.phases",
            remedy=f"add {task.name} to the list if the hospital agrees",
        )
    if policy.role == "external":
        return task.roles[0]
    most = 0
    for role in task.roles:
        patients = site.cohort.patients(site.cohort.rows(role.needs, "train", shape))
        if patients >= policy.minimum_patients:
            return role
        most = max(most, patients)
    if most == 0:
        kinds = " or ".join(" + ".join(sorted(role.needs)) for role in task.roles)
        raise ModalityMissingError(
            f"this site holds no training record with {kinds}",
            where="site.yaml: source",
            remedy="nothing, if the hospital has no such data: the site sits this phase out",
        )
    raise TooFewPatientsError(
        f"{most} training patients serve {task.name}; the policy asks for {policy.minimum_patients}",
        where="site.yaml: policy.minimum_patients",
        remedy="add data, or lower the minimum if the hospital agrees",
    )
