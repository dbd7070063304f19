"""A small consortium on disk, made once a session: two paired hospitals and one with ECG only.

One of the paired ones also has the short axis, so that studies of either generation run on it.
"""

import functools
import json
import math
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from flwr.app import Message
from flwr.clientapp import ClientApp

from cardionets_core import tasks
from cardionets_core.config.site import read_site
from cardionets_core.config.study import Study, study_from_json
from cardionets_core.data.cohort import Cohort
from cardionets_core.data.prepare import prepare
from cardionets_core.exchange.messages import (
    MEASURED,
    Order,
    PackedModule,
    Reply,
    order_from_envelope,
    reply_to_envelope,
)
from cardionets_core.exchange.tensors import Layout, module_digest
from cardionets_core.tasks.expected_sums import ExpectedSums, expected_sums
from cardionets_core.training.seeds import derive_seed
from server import gather
from server.records import from_records, to_records
from simulation.make import make_hospitals
from simulation.scenario import Scenario

SCANNER = {"spacing_mm": 2.2, "pixels": 80, "frames": 20}
SMALL = {"repeat_share": 0.2, "split": {"validation": 0.2, "test": 0.3}}
POLICY = {"minimum_patients": 5, "minimum_cell": 1}
VIEWS = ["4ch", "sax"]
GENERATIONS = ("cardionets", "cardiacnets")


@dataclass(frozen=True)
class Consortium:
    """Where the hospitals lie, and their opened caches."""

    paths: dict[str, Path]
    cohorts: dict[str, Cohort]


def forget_orders(paths: Iterable[Path]) -> None:
    """Let sites forget what they answered and hold: the next order is worked on, not looked up."""
    for path in paths:
        for name in ("replies", "trained", "frozen"):
            shutil.rmtree(path.parent / "state" / name, ignore_errors=True)


SHARED: list[Path] = []


@pytest.fixture(autouse=True, scope="module")
def _fresh_module() -> None:
    forget_orders(SHARED)


@pytest.fixture(autouse=True)
def _fresh_sites() -> None:
    """No test is answered with what another one asked for."""
    forget_orders(SHARED)


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch) -> None:
    """Attempts follow each other at once; a test of the pauses sets its own."""
    monkeypatch.setattr(gather, "FIRST_PAUSE_S", 0.001)


@pytest.fixture(scope="session")
def consortium(tmp_path_factory) -> Consortium:
    hospitals = [
        {"site": "alpha", "layout": "local_wfdb", "patients": 22, "scanner": SCANNER, "views": VIEWS},
        {"site": "beta", "layout": "mimic_iv_ecg", "patients": 16},
        {
            "site": "gamma",
            "layout": "local_csv",
            "patients": 22,
            "scanner": SCANNER,
            "cart": {"rate_hz": 250, "lowpass_hz": 100},
        },
    ]
    content = {
        "name": "tiny",
        "seed": 3,
        "hospitals": [{**hospital, **SMALL, "policy": POLICY} for hospital in hospitals],
        "study": small_study().model_dump(mode="json"),
    }
    folder = tmp_path_factory.mktemp("consortium")
    made = make_hospitals(Scenario.model_validate(content), folder, workers=1)
    SHARED.extend(made)
    return Consortium(
        paths={path.parent.name: path for path in made},
        cohorts={path.parent.name: prepare(read_site(path)) for path in made},
    )


@pytest.fixture
def hospitals(consortium, tmp_path):
    """Copies of the hospitals, whose state a test may see begin."""
    found = {}
    for name, path in consortium.paths.items():
        folder = tmp_path / "hospitals" / name
        shutil.copytree(path.parent, folder, copy_function=shutil.copy2)
        shutil.rmtree(folder / "state", ignore_errors=True)
        found[name] = folder / "site.yaml"
    return found


def small_study(**changes) -> Study:
    """All four phases in a few steps."""
    optimiser = {"lr": 1e-3}
    phase = {"rounds": 2, "local_epochs": 1, "batch_size": 8, "optimiser": optimiser}
    content = {
        "name": "tiny",
        "seed": 5,
        "sites": {"minimum": 2, "deadline_s": 60, "attempts": 2},
        "phases": [
            {"task": "cmr_mae", **phase},
            {"task": "ecg_mae", **phase},
            {"task": "align", **phase},
            {"task": "probe", "rounds": 1, "options": {"bootstrap_replicates": 50}},
        ],
    }
    return Study.model_validate({**content, **changes})


@pytest.fixture(scope="session")
def study() -> Study:
    return small_study()


@pytest.fixture(scope="session", params=GENERATIONS)
def in_either_generation(request) -> Study:
    """The same study in either generation of the method."""
    return small_study(generation=request.param)


@pytest.fixture(params=GENERATIONS)
def generation(request) -> str:
    """Either generation of the method."""
    return request.param


