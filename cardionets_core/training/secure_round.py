"""What of a round is summed in secret: a site's answer as one vector, and the sum as one answer (rows 9, 12).

Comes in: a study, a task, and which question of the round. Goes out: the form of the vector that every site
sends, the vector of a reply, and from the opened sum a reply that stands for all sites together: each module
is the sample-weighted mean of the sites' changes, added to what was sent. The protocol itself is
``privacy.secure_sum``'s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cardionets_core.config.study import SecureAggregation, Study
from cardionets_core.errors import ConfigError, DisclosureRefusedError, ReplyRefusedError
from cardionets_core.exchange.messages import MEASURED, PackedModule, Reply, RoundName
from cardionets_core.exchange.secure import SecurePart
from cardionets_core.exchange.tensors import Layout
from cardionets_core.privacy.secure_sum import SessionName, Terms
from cardionets_core.privacy.secure_sum.fixed_point import Ring
from cardionets_core.privacy.secure_sum.vector import VectorForm
from cardionets_core.tasks import ClosedFormTask, GradientTask, Task
from cardionets_core.tasks.expected_sums import expected_sums
from cardionets_core.training.local_rule import local_rule
from cardionets_core.trust.keys import read_public

TOGETHER = "pooled"
"""Under which name the sum of all sites is kept; no site may have it."""
SAMPLES, VALUES, SITES = "samples/", "value/", "sites"
SUMMED_VALUES = ("loss", "steps", "train_seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question of a round whose answers are summed.

    Attributes:
        task: of the phase.
        part: which question.
        measures: whether sites that train measure first.
    """

    task: Task
    part: SecurePart
    measures: bool = False


def secure_of(study: Study) -> SecureAggregation:
    """The study's secure aggregation, with its roster.

    Raises:
        ConfigError: the study has none, or no roster.
    """
    secure = study.secure_aggregation
    if secure is None or not secure.roster:
        raise ConfigError(
            "secure aggregation needs the sites and their public keys in the study",
            where="study: secure_aggregation.roster",
            remedy="print them with: cardionets-server roster DIR, and put them into study.yaml",
        )
    return secure


def terms_of(study: Study, name: RoundName, part: SecurePart) -> Terms:
    """What a session of a study must keep to.

    Raises:
        ConfigError: the roster is missing.
        CertificateInvalidError: a key of the roster is none.
        SecureSumError: roster and threshold do not fit.
    """
    secure = secure_of(study)
    session = SessionName(
        study_digest=study.digest, phase=name.phase, round=name.round, attempt=name.attempt, purpose=part
    )
    roster = {
        site: read_public(line.encode(), where=f"study: secure_aggregation.roster: {site}")
        for site, line in secure.roster.items()
    }
    return Terms(session=session, threshold=secure.threshold, roster=roster)


def form_of(study: Study, asked: Question, sizes: Mapping[str, int]) -> VectorForm:
    """The form of the vector that answers a question, from the study alone.

    Args:
        study: with secure aggregation.
        asked: the question.
        sizes: values of each module that the phase trains.
    """
    secure, task, known = secure_of(study), asked.task, expected_sums(study.models)
    shapes: dict[str, tuple[int, ...]] = {SITES: (1,)}
    updates: tuple[tuple[str, int], ...] = ()
    metrics = local_rule(study).metric_shapes(task, known.of_metrics(task))
    if asked.part == "statistics":
        assert isinstance(task, GradientTask)
        shapes |= known.of_statistics(task)
    elif asked.part == "train":
        shapes |= known.of_training(task)
        if isinstance(task, GradientTask):
            updates = tuple((name, sizes[name]) for name in task.trains)
            shapes |= {SAMPLES + name: (1,) for name in task.trains}
            shapes |= {VALUES + name: (1,) for name in SUMMED_VALUES}
        if asked.measures:
            shapes |= {MEASURED + name: shape for name, shape in metrics.items()}
    else:
        shapes |= metrics
    return VectorForm(
        updates=updates,
        sums=tuple(shapes.items()),
        parties=len(secure.roster),
        largest_update=secure.largest_update,
        largest_sum=secure.largest_sum,
    )


