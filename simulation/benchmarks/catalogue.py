"""Which benchmarks `make bench` runs, in their short forms, and which of their figures it keeps.

Each benchmark is a module of this package that prints JSON lines. A ``Figure`` names the key of a line that
holds a ratio, what the ratio is of, its baseline, and how far it may move by chance on a shared machine.
Nothing runs here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

DATA = "{data}"
"""Stands in arguments for the folder of public data that the repository does not hold."""
NOISE = 0.25
EXACT = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One kind of figure of a benchmark's lines.

    Attributes:
        key: of the line; a line without it has no such figure.
        what: with names of the line's keys in braces, such as ``{sites} sites``; tells the figures apart.
        baseline: what it is a ratio to; empty where it is none and is kept for the eye alone.
        better: which way is the better one.
        margin: by which factor over 1 it moves by chance, either way.
        where: keys of the line and the values, one of them, that they must have.
        unit: of a figure that is no ratio.
    """

    key: str
    what: str
    baseline: str = ""
    better: Literal["lower", "higher"] = "lower"
    margin: float = NOISE
    where: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    unit: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """One command.

    Attributes:
        name: kebab-case, for ``--only``.
        module: of this package.
        arguments: of its short form.
        figures: that are kept.
    """

    name: str
    module: str
    figures: tuple[Figure, ...]
    arguments: tuple[str, ...] = ()

    @property
    def command(self) -> str:
        """As a person types it after ``python -m simulation.benchmarks.``."""
        return " ".join((self.module, *self.arguments)).replace(DATA, "DIR")

    @property
    def needs_data(self) -> bool:
        """Whether it reads data that the repository does not hold."""
        return any(DATA in each for each in self.arguments)


_FASTER = "reading with wfdb, then scipy's resample and filters"
_BYTES = Figure(
    key="ratio",
    what="bytes of the study {study}",
    baseline="the whole model to every site, back, and out to be measured",
    margin=EXACT,
    where={"task": ("all",)},
)


def _step_at(*presets: str) -> Figure:
    return Figure(
        key="ratio_to_nano",
        what="seconds a row of {phase}, preset {preset}",
        baseline="preset nano",
        margin=0.6,
        where={"preset": presets},
    )


