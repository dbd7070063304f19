"""What a private step costs beside a plain one, in every way to take gradients of single patients.

The ``small`` ECG encoder, whole (384 tokens) and with three quarters of the patches hidden (108 tokens):
seconds and peak memory of one step's clipped sum, each case in a process of its own on the same noise. The
baseline of seconds is the plain gradient of the same batch in the same process, in turns with the private one
(medians); that of memory is the plain case. ``layers`` and ``loop`` are ours; ``hooks``, ``functorch``,
``expanded`` and ``ghost`` are Opacus's, ``vmap`` is torch's. Bare tables and tokens are frozen in all cases,
since Opacus's ways do not see them; for ``ghost`` the patch embedding too.
``python -m simulation.benchmarks.private_steps`` prints one JSON line a case; ``--noise`` adds one for the
noise of a step.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

MODES = ("plain", "layers", "loop", "vmap", "hooks", "functorch", "expanded", "ghost")
INPUTS = ("whole", "masked")
BATCH = {"whole": 32, "masked": 64}
VISIBLE = 7
CLIP = 1e-3
REPEATS = 5


def main(arguments: Sequence[str] | None = None) -> None:
    """Run every case in a process of its own, or one case in this one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", nargs=2, metavar=("INPUT", "MODE"), help="run one case here")
    parser.add_argument("--inputs", nargs="*", default=list(INPUTS), choices=INPUTS)
    parser.add_argument("--modes", nargs="*", default=list(MODES), choices=MODES)
    parser.add_argument("--batch", type=int, help="rows of the batch")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--part-bytes", type=int, default=0, help="of layers; the package's own by default")
    parser.add_argument("--noise", action="store_true", help="also the noise of one step")
    options = parser.parse_args(arguments)
    if options.case:
        inputs, mode = options.case
        part = options.part_bytes
        write(one_case(inputs, mode, batch=options.batch, threads=options.threads, part_bytes=part))
        return
    for inputs in options.inputs:
        base: dict[str, Any] = {}
        for mode in options.modes:
            command = [sys.executable, "-W", "ignore", "-m", "simulation.benchmarks.private_steps"]
            command += ["--case", inputs, mode, "--threads", str(options.threads)]
            command += ["--batch", str(options.batch or BATCH[inputs])]
            command += ["--part-bytes", str(options.part_bytes)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                write({"input": inputs, "mode": mode, "failed": done.stderr.strip().splitlines()[-1][:200]})
                continue
            found = json.loads(done.stdout)
            base = base or found
            write(found | {"memory_ratio": round(found["step_bytes"] / base["step_bytes"], 2)})
    if options.noise:
        write(noise_case())


def write(content: dict[str, object]) -> None:
    """One JSON line on stdout."""
    sys.stdout.write(json.dumps({"schema_version": 1, "benchmark": "private-steps", **content}) + "\n")
    sys.stdout.flush()


def one_case(inputs: str, mode: str, *, batch: int | None, threads: int, part_bytes: int) -> dict[str, Any]:
    """Medians of some steps' seconds, and the peak memory above that of model and data."""
    import torch

    from cardionets_core.privacy.per_sample import PART_BYTES

    torch.set_num_threads(threads)
    rows = batch or BATCH[inputs]
    encoder, losses = encoder_and_losses(inputs, rows)
    run = _steps(mode, part_bytes or PART_BYTES)(encoder, losses, rows)
    plain = _plain(*encoder_and_losses(inputs, rows), rows)
    before = _peak()
    for _ in range(2):
        run()
    step_bytes = _peak() - before
    taken: dict[Any, list[float]] = {plain: [], run: []}
    for _ in range(REPEATS):
        for step, seconds in taken.items():
            start = time.monotonic()
            step()
            seconds.append(time.monotonic() - start)
    private_s, plain_s = statistics.median(taken[run]), statistics.median(taken[plain])
    return {
        "input": inputs,
        "mode": mode,
        "batch": rows,
        "threads": threads,
        "parameters": sum(p.numel() for p in encoder.parameters() if p.requires_grad),
        "seconds": round(private_s, 3),
        "time_ratio": round(private_s / plain_s, 2),
        "step_bytes": step_bytes,
    }


def encoder_and_losses(inputs: str, rows: int) -> tuple[torch.nn.Module, Callable[[int, int], torch.Tensor]]:
    """The encoder as a module that is called, and losses of the rows from the first to before the second."""
    import torch

    from cardionets_core.models import build_module
    from cardionets_core.models.masking import draw_mask

    generator = torch.Generator().manual_seed(0)
    encoder = build_module("ecg_encoder", "small", seed=0).train()
    for name in ("position", "separator", "lead"):
        getattr(encoder, name).requires_grad_(False)
    ecg = torch.randn(rows, 12, 2250, generator=generator)
    target = torch.randn(rows, 256, generator=generator)
    visible = draw_mask((rows, 12), patches=30, visible=VISIBLE, generator=generator).visible

    class Measured(torch.nn.Module):
        """A forward pass that Opacus can wrap."""

        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, ecg_BLT: torch.Tensor, visible_BLV: torch.Tensor) -> torch.Tensor:
            if inputs == "masked":
                return self.encoder.visible_tokens(ecg_BLT, visible_BLV).mean(dim=(1, 2))  # type: ignore[operator, no-any-return]
            return self.encoder(ecg_BLT)  # type: ignore[no-any-return]

    model = Measured()

    def losses(begin: int, end: int, *, by: Any = None) -> torch.Tensor:
        found = (by or model)(ecg[begin:end], visible[begin:end])
        return (found - target[begin:end]).square().mean(dim=1)

    losses.rows = (ecg, visible, target)  # type: ignore[attr-defined]
    return model, losses


