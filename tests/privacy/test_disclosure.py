"""Nothing leaves that is not named: fields, arrays, texts, numbers; a code leaves alone."""

import dataclasses
import json

import numpy as np
import pytest

from cardionets_core.errors import DisclosureRefusedError, error_codes
from cardionets_core.exchange.messages import Envelope, PackedModule, Reply, RoundName, reply_to_envelope
from cardionets_core.exchange.precision import NO_SCALES, encode
from cardionets_core.exchange.tensors import layout_of, pack
from cardionets_core.privacy.counts import CELL, HISTOGRAM, PEOPLE
from cardionets_core.privacy.disclosure import Allowed, Limits, check_refusal, told_envelope

SECRET = "9000011 of ward 3"
NAME = RoundName(study_digest="ab" * 32, phase=1, round=3, attempt=2)
TENSORS = {"w": np.arange(6, dtype=np.float32).reshape(2, 3)}
LAYOUT = layout_of(TENSORS)
MODULE = PackedModule(layout=LAYOUT, values=pack(TENSORS))
LIMITS = Limits(
    minimum_cell=5,
    count_rounding=1,
    coarse=False,
    cohort_sizes=True,
    maximum_bytes=10**6,
    maximum_text_bytes=10**4,
)
SUMS = {"n_rows": np.array([40.0]), "n_patients": np.array([20.0]), "error": np.array([0.25])}
REPLIES = {
    "census": Reply(site="alpha", name=NAME, facts=json.dumps({"patients": {"train": 12}, "role": "member"})),
    "statistics": Reply(site="alpha", name=NAME, sums=SUMS, values={"role": 0.0}),
    "evaluate": Reply(site="alpha", name=NAME, sums=SUMS),
    "train": Reply(
        site="alpha",
        name=NAME,
        modules={"ecg_encoder": MODULE},
        samples={"ecg_encoder": 33},
        values={"loss": 1.5, "steps": 4.0, "part/mse": 0.5},
    ),
}
SHAPES = {name: value.shape for name, value in SUMS.items()}
ALLOWED = {
    "census": Allowed(kind="census", name=NAME, site="alpha"),
    "statistics": Allowed(
        kind="statistics", name=NAME, site="alpha", sums=SHAPES, counts=PEOPLE, values=frozenset({"role"})
    ),
    "evaluate": Allowed(kind="evaluate", name=NAME, site="alpha", sums=SHAPES, counts=PEOPLE),
    "train": Allowed(
        kind="train",
        name=NAME,
        site="alpha",
        layouts={"ecg_encoder": LAYOUT},
        values=frozenset({"loss", "steps"}),
    ),
}
KINDS = sorted(REPLIES)


def bare(reply):
    envelope = reply_to_envelope(reply)
    fields = {name: value for name, value in envelope.fields.items() if not name.startswith("head/")}
    return Envelope(fields=fields, arrays=envelope.arrays)


def told(kind, *, limits=LIMITS, fields=None, arrays=None, **changes):
    envelope = bare(dataclasses.replace(REPLIES[kind], **changes))
    envelope = Envelope(
        fields={**envelope.fields, **(fields or {})}, arrays={**envelope.arrays, **(arrays or {})}
    )
    return told_envelope(envelope, ALLOWED[kind], limits)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_allowed_leaves_as_it_is(kind):
    before, after = bare(REPLIES[kind]), told(kind)
    assert dict(after.fields) == dict(before.fields)
    assert {name: value.tobytes() for name, value in after.arrays.items()} == {
        name: value.tobytes() for name, value in before.arrays.items()
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "field, value",
    [
        ("ward", SECRET),
        ("value/ward", 3.0),
        ("value/loss/ward", 3.0),
        ("samples/ward", 40),
        ("layout/module/ward", "[]"),
        ("digest/module", "ab" * 32),
        ("FORMAT", 4),
        ("site ", "alpha"),
        ("value/part/Ward 3", 1.0),
    ],
)
def test_a_new_field_never_leaves_before_somebody_allows_it(kind, field, value):
    with pytest.raises(DisclosureRefusedError) as caught:
        told(kind, fields={field: value})
    assert f"the field {field}" in caught.value.what


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "array", ["sum/ward", "module/ward", "signals", "sum/measured/n_rows", "scale/module/x"]
)
def test_a_new_array_never_leaves_before_somebody_allows_it(kind, array):
    with pytest.raises(DisclosureRefusedError) as caught:
        told(kind, arrays={array: np.zeros(1)})
    assert f"the array {array}" in caught.value.what


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "field, value",
    [
        ("site", SECRET),
        ("site", "beta"),
        ("code", SECRET),
        ("code", "privacy"),
        ("measure-code", SECRET),
        ("measure-code", "privacy"),  # nobody asked it to measure
        ("study-digest", "cd" * 32),
        ("study-digest", SECRET),
        ("format", 3),
        ("round", 4),
        ("phase", 1.0),
        ("attempt", True),
        ("facts", SECRET),
    ],
)
def test_no_field_carries_another_value_than_its_own(kind, field, value):
    with pytest.raises(DisclosureRefusedError):
        told(kind, fields={field: value})


@pytest.mark.parametrize(
    "field, value",
    [
        ("layout/module/ecg_encoder", '[["9000011",[6]]]'),
        ("form/module/ecg_encoder", "bf16"),
        ("samples/ecg_encoder", 0),
        ("samples/ecg_encoder", 33.0),
        ("value/loss", float("nan")),
        ("value/loss", float("inf")),
        ("value/loss", 1),
        ("value/part/mse", SECRET),
    ],
)
def test_layouts_samples_and_values_are_of_their_kind(field, value):
    with pytest.raises(DisclosureRefusedError) as caught:
        told("train", fields={field: value})
    assert field in caught.value.what


