"""Every task says which of its sums are counts, and none makes one of fewer people than the site allows."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest

from cardionets_core.models import get_preset
from cardionets_core.privacy.counts import PEOPLE, check_counts, count_of
from cardionets_core.tasks import TASKS, ClosedFormTask, make_task

SPEC = spec_from_file_location("shared_cohorts", Path(__file__).with_name("test_tasks.py"))
COHORTS = module_from_spec(SPEC)
SPEC.loader.exec_module(COHORTS)

MINIMUM = 5
QUICK = {
    "bootstrap_replicates": 20,
    "measured_patients": 6,
    "training_cases": 8,
    "ar_steps": 2,
    "diffusion_steps": 2,
    "draws": 1,
}
NOT_COUNTED = {
    # 1 or 0, or the size of the module: nothing of the data.
    "*_withheld", "*/galleries", "axes",
    # A number that all sites hold, times the rows.
    "prior_rows", "threshold_rows",
    # Ranks over the size of their gallery, which may add up to a whole number.
    "*/fraction",
}  # fmt: skip


def sums_of(name, site, options=None):
    quick = {key: value for key, value in QUICK.items() if key in TASKS[name].defaults}
    parts = get_preset(site.shape.preset).parts
    quick |= {"ar_steps": 1} if parts.cmr_generator == "diffusion" and "ar_steps" in quick else {}
    task = make_task(name, {**quick, **(options or {})}, parts)
    modules = COHORTS.make_modules(site.shape.preset)
    task.prepare_modules(modules)
    found = dict(task.metric_sums(modules, site, split="validation", seed=0))
    if isinstance(task, ClosedFormTask):
        found |= {f"training {key}": value for key, value in task.sums(modules, site).items()}
    return task, found


def cohort(rows=72, people=24):
    """Half of the people are held out; of a disease three are ill in training, a column is known of two."""
    made = COHORTS.make_cohort(rows, patients=people)
    split = (np.arange(rows) % people >= people // 2).astype(np.int8)
    # A person is ill or well in all rows: every second is ill.
    labels, values = made.diseases[made.row_patient], made.phenotypes.copy()
    labels[:, :5] = ((made.row_patient[:, None] + np.arange(5)) % 2 > 0).astype(np.float32)
    labels[:, 0] = np.isin(made.row_patient, (0, 1, 2, people - 1, people - 2)).astype(np.float32)
    values[~np.isin(made.row_patient, (0, 1, people - 1)), 0] = np.nan
    return replace(made, row_split=split, diseases=labels, phenotypes=values)


def is_like_a_count(value):
    return value.size > 0 and (value == np.round(value)).all() and value.max() >= 2


@pytest.fixture(scope="module")
def site():
    return replace(COHORTS.view(cohort()), smallest_cell=MINIMUM)


@pytest.fixture(scope="module")
def sites():
    """The same site as a study of either generation sees it."""
    return {
        models: replace(COHORTS.view(cohort(), models), smallest_cell=MINIMUM)
        for models in ("nano", COHORTS.EARLIER)
    }


@pytest.mark.parametrize(("models", "name", "options"), COHORTS.KINDS, ids=COHORTS.kind_name)
def test_a_sum_of_whole_numbers_is_declared_as_a_count(models, name, options, sites):
    task, sums = sums_of(name, sites[models], options)
    counts = {**task.counts, **PEOPLE, **dict.fromkeys(NOT_COUNTED)}
    undeclared = [
        key
        for key, value in sums.items()
        if is_like_a_count(value) and not any(_fits(key, pattern) for pattern in counts)
    ]
    assert undeclared == []


@pytest.mark.parametrize(("models", "name", "options"), COHORTS.KINDS, ids=COHORTS.kind_name)
def test_every_declaration_names_a_sum(models, name, options, sites):
    task, sums = sums_of(name, sites[models], options)
    views = ("4ch/", "sax/") if models == COHORTS.EARLIER else ("",)
    statistics = {f"{view}n" for view in views if name == "align"}  # of an align phase that shares moments
    moments = {f"{view}moments/n" for view in views if name == "align"}
    idle = {
        pattern
        for pattern in task.counts
        if pattern not in statistics | moments and not any(_fits(key, pattern) for key in sums)
    }
    assert idle == set()


@pytest.mark.parametrize(("models", "name", "options"), COHORTS.KINDS, ids=COHORTS.kind_name)
def test_no_task_makes_a_count_that_the_gate_would_stop(models, name, options, sites):
    task, sums = sums_of(name, sites[models], options)
    for kind in ("", "training "):
        part = {k.removeprefix(kind): v for k, v in sums.items() if k.startswith("training ") == bool(kind)}
        check_counts(part, {**task.counts, **PEOPLE}, minimum=MINIMUM)


def test_a_disease_of_three_ill_leaves_in_no_sum(site):
    _, sums = sums_of("screening", site)
    for key in ("positive", "negative", "n", "brier", "bin_n", "sex_positive", "age_negative"):
        value = np.moveaxis(sums[key], 1 if key[:4] in ("sex_", "age_") else 0, 0)
        assert not value[0].any() and value[1:].any(), key
    assert not sums["boot_positive"][:, 0].any() and sums["boot_positive"][:, 1:].any()
    everybody = replace(site, smallest_cell=1)
    assert sums_of("screening", everybody)[1]["positive"][0].sum() > 0


@pytest.mark.parametrize("name", ["prevalence", "logistic", "calibrate"])
def test_nor_in_what_solves_a_head(name, site):
    _, sums = sums_of(name, site)
    names = {"prevalence": ("known", "positive"), "logistic": ("ill", "well", "curvature", "response"),
             "calibrate": ("positive", "negative", "people_positive")}[name]  # fmt: skip
    for key in names:
        value = sums[f"training {key}"]
        assert not value[0].any() and value[1:].any(), key


@pytest.mark.parametrize("name", ["probe", "phenotype", "standardise"])
def test_a_column_known_of_two_people_leaves_in_no_sum(name, site):
    task, sums = sums_of(name, site)
    counted = [key for key, value in sums.items() if count_of(key.removeprefix("training "), task.counts)]
    by_column = [key for key in counted if sums[key].shape == (82,)]
    assert by_column
    for key in by_column:
        assert sums[key][0] == 0 and sums[key][1:].any(), key


def _fits(key, pattern):
    return count_of(key.removeprefix("training "), {pattern: object()}) is not None
