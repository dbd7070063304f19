"""Heads that were to be trained and that no site could train: a phase that takes them for targets is refused.

The order of phases is checked before anything is sent (``phase_order``). Whether a site was there that holds
what a module needs, only the rounds show: two views of the same hearts, for the projections that pretraining
draws together.
"""

from __future__ import annotations

from cardionets_core.config.study import Study
from cardionets_core.errors import QuorumNotMetError
from cardionets_core.exchange.tensors import layout_of, module_digest, pack
from cardionets_core.models import build_module
from cardionets_core.tasks import Task
from cardionets_core.training.seeds import derive_seed
from cardionets_core.training.tensors import export_tensors
from server.checkpoint import Checkpoint

TARGETS = ("cmr_projection", "sax_projection")
"""Modules that sites with one view cannot train, and that a later phase reads as fixed targets."""


def refuse_untrained(study: Study, task: Task, *, phase: int, checkpoint: Checkpoint) -> None:
    """Refuse a phase whose targets are still the random numbers that the study began with.

    Args:
        study: the study.
        task: of the phase.
        phase: its index.
        checkpoint: the model that it begins with.

    Raises:
        QuorumNotMetError: names the module; finished rounds are kept.
    """
    for name in TARGETS:
        if name not in task.reads or name in study.initial:
            continue
        if not _was_trained(study, name, checkpoint):
            raise QuorumNotMetError(
                f"no site has trained {name}, which phase {phase + 1} ({task.name}) takes for a target",
                where=f"study: phases: {phase + 1}",
                remedy="begin a study with a site that holds both views of its patients, or one that aligns "
                "with options: {loss: cosine} after the phases principal of both views",
            )


def _was_trained(study: Study, name: str, checkpoint: Checkpoint) -> bool:
    """Whether a reply brought the module; where replies are not known one by one, whether it has changed."""
    counts = [row["samples"] for entry in checkpoint.history for row in entry["sites"] if row.get("samples")]
    if counts:
        return any(name in of_site for of_site in counts)
    module = build_module(name, study.models, seed=derive_seed(study.seed, "initial", name))
    tensors = export_tensors(module)
    return module_digest(layout_of(tensors), pack(tensors)) != checkpoint.digests[name]
