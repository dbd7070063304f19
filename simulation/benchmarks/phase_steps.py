"""What one training step of each phase costs at each preset: seconds, peak memory, payload.

Each case runs in a process of its own, on noise in the packed form of the cache: a step of the real trainer,
after one that warms up. ``python -m simulation.benchmarks.phase_steps`` prints one JSON line a case; the
baseline of a phase is its step at ``nano``. A preset may name a generation or parts, as in
``--presets nano nano+cardiacnets``. ``--private`` runs each also with gradients of single patients, in both
ways, beside the plain step of the same batch. ``--device cuda`` measures a GPU. The tokenizer's step at
``paper`` is 60 TFLOP: it is left out on a processor unless ``--all`` is given, and its shapes are run on the
meta device.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any, cast

BATCHES = {"nano": 8, "small": 8, "paper": 1}
PHASES = ("ecg_mae", "cmr_mae", "align", "tokenizer", "generate", "phenotype", "screening")
OPTIONS: dict[str, dict[str, bool | str]] = {
    "align": {"loss": "cosine"},
    "phenotype": {"train_encoder": True},
    "screening": {"train_encoder": True},
}
MODES = ("layers", "loop")
REPEATS = 2
HEAVY = {("paper", "tokenizer")}
# Its latents come from the paper tokenizer, 20 TFLOP a cine.
NEEDS_HEAVY = {("paper", "generate")}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run every case in a process of its own, or one case in this one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", nargs=2, metavar=("PRESET", "PHASE"), help="run one case here")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--presets", nargs="*", default=list(BATCHES))
    parser.add_argument("--phases", nargs="*", default=list(PHASES), choices=PHASES)
    parser.add_argument("--batch", type=int, default=0, help="rows of a step; by default the preset's own")
    parser.add_argument("--private", action="store_true", help="also private steps, in each way")
    parser.add_argument("--mode", choices=("plain", *MODES), default="plain", help=argparse.SUPPRESS)
    parser.add_argument("--all", action="store_true", help="also what takes many minutes on a processor")
    options = parser.parse_args(arguments)
    if options.case:
        preset, phase = options.case
        place, mode = options.device, options.mode
        rows = options.batch or BATCHES[preset.partition("+")[0]]
        write(one_step(preset, phase, rows=rows, device=place, precision=options.precision, mode=mode))
        return
    base: dict[str, float] = {}
    for preset in options.presets:
        for phase in options.phases:
            heavy = (preset.partition("+")[0], phase) in HEAVY | NEEDS_HEAVY
            if heavy and options.device == "cpu" and not options.all:
                write(meta_step(preset, phase))
                continue
            command = [sys.executable, "-m", "simulation.benchmarks.phase_steps", "--case", preset, phase]
            command += ["--device", options.device, "--precision", options.precision]
            command += ["--batch", str(options.batch)]
            found = _run(command)
            base.setdefault(phase, found["seconds_a_row"])
            write(found | {"ratio_to_nano": round(found["seconds_a_row"] / base[phase], 1)})
            for mode in MODES if options.private else ():
                private = _run([*command, "--mode", mode])
                ratios = {
                    f"{key}_ratio_to_plain": round(private[key] / found[key], 2)
                    for key in ("seconds", "step_bytes")
                }
                write(private | ratios)


def _run(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def write(content: dict[str, object]) -> None:
    """One JSON line on stdout."""
    sys.stdout.write(json.dumps({"schema_version": 1, "benchmark": "phase-steps", **content}) + "\n")
    sys.stdout.flush()


def payload(preset: str, phase: str) -> dict[str, object]:
    """Bytes that a phase sends: trained modules each round and way, frozen ones once."""
    from cardionets_core.models import build_module, get_preset
    from cardionets_core.tasks import make_task

    task = make_task(phase, OPTIONS.get(phase, {}), get_preset(preset).parts)

    def of(names: Sequence[str]) -> int:
        built = (build_module(name, preset, seed=0, device="meta") for name in names)
        return 4 * sum(parameter.numel() for module in built for parameter in module.parameters())

    return {
        "preset": preset,
        "phase": phase,
        "trained_bytes": of(task.trains),
        "frozen_bytes": of(task.reads),
    }


def meta_step(preset: str, phase: str) -> dict[str, object]:
    """Shapes alone: a forward and a backward pass of one row on the meta device."""
    import torch

    from cardionets_core.models import build_module, get_preset, input_shape
    from cardionets_core.tasks.generators import generator_kind

    sizes, shape = get_preset(preset), input_shape(preset)
    meta = torch.device("meta")
    if phase == "tokenizer":
        model = build_module("cmr_tokenizer", preset, seed=0, device=meta)
        noise = torch.zeros(1, *sizes.latent_shape, device=meta)
        made = model(
            torch.zeros(1, shape.cine_frames, shape.cine_pixels, shape.cine_pixels, device=meta), noise
        )
    elif generator_kind(sizes.parts).takes_tokens:
        model = build_module("cmr_generator", preset, seed=0, device=meta)
        time_B = torch.zeros(1, dtype=torch.int64, device=meta)
        ecg_BND = torch.zeros(1, 1 + sizes.ecg_patches, sizes.ecg_encoder.width, device=meta)
        made = model(torch.zeros(1, *sizes.latent_shape, device=meta), time_B, ecg_BND)
    else:
        model = build_module("cmr_generator", preset, seed=0, device=meta)
        tokens = torch.zeros(1, sizes.latent_tokens, sizes.token_width, device=meta)
        visible = torch.zeros(1, sizes.latent_tokens // 8, dtype=torch.int64, device=meta)
        made = model(tokens, visible, torch.zeros(1, sizes.projection, device=meta))
    made.sum().backward()
    return {**payload(preset, phase), "device": "meta", "output": list(made.shape), "batch": 1}


def one_step(
    preset: str, phase: str, *, rows: int, device: str, precision: str, mode: str
) -> dict[str, object]:
    """Some steps of the real trainer; the fastest but the first is told."""
    import numpy as np
    import torch

    from cardionets_core.config.study import Phase
    from cardionets_core.data.cohort import Cohort
    from cardionets_core.models import build_module, get_preset
    from cardionets_core.privacy.noise import SecretRandomness
    from cardionets_core.privacy.per_sample import Mode
    from cardionets_core.tasks import SiteView, make_task
    from cardionets_core.tasks.shapes import shape_of
    from cardionets_core.training import Numerics, train_locally
    from cardionets_core.training.private import PrivateSteps

    samples = 2500
    rng = np.random.default_rng(0)
    cohort = Cohort(
        site="bench",
        digest="bench",
        ecg_counts=rng.integers(-900, 900, rows * 12 * samples).astype(np.int16),
        ecg_offsets=np.arange(rows) * samples,
        ecg_samples=np.full(rows, samples),
        cines=rng.integers(0, 256, (rows, 50, 96, 96)).astype(np.uint8),
        row_patient=np.arange(rows),
        row_split=np.zeros(rows, dtype=np.int8),
        row_ecg=np.arange(rows),
        row_cine=np.arange(rows),
        row_views={"sax": np.arange(rows)[::-1]},
        phenotypes=rng.normal(size=(rows, 82)).astype(np.float32),
        diseases=rng.integers(0, 2, (rows, 8)).astype(np.float32),
    )
    task = make_task(phase, OPTIONS.get(phase, {}), get_preset(preset).parts)
    place = torch.device(device)
    modules = {name: build_module(name, preset, seed=1) for name in (*task.trains, *task.reads)}
    for principal in {"cmr_principal", "sax_principal"} & set(modules):
        # As if it had been solved: an unsolved one is refused.
        with torch.no_grad():
            for parameter in modules[principal].parameters():
                parameter.normal_(generator=torch.Generator().manual_seed(0)).abs_()
    site = SiteView(cohort=cohort, shape=shape_of(preset), device=place)
    count = REPEATS + 1
    settings = {
        "task": phase,
        "rounds": count,
        "local_steps": 1,
        "batch_size": rows,
        "optimiser": {"lr": 1e-4},
    }
    private = None
    if mode != "plain":
        private = PrivateSteps(
            noise_multiplier=1.0, clip_norm=1.0, randomness=SecretRandomness(), mode=cast(Mode, mode)
        )
    seconds, before = [], _peak()
    for number in range(1, count + 1):
        start = time.monotonic()
        train_locally(
            task,
            modules,
            site,
            phase=Phase.model_validate(settings),
            round_index=number,
            seed=1,
            numerics=Numerics(precision="bf16" if precision == "bf16" else "fp32"),
            private=private,
        )
        if place.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.monotonic() - start)
    found = {
        **payload(preset, phase),
        "device": device,
        "precision": precision,
        "threads": torch.get_num_threads(),
        "batch": rows,
        "mode": mode,
        "seconds": round(min(seconds[1:]), 3),
        "seconds_a_row": round(min(seconds[1:]) / rows, 4),
        "step_bytes": _peak() - before,
        "peak_bytes": _peak(),
    }
    if place.type == "cuda":
        found["gpu_peak_bytes"] = torch.cuda.max_memory_allocated()
    return found


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
