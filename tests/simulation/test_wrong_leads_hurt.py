"""Wrong leads lower R2 and AUROC (SCIENCE 8.19); that `check` and `prepare` say so is in test_lead_faults.

Two sound hospitals fit a probe and a screening head on frozen features; a third is measured with its right
leads and, on the same recordings, with those of a faulty cart. The encoder's weights are random but large, so
that its features depend on which lead shows what; lead vectors of SD 0.02, with which the presets begin, hardly
count in a mean over leads before a long training.
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
from cardionets_core.models.ecg_encoder import EcgEncoder
from cardionets_core.models.heads import ScreeningHead
from cardionets_core.models.solved import ScreeningPrior
from cardionets_core.tasks import SiteView, make_task
from cardionets_core.training.local import train_locally
from cardionets_core.training.tensors import export_tensors, load_tensors
from simulation.electrocardiogram import draw_ecg
from simulation.hearts import Heart, draw_heart
from simulation.machines import Cart

WIDTH, SAMPLES = 256, 750
SHAPE = InputShape(ecg_samples=SAMPLES, cine_frames=8, cine_pixels=32)
CART = Cart(rate_hz=250, lowpass_hz=100)
COLUMNS = {6: "rv_end_diastolic_ml", 9: "rv_ejection_fraction", 14: "ra_max_ml"}
PH = DISEASES.index("ph")
REPLICATES = 200
SITES, TESTED = 140, 180


def draw_people(count: int, *, seed: int) -> tuple[list[Heart], list[EcgRecord]]:
    """Hearts, half of them with pulmonary hypertension, which turns the axis, and five seconds of each."""
    hearts, records = [], []
    for person in range(count):
        rng = np.random.default_rng([seed, person])
        hearts.append(draw_heart(rng, prevalence={"ph": 0.5}))
        records.append(draw_ecg(hearts[-1], CART, rng, seconds=5.0))
    return hearts, records


def with_fault(record: EcgRecord, fault: str) -> EcgRecord:
    """What the cart of ``Cart.leads`` would have written of the same beats."""
    if fault == "shuffled":
        return replace(record, leads=tuple(sorted(LEADS)))
    one, two, three, avr, avl = record.signal_mv[:5]
    return replace(record, signal_mv=np.stack([-one, three, two, avl, avr, *record.signal_mv[5:]]))


def make_cohort(site: str, hearts: list[Heart], records: list[EcgRecord], *, split: np.ndarray) -> Cohort:
    """One window of each recording, ordered by name and filtered, but not judged: a shuffled one is refused."""
    rows = len(hearts)
    signal = [filter_ecg(resample_ecg(order_leads(r)[0], r.fs_hz))[:, 250 : 250 + SAMPLES] for r in records]
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


def view(cohort: Cohort) -> SiteView:
    return SiteView(cohort=cohort, shape=SHAPE, device=torch.device("cpu"))


def make_encoder(lead_sd: float) -> EcgEncoder:
    """Random features: unit gain in every layer, and lead vectors of their own size."""
    draw = torch.Generator().manual_seed(0)
    encoder = EcgEncoder(leads=12, patch=75, patches=SAMPLES // 75, width=WIDTH, depth=1, heads=4)
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if name == "lead":
                parameter.copy_(lead_sd * torch.randn(parameter.shape, generator=draw))
            elif parameter.dim() == 2 and name != "position":
                parameter.copy_(
                    torch.randn(parameter.shape, generator=draw) * 2.0 / parameter.shape[1] ** 0.5
                )
    return encoder


class Fitted:
    """A probe and a screening head that two sound hospitals fitted together."""

    def __init__(self, sites: list[Cohort], *, lead_sd: float) -> None:
        self.probe = make_task("probe", {"bootstrap_replicates": REPLICATES})
        self.screening = make_task("screening", {"windows": "mean", "bootstrap_replicates": REPLICATES})
        torch.manual_seed(0)
        self.modules = {
            "ecg_encoder": make_encoder(lead_sd),
            "phenotype_probe": torch.nn.Linear(WIDTH, 82),
            "screening_head": ScreeningHead(WIDTH),
            "screening_prior": ScreeningPrior(5, 3),
        }
        views = {cohort.site: view(cohort) for cohort in sites}
        for task, module in (
            (self.probe, "phenotype_probe"),
            (make_task("prevalence", {}), "screening_prior"),
        ):
            sums = {site: task.sums(self.modules, seen) for site, seen in views.items()}
            load_tensors(self.modules[module], task.solve(add_sums(sums)))
        self._train_head(views)

    def _train_head(self, views: dict[str, SiteView]) -> None:
        phase = Phase(
            task="screening", rounds=3, local_steps=150, batch_size=64,
            optimiser=Optimiser(lr=3e-2, weight_decay=0.0, schedule="constant"),
        )  # fmt: skip
        for number in range(1, phase.rounds + 1):
            start, ends, rows = export_tensors(self.modules["screening_head"]), [], []
            for seen in views.values():
                load_tensors(self.modules["screening_head"], start)
                result = train_locally(
                    self.screening, self.modules, seen, phase=phase, round_index=number, seed=0
                )
                ends.append(export_tensors(self.modules["screening_head"]))
                rows.append(result.samples)
            mean = {name: np.average([end[name] for end in ends], axis=0, weights=rows) for name in start}
            load_tensors(self.modules["screening_head"], {n: v.astype(np.float32) for n, v in mean.items()})

    def measure(self, cohort: Cohort) -> dict[str, tuple[float, np.ndarray]]:
        """Metric to its value and its replicates, which are of the same people for the same site."""
        found = {}
        for task in (self.probe, self.screening):
            sums = task.metric_sums(self.modules, view(cohort), split="test", seed=0)
            found[task.primary] = task.metrics(sums)[task.primary], task.replicates(sums)
        return found


@pytest.fixture(scope="module")
def measured() -> dict[str, dict[str, tuple[float, np.ndarray]]]:
    """Fault to metric to value and replicates, all of the same people of the third hospital."""
    sites = [
        make_cohort(site, *draw_people(SITES, seed=seed), split=np.arange(SITES) % 5 == 0)
        for seed, site in enumerate("ab")
    ]
    fitted = Fitted(sites, lead_sd=2.0)
    hearts, records = draw_people(TESTED, seed=2)
    held_out = np.full(TESTED, 2)
    found = {"right": fitted.measure(make_cohort("c", hearts, records, split=held_out))}
    for fault in ("shuffled", "arms-swapped"):
        wrong = [with_fault(record, fault) for record in records]
        found[fault] = fitted.measure(make_cohort("c", hearts, wrong, split=held_out))
    return found


def test_right_leads_show_the_heart(measured):
    (r2, _), (auroc, replicates) = measured["right"]["r2_mean"], measured["right"]["auroc_mean"]
    assert r2 > 0.05 and auroc > 0.65
    assert np.percentile(replicates, 2.5) > 0.5


@pytest.mark.parametrize("metric", ["r2_mean", "auroc_mean"])
@pytest.mark.parametrize("fault", ["shuffled", "arms-swapped"])
def test_wrong_leads_lower_it_on_the_same_people(measured, fault, metric):
    (right, of_right), (wrong, of_wrong) = measured["right"][metric], measured[fault][metric]
    assert right - wrong > 0.05
    assert np.percentile(of_right - of_wrong, 0.5) > 0.0, "paired over people, it cannot be chance"


@pytest.mark.parametrize("fault", ["shuffled", "arms-swapped"])
def test_the_fault_is_that_of_the_cart(fault):
    heart = draw_heart(np.random.default_rng(0), prevalence={"ph": 0.5})
    of_cart, right = (
        draw_ecg(heart, CART.model_copy(update={"leads": leads}), np.random.default_rng(1), seconds=5.0)
        for leads in (fault, "right")
    )
    wrong = with_fault(right, fault)
    assert wrong.leads == of_cart.leads
    np.testing.assert_allclose(wrong.signal_mv, of_cart.signal_mv, atol=1e-6)


def test_an_encoder_without_lead_vectors_would_be_blind_to_a_shuffle():
    ecg = torch.randn(3, 12, SAMPLES, generator=torch.Generator().manual_seed(1))
    shuffled = ecg[:, [LEADS.index(name) for name in sorted(LEADS)]]
    with torch.no_grad():
        blind, seeing = make_encoder(0.0), make_encoder(2.0)
        assert torch.allclose(blind(ecg), blind(shuffled), atol=1e-4)
        assert not torch.allclose(seeing(ecg), seeing(shuffled), atol=0.1)
