"""Registers a study's model: code and weights, a signature, a card (the door to MLflow's models).

Comes in: a model folder and the result that it belongs to. Goes out: a version in the registry, which
``mlflow.pyfunc`` loads. A version of the same run and digest that is there already is taken as it is.
"""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cardionets_core.config.study import Study
from server.tracking.store import Store

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

ALIAS = "newest"
"""MLflow keeps the word latest to itself: ``models:/NAME/latest`` is the version with the highest number."""
NAME = "model"
FS_HZ = 500.0
CODE = "served_model.py"
REQUIRED = ("cardionets", "torch", "numpy", "mlflow")
DESCRIPTION = (
    "Predicts what a cardiac MRI would show from a 12-lead ECG. Research use only, not for diagnosis."
)


def register(
    store: Store, *, run: str, folder: Path, content: Mapping[str, Any], card: str
) -> dict[str, str]:
    """Log the model to a run and register it under the study's name.

    Args:
        store: whose registry it is.
        run: id of the study's run.
        folder: the model folder.
        content: of ``result.json``.
        card: its model card, Markdown.

    Returns:
        ``name`` and ``version``.
    """
    name, digest = registered_name(content["study"]["name"]), str(content["model_digest"])
    for version in store.client.search_model_versions(f"run_id = '{run}'"):
        if version.tags.get("model_digest") == digest and version.name == name:
            return _named(store, name, str(version.version))
    uri, model_id = _log(store, run, folder, content)
    _make_name(store, name)
    tags = {
        "model_digest": digest,
        "study_digest": str(content["study_digest"]),
        "preset": Study.model_validate(content["study"]).models,
        "status": str(content["status"]),
    }
    version = store.client.create_model_version(
        name, source=uri, run_id=run, tags=tags, description=card, model_id=model_id
    )
    return _named(store, name, str(version.version))


def signature() -> ModelSignature:
    """What goes in and comes out, with shapes; a rate other than 500 Hz is given as ``fs_hz``."""
    from mlflow.models import ModelSignature
    from mlflow.types import DataType, ParamSchema, ParamSpec, Schema, TensorSpec

    from cardionets_core.data.phenotypes import PHENOTYPES
    from cardionets_core.data.records import DISEASES, LEADS, SUBTYPES

    widths = {"phenotypes": len(PHENOTYPES), "diseases": len(DISEASES), "subtypes": len(SUBTYPES)}
    numbers = [TensorSpec(np.dtype(np.float64), (-1, width), name) for name, width in widths.items()]
    return ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.float32), (-1, len(LEADS), -1))]),
        outputs=Schema([*numbers, TensorSpec(np.dtype(np.str_), (-1,), "refused")]),
        params=ParamSchema([ParamSpec("fs_hz", DataType.double, FS_HZ)]),
    )


def registered_name(study: str) -> str:
    """The study's name, without the signs that MLflow keeps for its addresses."""
    return re.sub(r"[/:]", "-", study)


def _log(store: Store, run: str, folder: Path, content: Mapping[str, Any]) -> tuple[str, str]:
    """Put code and weights beside the run; returns address and id of what was logged."""
    import mlflow

    from cardionets_core.data.phenotypes import PHENOTYPES
    from cardionets_core.data.records import DISEASES, LEADS, SUBTYPES

    mlflow.set_tracking_uri(store.address)
    mlflow.set_registry_uri(store.registry)
    with tempfile.TemporaryDirectory(prefix="cardionets-model-") as work:
        # MLflow imports the file by its path; a copy has no package around it.
        code = Path(shutil.copy(Path(__file__).with_name(CODE), work))
        with mlflow.start_run(run_id=run):
            logged = mlflow.pyfunc.log_model(
                name=NAME,
                python_model=str(code),
                artifacts={"model": str(folder)},
                signature=signature(),
                pip_requirements=_requirements(),
                metadata={
                    "model_digest": content["model_digest"],
                    "study_digest": content["study_digest"],
                    "input": "millivolts, 500 Hz unless fs_hz says otherwise",
                    "leads": list(LEADS),
                    "phenotypes": [f"{each.field} {each.name} ({each.unit})" for each in PHENOTYPES],
                    "diseases": list(DISEASES),
                    "subtypes": list(SUBTYPES),
                },
            )
    return str(logged.model_uri), str(logged.model_id)


def _make_name(store: Store, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        store.client.create_registered_model(name, description=DESCRIPTION)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _named(store: Store, name: str, version: str) -> dict[str, str]:
    store.client.set_registered_model_alias(name, ALIAS, version)
    return {"name": name, "version": version}


def _requirements() -> list[str]:
    return [f"{name}=={importlib.metadata.version(name)}" for name in REQUIRED]
