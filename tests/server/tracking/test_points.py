"""Numbers of a round under names that MLflow takes; parameters and tags within its limits."""

import math
import re

import pytest
from mlflow.utils.validation import (
    MAX_ENTITY_KEY_LENGTH,
    MAX_METRICS_PER_BATCH,
    MAX_PARAM_VAL_LENGTH,
    MAX_PARAMS_TAGS_PER_BATCH,
    MAX_TAG_VAL_LENGTH,
    _validate_metric,
    _validate_param,
)

from server import measure
from server.tracking import parameters, points, store
from server.tracking.points import final_points, measured_points, metric_name, round_points


def entry(**changes):
    found = {
        "phase": 0,
        "task": "align",
        "round": 3,
        "attempt": 1,
        "primary": "recall@5",
        "seconds": 1.5,
        "bytes_sent": 5,
        "bytes_received": 10,
        "pooled": {"recall@5": 0.5, "queries": 40.0, "loss": 2.0, "mae/24100": math.nan},
        "sites": [
            {
                "site": "a",
                "status": "trained",
                "code": "",
                "bytes": 4,
                "loss": 0.75,
                "epsilon": 0.25,
                "samples": {"ecg_encoder": 12},
                "metrics": {"recall@5": 0.25, "queries": 8.0, "loss": 3.0},
            },
            {"site": "b", "status": "left-out", "code": "late", "bytes": 0},
        ],
    }
    return {**found, **changes}


def test_what_is_known_at_the_end_of_a_round_and_what_was_measured_are_apart():
    told, measured = round_points(entry()), measured_points(entry())
    assert not set(told) & set(measured)
    assert told == {
        "seconds": 1.5,
        "bytes_sent": 5.0,
        "bytes_received": 10.0,
        "attempt": 1.0,
        "a/train/bytes": 4.0,
        "a/train/loss": 0.75,
        "a/train/epsilon": 0.25,
        "a/train/samples/ecg_encoder": 12.0,
        "b/train/bytes": 0.0,
    }
    # The loss of a site's training and its loss on validation patients are two numbers.
    assert measured["a/loss"] == 3.0 and measured["pooled/loss"] == 2.0
    assert measured["pooled/recall_at_5"] == 0.5 and measured["a/recall_at_5"] == 0.25
    assert not any("mae" in name for name in measured), "what is no number is left out"


def test_intervals_follow_where_they_can_be_made():
    """Wilson's interval of 20 of 40, from its closed form."""
    measured = measured_points(entry())
    z = 1.959963984540054
    middle, half = (20 + z * z / 2) / (40 + z * z), z / (40 + z * z) * math.sqrt(20 * 20 / 40 + z * z / 4)
    assert measured["pooled/recall_at_5_low"] == pytest.approx(middle - half)
    assert measured["pooled/recall_at_5_high"] == pytest.approx(middle + half)


def test_a_given_interval_is_sent_as_it_is():
    pooled = {"auroc/hf": 0.8, "auroc_low/hf": 0.7, "auroc_high/hf": 0.9}
    measured = measured_points(entry(primary="auroc/hf", pooled=pooled))
    assert measured["pooled/auroc_low/hf"] == 0.7 and measured["pooled/auroc_high/hf"] == 0.9


def test_test_patients_and_external_sites_have_their_own_names():
    test = {
        "pooled": {"r2": 0.1},
        "sites": [{"site": "a", "metrics": {"r2": 0.2}}, {"site": "b", "code": "too-few-patients"}],
        "external": {"c": {"r2": 0.3}},
        "personal": {"a": {"r2": 0.4}, "pooled": {"r2": 0.5}},
    }
    measured = measured_points(entry(pooled={}, test=test))
    assert measured == {
        "test.pooled/r2": 0.1,
        "test.a/r2": 0.2,
        "test.external.c/r2": 0.3,
        "test.personal.a/r2": 0.4,
        "test.personal.pooled/r2": 0.5,
    }


def test_a_site_called_pooled_does_not_take_the_pools_place():
    row = {"site": "pooled", "loss": 1.0, "metrics": {"loss": 9.0}}
    assert measured_points(entry(sites=[row]))["pooled/loss"] == 2.0
    assert measured_points(entry(sites=[row]))["site.pooled/loss"] == 9.0


@pytest.mark.parametrize("name", ["recall@5", "a//b", "/a", "../a", "ä(x)", "a b:c", "", "x" * 400, "r²/é"])
def test_mlflow_takes_every_name(name):
    made = metric_name(name)
    _validate_metric(made, 1.0, 0, 0)
    assert len(made) <= MAX_ENTITY_KEY_LENGTH


def test_the_whole_document_is_flat_and_within_the_limits():
    study = {
        "name": "s",
        "sites": {"minimum": 2, "roster": []},
        "aggregation": {"strategy": "fedavg"},
        "phases": [{"task": "align", "options": {"x": None, "long": "é" * 9000}}],
        "ratio": [0.5, 0.5],
    }
    found = parameters.study_parameters(study, "ab" * 32)
    assert found["study_digest"] == "ab" * 32 and found["strategy"] == "fedavg"
    assert found["sites.minimum"] == "2" and found["sites.roster"] == "[]"
    assert found["phases.1.task"] == "align" and found["phases.1.options.x"] == "null"
    assert found["ratio"] == "[0.5, 0.5]"
    for name, value in found.items():
        _validate_param(name, value)
    assert len(found["phases.1.options.long"]) == MAX_PARAM_VAL_LENGTH


def test_our_limits_are_mlflows():
    assert store.METRICS_A_CALL == MAX_METRICS_PER_BATCH
    assert store.PARAMETERS_A_CALL == MAX_PARAMS_TAGS_PER_BATCH
    assert store.LONGEST_TAG == MAX_TAG_VAL_LENGTH
    assert parameters.LONGEST_VALUE == MAX_PARAM_VAL_LENGTH
    assert points.PENDING == measure.PENDING


def test_what_a_study_came_to_is_the_last_round_of_each_phase():
    last = entry(round=2, pooled={"recall@5": 0.75, "queries": 4.0})
    other = entry(phase=1, task="probe", primary="r2", pooled={}, test={"pooled": {"r2": 0.5}})
    found = final_points({"rounds": [entry(round=1), last, other], "sites": [{}, {}]})
    assert found["1-align/validation/recall_at_5"] == 0.75
    assert found["2-probe/test/r2"] == 0.5
    assert (found["rounds"], found["seconds"], found["sites"]) == (3.0, 4.5, 2.0)
    assert all(re.fullmatch(r"[\w./-]+", name) for name in found)
