"""Wrong leads lower R2 and AUROC (SCIENCE 8.19); that `check` and `prepare` say so is in test_lead_faults.

Two sound hospitals train an encoder, a screening head and a probe together; a third is measured with its
right leads and, on the same recordings, with those of a faulty cart. The encoder begins with lead vectors of
SD 1: from the SD of 0.02 that the presets begin with, hundreds of steps pass before a mean over leads tells
the leads apart.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from cardionets_core.config.study import Optimiser, Phase
from cardionets_core.data.cohort import Cohort
from cardionets_core.data.leads import order_leads
from cardionets_core.data.records import DISEASES, LEADS, EcgRecord
from cardionets_core.data.signal import filter_ecg, resample_ecg
from cardionets_core.data.windows import InputShape
from cardionets_core.evaluation import add_sums
from cardionets_core.models import build_module
from cardionets_core.tasks import SiteView, make_task
from cardionets_core.training import export_tensors, load_tensors, train_locally
from cardionets_core.training.memory import InProcess
from simulation.electrocardiogram import draw_ecg
from simulation.hearts import Heart, draw_heart
from simulation.machines import Cart

# Windows of 1.5 s are enough for a beat, and quick.
SHAPE = InputShape(ecg_samples=375, cine_frames=8, cine_pixels=32)
CART = Cart(rate_hz=250, lowpass_hz=100)
SAMPLES, SITES, TESTED = 1250, 150, 200
COLUMNS = {6: "rv_end_diastolic_ml", 9: "rv_ejection_fraction", 14: "ra_max_ml"}
PH = DISEASES.index("ph")
FAULTS = ("shuffled", "arms-swapped")

Measured = dict[str, tuple[float, np.ndarray]]
"""Metric to its value and its bootstrap replicates."""


def draw_people(count: int, *, seed: int) -> tuple[list[Heart], list[EcgRecord]]:
    """Hearts, half of them with pulmonary hypertension, which turns the axis, and five seconds of each."""
    hearts, records = [], []
    for person in range(count):
        rng = np.random.default_rng([seed, person])
        hearts.append(draw_heart(rng, prevalence={"ph": 0.5}))
        records.append(draw_ecg(hearts[-1], CART, rng, seconds=5.0))
    return hearts, records


def with_fault(record: EcgRecord, fault: str) -> EcgRecord:
    """What a cart with that fault would have written of the same beats."""
    if fault == "shuffled":
        return replace(record, leads=tuple(sorted(LEADS)))
    one, two, three, avr, avl = record.signal_mv[:5]
    return replace(record, signal_mv=np.stack([-one, three, two, avl, avr, *record.signal_mv[5:]]))


def make_cohort(site: str, hearts: list[Heart], records: list[EcgRecord], *, split: np.ndarray) -> Cohort:
    """Recordings ordered by name and filtered, but not judged: a shuffled one would be refused."""
    rows = len(hearts)
    signal = [filter_ecg(resample_ecg(order_leads(record)[0], record.fs_hz)) for record in records]
    phenotypes = np.full((rows, 82), np.nan, dtype=np.float32)
    diseases = np.full((rows, 8), np.nan, dtype=np.float32)
    diseases[:, PH] = ["ph" in heart.diseases for heart in hearts]
    for column, name in COLUMNS.items():
        phenotypes[:, column] = [getattr(heart, name) for heart in hearts]
    return Cohort(
        site=site,
        digest=site,
        ecg_counts=np.rint(1000 * np.stack(signal)).astype(np.int16).ravel(),
        ecg_offsets=np.arange(rows) * SAMPLES,
        ecg_samples=np.full(rows, SAMPLES),
        cines=np.zeros((0, 50, 96, 96), dtype=np.uint8),
        row_patient=np.arange(rows),
        row_split=split.astype(np.int8),
        row_ecg=np.arange(rows),
        row_cine=np.full(rows, -1),
        phenotypes=phenotypes,
        diseases=diseases,
    )


class Federation:
    """Two sound hospitals; after ``train`` it can be asked what it sees in a third."""

    def __init__(self, cohorts: list[Cohort], *, seed: int) -> None:
        self.views = {cohort.site: self._view(cohort) for cohort in cohorts}
        self.probe = make_task("probe", {"bootstrap_replicates": 200})
        self.screening = make_task("screening", {"train_encoder": True, "bootstrap_replicates": 200})
        names = ("ecg_encoder", "screening_head", "screening_prior", "phenotype_probe")
        self.modules = {name: build_module(name, "nano", seed=seed) for name in names}
        with torch.no_grad():
            self.modules["ecg_encoder"].lead.mul_(50.0)

    def train(self, *, rounds: int) -> None:
        """Rounds of averaging over both sites, between sums for the prior and for the probe."""
        self._solve(make_task("prevalence", {}))
        optimiser = Optimiser(lr=4e-3, weight_decay=0.01, warmup=20, state="persist")
        phase = Phase(task="screening", rounds=rounds, local_steps=20, batch_size=16, optimiser=optimiser)
        memory = {site: InProcess() for site in self.views}
        for number in range(1, rounds + 1):
            start, ends = self._trained(), []
            for site, view in self.views.items():
                self._load(start)
                train_locally(
                    self.screening, self.modules, view, phase=phase, round_index=number, seed=0,
                    memory=memory[site],
                )  # fmt: skip
                ends.append(self._trained())
            one, other = ends
            self._load({m: {k: (v + other[m][k]) / 2 for k, v in part.items()} for m, part in one.items()})
        self._solve(self.probe)

    def measure(self, cohort: Cohort) -> Measured:
        """R2 of the probe and AUROC of the head; replicates draw the same people for the same site."""
        found = {}
        for task in (self.probe, self.screening):
            sums = task.metric_sums(self.modules, self._view(cohort), split="test", seed=0)
            found[task.primary] = task.metrics(sums)[task.primary], task.replicates(sums)
        return found

    def _trained(self) -> dict[str, dict[str, np.ndarray]]:
        return {name: export_tensors(self.modules[name]) for name in self.screening.trains}

    def _load(self, tensors: dict[str, dict[str, np.ndarray]]) -> None:
        for name, values in tensors.items():
            load_tensors(self.modules[name], values)

    def _solve(self, task) -> None:
        sums = {site: task.sums(self.modules, view) for site, view in self.views.items()}
        load_tensors(self.modules[task.trains[0]], task.solve(add_sums(sums)))

    @staticmethod
    def _view(cohort: Cohort) -> SiteView:
        return SiteView(cohort=cohort, shape=SHAPE, device=torch.device("cpu"))


@pytest.fixture(scope="module")
def measured() -> dict[str, Measured]:
    """Right leads and each fault, on the same recordings of the third hospital."""
    fifth = np.arange(SITES) % 5 == 0
    federation = Federation(
        [make_cohort(f"s{seed}", *draw_people(SITES, seed=seed), split=fifth) for seed in (30, 31)], seed=3
    )
    federation.train(rounds=6)
    hearts, records = draw_people(TESTED, seed=32)
    kinds = {"right": records} | {f: [with_fault(record, f) for record in records] for f in FAULTS}
    test = np.full(TESTED, 2)
    return {
        kind: federation.measure(make_cohort("third", hearts, some, split=test))
        for kind, some in kinds.items()
    }


@pytest.mark.slow
def test_right_leads_show_the_heart(measured):
    (r2, of_r2), (auroc, of_auroc) = measured["right"]["r2_mean"], measured["right"]["auroc_mean"]
    assert r2 > 0.1 and np.percentile(of_r2, 2.5) > 0.0
    assert auroc > 0.75 and np.percentile(of_auroc, 2.5) > 0.5


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["r2_mean", "auroc_mean"])
@pytest.mark.parametrize("fault", FAULTS)
def test_wrong_leads_lower_it_on_the_same_people(measured, fault, metric):
    (right, of_right), (wrong, of_wrong) = measured["right"][metric], measured[fault][metric]
    assert right - wrong > 0.03
    assert np.percentile(of_right - of_wrong, 0.5) > 0.0, "paired over people, it cannot be chance"


@pytest.mark.parametrize("fault", FAULTS)
def test_the_fault_is_that_of_the_cart(fault):
    heart = draw_heart(np.random.default_rng(0), prevalence={"ph": 0.5})
    of_cart, right = (
        draw_ecg(heart, CART.model_copy(update={"leads": leads}), np.random.default_rng(1), seconds=5.0)
        for leads in (fault, "right")
    )
    wrong = with_fault(right, fault)
    assert wrong.leads == of_cart.leads
    np.testing.assert_allclose(wrong.signal_mv, of_cart.signal_mv, atol=1e-6)


def test_an_encoder_tells_a_shuffle_by_its_lead_vectors_alone():
    ecg = torch.randn(3, 12, 750, generator=torch.Generator().manual_seed(1))
    shuffled = ecg[:, [LEADS.index(name) for name in sorted(LEADS)]]
    encoder = build_module("ecg_encoder", "nano", seed=0)
    with torch.no_grad():
        assert (encoder(ecg) - encoder(shuffled)).abs().max() > 1e-4
        encoder.lead.zero_()
        torch.testing.assert_close(encoder(ecg), encoder(shuffled), atol=1e-5, rtol=0)