def vector_of(
    reply: Reply,
    form: VectorForm,
    *,
    secure: SecureAggregation,
    weight: float,
    sent: Callable[[str], np.ndarray],
) -> Ring:
    """A reply as one vector, which is to be masked.

    Args:
        reply: that passed the gate's rules.
        form: of the question.
        secure: of the study.
        weight: share of the samples that counts, by the site's role.
        sent: the flat values of a module before the training.

    Raises:
        DisclosureRefusedError: more samples than the study allows.
        FixedPointRangeError: a change or a sum is too large for the study's range.
    """
    updates: dict[str, np.ndarray] = {}
    sums = {SITES: np.ones(1), **reply.sums}
    for name, module in reply.modules.items():
        count = reply.samples[name]
        if count > secure.largest_samples:
            raise DisclosureRefusedError(
                f"{count} samples stand behind {name}; the study allows {secure.largest_samples} of a site",
                where="study: secure_aggregation.largest_samples",
                remedy="ask the coordinator for a larger number",
            )
        share = float(max(1, round(weight * count)))
        change = module.values.astype(np.float64) - sent(name)
        updates[name] = change * (share / secure.largest_samples)
        sums[SAMPLES + name] = np.array([share])
    if form.updates:
        given = reply.values
        sums |= {VALUES + name: np.array([given[name]]) for name in SUMMED_VALUES if name in given}
    return form.pack(updates, sums)


def reply_of(
    total: Ring,
    form: VectorForm,
    *,
    parties: int,
    name: RoundName,
    secure: SecureAggregation,
    layouts: Mapping[str, Layout],
    sent: Callable[[str], np.ndarray],
) -> Reply:
    """The opened sum as one reply of all sites together.

    Args:
        total: the sum.
        form: of the question.
        parties: how many sites are in it.
        name: of the round.
        secure: of the study.
        layouts: of the modules.
        sent: their flat values before the training.

    Raises:
        ReplyRefusedError: the sum does not count the sites that are in it, or leads to values that are not
            finite.
    """
    updates, sums = form.unpack(total, parties=parties)
    if round(float(sums.pop(SITES)[0])) != parties:
        raise ReplyRefusedError("the sum is not that of the sites' vectors", where="secure sum")
    modules: dict[str, PackedModule] = {}
    samples: dict[str, int] = {}
    for module, change in updates.items():
        share = float(sums.pop(SAMPLES + module)[0])
        if share < 0.5:
            continue
        mean = sent(module) + change * (secure.largest_samples / share)
        values = mean.astype(np.float32)
        if not np.isfinite(values).all():
            raise ReplyRefusedError(f"the sum of {module} is not finite", where="secure sum")
        modules[module] = PackedModule(layout=layouts[module], values=values)
        samples[module] = round(share)
    means = {key: sums.pop(VALUES + key) for key in SUMMED_VALUES if VALUES + key in sums}
    return Reply(
        site=TOGETHER,
        name=name,
        modules=modules,
        samples=samples,
        sums=sums,
        values={key: float(value[0]) / parties for key, value in means.items()},
    )


def mean_error(form: VectorForm, *, parties: int, samples: float, largest_samples: int) -> float:
    """The most by which fixed point moves a weight of the mean: each party rounds by half a step.

    Args:
        form: of the question.
        parties: in the sum.
        samples: of all of them together.
        largest_samples: of the study.
    """
    return parties * form.halves.error * largest_samples / samples


def check_secure(study: Study, tasks: Sequence[Task], *, from_mean: bool) -> None:
    """Refuse a study with secure aggregation of which a part needs to see single sites; any other passes.

    Args:
        study: the study.
        tasks: of its phases.
        from_mean: whether its strategy needs no more than the weighted mean of the sites.

    Raises:
        ConfigError: names what needs them, and what to choose instead.
    """
    if study.secure_aggregation is None:
        return
    if not from_mean:
        raise ConfigError(
            f"the strategy {study.aggregation.strategy} compares or weighs single updates, which nobody sees "
            "under secure aggregation",
            where="study: aggregation.strategy, with secure_aggregation",
            remedy="use fedavg, fedprox, fedbn, fedavgm, fedadagrad, fedadam or fedyogi",
        )
    if study.exchange.precision != "fp32":
        raise ConfigError(
            f"updates in {study.exchange.precision} cannot be summed in secret",
            where="study: exchange.precision, with secure_aggregation",
            remedy="set it to fp32: masked updates have 4 bytes a value in any case",
        )
    if study.reply_bounds.maximum_update_norm is not None:
        raise ConfigError(
            "a bound on the norm of single updates cannot be checked where nobody sees them",
            where="study: reply_bounds.maximum_update_norm, with secure_aggregation",
            remedy="remove it; secure_aggregation.largest_update bounds each value at the sites",
        )
    if any(not isinstance(task, GradientTask | ClosedFormTask) for task in tasks):
        names = ", ".join(t.name for t in tasks if not isinstance(t, GradientTask | ClosedFormTask))
        raise ConfigError(
            f"task {names} reads its counts site by site",
            where="study: phases, with secure_aggregation",
            remedy="leave the phase out",
        )
    if study.sites.minimum < study.secure_aggregation.threshold:
        raise ConfigError(
            f"a round may have {study.sites.minimum} sites, but no sum of fewer than "
            f"{study.secure_aggregation.threshold} is opened",
            where="study: sites.minimum",
            remedy=f"set it to {study.secure_aggregation.threshold} or more",
        )
