"""A model folder, opened for prediction, and the feature of one ECG (step 6 of the walk, for one person).

Comes in: a checked model folder, a packed ECG. Goes out: the mean feature of its evaluation windows, by the
very function that evaluation uses.

Legend: R rows (one here), L leads, T samples, D width of the feature.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from cardionets_core.data.cohort import SPLITS, Cohort, Split, empty_cohort
from cardionets_core.errors import CheckpointError, ConfigError
from cardionets_core.models import PHENOTYPES, Preset, get_preset
from cardionets_core.tasks.cases import conditions_of
from cardionets_core.tasks.generators import GENERATORS
from cardionets_core.tasks.row_features import mean_features
from cardionets_core.tasks.shapes import shape_of
from cardionets_core.tasks.site_view import SiteView
from cardionets_core.training.model_folder import StoredModel

ENCODER = "ecg_encoder"
PARTS: dict[str, tuple[tuple[str, ...], ...]] = {
    "phenotypes": (("phenotype_head", "phenotype_standardiser"), ("phenotype_probe",)),
    "screening": (("screening_head", "screening_prior"),),
    "cine": tuple(
        tuple(name for name in (*kind.conditioned_by, *kind.drawers) if name != ENCODER)
        for kind in GENERATORS.values()
    ),
}
"""What is predicted, and the sets of modules that can do it, the best first; all need the encoder.

Of a cine there is a set for each kind of generator, in the order of ``GENERATORS``."""
EXTRAS = ("phenotype_standardiser", "screening_calibration")
"""Modules that add to a part where they are there."""
_ECG = frozenset({"ecg"})
_SPLIT: Split = "test"


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictor:
    """A model that is ready to be asked.

    Attributes:
        stored: where it comes from, and what was measured on it.
        preset: its sizes.
        modules: loaded, on the device, in eval mode.
        parts: keys of ``PARTS`` that it can do, with the modules that do it.
        lacking: keys of ``PARTS`` that it cannot do, with the modules of the best set that it lacks.
        device: where it computes.
    """

    stored: StoredModel
    preset: Preset
    modules: Mapping[str, nn.Module]
    parts: Mapping[str, tuple[str, ...]]
    lacking: Mapping[str, tuple[str, ...]]
    device: torch.device

    def view(self, counts: np.ndarray) -> SiteView:
        """One packed ECG, int16 [12, T], as a site of one row.

        A recording shorter than the preset's window is taken in whole patches (SCIENCE section 3); training
        and evaluation leave such recordings out.
        """
        shape, patch = shape_of(self.preset.name), self.preset.stored_patch
        samples = min(shape.ecg_samples, counts.shape[1] // patch * patch)
        return SiteView(
            cohort=_cohort_of(counts),
            shape=replace(shape, ecg_samples=samples),
            device=self.device,
        )

    def is_short(self, counts: np.ndarray) -> bool:
        """Whether a recording is shorter than the window that the model was trained on."""
        return counts.shape[1] < self.preset.stored_samples

    def feature(self, counts: np.ndarray) -> torch.Tensor:
        """Mean feature of the evaluation windows, float32 [1, D] on the CPU."""
        return mean_features(self.modules, self.view(counts), needs=_ECG, split=_SPLIT, frozen=False)

    def condition(self, counts: np.ndarray) -> torch.Tensor:
        """What the generator takes of the ECG, float32 with one row, on the device; see ``conditions_of``."""
        return conditions_of(self.modules, self.view(counts), np.zeros(1, dtype=np.int64))


def part_choices(preset: str) -> dict[str, tuple[tuple[str, ...], ...]]:
    """``PARTS`` as far as a model of this preset can have them: with its own kind of generator alone."""
    own = list(GENERATORS).index(get_preset(preset).parts.cmr_generator)
    return {**PARTS, "cine": (PARTS["cine"][own],)}


def able_parts(held: Collection[str], *, preset: str) -> dict[str, tuple[str, ...]]:
    """Keys of ``PARTS`` that modules of these names can do, with the modules that do each."""
    found: dict[str, tuple[str, ...]] = {}
    for part, choices in part_choices(preset).items():
        able = [names for names in choices if {ENCODER, *names} <= set(held)]
        if able:
            found[part] = able[0]
    return found


def open_predictor(stored: StoredModel, *, device: torch.device, without: Iterable[str] = ()) -> Predictor:
    """Load the modules of everything that the model can predict.

    Args:
        stored: of ``read_model_folder``.
        device: where to compute.
        without: keys of ``PARTS`` that are not asked for and not loaded.

    Raises:
        CheckpointError: there is no ECG encoder, or nothing that uses it; or a file is torn.
    """
    parts = able_parts(stored.digests, preset=stored.preset)
    lacking = {
        part: tuple(stored.lacks([ENCODER, *choices[0]]))
        for part, choices in part_choices(stored.preset).items()
        if part not in parts
    }
    if not parts:
        raise CheckpointError(
            "this model predicts nothing: it holds no ECG encoder with a head or a generator",
            where=str(stored.folder),
            remedy="name a model whose study had a phase phenotype, probe, logistic, screening or generate",
        )
    used = {part: names for part, names in parts.items() if part not in set(without)}
    wanted = {ENCODER, *(name for names in used.values() for name in names)}
    wanted |= {name for name in EXTRAS if name in stored.digests}
    return Predictor(
        stored=stored,
        preset=get_preset(stored.preset),
        modules={name: stored.load(name, device=device) for name in sorted(wanted)},
        parts=used,
        lacking=lacking,
        device=device,
    )


def device_named(name: str) -> torch.device:
    """The device of a command line: ``cpu``, ``cuda``, ``cuda:1``; ``auto`` takes a GPU where there is one.

    Raises:
        ConfigError: there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise ConfigError(
            f"torch cannot compute on {name} here", where="--device", remedy="name cpu, or auto"
        ) from error
    return device


def _cohort_of(counts: np.ndarray) -> Cohort:
    one = np.zeros(1, dtype=np.int64)
    nobody = empty_cohort(site="prediction", phenotypes=PHENOTYPES)
    return replace(
        nobody,
        ecg_counts=np.ascontiguousarray(counts).reshape(-1),
        ecg_offsets=one,
        ecg_samples=np.array([counts.shape[1]], dtype=np.int64),
        row_patient=one,
        row_split=np.full(1, SPLITS.index(_SPLIT), dtype=np.int8),
        row_ecg=one,
        row_cine=one - 1,
        phenotypes=np.full((1, PHENOTYPES), np.nan, dtype=np.float32),
        diseases=np.full((1, nobody.diseases.shape[1]), np.nan, dtype=np.float32),
    )
