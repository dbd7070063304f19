"""One round of a study on the site's own data, answered as ever and sent to nobody (rows 0 to 10, rehearsed).

Comes in: the site's document, a study, a phase. Goes out: every reply that the coordinator would have got, in
the order in which it asks. Orders are made as the server makes them, with first weights from the
study's seed. The site's journal, optimiser states and kept replies are not touched: a scratch folder stands
in for them. The code that runs is the installed one, not that of a bundle.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cardionets_core.config.site import SiteConfig, read_site
from cardionets_core.config.study import Study
from cardionets_core.errors import CardioNetsError, UsageError
from cardionets_core.exchange.messages import Kind, Order, PackedModule, Reply, RoundName, reply_to_envelope
from cardionets_core.exchange.tensors import layout_of, module_digest, pack
from cardionets_core.exchange.updates import from_update
from cardionets_core.models import build_module
from cardionets_core.tasks import ClosedFormTask, GradientTask, MeasureTask, Task, task_of
from cardionets_core.training.controls import TAKEN, taken
from cardionets_core.training.local_rule import LocalRule, local_rule
from cardionets_core.training.seeds import derive_seed
from client.journal import JOURNAL
from client.modules import pack_module
from client.round import answer

Split = Literal["validation", "test"]
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """What would leave in answer to one order.

    Attributes:
        kind: of the order.
        split: which held-out patients an ``evaluate`` order measures; empty elsewhere.
        reply: what would leave; None where only a code would.
        error: the refusal; its code would leave, its text would not.
        patients: people behind the reply, as the gate counted them.
    """

    kind: Kind
    split: str = ""
    reply: Reply | None = None
    error: CardioNetsError | None = None
    patients: int = 0


@dataclass(kw_only=True)
class Rehearsal:
    """One phase of a study, rehearsed on one site.

    Args:
        config: of the site.
        study: whole.
        phase: index, from 0.
        scratch: an empty folder of this account's own; holds states and replies while it lasts.
        tell: called with a line before each order.

    Raises:
        UsageError: the study has no such phase.
        ConfigError: the study names a task or option that this CardioNets does not have.
    """

    config: SiteConfig
    study: Study
    phase: int
    scratch: Path
    tell: Tell = lambda line: None
    task: Task = field(init=False)
    rule: LocalRule = field(init=False)
    masked: bool = field(init=False)
    modules: dict[str, PackedModule] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 <= self.phase < len(self.study.phases):
            raise UsageError(
                f"the study has {len(self.study.phases)} phase(s)", where="--phase", remedy="count from 1"
            )
        # What would be masked is shown as it is before that: masked, it would look like chance.
        self.masked = self.study.secure_aggregation is not None
        self.study = self.study.model_copy(update={"secure_aggregation": None})
        asked = self.study.phases[self.phase]
        self.task, self.rule = task_of(asked, self.study), local_rule(self.study)
        for name in (*self.task.trains, *self.task.reads):
            seed = derive_seed(self.study.seed, "initial", name)
            self.modules[name] = pack_module(build_module(name, self.study.models, seed=seed))

    def run(self) -> Iterator[Left]:
        """Answer census, statistics, training and measurements; each answer as it is ready."""
        site_path = self._scratch_site()
        census = self._answer("census", site_path)
        yield census
        if census.reply is None:
            return
        shared: dict[str, np.ndarray] = {}
        external = self.config.policy.role == "external"
        if not external and isinstance(self.task, GradientTask) and self.task.shares:
            left = self._answer("statistics", site_path)
            yield left
            shared = dict(left.reply.sums) if left.reply else {}
        if not external and not isinstance(self.task, MeasureTask):
            left = self._answer("train", site_path, shared=shared)
            yield left
            self._step(left.reply)
        if self.study.privacy.mechanism != "none":
            # Nobody is asked to measure: exact sums would not leave.
            return
        splits: tuple[Split, ...] = ("validation", "test")
        for split in splits[1:] if external or isinstance(self.task, MeasureTask) else splits:
            yield self._answer("evaluate", site_path, split=split)

    def _answer(
        self,
        kind: Kind,
        site_path: Path,
        *,
        shared: Mapping[str, np.ndarray] | None = None,
        split: Split = "validation",
    ) -> Left:
        shown = split if kind == "evaluate" else ""
        self.tell(f"answering {kind}{f' on {split} patients' if shown else ''}")
        order = self._order(kind, shared=shared or {}, split=split)
        try:
            reply = answer(order, site_path=site_path)
        except CardioNetsError as error:
            return Left(kind=kind, split=shown, error=self._at_home(error))
        return Left(kind=kind, split=shown, reply=reply, patients=self._patients())

    def _order(self, kind: Kind, *, shared: Mapping[str, np.ndarray], split: Split) -> Order:
        name = RoundName(
            study_digest=self.study.digest, phase=self.phase, round=0 if kind == "census" else 1, attempt=1
        )
        if kind == "census":
            return Order(kind=kind, name=name, study_json=self.study.to_json())
        frozen = {module: self.modules[module] for module in self.task.reads}
        modules = {module: self.modules[module] for module in self.task.trains}
        extras = self.rule.extras_of(self.task) if kind == "train" else ()
        if extras:
            # What a strategy sends beside the modules is zero before it remembers anything.
            modules |= {extra: _zero(modules[extra.partition(".")[0]]) for extra in extras}
        if kind == "train" and self.rule.hears_of_taken(self.task):
            shared = {**shared, TAKEN: taken()}
        return Order(
            kind=kind,
            name=name,
            study_json=self.study.to_json(),
            modules=modules,
            frozen={name: module_digest(module.layout, module.values) for name, module in frozen.items()},
            frozen_modules=frozen,
            shared=shared,
            split=split,
        )

    def _at_home(self, error: CardioNetsError) -> CardioNetsError:
        """The refusal with the site's own folders in the place of those that stand in for them."""
        for name in ("cache", "state"):
            stand_in, own = str(self.scratch / name), str(getattr(self.config.folders, name))
            error.where = error.where.replace(stand_in, own)
            error.what = error.what.replace(stand_in, own)
        return error

    def _step(self, reply: Reply | None) -> None:
        """The next model of a consortium of this one site, for it to be measured."""
        if reply is None:
            return
        for module in reply.samples:
            came = reply.modules[module]
            coded = came.form != "fp32"
            self.modules[module] = from_update(came, self.modules[module].values) if coded else came
        if isinstance(self.task, ClosedFormTask):
            (module,) = self.task.trains
            names = self.modules[module].layout.names
            solved = self.task.solve(reply.sums)
            tensors = {name: np.asarray(solved[name], dtype=np.float32) for name in names}
            self.modules[module] = PackedModule(layout=layout_of(tensors), values=pack(tensors))

    def _patients(self) -> int:
        path = self.scratch / "state" / JOURNAL
        return int(
            json.loads(path.read_text(encoding="utf-8").splitlines()[-1].partition(" ")[2])["patients"]
        )

    def _scratch_site(self) -> Path:
        """The site's document with another state folder, and its cache without what is derived of it."""
        cache = self.scratch / "cache"
        cache.mkdir()
        if self.config.folders.cache.is_dir():
            for path in self.config.folders.cache.iterdir():
                if path.name != "derived":
                    (cache / path.name).symlink_to(path)
        folders = self.config.folders.model_copy(update={"state": self.scratch / "state", "cache": cache})
        document = self.config.model_copy(update={"folders": folders})
        path = self.scratch / "site.yaml"
        # JSON is YAML too.
        path.write_text(json.dumps(document.model_dump(mode="json", exclude_none=True)), encoding="utf-8")
        return path


