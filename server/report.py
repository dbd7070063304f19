"""``result.json``: what a run was and what came of it, under a schema version (step 14 of the walk)."""

from __future__ import annotations

import importlib.metadata
import math
import platform
from collections.abc import Mapping
from typing import Any

from cardionets_core.config.study import Study
from cardionets_core.errors import CardioNetsError
from server.checkpoints import Checkpoint
from server.summary import summary_of

SCHEMA_VERSION = 1
VERSIONS = ("cardionets", "flwr", "torch", "numpy", "scipy")


def result_of(
    study: Study,
    site_facts: Mapping[str, Mapping[str, Any]],
    checkpoint: Checkpoint | None,
    *,
    error: CardioNetsError | None = None,
) -> dict[str, Any]:
    """The result of a run, finished or paused.

    Args:
        study: the study.
        site_facts: what each site told of itself, by site.
        checkpoint: the last one, or None if the first round never ended.
        error: why the study paused, if it did.

    Returns:
        JSON-ready; numbers that are not finite are None.
    """
    rounds = [] if checkpoint is None else checkpoint.history
    content: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "status": "paused" if error else "completed",
        "study": study.model_dump(mode="json"),
        "study_digest": study.digest,
        "model_digest": None if checkpoint is None else checkpoint.model_digest,
        "modules": {} if checkpoint is None else dict(checkpoint.digests),
        "sites": [dict(site_facts[name]) for name in sorted(site_facts)],
        "rounds": rounds,
        "summary": summary_of(rounds),
        "comparison": [],
        "versions": {"python": platform.python_version(), **_versions()},
    }
    if error:
        content["paused"] = {
            "code": error.code,
            "what": error.what,
            "where": error.where,
            "remedy": error.remedy,
        }
    return finite(content)


def finite(value: Any) -> Any:
    """The same structure with None for every number that JSON cannot say."""
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _versions() -> dict[str, str]:
    found = {}
    for name in VERSIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