def noise_case() -> dict[str, Any]:
    """Noise for as many values as the encoder has."""
    import torch

    from cardionets_core.privacy.noise import SecretRandomness

    values, randomness = [torch.zeros(4_700_000)], SecretRandomness()
    seconds = []
    for _ in range(REPEATS):
        start = time.monotonic()
        randomness.add_normal(values, deviation=1.0)
        seconds.append(time.monotonic() - start)
    return {"mode": "noise", "values": values[0].numel(), "seconds": round(min(seconds), 3)}


def _steps(mode: str, part_bytes: int) -> Callable[..., Callable[[], None]]:
    return {
        "plain": _plain,
        "layers": lambda *case: _ours("layers", part_bytes, *case),
        "loop": lambda *case: _ours("loop", part_bytes, *case),
        "vmap": _vmap,
        "hooks": lambda *case: _hooks(False, *case),
        "functorch": lambda *case: _hooks(True, *case),
        "expanded": _expanded,
        "ghost": _ghost,
    }[mode]


def _plain(model: torch.nn.Module, losses: Any, rows: int) -> Callable[[], None]:
    def run() -> None:
        model.zero_grad(set_to_none=True)
        losses(0, rows).mean().backward()

    return run


def _ours(mode: Any, part_bytes: int, model: torch.nn.Module, losses: Any, rows: int) -> Callable[[], None]:
    from cardionets_core.privacy.per_sample import ClippedSums

    summed = ClippedSums({"model": model}, clip_norm=CLIP, mode=mode, part_bytes=part_bytes)

    def run() -> None:
        summed.add(losses, rows=rows)
        summed.take()

    return run


def _clipped(model: torch.nn.Module, gradients: dict[str, torch.Tensor]) -> None:
    """The same end for all that give a gradient for each row."""
    import torch

    square = sum((value.flatten(1).square().sum(dim=1) for value in gradients.values()), torch.zeros(()))
    scale = (CLIP / square.sqrt()).clamp_max(1.0)
    for value in gradients.values():
        torch.tensordot(scale, value, dims=1)


def _samples(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    found = {name: getattr(p, "grad_sample") for name, p in model.named_parameters() if p.requires_grad}  # noqa: B009
    for parameter in model.parameters():
        parameter.grad_sample = None  # type: ignore[attr-defined]
    model.zero_grad(set_to_none=True)
    return found


def _hooks(functorch: bool, model: torch.nn.Module, losses: Any, rows: int) -> Callable[[], None]:
    from opacus.grad_sample import GradSampleModule

    wrapped = GradSampleModule(model, loss_reduction="sum", strict=False, force_functorch=functorch)

    def run() -> None:
        losses(0, rows, by=wrapped).sum().backward()
        _clipped(model, _samples(model))

    return run


def _expanded(model: torch.nn.Module, losses: Any, rows: int) -> Callable[[], None]:
    from opacus.grad_sample import GradSampleModuleExpandedWeights

    wrapped = GradSampleModuleExpandedWeights(model, loss_reduction="sum")

    def run() -> None:
        losses(0, rows, by=wrapped).sum().backward()
        _clipped(model, _samples(model))

    return run


def _ghost(model: torch.nn.Module, losses: Any, rows: int) -> Callable[[], None]:
    from opacus.grad_sample import GradSampleModuleFastGradientClipping

    # Its norms of linear layers know inputs of up to three axes; the patch embedding has four.
    model.encoder.embed.requires_grad_(False)  # type: ignore[union-attr]
    wrapped = GradSampleModuleFastGradientClipping(
        model, loss_reduction="sum", strict=False, use_ghost_clipping=True, max_grad_norm=CLIP
    )

    def run() -> None:
        found = losses(0, rows, by=wrapped)
        found.sum().backward(retain_graph=True)
        scale = wrapped.get_clipping_coef()
        model.zero_grad(set_to_none=True)
        wrapped.disable_hooks()
        (scale * found).sum().backward()
        wrapped.enable_hooks()
        model.zero_grad(set_to_none=True)

    return run


def _vmap(model: torch.nn.Module, losses: Any, rows: int) -> Callable[[], None]:
    from torch.func import functional_call, grad, vmap

    part = 8
    trained = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}

    def one(weights: dict[str, torch.Tensor], *row: torch.Tensor) -> torch.Tensor:
        ecg, visible, target = row
        found = functional_call(model, weights, (ecg[None], visible[None]))
        return (found - target).square().mean()

    def run() -> None:
        for begin in range(0, rows, part):
            some = [values[begin : begin + part] for values in losses.rows]
            _clipped(model, vmap(grad(one), in_dims=(None, 0, 0, 0))(trained, *some))

    return run


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