def rehearsal_of(site_path: Path, study: Study, *, phase: int, scratch: Path, tell: Tell) -> Rehearsal:
    """A rehearsal of one phase.

    Args:
        site_path: of ``site.yaml``.
        study: whole.
        phase: index, from 0.
        scratch: an empty folder of this account's own.
        tell: called with a line before each order.

    Raises:
        ConfigError: the site's document or the study is wrong.
        UsageError: the study has no such phase.
    """
    return Rehearsal(config=read_site(site_path), study=study, phase=phase, scratch=scratch, tell=tell)


def _zero(module: PackedModule) -> PackedModule:
    return PackedModule(layout=module.layout, values=np.zeros_like(module.values))


def left_facts(left: Left) -> dict[str, Any]:
    """Every field and every array that would leave, JSON-ready."""
    facts: dict[str, Any] = {"kind": left.kind, "split": left.split, "patients": left.patients}
    if left.error is not None:
        return {**facts, "code": left.error.code, "bytes": 0, "fields": {}, "arrays": []}
    assert left.reply is not None  # one of the two is there
    envelope = reply_to_envelope(left.reply)
    return {
        **facts,
        "code": "",
        "bytes": envelope.nbytes,
        "fields": dict(envelope.fields),
        "arrays": [_array_facts(name, value) for name, value in envelope.arrays.items()],
    }


def _array_facts(name: str, value: np.ndarray) -> dict[str, Any]:
    plain = np.ascontiguousarray(value)
    numbers = plain.astype(np.float64).reshape(-1)
    return {
        "name": name,
        "shape": list(value.shape),
        "dtype": str(value.dtype),
        "bytes": value.nbytes,
        "sha256": hashlib.sha256(plain.tobytes()).hexdigest(),
        "minimum": float(numbers.min()) if numbers.size else 0.0,
        "maximum": float(numbers.max()) if numbers.size else 0.0,
        "norm": float(np.linalg.norm(numbers)),
    }
