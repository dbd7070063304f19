"""Finished runs of random nano modules, as a server writes them, and one release of such a run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cardionets_core.audit import journal
from cardionets_core.config.study import Study
from cardionets_core.durable import write_json
from cardionets_core.exchange.tensors import layout_of, pack
from cardionets_core.models import build_module
from cardionets_core.training.tensors import export_tensors
from server.checkpoints import CheckpointStore, export_model
from server.release.build import ReleaseRequest, build_release
from server.report import result_of

TRAINED = {"local_epochs": 1, "batch_size": 8, "optimiser": {"lr": 1e-3}}
HEADS = ("ecg_encoder", "phenotype_head", "phenotype_standardiser", "screening_head", "screening_prior",
         "screening_calibration")  # fmt: skip
DRAWING = ("ecg_projection", "cmr_generator", "diffusion_head", "cmr_tokenizer", "fusion_head")
SITES = {name: {"site": name, "role": "member", "phases": {}, "patients": {"train": 100}} for name in "ab"}
TASKS = ("ecg_mae", "standardise", "phenotype", "prevalence", "screening", "calibrate")
CLOSED = ("standardise", "prevalence", "calibrate", "memorisation", "probe")
PASSED = {"passes": 1.0, "conclusive": 1.0, "training_share": 0.5, "n_patients": 40.0}
MEASURED = {
    "phenotype": {"r2/24103": 0.4, "rmse/24103": 5.0, "r2_mean": 0.4, "n_patients": 50.0},
    "screening": {"auroc/cad": 0.8, "auroc_mean": 0.8, "n_patients": 60.0, "subtype_n": 30.0},
    "memorisation": PASSED,
}


def phases_of(tasks=TASKS) -> list[dict[str, Any]]:
    return [{"task": task, "rounds": 1, **({} if task in CLOSED else TRAINED)} for task in tasks]


def study_of(tasks=TASKS, **changes) -> Study:
    return Study.model_validate({"name": "heads", "seed": 1, "phases": phases_of(tasks), **changes})


def entry(place: int, task: str, pooled: Mapping[str, float], *, loss: float | None = 1.0) -> dict[str, Any]:
    """One finished round of two sites."""
    rows = [{"site": name, "status": "trained", "code": "", "bytes": 0, "samples": {}, "loss": loss}
            for name in "ab"]  # fmt: skip
    test = {"test": {"pooled": dict(pooled), "sites": [], "external": {}}} if pooled else {}
    primary = {"screening": "auroc_mean", "memorisation": "passes"}.get(task, "r2_mean")
    return {"phase": place, "round": 1, "attempt": 1, "task": task, "sites": rows, "pooled": {},
            "primary": primary, "higher_is_better": True, **test}  # fmt: skip


def numbers() -> dict[str, dict[str, torch.Tensor]]:
    """What closed-form tasks would have solved: two phenotypes, four diseases, one not calibrated."""
    mean, deviation = torch.zeros(82), torch.ones(82)
    mean[[0, 3]], deviation[[0, 3]] = torch.tensor([150.0, 60.0]), torch.tensor([35.0, 7.0])
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


def _write_run(
    folder: Path,
    *,
    names=HEADS,
    study: Study | None = None,
    measured=MEASURED,
    loss: float | None = 1.0,
    sums: Callable[[dict[str, Any]], list[dict[str, Any]]] | None = None,
) -> Path:
    """A run folder as a server leaves it; ``sums`` gives the journal's lines of opened sums of an entry."""
    study = study or study_of()
    layouts, files = {}, {}
    folder.mkdir(parents=True)
    for name in names:
        module = build_module(name, study.models, seed=7)
        with torch.no_grad():
            for key, value in numbers().get(name, {}).items():
                module.get_parameter(key).copy_(value)
            if name == "phenotype_probe":  # two columns were trained; the others keep zeros
                trained = torch.zeros(82, 1)
                trained[[0, 3]] = 1.0
                module.weight.mul_(trained)
                module.bias.copy_(50.0 * trained[:, 0])
        tensors = export_tensors(module)
        layouts[name], files[name] = layout_of(tensors), folder / f"{name}.f32"
        pack(tensors).tofile(files[name])
    history = [entry(place, phase.task, measured.get(phase.task, {}), loss=loss)
               for place, phase in enumerate(study.phases)]  # fmt: skip
    checkpoint = CheckpointStore(folder / "checkpoints", study_digest=study.digest).write(
        phase=len(study.phases) - 1, round_number=1, layouts=layouts, files=files, history=history,
        previous=None,
    )  # fmt: skip
    export_model(checkpoint, folder / "model", study=study)
    (folder / "study.json").write_text(study.to_json() + "\n")
    write_json(folder / "result.json", result_of(study, SITES, checkpoint))
    write_json(folder / "status.json", {"state": "completed"})
    for each in history:
        for line in sums(each) if sums else []:
            journal.append(folder / "journal.jsonl", "secure-sum-opened", line)
    return folder


@pytest.fixture(scope="session")
def write_run() -> Callable[..., Path]:
    """``_write_run``."""
    return _write_run


@pytest.fixture(scope="session")
def make_study() -> Callable[..., Study]:
    """``study_of``."""
    return study_of


@pytest.fixture(scope="session")
def change() -> Callable[[Path, Callable[[Any], None]], None]:
    """Writes a JSON file anew after a change."""

    def changed(path: Path, alter: Callable[[Any], None]) -> None:
        content = json.loads(path.read_text())
        alter(content)
        path.write_text(json.dumps(content))

    return changed


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Small models run faster on one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session", params=["cardionets", "cardiacnets"])
def finished(request, tmp_path_factory) -> Path:
    """A run whose study had heads and no generator, in either generation."""
    return _write_run(tmp_path_factory.mktemp("finished") / "run", study=study_of(generation=request.param))


@pytest.fixture(scope="session")
def released(finished, tmp_path_factory) -> Path:
    """Its release, unsigned."""
    out = tmp_path_factory.mktemp("released") / "release"
    build_release(ReleaseRequest(folder=finished, out=out))
    return out


@pytest.fixture(scope="session")
def write_ecg() -> Callable[..., Path]:
    """Writes a plain WFDB record at 500 Hz: limb leads by the identities."""

    def write(folder: Path, name: str, *, seconds: float = 10, seed: int = 1) -> Path:
        rng = np.random.default_rng(seed)
        t = np.arange(int(500 * seconds)) / 500
        beat = np.exp(-0.5 * (((t % (0.7 + 0.05 * (seed % 5))) - 0.3) / 0.02) ** 2)
        noise = rng.normal(0, 0.02, (8, len(t)))
        one, two = beat + noise[6], 0.8 * np.roll(beat, 3) + noise[7]
        rows = {"I": one, "II": two, "III": two - one, "aVR": -(one + two) / 2, "aVL": one - two / 2,
                "aVF": two - one / 2}  # fmt: skip
        rows |= {f"V{n}": beat * n / 4 + noise[n - 1] for n in range(1, 7)}
        counts = np.rint(np.stack(list(rows.values()), axis=1) * 1000).astype("<i2")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.dat").write_bytes(counts.tobytes())
        lines = [f"{name} 12 500 {len(t)}", *(f"{name}.dat 16 1000(0)/mV 16 0 0 0 0 {lead}" for lead in rows)]
        (folder / f"{name}.hea").write_text("\n".join(lines) + "\n")
        return folder / f"{name}.hea"

    return write
