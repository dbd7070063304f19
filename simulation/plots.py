"""All pictures of a run that its study and its result allow, as PNG, with their numbers as ``.npz``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cardionets_core.config.study import Study
from cardionets_core.data.cohort import Cohort
from simulation.calibration_curves import reliability_curves
from simulation.generated import DrawnCases
from simulation.interpret import attribute_volume, choose_person, compare_tokens
from simulation.pictures.arms import picture_arms, picture_left_out
from simulation.pictures.attribution import picture_attribution
from simulation.pictures.calibration import picture_calibration
from simulation.pictures.cine_reconstructions import picture_masked_cines, picture_tokenizer
from simulation.pictures.drawings import picture_drawings
from simulation.pictures.ecg_reconstructions import picture_masked_ecgs
from simulation.pictures.examples import picture_examples
from simulation.pictures.forest import picture_forest
from simulation.pictures.phenotypes import picture_phenotypes
from simulation.pictures.rounds import picture_rounds
from simulation.pictures.similarity import picture_similarity
from simulation.reconstruct import masked_cines, masked_ecgs, tokenized_cines


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedRun:
    """What the pictures are made of.

    Attributes:
        study: that was run; its checkpoints lie in ``folder``.
        folder: of the run.
        result: content of ``result.json``.
        cohorts: by site.
        external: sites that never trained.
        cases: held-out people with the cines that were drawn for them.
    """

    study: Study
    folder: Path
    result: Mapping[str, Any]
    cohorts: Mapping[str, Cohort]
    external: frozenset[str]
    cases: Sequence[DrawnCases] = ()


def plot_run(run: FinishedRun, *, out: Path) -> list[str]:
    """Draw everything that the run allows into a folder, made if absent; returns the names of the files."""
    out.mkdir(parents=True, exist_ok=True)
    made = (*_of_the_result(run, out), *_of_the_model(run, out))
    return [name for name in made if name is not None]


def _of_the_result(run: FinishedRun, out: Path) -> Iterator[str | None]:
    """Pictures of numbers that were measured."""
    yield picture_rounds(run.result, out / "rounds.png")
    yield picture_arms(run.result["comparison"], out / "comparison.png")
    yield picture_left_out(run.result["comparison"], out / "left_out.png")
    yield picture_phenotypes(run.result, out / "phenotypes.png")
    yield picture_forest(run.result, out / "sites.png")
    curves = reliability_curves(run.study, run.cohorts, folder=run.folder, external=run.external)
    if curves:
        yield picture_calibration(curves, out / "calibration.png")


def _of_the_model(run: FinishedRun, out: Path) -> Iterator[str | None]:
    """Pictures of recordings, and of what the model makes of them."""
    yield picture_examples(run.cohorts, out / "examples.png", preset=run.study.models)
    if run.cases:
        yield picture_drawings(run.cases, out / "drawn_cines.png")
    if (tokenized := tokenized_cines(run.study, run.cohorts, folder=run.folder)) is not None:
        yield picture_tokenizer(tokenized, out / "tokenizer.png")
    if (cines := masked_cines(run.study, run.cohorts, folder=run.folder)) is not None:
        yield picture_masked_cines(cines, out / "masked_cines.png")
    if (ecgs := masked_ecgs(run.study, run.cohorts, folder=run.folder)) is not None:
        yield picture_masked_ecgs(ecgs, out / "masked_ecgs.png")
    yield from _of_one_person(run, out)


def _of_one_person(run: FinishedRun, out: Path) -> Iterator[str | None]:
    """What the model looks at; a study without pairs needs nobody with a cine."""
    for needs in (frozenset({"ecg", "cine"}), frozenset({"ecg"})):
        person = choose_person(run.study, run.cohorts, external=run.external, needs=needs)
        if person is not None:
            break
    else:
        return
    volume = attribute_volume(run.study, person, folder=run.folder)
    if volume is not None:
        yield picture_attribution(person, volume, out / "attribution.png")
    if "cine" in needs and (tokens := compare_tokens(run.study, person, folder=run.folder)) is not None:
        yield picture_similarity(person, tokens, out / "similarity.png")