@pytest.mark.parametrize(
    "kind, array, value",
    [
        ("train", "module/ecg_encoder", np.zeros(6)),
        ("train", "module/ecg_encoder", np.zeros(7, np.float32)),
        ("train", "module/ecg_encoder", np.full(6, np.nan, np.float32)),
        ("evaluate", "sum/error", np.zeros(2)),
        ("evaluate", "sum/error", np.zeros(1, np.float32)),
        ("evaluate", "sum/error", np.array([np.inf])),
        ("statistics", "sum/n_patients", np.array([4.0])),
    ],
)
def test_arrays_are_of_their_type_and_shape_finite_and_of_enough_people(kind, array, value):
    with pytest.raises(DisclosureRefusedError):
        told(kind, arrays={array: value})


def test_a_measurement_that_was_asked_for_may_say_why_it_failed_and_in_codes_only():
    allowed = dataclasses.replace(ALLOWED["train"], measures=True)
    for code in error_codes():
        envelope = bare(dataclasses.replace(REPLIES["train"], measure_code=code))
        assert told_envelope(envelope, allowed, LIMITS).fields["measure-code"] == code
    with pytest.raises(DisclosureRefusedError, match="measure-code"):
        told_envelope(bare(dataclasses.replace(REPLIES["train"], measure_code=SECRET)), allowed, LIMITS)


def test_coded_modules_leave_in_the_studys_form_and_no_other():
    coded = encode(MODULE.values, "int8")
    module = PackedModule(layout=LAYOUT, values=coded.codes, form="int8", scales=coded.scales)
    envelope = bare(dataclasses.replace(REPLIES["train"], modules={"ecg_encoder": module}))
    assert told_envelope(envelope, dataclasses.replace(ALLOWED["train"], form="int8"), LIMITS)
    for form in ("fp32", "bf16"):
        with pytest.raises(DisclosureRefusedError):
            told_envelope(envelope, dataclasses.replace(ALLOWED["train"], form=form), LIMITS)
    assert NO_SCALES.size == 0


def test_counts_samples_and_sizes_are_rounded_and_nothing_else():
    limits = dataclasses.replace(LIMITS, count_rounding=10)
    assert told("train", limits=limits).fields["samples/ecg_encoder"] == 30
    assert json.loads(told("census", limits=limits).fields["facts"])["patients"] == {"train": 10}
    found = told("evaluate", limits=limits, sums={**SUMS, "n_rows": np.array([44.0])}).arrays
    assert found["sum/n_rows"] == [40] and found["sum/n_patients"] == [20] and found["sum/error"] == [0.25]


def test_a_small_group_is_refused_although_rounding_would_hide_it():
    limits = dataclasses.replace(LIMITS, count_rounding=10)
    with pytest.raises(DisclosureRefusedError, match="n_patients"):
        told("evaluate", limits=limits, sums={**SUMS, "n_patients": np.array([3.0])})


def test_histograms_leave_fine_or_coarse():
    scores = np.zeros((1, 2048))
    scores[0, :64] = 1.0
    allowed = dataclasses.replace(
        ALLOWED["evaluate"],
        sums={"scores": scores.shape, "cases": (1,)},
        counts={"scores": HISTOGRAM, "cases": CELL},
    )
    envelope = bare(Reply(site="alpha", name=NAME, sums={"scores": scores}))
    assert (told_envelope(envelope, allowed, LIMITS).arrays["sum/scores"] == scores).all()
    coarse = told_envelope(envelope, allowed, dataclasses.replace(LIMITS, coarse=True)).arrays["sum/scores"]
    assert np.flatnonzero(coarse[0]).tolist() == [16, 48] and coarse.sum() == 64


@pytest.mark.parametrize("key, limit", [("maximum_bytes", 23), ("maximum_text_bytes", 200)])
def test_bytes_of_arrays_and_of_text_are_bounded(key, limit):
    assert told("train", limits=dataclasses.replace(LIMITS, **{key: 24 if key == "maximum_bytes" else 1000}))
    with pytest.raises(DisclosureRefusedError, match="the policy allows"):
        told("train", limits=dataclasses.replace(LIMITS, **{key: limit}))


# -- refusals ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", sorted(error_codes()))
def test_every_code_of_the_tree_leaves_with_nothing_beside_it(code):
    check_refusal(bare(Reply(site="alpha", name=NAME, code=code)))
    check_refusal(bare(Reply(site="", name=dataclasses.replace(NAME, study_digest=""), code=code)))


@pytest.mark.parametrize(
    "changes",
    [
        {"code": ""},
        {"code": SECRET},
        {"site": SECRET},
        {"facts": "{}"},
        {"measure_code": "privacy"},
        {"values": {"loss": 1.0}},
        {"samples": {"m": 40}},
        {"sums": {"n_rows": np.array([40.0])}},
        {"modules": {"m": MODULE}},
        {"name": dataclasses.replace(NAME, study_digest=SECRET)},
    ],
)
def test_a_refusal_with_anything_else_is_none(changes):
    content = {"site": "alpha", "name": NAME, "code": "privacy", **changes}
    with pytest.raises(DisclosureRefusedError):
        check_refusal(bare(Reply(**content)))
