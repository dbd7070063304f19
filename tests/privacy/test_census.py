"""A census tells what is named, in the form that is named; nothing else, and counts as the policy says."""

import importlib.metadata
import json

import pytest

from cardionets_core.errors import DisclosureRefusedError
from cardionets_core.privacy.census import told_census

FACTS = {
    "role": "member",
    "holds": ["ab" * 32],
    "versions": {"cardionets": "0.1.0", "flwr": "1.41.0", "torch": "2.13.0+cpu"},
    "patients": {"train": 101, "validation": 12, "test": 0},
    "recordings": {"ecg": 240, "cine": 3, "pair": 3},
    "refusals": {"ecg-flat": 1, "withdrawn": 7},
}


def told(facts, *, sizes=True, multiple=1):
    return json.loads(told_census(json.dumps(facts), sizes=sizes, multiple=multiple))


def test_what_is_named_leaves_as_it_is():
    assert told(FACTS) == FACTS


def test_the_versions_of_this_installation_can_be_told():
    versions = {name: importlib.metadata.version(name) for name in ("cardionets", "flwr", "torch")}
    assert told({"versions": versions}) == {"versions": versions}


def test_every_count_is_rounded_and_none_becomes_nothing():
    found = told(FACTS, multiple=10)
    assert found["patients"] == {"train": 100, "validation": 10, "test": 0}
    assert found["recordings"] == {"ecg": 240, "cine": 10, "pair": 10}
    assert found["refusals"] == {"ecg-flat": 10, "withdrawn": 10}
    assert told(FACTS, multiple=10) == found


@pytest.mark.parametrize(
    "key, value",
    [
        ("patient", "9000011"),
        ("role", "member of ward 3"),
        ("role", ["member"]),
        ("holds", ["/hospital/records/9000011"]),
        ("holds", "ab" * 32),
        ("versions", {"torch": "2.13.0 on ward-pc-7"}),
        ("versions", {"hostname": "2.13.0"}),
        ("patients", {"train": 101, "9000011": 1}),
        ("patients", {"train": "101"}),
        ("patients", {"train": True}),
        ("patients", {"train": -1}),
        ("recordings", {"ecg": 1.5}),
        ("refusals", {"9000011.xml cannot be read": 1}),
        ("refusals", [1]),
    ],
)
def test_anything_else_is_refused_by_its_key(key, value):
    with pytest.raises(DisclosureRefusedError, match=repr(key)):
        told({**FACTS, key: value})


def test_sizes_leave_only_where_the_policy_tells_them():
    for key in ("patients", "recordings", "refusals"):
        with pytest.raises(DisclosureRefusedError, match=key):
            told({key: FACTS[key]}, sizes=False)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '"role"', "null"])
def test_what_is_no_object_is_refused(text):
    with pytest.raises(DisclosureRefusedError):
        told_census(text, sizes=True, multiple=1)
