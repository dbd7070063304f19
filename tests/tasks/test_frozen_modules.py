"""Every trained phase leaves what it reads alone: no byte, no gradient, no dropout (SCIENCE 8.11)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cardionets_core.config.study import Optimiser, Phase
from cardionets_core.data.cohort import Cohort
from cardionets_core.models import build_module, get_preset
from cardionets_core.models.cmr_tokenizer import CmrTokenizer
from cardionets_core.tasks import TASKS, GradientTask, SiteView, make_task
from cardionets_core.tasks.shapes import shape_of
from cardionets_core.training import export_tensors, load_tensors, round_statistics, train_locally

pytestmark = pytest.mark.usefixtures("single_thread")
CPU = torch.device("cpu")
QUICK = {"ar_steps": 1, "diffusion_steps": 2, "bootstrap_replicates": 5}
LATER, EARLIER = "nano", "nano+cardiacnets"
CASES = [
    (models, name, {})
    for models in (LATER, EARLIER)
    for name, kind in sorted(TASKS.items())
    if issubclass(kind, GradientTask) and make_task(name, {}, get_preset(models).parts).reads
] + [
    *((LATER, "align", {"loss": loss}) for loss in ("weighted", "cosine", "dcco")),
    *((EARLIER, "align", {"loss": loss}) for loss in ("weighted", "cosine", "dcco")),
    (LATER, "phenotype", {"train_encoder": True}),
    (LATER, "screening", {"windows": "mean"}),
    (LATER, "generate", {"view": "sax"}),
    (EARLIER, "generate", {"view": "sax"}),
]  # fmt: skip


def make_site(models: str = LATER, rows: int = 10) -> SiteView:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (rows, 8)).astype(np.float32)
    labels[:, 5:] = np.eye(3)[rng.integers(0, 3, rows)]
    cohort = Cohort(
        site="a",
        digest="a",
        ecg_counts=rng.integers(-900, 900, rows * 12 * 800).astype(np.int16),
        ecg_offsets=np.arange(rows) * 800,
        ecg_samples=np.full(rows, 800),
        cines=rng.integers(0, 256, (rows, 50, 96, 96)).astype(np.uint8),
        row_patient=np.arange(rows),
        row_split=np.zeros(rows, dtype=np.int8),
        row_ecg=np.arange(rows),
        row_cine=np.arange(rows),
        row_views={"sax": np.arange(rows)[::-1].copy()},
        phenotypes=rng.normal(size=(rows, 82)).astype(np.float32),
        diseases=labels,
    )
    return SiteView(cohort=cohort, shape=shape_of(models), device=CPU)


def make_modules(task, site: SiteView) -> dict[str, torch.nn.Module]:
    """All in training mode and with gradients, as a careless caller would leave them."""
    names = {*task.trains, *task.reads, "cmr_encoder"}
    modules = {name: build_module(name, site.shape.preset, seed=1) for name in names}
    for view, name in (("4ch", "cmr_principal"), ("sax", "sax_principal")):
        if name in modules:
            principal = make_task("principal", {"view": view})
            load_tensors(modules[name], principal.solve(principal.sums(modules, site)))
    for name in {"cmr_tokenizer", "sax_tokenizer"} & set(task.reads):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            modules[name] = CmrTokenizer(
                channels=4, multipliers=(1, 1, 1), blocks=1, latent=4, groups=2, heads=1, time_halvings=1
            )
    for module in modules.values():
        module.train().requires_grad_(True)
        for parameter in module.parameters():
            parameter.grad = torch.ones_like(parameter)
    return modules


def snapshot(modules, names) -> dict[str, bytes]:
    return {f"{n}.{k}": v.tobytes() for n in names for k, v in export_tensors(modules[n]).items()}


def forward(name: str, module: torch.nn.Module, models: str = LATER) -> torch.Tensor | None:
    """An output of a module that has dropout or could have it; None for tables of numbers."""
    torch.manual_seed(torch.initial_seed() + 1)  # dropout would draw anew
    draw = torch.Generator().manual_seed(2)
    sizes = get_preset(models)
    inputs = {
        "ecg_encoder": (12, sizes.ecg_samples),
        "cmr_encoder": (sizes.cine_frames, sizes.cine_pixels, sizes.cine_pixels),
        "sax_encoder": (sizes.cine_frames, sizes.sax_pixels, sizes.sax_pixels),
        "ecg_projection": (sizes.ecg_encoder.width,),
        "cmr_projection": (sizes.cmr_width,),
        "sax_projection": (sizes.cmr_width,),
        "screening_head": (sizes.ecg_encoder.width,),
    }
    with torch.no_grad():
        if name in inputs:
            return module(torch.randn(2, *inputs[name], generator=draw))
        if name in ("cmr_tokenizer", "sax_tokenizer"):
            seen = sizes if name == "cmr_tokenizer" else sizes.short_axis
            return module.decode(torch.randn(2, *seen.latent_shape, generator=draw))
        if name == "cmr_generator" and models == EARLIER:
            noisy = torch.randn(2, *sizes.latent_shape, generator=draw)
            return module(noisy, torch.tensor([3, 700]), torch.randn(2, 5, 256, generator=draw))
        if name == "cmr_generator":
            tokens = torch.randn(2, sizes.latent_tokens, sizes.token_width, generator=draw)
            return module(tokens, torch.arange(9).expand(2, -1), torch.randn(2, 32, generator=draw))
    return None


@pytest.mark.parametrize(
    ("models", "name", "options"), CASES, ids=lambda part: part if isinstance(part, str) else None
)
def test_a_round_leaves_what_it_reads_alone(models, name, options):
    quick = {key: value for key, value in QUICK.items() if key in TASKS[name].defaults}
    task, site = make_task(name, {**quick, **options}, get_preset(models).parts), make_site(models)
    modules = make_modules(task, site)
    frozen, moved = snapshot(modules, task.reads), snapshot(modules, task.trains)
    phase = Phase(
        task=name, rounds=1, local_steps=1, batch_size=10, optimiser=Optimiser(lr=1e-2, weight_decay=0.5)
    )
    shared = round_statistics(task, modules, site, phase=phase, round_index=1, seed=0) if task.shares else {}
    seen = SiteView(cohort=site.cohort, shape=site.shape, device=CPU, shared=shared)
    assert train_locally(task, modules, seen, phase=phase, round_index=1, seed=0).steps == 1
    assert snapshot(modules, task.reads) == frozen
    assert snapshot(modules, task.trains) != moved
    for read in task.reads:
        assert not any(part.training for part in modules[read].modules())
        assert all(p.grad is None and not p.requires_grad for p in modules[read].parameters())
        first = forward(read, modules[read], models)
        assert first is None or torch.equal(first, forward(read, modules[read], models))


def test_the_forward_passes_would_tell_a_module_in_training_mode():
    generator = build_module("cmr_generator", "nano", seed=1).train()
    assert not torch.equal(forward("cmr_generator", generator), forward("cmr_generator", generator))
