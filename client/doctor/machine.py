"""Has the machine what the site needs: disk, memory, device, versions of the libraries?

Comes in: the site's document, and how much is still to be prepared. Goes out: what is there against what is
needed. Sizes are estimates, said as such.
"""

from __future__ import annotations

import importlib.metadata
import shutil
from pathlib import Path
from typing import Any

import psutil
import torch

from cardionets_core.config.site import SiteConfig
from cardionets_core.errors import CardioNetsError, MachineUnfitError
from client.doctor.findings import Findings, Notice
from client.doctor.folders import existing
from client.site import resolve_device

ECG_BYTES = 60_000
"""10 s of 12 leads at 250 Hz in int16."""
CINE_VIEW_BYTES = 500_000
"""50 frames of 96 x 96 pixels, rounded up."""
SPARE_BYTES = 1_000_000_000
"""For the journal, the frozen modules and the report."""
PROGRAM_BYTES = 1_500_000_000
WORKER_BYTES = 400_000_000
"""Resident memory of the program with torch, and of a worker of ``prepare`` with a large cine in hand."""
DISTRIBUTION = "cardionets"
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def estimated_bytes(ecgs: int, cine_views: int) -> int:
    """What the cache of so many recordings takes, roughly."""
    return ecgs * ECG_BYTES + cine_views * CINE_VIEW_BYTES


def check_disk(config: SiteConfig, *, needed_bytes: int) -> Findings:
    """Free space where the cache lies against what is still to be prepared."""
    free = shutil.disk_usage(existing(config.folders.cache)).free
    findings = Findings(facts={"free_bytes": free, "cache_estimate_bytes": needed_bytes})
    if free < needed_bytes + SPARE_BYTES:
        findings.problems.append(
            MachineUnfitError(
                f"the disk of the cache has {gigabytes(free)} free; the cache needs about "
                f"{gigabytes(needed_bytes)}, and {gigabytes(SPARE_BYTES)} to spare",
                where="site.yaml: folders.cache",
                remedy="free some space, or name a folder on a larger disk",
            )
        )
    return findings


def check_memory(config: SiteConfig) -> Findings:
    """Memory against what ``prepare`` takes with its workers; a container's limit counts."""
    memory = psutil.virtual_memory()
    total = min(memory.total, _container_limit() or memory.total)
    needed = PROGRAM_BYTES + config.prepare.workers * WORKER_BYTES
    available = min(memory.available, total)
    findings = Findings(
        facts={"total_bytes": total, "available_bytes": available, "prepare_estimate_bytes": needed}
    )
    remedy = "lower prepare.workers, or run on a machine with more memory"
    if total < needed:
        findings.problems.append(
            MachineUnfitError(
                f"the machine has {gigabytes(total)} of memory; prepare with "
                f"{config.prepare.workers} worker(s) takes about {gigabytes(needed)}",
                where="site.yaml: prepare.workers", remedy=remedy,
            )
        )  # fmt: skip
    elif available < needed:
        findings.notices.append(
            Notice(
                what=f"only {gigabytes(available)} of {gigabytes(total)} of memory are free now; prepare "
                f"takes about {gigabytes(needed)}",
                remedy="end other programs before prepare, or " + remedy,
            )
        )
    return findings


def check_device(config: SiteConfig) -> Findings:
    """The device that the document asks for against what torch finds."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    facts: dict[str, Any] = {
        "asked": config.device.name,
        "cuda_of_torch": torch.version.cuda or "none: torch was installed for CPU only",
        "gpus": [_gpu(index) for index in range(gpus)],
        "cpu_cores": psutil.cpu_count() or 1,
    }
    findings = Findings(facts=facts)
    try:
        device = resolve_device(config)
    except CardioNetsError as error:
        findings.problems.append(error)
        return findings
    facts["used"] = str(device)
    if device.type == "cuda" and (device.index or 0) >= gpus:
        findings.problems.append(
            MachineUnfitError(
                f"the site asks for {device}, but there are {gpus} GPU(s), counted from 0",
                where="site.yaml: device.name", remedy="name a GPU that is there, or auto",
            )
        )  # fmt: skip
    if device.type == "cpu" and gpus:
        findings.notices.append(
            Notice(what="a GPU is there, but the site computes on the CPU", remedy="set device.name to auto")
        )
    if config.device.threads > facts["cpu_cores"]:
        findings.notices.append(
            Notice(
                what=f"device.threads is {config.device.threads}, but there are {facts['cpu_cores']} cores",
                remedy=f"set device.threads to {facts['cpu_cores']} or less",
            )
        )
    return findings


def check_libraries() -> Findings:
    """Installed versions against those that this version of CardioNets asks for."""
    try:
        version = importlib.metadata.version(DISTRIBUTION)
        required = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        return Findings(facts={"cardionets": "not installed as a package", "required": {}})
    from packaging.requirements import Requirement

    findings = Findings(facts={"cardionets": version, "required": {}})
    for text in required:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        asked = f"{requirement.name}{requirement.specifier}"
        try:
            there = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            there = ""
        findings.facts["required"][requirement.name] = {"asked": str(requirement.specifier), "found": there}
        if not there or not requirement.specifier.contains(there, prereleases=True):
            findings.problems.append(
                MachineUnfitError(
                    f"{asked} is needed; " + (f"{there} is installed" if there else "it is not installed"),
                    where="libraries",
                    remedy=f"pip install '{asked}' in the environment of CardioNets",
                )
            )
    return findings


def gigabytes(size_bytes: int) -> str:
    """For people."""
    return f"{size_bytes / 1e9:.1f} GB"


def _gpu(index: int) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(index)
    return {"name": properties.name, "memory_bytes": int(properties.total_memory)}


def _container_limit() -> int | None:
    try:
        return int(_CGROUP_LIMIT.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
