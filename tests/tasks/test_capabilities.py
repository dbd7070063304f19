"""What each kind of hospital trains in each phase: the table of SCIENCE section 5 (8.8)."""

from __future__ import annotations

import numpy as np
import pytest

from cardionets_core.data.cohort import Cohort
from cardionets_core.tasks import make_task
from cardionets_core.tasks.shapes import shape_of

ROWS = 12
ENCODER = ("ecg_encoder",)
TRAINED = {
    "ecg_mae": ("ecg_encoder", "ecg_decoder"),
    "cmr_mae": ("cmr_encoder", "cmr_decoder"),
    "align": ("ecg_encoder", "ecg_projection", "cmr_projection"),
    "phenotype": ("phenotype_head",),
    "screening": ("screening_head",),
    "tokenizer": ("cmr_tokenizer",),
    "generate": ("cmr_generator", "diffusion_head"),
}
SERVED = {
    "paired, phenotypes, labels": {*TRAINED},
    "paired alone": {*TRAINED} - {"phenotype", "screening"},
    "paired, labels": {*TRAINED} - {"phenotype"},
    "ECG, labels": {"ecg_mae", "align", "screening"},
    "ECG alone": {"ecg_mae", "align"},
    "CMR alone": {"cmr_mae", "tokenizer"},
}


def make_hospital(kind: str) -> Cohort:
    """A hospital of a kind, which has nothing but what its kind says."""
    ecg, cine = "ECG" in kind or "paired" in kind, "CMR" in kind or "paired" in kind
    return Cohort(
        site="a",
        digest="a",
        ecg_counts=np.zeros(12 * 750 * ROWS * ecg, dtype=np.int16),
        ecg_offsets=np.arange(ROWS * ecg) * 750,
        ecg_samples=np.full(ROWS * ecg, 750),
        cines=np.zeros((ROWS * cine, 50, 96, 96), dtype=np.uint8),
        row_patient=np.arange(ROWS),
        row_split=np.zeros(ROWS, dtype=np.int8),
        row_ecg=np.arange(ROWS) if ecg else np.full(ROWS, -1),
        row_cine=np.arange(ROWS) if cine else np.full(ROWS, -1),
        phenotypes=np.full((ROWS, 82), 1.0 if "phenotypes" in kind else np.nan, dtype=np.float32),
        diseases=np.full((ROWS, 8), 1.0 if "labels" in kind else np.nan, dtype=np.float32),
    )


def trained_by(cohort: Cohort, task) -> tuple[str, ...]:
    """Modules that the first role trains for which there are rows; none where there is no role."""
    for role in task.roles:
        if len(cohort.rows(role.needs, "train", shape_of("nano"))):
            return role.trains
    return ()


@pytest.mark.parametrize("kind", SERVED)
def test_each_kind_of_hospital_trains_what_its_data_can_serve(kind):
    cohort = make_hospital(kind)
    found = {name: trained_by(cohort, make_task(name, {})) for name in TRAINED}
    paired = "paired" in kind
    assert found == {
        name: ((ENCODER if name == "align" and not paired else modules) if name in SERVED[kind] else ())
        for name, modules in TRAINED.items()
    }


def test_cines_alone_may_serve_the_generator_by_its_null_condition():
    cohort = make_hospital("CMR alone")
    assert trained_by(cohort, make_task("generate", {})) == ()
    assert trained_by(cohort, make_task("generate", {"cine_only_sites": True})) == TRAINED["generate"]


@pytest.mark.parametrize("loss", ["infonce", "weighted", "cosine", "sigmoid", "dcco"])
def test_no_loss_of_align_lets_an_ecg_only_site_touch_more_than_the_encoder(loss):
    cohort = make_hospital("ECG alone")
    assert trained_by(cohort, make_task("align", {"loss": loss})) == ENCODER
    assert trained_by(cohort, make_task("align", {"loss": loss, "ecg_only": "off"})) == ()
