"""A consortium by its numbers: how many sites and patients, and how the sites differ.

Comes in: the ``consortium`` part of a scenario. Goes out: its hospitals, as if each had been written out; the
same for the same seed. Nothing is drawn but settings: patients are drawn from them later.
"""

from __future__ import annotations

from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from cardionets_core.config.read import Document
from cardionets_core.config.site import Split
from cardionets_core.data.records import DISEASES
from simulation.hospitals import DrawnHospital, DrawnView, HospitalPolicy, Lack, Prevalence
from simulation.machines import Cart, Scanner
from simulation.shift import shifted_cart, shifted_scanner
from simulation.skew import spread_cases, spread_sizes

Layout = Literal["uk_biobank", "mimic_iv_ecg", "local_wfdb", "local_csv"]
ECG_ONLY: Layout = "mimic_iv_ecg"
VIEWS: dict[str, tuple[DrawnView, ...]] = {"4ch": ("4ch",), "sax": ("sax",), "both": ("4ch", "sax")}
LACKS: tuple[Lack, ...] = ("cmr", "labels", "phenotypes")


class Quantity(Document):
    """Sizes of the sites; with neither key all are equal."""

    dirichlet: float | None = Field(
        default=None, gt=0, le=1e6, description="concentration: 100 is nearly equal, 0.5 very unequal"
    )
    sizes: tuple[int, ...] | None = Field(default=None, min_length=1, description="patients of each site")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.dirichlet is not None and self.sizes is not None:
            raise ValueError("give dirichlet or sizes, not both")
        return self


class Labels(Document):
    """Case mix of the consortium, and how unevenly the sites share it."""

    dirichlet: float | None = Field(
        default=None,
        gt=0,
        le=1e6,
        description="concentration by which each disease's patients are dealt to the sites; "
        "without it every site has the same case mix",
    )
    prevalence: Prevalence = Prevalence(cad=0.2, cm=0.16, hf=0.16, pc=0.1, ph=0.14)


class Missing(Document):
    """Shares of the sites that are without something."""

    cmr: float = Field(default=0.0, ge=0, le=1, description="share of sites with ECGs alone")
    labels: float = Field(default=0.0, ge=0, le=1, description="share of sites without diagnoses")
    phenotypes: float = Field(
        default=0.0, ge=0, le=1, description="share of sites whose cines nobody has measured"
    )


class Consortium(Document):
    """Sites that are made from numbers; their names are s01, s02, … and x01, … for external ones."""

    sites: int = Field(ge=1, le=200, description="members")
    patients: int = Field(ge=1, le=2_000_000, description="of all members together")
    external: int = Field(default=0, ge=0, le=50, description="sites that only measure, of mean size")
    quantity: Quantity = Quantity()
    smallest: int = Field(default=50, ge=5, description="fewest patients of a site")
    labels: Labels = Labels()
    cart_shift: float = Field(default=0.0, ge=0, le=1, description="how much the ECG carts differ")
    scanner_shift: float = Field(default=0.0, ge=0, le=1, description="how much the MRI scanners differ")
    missing: Missing = Missing()
    layouts: tuple[Layout, ...] = Field(
        default=("local_wfdb", "uk_biobank", "local_csv", "mimic_iv_ecg"),
        min_length=1,
        description="file layouts, dealt in turn; mimic_iv_ecg goes to sites without cines",
    )
    views: tuple[Literal["4ch", "sax", "both"], ...] = Field(
        default=("4ch",), min_length=1, description="views of cines, dealt in turn to the sites with cines"
    )
    repeat_share: float = Field(default=0.2, ge=0, le=1, description="share of people who came again")
    mean_age: float = Field(default=62.0, ge=30, le=85)
    split: Split = Split(validation=0.1, test=0.25)
    policy: HospitalPolicy = HospitalPolicy()
    cart: Cart = Cart()
    scanner: Scanner = Scanner()

    @model_validator(mode="after")
    def _can_be(self) -> Self:
        # All at once: a person should not have to come back for the next one.
        faults = []
        sizes = self.quantity.sizes
        if sizes is not None and len(sizes) != self.sites:
            faults.append(f"quantity.sizes names {len(sizes)} sites, and there are {self.sites}")
        elif sizes is not None and sum(sizes) != self.patients:
            faults.append(f"quantity.sizes add up to {sum(sizes)}, and patients is {self.patients}")
        if sizes is not None and min(sizes) < self.smallest:
            faults.append(f"quantity.sizes has a site of {min(sizes)}: smallest is {self.smallest}")
        if self.sites * self.smallest > self.patients:
            faults.append(
                f"{self.sites} sites of at least {self.smallest} (smallest) need "
                f"{self.sites * self.smallest} patients, and there are {self.patients}"
            )
        training = 1.0 - self.split.validation - self.split.test
        # Splits are by hash: the number that trains scatters, by three standard deviations at most.
        expected = self.smallest * training
        fewest = expected - 3.0 * float(np.sqrt(max(0.0, expected * (1.0 - training))))
        if fewest < self.policy.minimum_patients:
            faults.append(
                f"a site of {self.smallest} (smallest) may have only {max(0, int(fewest))} patients to train "
                f"on, and policy.minimum_patients is {self.policy.minimum_patients}: raise smallest, "
                "or lower minimum_patients or the shares of split"
            )
        with_cmr = self.sites - _number(self.missing.cmr, self.sites)
        if with_cmr and set(self.layouts) == {ECG_ONLY}:
            faults.append(f"layouts has {ECG_ONLY} alone, which holds no cines: set missing.cmr to 1")
        if _number(self.missing.phenotypes, self.sites) > with_cmr:
            faults.append("missing.phenotypes names more sites than have cines at all")
        if max(self.labels.prevalence.as_mapping().values()) > 0.8:
            faults.append("labels.prevalence: a disease of more than 0.8 leaves nobody to tell it from")
        if faults:
            raise ValueError("; ".join(faults))
        return self


