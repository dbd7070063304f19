"""What IT is shown of a study before it says yes: what is trained, what leaves, what changed, what is let.

Comes in: a study and, where it can be read, the site's own document. Goes out: JSON-ready facts. Sizes follow
from the study's preset and its tasks, not from data, so they are the same on every site.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from cardionets_core.config.changes import study_changes
from cardionets_core.config.site import SiteConfig
from cardionets_core.config.study import Phase, Study, study_from_json
from cardionets_core.errors import PhaseNotPermittedError
from cardionets_core.exchange.precision import wire_bytes
from cardionets_core.models import build_module
from cardionets_core.tasks import ClosedFormTask, GradientTask, MeasureTask, Task, task_of
from cardionets_core.tasks.expected_sums import ExpectedSums, bytes_of, expected_sums
from cardionets_core.training.local_rule import local_rule
from cardionets_core.trust.keys import fingerprint, read_public
from client.approvals.store import STUDY, ApprovalStore
from client.privacy_policy import check_policy

CENSUS = {"cohort_sizes", "count_rounding"}
"""Of the site's policy: what decides which counts a census tells."""


def study_facts(study: Study, store: ApprovalStore, *, config: SiteConfig | None) -> dict[str, Any]:
    """What a study asks of a site.

    Args:
        study: that waits.
        store: knows what was approved last.
        config: what the hospital permits; None where its document cannot be read.

    Raises:
        ConfigError: the study names a task, option or preset that this CardioNets does not have.
    """
    last = last_study(store, but=study.digest)
    sums = expected_sums(study.models)
    now = json.loads(study.to_json())
    return {
        "digest": study.digest,
        "name": study.name,
        "preset": study.models,
        "seed": study.seed,
        "strategy": study.aggregation.strategy,
        "strategy_options": dict(study.aggregation.options),
        "privacy": study.privacy.model_dump(mode="json"),
        "budget": _budget_facts(study, config),
        "secure_aggregation": _secure_facts(study),
        "census": None if config is None else config.policy.model_dump(include=CENSUS),
        "wire_precision": study.exchange.precision,
        "is_measured": study.exact_sums_leave,
        "evaluated_every_rounds": study.evaluation.every_rounds,
        "minimum_sites": study.sites.minimum,
        "phases": [_phase_facts(phase, task_of(phase, study), study, sums, config) for phase in study.phases],
        "withdrawn": asdict(said) if (said := store.standing().withdrawal(STUDY, study.digest)) else None,
        "last_approved": last.digest if last else "",
        "since_last_approved": [
            {"key": change.key, "old": change.was, "new": change.now}
            for change in study_changes(json.loads(last.to_json()), now)
        ]
        if last
        else [],
    }


def _budget_facts(study: Study, config: SiteConfig | None) -> dict[str, Any] | None:
    """What the site has left for a private study, and would have spent after it."""
    if study.privacy.mechanism == "none" or config is None:
        return None
    from client.forecast import forecast  # it brings Opacus

    return forecast(study, config)


def _secure_facts(study: Study) -> dict[str, Any]:
    """Threshold, range, and the fingerprints of the keys that the study trusts; empty without."""
    secure = study.secure_aggregation
    if secure is None:
        return {}
    return {
        "threshold": secure.threshold,
        "largest_update": secure.largest_update,
        "largest_samples": secure.largest_samples,
        "sites": {
            name: fingerprint(read_public(line.encode(), where=f"roster: {name}"))
            for name, line in sorted(secure.roster.items())
        },
    }


def last_study(store: ApprovalStore, *, but: str = "") -> Study | None:
    """The study that was approved last and still stands.

    Args:
        store: of the site.
        but: a digest that does not count.
    """
    for said in reversed(store.standing().approved(STUDY)):
        text = store.approved_study(said.digest)
        if text is not None and said.digest != but:
            return study_from_json(text, digest=said.digest)
    return None


def _phase_facts(
    phase: Phase, task: Task, study: Study, sums: ExpectedSums, config: SiteConfig | None
) -> dict[str, Any]:
    update, rule = 0, local_rule(study)
    if isinstance(task, GradientTask):
        # What the strategy sends beside a module is as large as the module, and exact.
        sizes = [_size(name, study.models) for name in task.trains]
        update = sum(wire_bytes(rule.form, size) + 4 * len(rule.extras) * size for size in sizes)
    training, shared, measured = sums.of_training(task), sums.of_shared(task), {}
    if study.exact_sums_leave:
        measured = rule.metric_shapes(task, sums.of_metrics(task))
    else:
        shared = {}  # the site refuses to send either
    return {
        "task": task.name,
        "title": phase.title,
        "rounds": phase.rounds,
        "trains": list(task.trains),
        "reads": list(task.reads),
        "needs": sorted(task.needs),
        "kind": _kind(task),
        "update_bytes": update,
        "sum_bytes": bytes_of(training) + bytes_of(shared),
        "metric_sum_bytes": bytes_of(measured),
        "metric_sums": sorted(measured),
        "permitted": privacy_permission(study, config)
        or permission(
            task,
            phase,
            config,
            largest_bytes=update + bytes_of(training),
            is_measured=study.exact_sums_leave,
        ),
    }


def privacy_permission(study: Study, config: SiteConfig | None) -> str:
    """The key of the policy that does not let the study's privacy in, or an empty text."""
    if config is None:
        return ""
    try:
        check_policy(study, config)
    except PhaseNotPermittedError as error:
        return f"no: {error.where.removeprefix('site.yaml: ')}"
    return ""


def permission(
    task: Task, phase: Phase, config: SiteConfig | None, *, largest_bytes: int, is_measured: bool = True
) -> str:
    """What the site's own policy says of a phase: ``yes``, ``measured only``, or why not.

    Args:
        task: of the phase.
        phase: of the study.
        config: what the hospital permits.
        largest_bytes: of a training reply.
        is_measured: whether the study lets sites measure.
    """
    if config is None:
        return "unknown: site.yaml cannot be read"
    policy = config.policy
    if task.name not in policy.phases:
        return "no: policy.phases"
    if phase.rounds > policy.maximum_rounds:
        return "no: policy.maximum_rounds"
    if policy.role == "external":
        return "measured only: policy.role" if is_measured else "no: policy.role"
    if largest_bytes > policy.maximum_reply_bytes:
        return "no: policy.maximum_reply_bytes"
    return "yes"


def _kind(task: Task) -> str:
    if isinstance(task, MeasureTask):
        return "measures"
    return "adds sums" if isinstance(task, ClosedFormTask) else "trains by steps"


def _size(name: str, preset: str) -> int:
    module = build_module(name, preset, seed=0, device="meta")
    return sum(parameter.numel() for parameter in module.parameters())
