"""A patient of a scenario: the latent heart and all that was recorded of it, recomputable at any time.

Comes in: a scenario, a hospital's name and a number. Goes out: a ``Patient``. Nothing is written: the truth
behind a file is drawn again from here, and never lies on the hospital's disk.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cardionets_core.data.records import DISEASES, EcgRecord
from cardionets_core.errors import UsageError
from simulation.cine import DrawnCine, draw_cine
from simulation.electrocardiogram import draw_ecg
from simulation.hearts import Heart, draw_heart, revisit
from simulation.phenotypes import measure, with_gaps
from simulation.scenario import DrawnHospital, Scenario
from simulation.short_axis import draw_short_axis

ECG_ONLY_SHARE = 0.03
CINE_ONLY_SHARE = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One visit of one person.

    Attributes:
        number: 0 is the first.
        heart: the truth.
        ecg: what the cart gave, or None.
        cine: the 4-chamber cine with its masks, or None.
        sax: the short axis of the same heart with its masks, or None.
        phenotypes: field number to the value that the table of the hospital holds; measured on the 4-chamber
            view, also where the hospital keeps the short axis alone.
    """

    number: int
    heart: Heart
    ecg: EcgRecord | None
    cine: DrawnCine | None
    sax: DrawnCine | None
    phenotypes: dict[int, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Patient:
    """One person of a hospital.

    Attributes:
        index: number of the person.
        visits: in order.
        table_seed: of what the tables say.
        flipped: whether the hospital's codes tell the opposite of each disease.
    """

    index: int
    visits: tuple[Visit, ...]
    table_seed: np.random.SeedSequence
    flipped: bool = False

    @property
    def coded(self) -> Heart:
        """The heart whose diseases the hospital's coders write down."""
        heart = self.visits[0].heart
        if not self.flipped:
            return heart
        diseases = frozenset(DISEASES) - heart.diseases
        # One of the subtypes; which of them says nothing of a heart that has none.
        return replace(heart, diseases=diseases, subtype="dcm" if "cm" in diseases else None)

    def sax_rng(self, visit: int) -> np.random.Generator:
        """A fresh generator for the files of a visit's short axis; the other files do not depend on it."""
        seed = self.table_seed
        own = np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, 0x5A, visit))
        return np.random.default_rng(own)

    def table_rng(self) -> np.random.Generator:
        """A fresh generator for identifiers, dates, codes and defects; the same at each call."""
        return np.random.default_rng(self.table_seed)


def draw_patient(scenario: Scenario, hospital: str, index: int) -> Patient:
    """Draw one patient; the same one whenever and wherever it is asked for.

    Args:
        scenario: gives the seed and the hospital's settings.
        hospital: name of the site.
        index: 0 to the hospital's number of patients - 1.

    Raises:
        UsageError: the hospital is a folder of real recordings, or has no such patient.
    """
    place = scenario.place_of(hospital)
    settings = scenario.hospitals[place]
    if not isinstance(settings, DrawnHospital):
        raise UsageError(f"{hospital} is a folder of real recordings: its patients are not drawn")
    if not 0 <= index < settings.patients:
        raise UsageError(f"{hospital} has patients 0 to {settings.patients - 1}, not {index}")
    of_heart, of_visits, of_tables = np.random.SeedSequence([scenario.seed, place, index]).spawn(3)
    rng = np.random.default_rng(of_heart)
    heart = _first_heart(settings, rng)
    visits = 1
    if rng.random() < settings.repeat_share:
        # A biobank asks people back once; a hospital records whenever they come.
        visits = 2 + (int(rng.integers(0, 3)) if settings.layout == "mimic_iv_ecg" else 0)
    lacks = rng.random()
    drawn: list[Visit] = []
    for number, seed in enumerate(of_visits.spawn(visits)):
        if number:
            heart = revisit(heart, rng, years=float(rng.uniform(0.3, 3.0)))
        drawn.append(_visit(heart, settings, number=number, seed=seed, lacks=float(lacks)))
    flipped = hospital in scenario.flipped_sites
    return Patient(index=index, visits=tuple(drawn), table_seed=of_tables, flipped=flipped)


def ill_patients(scenario: Scenario, hospital: str) -> dict[str, int]:
    """How many of a drawn hospital's patients have each disease: their hearts alone are drawn.

    Raises:
        UsageError: the hospital is a folder of real recordings.
    """
    place = scenario.place_of(hospital)
    settings = scenario.hospitals[place]
    if not isinstance(settings, DrawnHospital):
        raise UsageError(f"{hospital} is a folder of real recordings: its patients are not drawn")
    counts = dict.fromkeys(DISEASES, 0)
    for index in range(settings.patients):
        of_heart = np.random.SeedSequence([scenario.seed, place, index]).spawn(1)[0]
        for name in _first_heart(settings, np.random.default_rng(of_heart)).diseases:
            counts[name] += 1
    return counts


def _first_heart(settings: DrawnHospital, rng: np.random.Generator) -> Heart:
    return draw_heart(rng, prevalence=settings.prevalence.as_mapping(), mean_age=settings.mean_age)


def _visit(
    heart: Heart, settings: DrawnHospital, *, number: int, seed: np.random.SeedSequence, lacks: float
) -> Visit:
    of_ecg, of_cine, of_gaps, of_sax = (np.random.default_rng(child) for child in seed.spawn(4))
    with_cmr = "cmr" not in settings.lacks
    has_ecg = not (with_cmr and lacks < CINE_ONLY_SHARE)
    has_cine = with_cmr and lacks < 1.0 - ECG_ONLY_SHARE
    ecg = draw_ecg(heart, settings.cart, of_ecg) if has_ecg else None
    seen = draw_cine(heart, settings.scanner, of_cine) if has_cine else None
    values: dict[int, float] = {}
    if seen is not None and "phenotypes" not in settings.lacks:
        values = with_gaps(measure(seen, heart_rate_bpm=heart.heart_rate_bpm), of_gaps)
    sax = None
    if seen is not None and "sax" in settings.drawn_views:
        sax = draw_short_axis(heart, settings.scanner, of_sax, shapes=seen.shapes)
    cine = seen if "4ch" in settings.drawn_views else None
    return Visit(number=number, heart=heart, ecg=ecg, cine=cine, sax=sax, phenotypes=values)
