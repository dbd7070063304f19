"""What the finished model looks at in one held-out person: leads and times, and places in the heart.

Comes in: the run's checkpoints and cohorts. Goes out: arrays. Two questions: which part of the ECG raised or
lowered the predicted end-diastolic volume (integrated gradients), and which places of the person's own cine
lie nearest to each stretch of the ECG in the common space of the alignment.

Both tell of the model, not of the heart. The alignment trains whole recordings, not their parts: a map of
parts shows how the model came to a pair, and proves nothing about where a disease sits.

Legend: L leads, T samples, P patches of a lead, N patches of the cine, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import nn

from cardionets_core.config.study import Study
from cardionets_core.data.cohort import Cohort
from cardionets_core.data.phenotypes import PHENOTYPES
from cardionets_core.data.windows import evaluation_starts
from cardionets_core.evaluation.attribution import integrated_gradients, similarity_map
from cardionets_core.models.cmr_encoder import CmrEncoder
from cardionets_core.models.ecg_encoder import EcgEncoder
from cardionets_core.models.solved import PhenotypeStandardiser
from cardionets_core.tasks.shapes import shape_of
from simulation.phase_end import PhaseEnd, phase_end

LVEDV = 0
"""Column of field 24100."""
MIDDLE = 1
"""Index of the evaluation window that is explained."""
HEADS = ("phenotype", "probe")


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """A held-out recording.

    Attributes:
        cohort: of the site.
        row: of the cohort.
        ecg_1LT: the window as the model gets it.
        trace_LT: the same window in mV.
        start: its first sample.
    """

    cohort: Cohort
    row: int
    ecg_1LT: torch.Tensor
    trace_LT: np.ndarray
    start: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeAttribution:
    """Why the model gives a person this end-diastolic volume.

    Attributes:
        task: whose head it is.
        attribution_LT: in mL, of each sample.
        predicted_ml: for the window.
        baseline_ml: for a flat trace.
        missed_ml: part of the change between the two that the attribution does not hold.
        measured_ml: in the hospital's table.
        patches: of a lead, that the encoder reads.
    """

    task: str
    attribution_LT: np.ndarray
    predicted_ml: float
    baseline_ml: float
    missed_ml: float
    measured_ml: float
    patches: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSimilarity:
    """How near the ECG's patches are to the cine's.

    Attributes:
        cosine_LPN: in the common space.
        cine_FYX: the person's cine, in -1..1.
        side: patches in a row of the cine; N = side * side.
    """

    cosine_LPN: np.ndarray
    cine_FYX: np.ndarray
    side: int


def choose_person(
    study: Study, cohorts: Mapping[str, Cohort], *, external: frozenset[str], needs: frozenset[str]
) -> Person | None:
    """The test person of a member site with the largest measured end-diastolic volume; None without any.

    Where no volume is known, the first one.

    Args:
        study: gives the sizes.
        cohorts: by site.
        external: sites that never trained; somebody of theirs is chosen only if no member has anybody.
        needs: what the recording holds.
    """
    shape = shape_of(study.models)
    found: tuple[tuple[bool, float], Cohort, int] | None = None
    for name in sorted(cohorts):
        cohort = cohorts[name]
        for row in cohort.rows(needs, "test", shape):
            volume = float(cohort.phenotypes[row, LVEDV])
            rank = (name not in external, volume if np.isfinite(volume) else -np.inf)
            if found is None or rank > found[0]:
                found = (rank, cohort, int(row))
    if found is None:
        return None
    _, cohort, row = found
    batch = cohort.batch(np.array([row]), keys=frozenset({"ecg"}), shape=shape, window=MIDDLE)
    record = int(cohort.row_ecg[row])
    starts = evaluation_starts(int(cohort.ecg_samples[record]), shape.ecg_samples)
    start = starts[min(MIDDLE, len(starts) - 1)]
    return Person(
        cohort=cohort,
        row=row,
        ecg_1LT=cast(torch.Tensor, batch.ecg_BLT),
        trace_LT=cohort.ecg_mv(record, start, shape.ecg_samples),
        start=start,
    )


def attribute_volume(study: Study, person: Person, *, folder: Path) -> VolumeAttribution | None:
    """Integrated gradients of the predicted end-diastolic volume; None where no phase predicts it."""
    ends = (phase_end(study, name, folder=folder) for name in HEADS)
    end = next((each for each in ends if each is not None), None)
    if end is None:
        return None
    found = integrated_gradients(_volume_of(end), person.ecg_1LT)
    return VolumeAttribution(
        task=end.task.name,
        attribution_LT=found.attribution_BLT[0].numpy(),
        predicted_ml=float(found.output_B[0]),
        baseline_ml=float(found.baseline_B[0]),
        missed_ml=float(found.gap_B[0]),
        measured_ml=float(person.cohort.phenotypes[person.row, LVEDV]),
        patches=cast(EcgEncoder, end.modules["ecg_encoder"]).patches,
    )


def compare_tokens(study: Study, person: Person, *, folder: Path) -> TokenSimilarity | None:
    """ECG patches against cine patches of one person; None where the study aligns nothing."""
    end = phase_end(study, "align", folder=folder)
    if end is None:
        return None
    shape = shape_of(study.models)
    batch = person.cohort.batch(np.array([person.row]), keys=frozenset({"cine"}), shape=shape)
    cine_BFYX = cast(torch.Tensor, batch.cine_BFYX)
    ecg_encoder = cast(EcgEncoder, end.modules["ecg_encoder"])
    cmr_encoder = cast(CmrEncoder, end.modules["cmr_encoder"])
    # The cosine loss has no projection of the cine: its target are the principal coordinates.
    cmr_projection = end.modules.get("cmr_projection") or end.modules["cmr_principal"]
    with torch.no_grad():
        ecg_LPD = ecg_encoder.tokens(person.ecg_1LT)[0]
        cmr_ND = cmr_encoder.tokens(cine_BFYX)[0, -cmr_encoder.patches :]
    return TokenSimilarity(
        cosine_LPN=similarity_map(
            ecg_LPD,
            cmr_ND,
            ecg_projection=nn.Sequential(ecg_encoder.norm, end.modules["ecg_projection"]),
            cmr_projection=cmr_projection,
        ),
        cine_FYX=cine_BFYX[0].numpy(),
        side=round(cmr_encoder.patches**0.5),
    )


def _volume_of(end: PhaseEnd) -> Callable[[torch.Tensor], torch.Tensor]:
    """Windows [B, L, T] to mL [B]."""
    encoder = end.modules["ecg_encoder"]
    if end.task.name == "probe":
        probe = end.modules["phenotype_probe"]
        return lambda ecg_BLT: probe(encoder(ecg_BLT))[:, LVEDV]
    head = end.modules["phenotype_head"]
    numbers = cast(PhenotypeStandardiser, end.modules["phenotype_standardiser"])
    mean, deviation = float(numbers.mean[LVEDV]), float(numbers.deviation[LVEDV])
    return lambda ecg_BLT: head(encoder(ecg_BLT))[:, LVEDV] * deviation + mean


def volume_title() -> str:
    """Name and field of what is explained."""
    phenotype = PHENOTYPES[LVEDV]
    return f"{phenotype.title} (field {phenotype.field})"
