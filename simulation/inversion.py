"""What can be read out of one update: plain, under differential privacy, under secure aggregation.

Comes in: how hard to try, and a folder. Goes out: ``inversion.json`` with the numbers and ``inversion.png``.
A hospital of made patients is written and read like a real one; some of its patients become sites of their
own, the others are the ECGs that an attacker has anyway. One attack (``inversion_attack``) is made on what
the server sees of each case (``inversion_victims``).

Everything is set in the attacker's favour: one patient in a batch, one step of plain SGD, a first round,
masks that follow from the study's public seed, and a clip that leaves the gradient as it is. Beside the guess
that fits best stands the start that came nearest to the truth, which no attacker can pick out.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cardionets_core.config.site import read_site
from cardionets_core.data.cohort import ECG_RATE_HZ, Cohort
from cardionets_core.data.prepare import prepare
from cardionets_core.durable import write_json
from cardionets_core.privacy.accountant import Mechanism, Part, epsilon_of, noise_for
from simulation.inversion_attack import Attack, Effort, Prior, Seen
from simulation.inversion_scores import agreement, null_scores, signal_to_noise_db
from simulation.inversion_victims import (
    NEEDS,
    Update,
    one_patient_site,
    privately_updated,
    rows_of,
    seen,
    sent_modules,
    shape_of_windows,
    summed_securely,
    updated,
)
from simulation.make import make_hospitals
from simulation.scenario import Scenario

DELTA = 1e-5
EPSILONS = (8.0, 1.0)
SWEEP = (1e-4, 1e-3, 1e-2, 1e-1)
UNCLIPPED = 1e9
PEOPLE = 80
FEWER, MORE = 3, 10
STEPS = 8
PLAIN = 3
"""Patients whose plain updates are attacked: some are easier than others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One thing that a server may see.

    Attributes:
        name: as in the table.
        seen: the gradient that it makes of it.
        truth_NLT: the windows behind it.
        noise_multiplier: of the one private step.
    """

    name: str
    seen: Seen
    truth_NLT: np.ndarray
    noise_multiplier: float | None = None


def run_inversion(
    out: Path, *, effort: Effort, seed: int = 1, cores: int = 2, progress: Callable[[str], None]
) -> dict[str, Any]:
    """Attack every case, and write numbers and picture.

    Args:
        out: folder; made if absent.
        effort: of each attack.
        seed: of the model, the masks, the noise and the attack.
        cores: attacks at a time.
        progress: told of each attack that has ended.
    """
    cohort = made_cohort(out / "hospital", patients=PEOPLE)
    patients = np.unique(cohort.row_patient[cohort.row_ecg >= 0]).tolist()
    victims, others = patients[:MORE], public_windows(cohort, patients[MORE:])
    cases, known_others = all_cases(cohort, victims, seed=seed)
    rows = []
    with ProcessPoolExecutor(cores, mp_context=multiprocessing.get_context("spawn")) as pool:
        jobs = [pool.submit(attack, case, others, effort=effort, seed=seed) for case in cases]
        for job in jobs:
            rows.append(job.result())
            progress(f"{rows[-1]['case']} · r {rows[-1]['r']:.3f} · {rows[-1]['seconds']:.0f} s")
    arrays = {"truth": cases[0].truth_NLT[0]} | {
        f"{kind}: {case.name}": windows
        for case, row in zip(cases, rows, strict=True)
        for kind, windows in (("truth", case.truth_NLT[0]), ("guess", row.pop("window")))
    }
    content = {
        "schema_version": 1,
        "experiment": "inversion",
        "seed": seed,
        "delta": DELTA,
        "effort": {"starts": effort.starts, "scouting": effort.scouting, "steps": effort.steps},
        "null": null_scores(cases[0].truth_NLT[0], others.numpy()),
        "cases": rows,
        "sum_less_known_others": known_others,
    }
    from simulation.pictures.inversion import picture_inversion

    content["picture"] = picture_inversion(content, arrays, out / "inversion.png")
    write_json(out / "inversion.json", content)
    return content


def all_cases(cohort: Cohort, victims: Sequence[int], *, seed: int) -> tuple[list[Case], float]:
    """Every case; and how far the sum less the updates of the others is from the update, relatively."""
    plain = [
        updated(one_patient_site(cohort, patient), model_seed=seed, seed=seed + place)
        for place, patient in enumerate(victims)
    ]
    cases = [_case("plain", plain[:1])]
    cases += [_case(f"plain, patient {place}", [plain[place - 1]]) for place in range(2, PLAIN + 1)]
    for epsilon in EPSILONS:
        noise = noise_for([Part(sample_rate=1.0, steps=1)], epsilon=epsilon, delta=DELTA)
        name = f"dp, epsilon {epsilon:g}"
        cases.append(private_case(cohort, victims[0], name=name, noise_multiplier=noise, seed=seed))
    fewer = plain[:FEWER]
    masked, total = summed_securely(fewer)
    cases.append(_case("masked vector", fewer[:1], masked[0]))
    cases.append(_case(f"sum of {FEWER}", fewer, total / FEWER))
    _, of_more = summed_securely(plain)
    cases.append(_case(f"sum of {len(plain)}", plain, of_more / len(plain)))
    steps = updated(one_patient_site(cohort, victims[0]), model_seed=seed, seed=seed, steps=STEPS)
    cases.append(_case(f"{STEPS} steps", [steps]))
    for noise in SWEEP:
        name = f"noise {noise:g}"
        cases.append(private_case(cohort, victims[0], name=name, noise_multiplier=noise, seed=seed))
    left = total - sum(update.vector.astype(np.float64) for update in fewer[1:])
    own = fewer[0].vector
    return cases, float(np.linalg.norm(left - own) / np.linalg.norm(own))


def private_case(cohort: Cohort, patient: int, *, name: str, noise_multiplier: float, seed: int) -> Case:
    """One private step whose clip is the norm of the very gradient."""
    site = one_patient_site(cohort, patient)
    quiet = privately_updated(site, model_seed=seed, seed=seed, noise_multiplier=0.0, clip_norm=UNCLIPPED)
    norm = float(sum(value.double().square().sum() for value in seen([quiet]).gradient.values())) ** 0.5
    update = privately_updated(
        site, model_seed=seed, seed=seed, noise_multiplier=noise_multiplier, clip_norm=norm
    )
    return _case(name, [update], noise_multiplier=noise_multiplier)


def _case(
    name: str,
    updates: Sequence[Update],
    change: np.ndarray | None = None,
    *,
    noise_multiplier: float | None = None,
) -> Case:
    truth = np.concatenate([update.truth_NLT for update in updates])
    return Case(name=name, seen=seen(updates, change), truth_NLT=truth, noise_multiplier=noise_multiplier)


def attack(case: Case, others: torch.Tensor, *, effort: Effort, seed: int) -> dict[str, Any]:
    """Attack one case: a row of the result, and the guess of the first window."""
    torch.set_num_threads(1)
    started = time.monotonic()
    prior = Prior(others, rate_hz=ECG_RATE_HZ)
    if len(case.truth_NLT) > 1:
        effort = _shared(effort, windows=len(case.truth_NLT))
    guesses = Attack(sent_modules(seed), case.seen, prior=prior).run(effort, seed=seed)
    best = guesses[0].windows
    by_window = [agreement(true, made) for true, made in zip(case.truth_NLT, best, strict=True)]
    row: dict[str, Any] = {
        "case": case.name,
        "windows": len(best),
        "r": float(by_window[0].mean()),
        "r_by_lead": by_window[0].tolist(),
        "r_of_windows": [float(each.mean()) for each in by_window],
        "r_of_the_nearest_start": max(
            float(agreement(case.truth_NLT[0], g.windows[0]).mean()) for g in guesses
        ),
        "snr_db": signal_to_noise_db(case.truth_NLT[0], best[0]),
        "misfit": guesses[0].misfit,
        "seconds": round(time.monotonic() - started, 1),
        "window": best[0],
    }
    if case.noise_multiplier is not None:
        mechanism = Mechanism(noise_multiplier=case.noise_multiplier, sample_rate=1.0, steps=1)
        row["noise_multiplier"] = case.noise_multiplier
        row["epsilon"] = epsilon_of([mechanism], delta=DELTA)
    return row


def _shared(effort: Effort, *, windows: int) -> Effort:
    """Less of everything: a step costs as much as there are windows."""
    return Effort(
        starts=max(1, effort.starts // windows),
        scouting=effort.scouting,
        steps=max(2, int(effort.steps / windows**0.5)),
    )


def made_cohort(folder: Path, *, patients: int) -> Cohort:
    """A hospital of made patients with ECGs alone, on disk and read from there."""
    hospital: Mapping[str, Any] = {
        "site": "hospital",
        "layout": "mimic_iv_ecg",
        "patients": patients,
        "repeat_share": 0.0,
        "split": {"validation": 0.0, "test": 0.0},
    }
    scenario = {"name": "inversion", "seed": 3, "hospitals": [hospital], "study": "demo"}
    (path,) = make_hospitals(Scenario.model_validate(scenario), folder, workers=1)
    return prepare(read_site(path))


def public_windows(cohort: Cohort, patients: Sequence[int]) -> torch.Tensor:
    """A window of each of some people, ``[N, L, T]``."""
    rows = np.array([found[0] for patient in patients if len(found := rows_of(cohort, patient))])
    batch = cohort.batch(rows, keys=NEEDS, shape=shape_of_windows(), window=1)
    assert batch.ecg_BLT is not None
    return batch.ecg_BLT
