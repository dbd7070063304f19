"""On simulated hearts alignment raises R2, and a federation beats its best site alone (SCIENCE 8.19).

Two paired hospitals with machines of their own and one with ECGs alone align an ECG encoder to a frozen
tower; a linear probe of phenotypes is measured on people of a fourth. The tower is random: what it tells of a
heart is enough. The scenario `cardionets` shows the same over files, orders and replies, with a trained
tower, and the area of the left ventricle in drawn cines. One to two minutes.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cardionets_core.config.study import Optimiser, Phase
from cardionets_core.data.cine import prepare_cine
from cardionets_core.data.cohort import Cohort
from cardionets_core.data.quality import check_ecg
from cardionets_core.evaluation import add_sums
from cardionets_core.models import build_module
from cardionets_core.tasks import SiteView, make_task
from cardionets_core.tasks.shapes import shape_of
from cardionets_core.training import export_tensors, load_tensors, train_locally
from cardionets_core.training.memory import InProcess
from simulation.cine import draw_cine
from simulation.electrocardiogram import draw_ecg
from simulation.hearts import draw_heart
from simulation.lv_area import train_lv_meter
from simulation.machines import Cart, Scanner
from simulation.phenotypes import measure

PREVALENCE = {"cad": 0.2, "cm": 0.25, "hf": 0.25, "pc": 0.1, "ph": 0.2}
MODULES = ("ecg_encoder", "ecg_projection", "cmr_encoder", "cmr_principal", "phenotype_probe")
ROUNDS, PEOPLE, TESTED = 6, 120, 160
Outcome = tuple[float, np.ndarray]
"""Mean R2 and its bootstrap replicates."""


def make_hospital(
    site: str, people: int, *, seed: int, cart: dict, scanner: dict | None, test: bool = False
) -> Cohort:
    """People with an ECG of six seconds each and, where there is a scanner, a cine and what it measures."""
    ecg, cines = [], []
    phenotypes = np.full((people, 82), np.nan, dtype=np.float32)
    for person in range(people):
        rng = np.random.default_rng([seed, person])
        heart = draw_heart(rng, prevalence=PREVALENCE)
        record = draw_ecg(heart, Cart(rate_hz=250, lowpass_hz=100, **cart), rng, seconds=6.0)
        ecg.append(np.rint(1000 * check_ecg(record).signal_mv).astype(np.int16))
        if scanner is not None:
            drawn = draw_cine(heart, Scanner(frames=20, pixels=80, spacing_mm=2.2, **scanner), rng)
            cines.append(prepare_cine(drawn.stack).pixels)
            for field, value in measure(drawn, heart_rate_bpm=heart.heart_rate_bpm).items():
                phenotypes[person, field - 24100] = value
    number, samples = np.arange(people), ecg[0].shape[1]
    return Cohort(
        site=site,
        digest=site,
        ecg_counts=np.stack(ecg).ravel(),
        ecg_offsets=number * samples,
        ecg_samples=np.full(people, samples),
        cines=np.stack(cines) if cines else np.zeros((0, 50, 96, 96), dtype=np.uint8),
        row_patient=number,
        row_split=(np.full(people, 2) if test else (number % 6 == 0)).astype(np.int8),
        row_ecg=number,
        row_cine=number if cines else np.full(people, -1),
        phenotypes=phenotypes,
        diseases=np.full((people, 8), np.nan, dtype=np.float32),
    )


def view(cohort: Cohort) -> SiteView:
    return SiteView(cohort=cohort, shape=shape_of("nano"), device=torch.device("cpu"))


def train(members: list[Cohort], outside: Cohort) -> tuple[Outcome, Outcome]:
    """What the members' probe reaches outside, before and after they align the encoder together."""
    modules = {name: build_module(name, "nano", seed=1) for name in MODULES}
    views = {cohort.site: view(cohort) for cohort in members}
    paired = {site: seen for site, seen in views.items() if len(seen.cohort.cines)}
    probe = make_task("probe", {"bootstrap_replicates": 200})

    def solve(task) -> None:
        sums = {site: task.sums(modules, seen) for site, seen in paired.items()}
        load_tensors(modules[task.trains[0]], task.solve(add_sums(sums)))

    def probed() -> Outcome:
        solve(probe)
        sums = probe.metric_sums(modules, view(outside), split="test", seed=0)
        return probe.metrics(sums)["r2_mean"], probe.replicates(sums)

    unaligned = probed()
    solve(make_task("principal", {}))
    align = make_task("align", {"loss": "cosine"})
    optimiser = Optimiser(lr=3e-3, weight_decay=0.05, warmup=20, betas=(0.9, 0.999), state="persist")
    phase = Phase(task="align", rounds=ROUNDS, local_steps=20, batch_size=16, optimiser=optimiser)
    memory = {site: InProcess() for site in views}
    for number in range(1, ROUNDS + 1):
        start = {name: export_tensors(modules[name]) for name in align.trains}
        replies: dict[str, list[tuple[float, dict[str, np.ndarray]]]] = {name: [] for name in start}
        for site, seen in views.items():
            for name, tensors in start.items():
                load_tensors(modules[name], tensors)
            role = align.roles[0] if site in paired else align.roles[1]
            result = train_locally(
                align, modules, seen, phase=phase, round_index=number, seed=0, role=role, memory=memory[site]
            )
            for name in role.trains:
                replies[name].append((role.weight * result.samples, export_tensors(modules[name])))
        for name, sent in replies.items():
            total = sum(weight for weight, _ in sent)
            load_tensors(
                modules[name],
                {
                    key: (sum(weight * end[key] for weight, end in sent) / total).astype(np.float32)
                    for key in start[name]
                },
            )
    return unaligned, probed()