CATALOGUE: tuple[Benchmark, ...] = (
    Benchmark(
        name="wire-bytes",
        module="wire_bytes",
        figures=(_BYTES,),
    ),
    Benchmark(
        name="wire-bytes-cardionets",
        module="wire_bytes",
        arguments=("--study", "cardionets"),
        figures=(_BYTES,),
    ),
    Benchmark(
        name="server-memory",
        module="server_memory",
        figures=(
            Figure(
                key="ratio_to_2_sites",
                what="peak memory of the server, {sites} sites of 50 MB",
                baseline="2 sites",
                where={"sites": (16,)},
            ),
        ),
    ),
    Benchmark(
        name="aggregation",
        module="aggregation",
        figures=(
            Figure(
                key="ratio_to_copy",
                what="speed of averaging {replies} replies",
                baseline="copying large arrays",
                better="higher",
                margin=0.4,
            ),
            Figure(
                key="ratio_to_numpy",
                what="speed of averaging {replies} replies, whole",
                baseline="numpy's mean, tile by tile",
                better="higher",
            ),
        ),
    ),
    Benchmark(
        name="data-path",
        module="data_path",
        figures=(
            Figure(
                key="times_faster_than_baseline",
                what="speed of {measure}",
                baseline=_FASTER,
                better="higher",
                where={"measure": ("pack-recording", "prepare", "batches")},
            ),
            Figure(
                key="ratio_to_smaller",
                what="memory of an epoch of {records} records",
                baseline="a tenth of the records",
                where={"measure": ("epoch-memory",)},
            ),
        ),
    ),
    Benchmark(
        name="sampling",
        module="sampling",
        figures=(
            Figure(
                key="ratio_to_reuse",
                what="work of sampling with no reuse: {schedule}",
                baseline="the product's sampler",
                better="higher",
                margin=EXACT,
                where={"schedule": ("each-step", "each-denoising")},
            ),
        ),
    ),
    Benchmark(
        name="phase-steps",
        module="phase_steps",
        figures=(_step_at("small", "paper"),),
    ),
    Benchmark(
        name="phase-steps-earlier",
        module="phase_steps",
        arguments=("--presets", "nano", "nano+cardiacnets"),
        figures=(_step_at("nano+cardiacnets"),),
    ),
    Benchmark(
        name="private-steps",
        module="private_steps",
        arguments=("--noise",),
        figures=tuple(
            Figure(
                key=key,
                what=f"{of} of a private step, {{input}} ECG, {{mode}}",
                baseline="the plain step of the batch",
                where={"mode": ("layers", "loop")},
            )
            for key, of in (("time_ratio", "time"), ("memory_ratio", "memory"))
        ),
    ),
    Benchmark(
        name="secure-sum",
        module="secure_sum",
        arguments=("--sites", "3", "10"),
        figures=(
            Figure(
                key="server_ratio_to_plain_sum",
                what="the server's secure sum, {sites} sites of {megabytes} MB, {dropped_out} gone",
                baseline="adding up plain vectors",
                margin=0.5,
                # A megabyte is added up in microseconds: a ratio to that is chance.
                where={"megabytes": (50,)},
            ),
        ),
    ),
    Benchmark(
        name="secure-rounds",
        module="secure_rounds",
        arguments=("--sites", "3", "10"),
        figures=tuple(
            Figure(
                key=key,
                what=f"{of} of a secure round, {{sites}} sites of {{megabytes}} MB",
                baseline="the plain round",
                where={"case": ("masked",)},
            )
            for key, of in (("round_s_ratio", "time"), ("peak_bytes_ratio", "memory"))
        ),
    ),
    Benchmark(
        name="wire-precision",
        module="wire_precision",
        figures=(
            Figure(
                key="received_ratio_to_fp32",
                what="bytes of updates in {precision}",
                baseline="fp32",
                margin=EXACT,
                where={"precision": ("bf16", "int8")},
            ),
        ),
    ),
    Benchmark(
        name="scale",
        module="scale",
        arguments=("--sites", "10", "30", "100"),
        figures=(
            Figure(key="round_s", what="a round of {sites} sites in one process", unit="s"),
            Figure(key="peak_bytes", what="peak memory of {sites} sites in one process", unit="bytes"),
            Figure(
                key="server_processor_s_exponent",
                what="growth of the server's work, {from_sites} to {to_sites} sites, as an exponent",
                baseline="1, in proportion",
            ),
            Figure(
                key="server_share",
                what="the server's share of a round of {to_sites} sites",
                baseline="the round",
                margin=0.5,
            ),
        ),
    ),
    Benchmark(
        name="fed-heart-disease",
        module="fed_heart_disease",
        arguments=("--data", DATA, "--format", "lines"),
        figures=tuple(
            Figure(
                key=f"ratio_to_published_{of}",
                what=f"accuracy of {{strategy}}, {told}",
                baseline="FLamby's published accuracy",
                better="higher",
                margin=0.02,
            )
            for of, told in (("pooled", "pooled test rows"), ("mean", "mean of the centers"))
        ),
    ),
    Benchmark(
        name="deployment",
        module="deployment",
        figures=(
            Figure(
                key="ratio_to_flower",
                what="a round of real processes, {sites} sites, {arrays} arrays",
                baseline="bare Flower's FedAvg",
                margin=0.5,
            ),
        ),
    ),
    Benchmark(
        name="deployment-8-sites",
        module="deployment",
        arguments=("--side", "cardionets", "--sites", "8"),
        figures=(Figure(key="round_s", what="a round of real processes, {sites} sites", unit="s"),),
    ),
)


def names() -> list[str]:
    """Of all benchmarks, in the order in which they run."""
    return [each.name for each in CATALOGUE]