def expand(consortium: Consortium, *, seed: int) -> tuple[DrawnHospital, ...]:
    """The hospitals of a consortium, members first.

    Args:
        consortium: its numbers, checked.
        seed: of the scenario.
    """
    of_sizes, of_cases, of_lacks, *of_sites = (
        np.random.default_rng(child)
        for child in np.random.SeedSequence([seed, 0xC0]).spawn(3 + consortium.sites + consortium.external)
    )
    count, external = consortium.sites, consortium.external
    if consortium.quantity.sizes is not None:
        sizes = np.array(consortium.quantity.sizes)
    else:
        alpha = consortium.quantity.dirichlet
        sizes = spread_sizes(consortium.patients, count, alpha=alpha, least=consortium.smallest, rng=of_sizes)
    wanted = consortium.labels.prevalence.as_mapping()
    cases = {
        name: spread_cases(
            round(wanted[name] * consortium.patients),
            sizes,
            alpha=consortium.labels.dirichlet,
            rng=of_cases,
        )
        for name in DISEASES
    }
    lacks = _lacks(consortium.missing, count, of_lacks)
    with_cines = [place for place in range(count) if "cmr" not in lacks[place]]
    turn = {place: number for number, place in enumerate(with_cines)}
    plain = [layout for layout in consortium.layouts if layout != ECG_ONLY] or [ECG_ONLY]
    members = [
        _hospital(
            consortium,
            name=_name("s", place, count),
            patients=int(sizes[place]),
            prevalence={name: round(float(found[place] / sizes[place]), 6) for name, found in cases.items()},
            missing=lacks[place],
            turn=turn.get(place, 0),
            layout=plain[place % len(plain)],
            rng=of_sites[place],
        )
        for place in range(count)
    ]
    others = [
        _hospital(
            consortium,
            name=_name("x", place, external),
            patients=max(consortium.smallest, consortium.patients // count),
            prevalence=wanted,
            missing=(),
            turn=place,
            layout=plain[place % len(plain)],
            rng=of_sites[count + place],
            external=True,
        )
        for place in range(external)
    ]
    return (*members, *others)


def _hospital(
    consortium: Consortium,
    *,
    name: str,
    patients: int,
    prevalence: dict[str, float],
    missing: tuple[Lack, ...],
    turn: int,
    layout: Layout,
    rng: np.random.Generator,
    external: bool = False,
) -> DrawnHospital:
    if "cmr" in missing and ECG_ONLY in consortium.layouts:
        layout = ECG_ONLY
    any_rate = layout in ("local_wfdb", "local_csv")
    return DrawnHospital(
        site=name,
        layout=layout,
        patients=patients,
        external=external,
        repeat_share=consortium.repeat_share,
        mean_age=consortium.mean_age,
        split=Split(validation=0.0, test=1.0) if external else consortium.split,
        policy=consortium.policy,
        prevalence=Prevalence(**prevalence),
        cart=shifted_cart(consortium.cart, consortium.cart_shift, rng, any_rate=any_rate),
        scanner=shifted_scanner(consortium.scanner, consortium.scanner_shift, rng),
        missing=tuple(lack for lack in missing if layout != ECG_ONLY or lack == "labels"),
        views=VIEWS["4ch" if "cmr" in missing else consortium.views[turn % len(consortium.views)]],
    )


def _lacks(missing: Missing, count: int, rng: np.random.Generator) -> list[tuple[Lack, ...]]:
    """What each site is without; phenotypes are missing only where there are cines."""
    order = rng.permutation(count)
    without_cmr = set(order[: _number(missing.cmr, count)].tolist())
    measured = [int(place) for place in order[::-1] if place not in without_cmr]
    sites: dict[Lack, set[int]] = {
        "cmr": without_cmr,
        "labels": set(rng.permutation(count)[: _number(missing.labels, count)].tolist()),
        "phenotypes": set(measured[: _number(missing.phenotypes, count)]),
    }
    return [tuple(lack for lack in LACKS if place in sites[lack]) for place in range(count)]


def _number(share: float, count: int) -> int:
    """Sites that a share is: rounded half up, but never none of what was asked for."""
    return max(int(share * count + 0.5), int(share > 0))


def _name(letter: str, place: int, count: int) -> str:
    return f"{letter}{place + 1:0{max(2, len(str(count)))}d}"