@pytest.fixture(scope="module")
def outcomes() -> dict[str, tuple[Outcome, Outcome]]:
    """Unaligned and aligned, of the federation and of each paired site alone, on the same people."""
    noisy = {"mains_hz": 60, "wander_mv": 0.25, "muscle_mv": 0.05}
    first = make_hospital("a", PEOPLE, seed=1, cart={}, scanner={})
    second = make_hospital(
        "b", PEOPLE, seed=2, cart=noisy, scanner={"contrast": 0.85, "bias": 0.4, "gain": 300}
    )
    third = make_hospital("e", PEOPLE, seed=3, cart={"placement_degrees": 11}, scanner=None)
    outside = make_hospital(
        "t", TESTED, seed=4, cart={"muscle_mv": 0.03}, scanner={"contrast": 1.1}, test=True
    )
    return {
        "federated": train([first, second, third], outside),
        "a alone": train([first], outside),
        "b alone": train([second], outside),
    }


def lowest(better: Outcome, worse: Outcome) -> float:
    """Lower end of the 99 % interval of the difference, paired over people."""
    return float(np.percentile(better[1] - worse[1], 0.5))


@pytest.mark.slow
def test_alignment_raises_r2_on_people_of_another_hospital(outcomes):
    unaligned, aligned = outcomes["federated"]
    assert aligned[0] > unaligned[0] + 0.05
    assert lowest(aligned, unaligned) > 0.0


@pytest.mark.slow
@pytest.mark.parametrize("site", ["a alone", "b alone"])
def test_paired_and_ecg_only_sites_together_beat_each_site_alone(outcomes, site):
    together, alone = outcomes["federated"][1], max(outcomes[site], key=lambda outcome: outcome[0])
    assert together[0] > alone[0] + 0.03
    assert lowest(together, alone) > 0.0


@pytest.mark.slow
def test_the_area_that_the_meter_finds_follows_the_volume_of_the_heart():
    """What `area_r` and `edv_r` of the scenario rest on, on hearts that the meter has not seen."""
    meter = train_lv_meter(shape_of("nano"), seed=0)
    outside = make_hospital("t", 40, seed=5, cart={}, scanner={}, test=True)
    batch = outside.batch(np.arange(40), keys=frozenset({"cine"}), shape=shape_of("nano"))
    area = meter.areas(batch.cine_BFYX).max(axis=1)
    assert meter.agreement > 0.9
    assert np.corrcoef(area, outside.phenotypes[:, 0])[0, 1] > 0.8