@functools.lru_cache
def task_of(study_json: str, phase: int):
    study = Study.model_validate_json(study_json)
    return tasks.task_of(study.phases[phase], study)


class FakeSite:
    """A site without data: it answers any order at once, with tensors that follow from the order alone.

    What it holds, and what it was asked, stays with it as long as the test: as on a real site, the same
    order gets the same reply.
    """

    def __init__(self, name: str, *, role: str = "member") -> None:
        self.name = name
        self.role = role
        self.held: dict[str, np.ndarray] = {}
        self.asked: list[Order] = []
        self.received: list[tuple[str, str]] = []
        self.trained = 0
        self.code_of: dict[str, str] = {}
        """Kind of order to the code with which it is refused."""

    def app(self) -> ClientApp:
        made = ClientApp()
        for decorate in (made.query("census"), made.query("statistics"), made.train(), made.evaluate()):
            decorate(lambda message, context: self.reply(message))
        return made

    def reply(self, message: Message) -> Message:
        order = order_from_envelope(from_records(message.content))
        self.asked.append(order)
        reply = Reply(site=self.name, name=order.name, code=self.code_of.get(order.kind, ""))
        if not reply.code:
            reply = self.answer(order)
        return Message(to_records(reply_to_envelope(reply)), reply_to=message)

    def asked_for(self, kind: str) -> list[tuple[int, int, int]]:
        """Phase, round and attempt of each order of a kind."""
        found = [order.name for order in self.asked if order.kind == kind]
        return [(name.phase, name.round, name.attempt) for name in found]

    def answer(self, order: Order) -> Reply:
        if order.kind == "census":
            facts = {"role": self.role, "holds": sorted(self.held), "patients": {"train": 30}}
            return Reply(site=self.name, name=order.name, facts=json.dumps(facts))
        study = study_from_json(order.study_json, digest=order.name.study_digest)
        task = task_of(order.study_json, order.name.phase)
        expected = expected_sums(study.models)
        try:
            modules = self.modules(order)
        except KeyError:
            return Reply(site=self.name, name=order.name, code="frozen-module-missing")
        if order.kind == "evaluate":
            return Reply(site=self.name, name=order.name, sums=self.sums(task, expected, modules))
        if order.kind == "statistics":
            sums = {name: np.ones(shape) for name, shape in expected.of_statistics(task).items()}
            return Reply(site=self.name, name=order.name, sums=sums)
        self.trained += 1
        shift = sum(float(value.sum()) for value in order.shared.values()) * 1e-6
        trained = {}
        for name in task.trains:
            seed = derive_seed(self.name, name, order.name.phase, order.name.round)
            step = np.random.default_rng(seed).normal(size=modules[name].size) * 1e-3 + shift
            layout = (
                order.modules[name].layout if name in order.modules else self.layouts[order.trained[name]]
            )
            trained[name] = PackedModule(layout=layout, values=(modules[name] + step).astype(np.float32))
        before = self.sums(task, expected, modules) if order.measure else {}
        return Reply(
            site=self.name,
            name=order.name,
            modules=trained,
            samples=dict.fromkeys(trained, 10 + len(self.name)),
            sums={MEASURED + name: value for name, value in before.items()},
            values={"loss": 1.0 / order.name.round, "steps": 3.0},
        )

    layouts: ClassVar[dict[str, Layout]] = {}

    def modules(self, order: Order) -> dict[str, np.ndarray]:
        for packed, digests in ((order.modules, order.trained), (order.frozen_modules, order.frozen)):
            for name, module in packed.items():
                assert module_digest(module.layout, module.values) == digests[name]
                self.received.append((name, digests[name]))
                self.held[digests[name]] = module.values
                self.layouts[digests[name]] = module.layout
        return {name: self.held[digest] for name, digest in {**order.trained, **order.frozen}.items()}

    def sums(self, task, expected: ExpectedSums, modules: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Seven patients, with metrics that depend on the model and on the site."""
        value = float(np.mean([np.abs(values).mean() for values in modules.values()])) + len(self.name)
        found = {
            name: np.full(shape, value / math.prod(shape))
            for name, shape in expected.of_metrics(task).items()
        }
        return {**found, "n_rows": np.array([7.0]), "n_patients": np.array([7.0])}


@pytest.fixture
def fake_sites():
    """Makes sites without data, by name."""
    return lambda *names, **options: {name: FakeSite(name, **options) for name in names}


@pytest.fixture
def quick() -> Study:
    """Three rounds of one task."""
    return quick_study()


def quick_study(**changes) -> Study:
    phase = {"task": "ecg_mae", "rounds": 3, "local_steps": 2, "batch_size": 4, "optimiser": {"lr": 1e-3}}
    content = {
        "name": "quick",
        "seed": 11,
        "sites": {"minimum": 2, "deadline_s": 20, "attempts": 2},
        "phases": [phase],
    }
    return Study.model_validate({**content, **changes})
