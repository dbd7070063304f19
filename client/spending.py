"""What a private study spends at this site, before its first step and after its last (row 7 of the walk).

Comes in: an order that is opened. Goes out: private steps or sums whose cost is reserved, and a commit once
their result is ready. A round that would pass a limit is refused before it begins. Knows neither the gate nor
the wire.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cardionets_core.audit import journal
from cardionets_core.audit.journal import bodies
from cardionets_core.config.site import SiteConfig
from cardionets_core.config.study import Study
from cardionets_core.durable import on_disk
from cardionets_core.errors import DataError, PhaseNotPermittedError
from cardionets_core.exchange.messages import RoundName
from cardionets_core.privacy.accountant import Accountant, Part
from cardionets_core.privacy.ledger import Ledger, Limit
from cardionets_core.privacy.ledger_lines import Charge, Entry
from cardionets_core.privacy.noise import SecretRandomness, public_key_of
from cardionets_core.tasks import Task, task_of
from cardionets_core.tasks.shapes import shape_of
from cardionets_core.training.private import PrivateSteps
from cardionets_core.training.private_plan import check_private, noise_of, phase_costs, round_part
from client.heads import Facts
from client.journal import JOURNAL, mend
from client.site import Site, serving_role

LEDGER = "ledger.db"
STATED = "study: privacy.epsilon"
SPENT = "privacy-spent"
"""Event of the journal's line that names the ledger's head, so that a ledger that was lost shows."""


class Spending:
    """The cost of one answer in a private study.

    Args:
        site: that answers.
        study: with ``dp_sgd``, which the site's policy lets in.
        name: of the round.
        seed: of the round at this site, for noise that is not to be secret.

    Raises:
        ConfigError: a part of the study cannot be made private.
        DataError: the ledger is not the one that the journal names.
    """

    def __init__(self, site: Site, study: Study, *, name: RoundName, seed: int) -> None:
        self._tasks = [task_of(phase, study) for phase in study.phases]
        check_private(study, self._tasks)
        self._site = site
        self._study = study
        self._name = name
        self._seed = seed
        with on_disk(site.config.folders.state, keeps="nothing was spent"):
            mend(site.config.folders.state / JOURNAL)
        check_ledger(site.config)
        self._ledger = open_ledger(site.config, accountant=study.privacy.accountant)
        self._reservation = ""

    def steps(self, task: Task) -> PrivateSteps:
        """Reserve what a round of steps costs, and give the steps.

        Raises:
            BudgetSpentError: a limit would be passed; no step has been made.
        """
        part = self._part(task)
        noise = self._reserve(task, part, "train")
        return PrivateSteps(
            noise_multiplier=noise, clip_norm=self._study.privacy.clip_norm, randomness=self._randomness()
        )

    def sums(self, task: Task) -> tuple[float, SecretRandomness]:
        """Reserve what a release of sums costs; gives its noise multiplier, and where noise comes from.

        Raises:
            BudgetSpentError: a limit would be passed; nothing has been added up.
        """
        return self._reserve(task, self._part(task), "sums"), self._randomness()

    def commit(self) -> None:
        """What was reserved is ready to leave; the journal is told of the ledger's head."""
        self._ledger.commit(self._reservation)
        lines, head = self._ledger.head()
        state, name = self._site.config.folders.state, self._name
        with on_disk(state, keeps="nothing left the site"):
            mend(state / JOURNAL)
            facts: Facts = {"study": name.study_digest, "phase": name.phase, "round": name.round}
            facts |= {"ledger_lines": lines, "ledger_head": head}
            journal.append(state / JOURNAL, SPENT, facts)

    def _reserve(self, task: Task, part: Part, kind: str) -> float:
        base = self._noise()
        mechanism = part.with_noise(base)
        charge = Charge(
            study=self._study.digest,
            name=self._study.name,
            phase=self._name.phase,
            task=task.name,
            round=self._name.round,
            part=kind,
            mechanism=mechanism,
            is_secret=not self._study.privacy.deterministic,
        )
        self._reservation = self._ledger.reserve(charge, limits_of(self._study, self._site.config))
        return mechanism.noise_multiplier

    def _noise(self) -> float:
        """The study's noise at this site: that of its earlier rounds, or what keeps its epsilon."""
        patients = [self._patients(task) for task in self._tasks]
        return noise_here(self._study, self._tasks, patients, self._ledger.entries())

    def _part(self, task: Task) -> Part:
        return round_part(task, self._study.phases[self._name.phase], patients=self._patients(task) or 1)

    def _patients(self, task: Task) -> int | None:
        return serving_patients(self._site, task, self._study)

    def _randomness(self) -> SecretRandomness:
        key = public_key_of(self._seed, "private") if self._study.privacy.deterministic else None
        return SecretRandomness(key)


def noise_here(
    study: Study, tasks: Sequence[Task], patients: Sequence[int | None], entries: Sequence[Entry]
) -> float:
    """A study's noise at a site: that of its earlier rounds there, or what keeps its epsilon.

    Args:
        study: with ``dp_sgd``.
        tasks: of its phases.
        patients: how many training patients serve each phase; None where the site sits it out.
        entries: of the site's ledger.

    Raises:
        ConfigError: no noise keeps the epsilon.
    """
    for entry in entries:
        charge = entry.charge
        if charge.study == study.digest:
            count = patients[charge.phase] or 1
            part = round_part(tasks[charge.phase], study.phases[charge.phase], patients=count)
            return charge.mechanism.noise_multiplier / part.scale
    return noise_of(study, phase_costs(study, tasks, patients=patients))


def serving_patients(site: Site, task: Task, study: Study) -> int | None:
    """Training patients of the site who serve a phase; None where it sits the phase out."""
    shape = shape_of(study.models)
    try:
        role = serving_role(site, task, shape)
    except (DataError, PhaseNotPermittedError):
        return None
    return site.cohort.patients(site.cohort.rows(role.row_needs, "train", shape))


def limits_of(study: Study, config: SiteConfig) -> list[Limit]:
    """What this round may not pass: the site's limit for everything, and the study's own."""
    policy, asked = config.policy.privacy, study.privacy
    limits = [
        Limit(
            epsilon=policy.maximum_epsilon,
            delta=policy.maximum_delta,
            where="site.yaml: policy.privacy.maximum_epsilon",
        )
    ]
    if asked.epsilon is not None:
        limits.append(Limit(epsilon=asked.epsilon, delta=asked.delta, where=STATED, study=study.digest))
    return limits


def ledger_path(config: SiteConfig) -> Path:
    """Where a site's ledger lies."""
    return config.folders.state / LEDGER


def check_ledger(config: SiteConfig) -> None:
    """Compare the ledger with the journal, which names its head at every release.

    Raises:
        DataError: the ledger was lost, replaced or put back to an earlier state.
    """
    path = config.folders.state / JOURNAL
    told = [body for body in bodies(path) if body.get("event") == SPENT] if path.exists() else []
    if not told:
        return
    lines, head = told[-1].get("ledger_lines"), told[-1].get("ledger_head")
    there = ledger_path(config).exists()
    if not there or type(lines) is not int or open_ledger(config).hash_of(lines) != head:
        raise DataError(
            f"the ledger is not the one that the journal names: it lacks line {lines}, or has another there",
            where=str(ledger_path(config)),
            remedy="restore the latest backup of the ledger; a new one would forget what was spent",
        )


def open_ledger(config: SiteConfig, *, accountant: Accountant = "prv") -> Ledger:
    """The site's ledger, made where it is absent."""
    return Ledger(ledger_path(config), accountant=accountant)
