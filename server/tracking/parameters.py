"""What a study was asked to do, as MLflow's parameters and tags, within its limits.

Comes in: the study's document, the digests, the versions. Goes out: name to text. Parameters never change
in MLflow, so only what cannot change stands there; versions, which an update between two runs changes, are
tags.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Iterator, Mapping
from typing import Any

from server.report import VERSIONS
from server.tracking.points import metric_name

LONGEST_VALUE = 6000
CUT = "…"


def study_parameters(study: Mapping[str, Any], digest: str) -> dict[str, str]:
    """The whole document, flat: ``phases.1.optimiser.lr``, entries counted from 1; long texts are cut.

    Args:
        study: the document, as JSON.
        digest: of it.
    """
    found = {"study_digest": digest, "strategy": str(study.get("aggregation", {}).get("strategy", ""))}
    found |= dict(_flat(study))
    return {metric_name(name): _short(value) for name, value in found.items()}


def version_tags() -> dict[str, str]:
    """Versions of what computes, as tags."""
    found = {"version.python": platform.python_version()}
    for name in (*VERSIONS, "mlflow"):
        try:
            found[f"version.{name}"] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[f"version.{name}"] = "not installed"
    return found


def _flat(value: Any, head: str = "") -> Iterator[tuple[str, str]]:
    """Leaves of a document by their path; an empty list or mapping is a leaf."""
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _flat(item, f"{head}.{key}" if head else str(key))
    elif isinstance(value, list | tuple) and any(isinstance(item, Mapping | list | tuple) for item in value):
        for place, item in enumerate(value, start=1):
            yield from _flat(item, f"{head}.{place}" if head else str(place))
    else:
        yield head, value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - len(CUT)] + CUT
