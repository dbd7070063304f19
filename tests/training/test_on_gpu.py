"""The trainer on a GPU: the same losses as on the processor, the same bytes twice, bf16, compiled blocks.

Skipped where torch finds no GPU.
"""

import numpy as np
import pytest
import torch

from cardionets_core.config.study import Phase
from cardionets_core.data.cohort import Cohort
from cardionets_core.models import build_module, get_preset
from cardionets_core.tasks import SiteView, make_task
from cardionets_core.tasks.shapes import shape_of
from cardionets_core.training import Numerics, export_tensors, train_locally

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU here")
ROWS, SAMPLES = 24, 2500
LATER, EARLIER = "nano", "nano+cardiacnets"
CASES = [
    *((LATER, name) for name in ("ecg_mae", "cmr_mae", "align", "tokenizer", "phenotype", "screening")),
    *((EARLIER, name) for name in ("ecg_mae", "cmr_mae", "align", "generate")),
]
OPTIONS = {"phenotype": {"train_encoder": True}, "screening": {"train_encoder": True}}


def cohort() -> Cohort:
    rng = np.random.default_rng(0)
    return Cohort(
        site="a",
        digest="a",
        ecg_counts=rng.integers(-900, 900, ROWS * 12 * SAMPLES).astype(np.int16),
        ecg_offsets=np.arange(ROWS) * SAMPLES,
        ecg_samples=np.full(ROWS, SAMPLES),
        cines=rng.integers(0, 256, (ROWS, 50, 96, 96)).astype(np.uint8),
        row_patient=np.arange(ROWS),
        row_split=np.zeros(ROWS, dtype=np.int8),
        row_ecg=np.arange(ROWS),
        row_cine=np.arange(ROWS),
        row_views={"sax": np.arange(ROWS)[::-1].copy()},
        phenotypes=rng.normal(size=(ROWS, 82)).astype(np.float32),
        diseases=rng.integers(0, 2, (ROWS, 8)).astype(np.float32),
    )


def trained(task_name, device, *, models=LATER, numerics=None, steps=6):
    task = make_task(task_name, OPTIONS.get(task_name, {}), get_preset(models).parts)
    modules = {name: build_module(name, models, seed=1) for name in (*task.trains, *task.reads)}
    site = SiteView(cohort=cohort(), shape=shape_of(models), device=torch.device(device))
    phase = Phase.model_validate(
        {"task": task_name, "rounds": 1, "local_steps": steps, "batch_size": 8, "optimiser": {"lr": 1e-3}}
    )
    result = train_locally(
        task, modules, site, phase=phase, round_index=1, seed=1, numerics=numerics or Numerics()
    )
    return result, {name: export_tensors(modules[name]) for name in task.trains}


def flat(model):
    return np.concatenate([value.ravel() for tensors in model.values() for value in tensors.values()])


@pytest.mark.parametrize(("models", "task"), CASES)
def test_a_gpu_trains_as_a_processor_does(models, task):
    processor, on_processor = trained(task, "cpu", models=models)
    gpu, on_gpu = trained(task, "cuda", models=models)
    assert (gpu.samples, gpu.steps) == (processor.samples, processor.steps)
    assert gpu.loss_mean == pytest.approx(processor.loss_mean, rel=5e-3)
    # AdamW divides by small moments, so single weights may differ; together they move the same way.
    begun = flat({name: export_tensors(build_module(name, models, seed=1)) for name in on_gpu})
    moved, other = flat(on_gpu) - begun, flat(on_processor) - begun
    assert moved @ other / np.linalg.norm(moved) / np.linalg.norm(other) > 0.9


@pytest.mark.parametrize("task", ("ecg_mae", "cmr_mae"))
def test_bf16_stays_near_fp32(task):
    full, _ = trained(task, "cuda")
    half, model = trained(task, "cuda", numerics=Numerics(precision="bf16"))
    assert np.isfinite(flat(model)).all()
    assert half.loss_mean == pytest.approx(full.loss_mean, rel=2e-2)


def test_batches_made_ahead_change_nothing_that_counts():
    plain, _ = trained("ecg_mae", "cuda")
    ahead, _ = trained("ecg_mae", "cuda", numerics=Numerics(prefetch=3))
    assert ahead.loss_mean == pytest.approx(plain.loss_mean, rel=1e-4)


def test_compiled_blocks_give_the_same_loss():
    plain, _ = trained("ecg_mae", "cuda", steps=3)
    compiled, _ = trained("ecg_mae", "cuda", numerics=Numerics(compile=True), steps=3)
    assert compiled.loss_mean == pytest.approx(plain.loss_mean, rel=5e-3)
