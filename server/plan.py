"""What a study will do, before anything is sent."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from cardionets_core.config.study import Study
from cardionets_core.exchange.precision import wire_bytes
from cardionets_core.models import build_module
from cardionets_core.tasks import ClosedFormTask
from cardionets_core.tasks.expected_sums import bytes_of, expected_sums
from cardionets_core.training.local_rule import local_rule
from server.aggregation import strategy_of
from server.phase_order import tasks_of
from server.privacy_plan import privacy_lines, privacy_of, read_patients

SCHEMA_VERSION = 1


def plan_of(study: Study, *, patients: Sequence[str] = (), sites: Collection[str] = ()) -> dict[str, Any]:
    """The phases of a study with their modules and payload, what it starts from, and its sums.

    Args:
        study: the study.
        patients: of sites, as ``read_patients`` takes them, for what a private study will spend there.
        sites: that ``patients`` may be of; any where none are known.

    Raises:
        ConfigError: the study names a task, strategy, preset or option that does not exist, or a part of
            a private study cannot be made private.
        UsageError: ``patients`` cannot be read, or are of a site that is none.
    """
    tasks = tasks_of(study)
    strategy_of(study, tasks)
    rule, sums = local_rule(study), expected_sums(study.models)
    known = read_patients(patients, phases=len(tasks), sites=sites)
    phases: list[dict[str, Any]] = []
    for task, phase in zip(tasks, study.phases, strict=True):
        sizes = {name: _parameters(name, study.models) for name in (*task.trains, *task.reads)}
        ordered = 4 * sum(sizes[name] for name in task.trains)
        # Only what a site trained comes back in the study's precision.
        update = sum(wire_bytes(rule.form, sizes[name]) for name in task.trains)
        # What a strategy sends beside each module is as large as the module, both ways.
        beside = 2 * len(rule.extras) * ordered
        phases.append(
            {
                "task": task.name,
                "title": phase.title,
                "rounds": phase.rounds,
                "trains": list(task.trains),
                "reads": list(task.reads),
                "needs": sorted(task.needs),
                "decomposes": task.decomposes,
                # Tensors; a closed-form task sends sums back instead of the module.
                "bytes_per_round_and_site": ordered
                if isinstance(task, ClosedFormTask)
                else ordered + update + beside,
                # Statistics go out, and come back added.
                "sum_bytes_per_round_and_site": bytes_of(sums.of_training(task))
                + 2 * bytes_of(sums.of_shared(task)),
                # Validation after each round, test after the last one.
                "measured_bytes_each_time": bytes_of(rule.metric_shapes(task, sums.of_metrics(task)))
                if study.exact_sums_leave
                else 0,
                "last_model_bytes_per_site": ordered,
                "frozen_bytes_once_per_site": 4 * sum(sizes[name] for name in task.reads),
            }
        )
        phases[-1]["bytes_per_site"] = _phase_bytes(phases[-1])
    return {
        "schema_version": SCHEMA_VERSION,
        "study": study.name,
        "study_digest": study.digest,
        "preset": study.models,
        "phases": phases,
        "precision": study.exchange.precision,
        "privacy": privacy_of(study, tasks, patients=known or None),
        "secure_aggregation": study.secure_aggregation.model_dump(mode="json")
        if study.secure_aggregation
        else None,
        "initial": dict(study.initial),
        "totals": {
            "rounds": sum(phase.rounds for phase in study.phases),
            "bytes_per_site": sum(each["bytes_per_site"] for each in phases),
        },
    }


def plan_lines(content: dict[str, Any]) -> Iterator[str]:
    """The plan for people."""
    yield f"study {content['study']} · preset {content['preset']} · digest {content['study_digest']}"
    for phase in content["phases"]:
        megabytes = (phase["bytes_per_round_and_site"] + phase["sum_bytes_per_round_and_site"]) / 1e6
        measured, once = phase["measured_bytes_each_time"] / 1e6, phase["frozen_bytes_once_per_site"] / 1e6
        trains, rounds = ", ".join(phase["trains"]) or "nothing", phase["rounds"]
        yield (
            f"  {phase['title']:10} {rounds:4} round{'s' * (rounds != 1)} · trains {trains}"
            f" · reads {', '.join(phase['reads']) or 'nothing'} · needs {' + '.join(phase['needs'])}"
            f" · {megabytes:.2f} MB out and back a round and site"
            + (f" · {measured:.2f} MB of sums each time it is measured" if measured else "")
            + (f" · {once:.2f} MB once a site" if once else "")
        )
    rounds, megabytes = content["totals"]["rounds"], content["totals"]["bytes_per_site"] / 1e6
    yield (
        f"in all: {rounds} rounds · at most {megabytes:.2f} MB a site, both ways, "
        f"where no round is repeated; updates in {content['precision']}"
    )
    yield from privacy_lines(content["privacy"])
    secure = content["secure_aggregation"]
    if secure:
        yield (
            f"secure aggregation: sums over at least {secure['threshold']} of {len(secure['roster'])} sites; "
            "the coordinator sees no site's update, loss or metrics"
        )
    if content["initial"]:
        yield "starts from given weights:"
        yield from (f"  {name:16} {digest}" for name, digest in sorted(content["initial"].items()))
    else:
        yield "starts from random weights, drawn by the study's seed"


def _phase_bytes(phase: dict[str, Any]) -> int:
    """All that goes to one site and comes from it in a phase, where it holds nothing yet."""
    each_round = phase["bytes_per_round_and_site"] + phase["sum_bytes_per_round_and_site"]
    measured = (phase["rounds"] + 1) * phase["measured_bytes_each_time"]
    once = phase["last_model_bytes_per_site"] + phase["frozen_bytes_once_per_site"]
    return int(phase["rounds"] * each_round + measured + once)


def _parameters(name: str, preset: str) -> int:
    module = build_module(name, preset, seed=0, device="meta")
    return sum(parameter.numel() for parameter in module.parameters())
