"""A model folder of random nano modules, written as a run writes it, and ECGs to ask it about."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from cardionets_core.config.study import Study
from cardionets_core.data.records import LEADS
from cardionets_core.exchange.tensors import layout_of, pack
from cardionets_core.models import build_module
from cardionets_core.prediction.predictor import Predictor, open_predictor
from cardionets_core.tasks.generators import generator_kind
from cardionets_core.training.model_folder import read_model_folder
from cardionets_core.training.tensors import export_tensors
from server.checkpoints import CheckpointStore, export_model

HEADS = ("ecg_encoder", "phenotype_head", "phenotype_standardiser", "screening_head", "screening_prior",
         "screening_calibration")  # fmt: skip
TRAINED = {"local_epochs": 1, "batch_size": 8, "optimiser": {"lr": 1e-3}}
STUDY = Study.model_validate(
    {"name": "heads", "seed": 1, "phases": [
        {"task": "ecg_mae", "rounds": 1, **TRAINED},
        {"task": "standardise", "rounds": 1},
        {"task": "phenotype", "rounds": 1, **TRAINED},
        {"task": "prevalence", "rounds": 1},
        {"task": "screening", "rounds": 1, **TRAINED},
        {"task": "calibrate", "rounds": 1},
    ]}
)  # fmt: skip
LVEF, LVEDV = 3, 0


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Small models run faster on one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def numbers() -> dict[str, dict[str, torch.Tensor]]:
    """What closed-form tasks would have solved: two phenotypes, four diseases, one of them not calibrated."""
    mean, deviation = torch.zeros(82), torch.ones(82)
    mean[LVEF], deviation[LVEF] = 60.0, 7.0
    mean[LVEDV], deviation[LVEDV] = 150.0, 35.0
    return {
        "phenotype_standardiser": {"mean": mean, "deviation": deviation},
        "screening_prior": {
            "logit": torch.tensor([-1.0, -2.0, -1.5, 0.0, -3.0]),
            "log_share": torch.log(torch.tensor([0.2, 0.5, 0.3])),
        },
        "screening_calibration": {
            "slope": torch.tensor([0.5, 2.0, 1.5, 1.0, 1.0]),
            "intercept": torch.tensor([0.1, -0.2, 0.0, 0.0, 0.0]),
            "threshold": torch.tensor([-1.0, -0.5, 9.0, 0.0, 0.0]),
        },
    }


def history(metrics: Mapping[str, Mapping[str, float]]) -> list[dict]:
    """One entry a phase; ``metrics`` are task to its pooled test metrics."""
    return [
        {
            "phase": place,
            "round": 1,
            "task": phase.task,
            "test": {"pooled": dict(metrics.get(phase.task, {}))},
        }
        for place, phase in enumerate(STUDY.phases)
    ]


MEASURED = {
    "phenotype": {"r2/24103": 0.4, "rmse/24103": 5.0, "r2/24100": -0.1, "rmse/24100": 40.0},
    "screening": {"auroc/cad": 0.8, "auroc_low/cad": 0.75, "auroc_high/cad": 0.85, "ece/cad": 0.2,
                  "n/cad": 90.0, "subtype_n": 30.0, "subtype_accuracy": 0.5},
    "calibrate": {"ece/cad": 0.02, "brier/cad": 0.1, "sensitivity/cad": 0.9, "specificity/cad": 0.6},
}  # fmt: skip


@pytest.fixture(scope="session")
def make_model(tmp_path_factory) -> Callable[..., Path]:
    """Writes a model folder; ``names`` are its modules, ``metrics`` what was measured."""

    def make(names=None, *, metrics=MEASURED, study=STUDY) -> Path:
        if names is None:
            kind = generator_kind(study.model_parts)
            names = {*HEADS, *kind.conditioned_by, *kind.drawers}
        folder = tmp_path_factory.mktemp("run")
        layouts, files = {}, {}
        for name in names:
            module = build_module(name, study.models, seed=7)
            with torch.no_grad():
                for key, value in numbers().get(name, {}).items():
                    module.get_parameter(key).copy_(value)
            tensors = export_tensors(module)
            layouts[name], files[name] = layout_of(tensors), folder / f"{name}.f32"
            pack(tensors).tofile(files[name])
        store = CheckpointStore(folder / "checkpoints", study_digest=study.digest)
        checkpoint = store.write(
            phase=len(study.phases) - 1, round_number=1, layouts=layouts, files=files,
            history=history(metrics), previous=None,
        )  # fmt: skip
        export_model(checkpoint, folder / "model", study=study)
        return folder / "model"

    return make


@pytest.fixture(scope="session")
def study() -> Study:
    """The study of the models."""
    return STUDY


@pytest.fixture(scope="session")
def whole(make_model) -> Path:
    """A model that can do everything."""
    return make_model()


@pytest.fixture(scope="session")
def predictor(whole) -> Predictor:
    return open_predictor(read_model_folder(whole), device=torch.device("cpu"))


@pytest.fixture(scope="session")
def write_ecg() -> Callable[..., Path]:
    """Writes a plain WFDB record: beats a little under a second apart, limb leads by the identities."""

    def write(folder: Path, name: str, *, seconds: float = 10, seed: int = 1, height: float = 1.0) -> Path:
        rng = np.random.default_rng(seed)
        t = np.arange(int(500 * seconds)) / 500
        beat = height * np.exp(-0.5 * (((t % (0.7 + 0.05 * (seed % 5))) - 0.3) / 0.02) ** 2)
        noise = rng.normal(0, 0.02, (8, len(t)))
        one, two = beat + noise[6], 0.8 * np.roll(beat, 3) + noise[7]
        rows = {"I": one, "II": two, "III": two - one, "aVR": -(one + two) / 2, "aVL": one - two / 2,
                "aVF": two - one / 2}  # fmt: skip
        rows |= {f"V{n}": beat * n / 4 + noise[n - 1] for n in range(1, 7)}
        counts = np.rint(np.stack([rows[lead] for lead in LEADS], axis=1) * 1000).astype("<i2")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.dat").write_bytes(counts.tobytes())
        lines = [f"{name} {len(LEADS)} 500 {len(t)}"]
        lines += [f"{name}.dat 16 1000(0)/mV 16 0 0 0 0 {lead}" for lead in LEADS]
        (folder / f"{name}.hea").write_text("\n".join(lines) + "\n")
        return folder / f"{name}.hea"

    return write
