"""Faults of a document read as a person would tell them: the key as typed, counted from 1, and no tags."""

from __future__ import annotations

from typing import Annotated, Literal, Self

import pytest
from pydantic import Field, model_validator

from cardionets_core.config.faults import did_you_mean
from cardionets_core.config.read import Document, parse_document
from cardionets_core.errors import ConfigError


class Still(Document):
    kind: Literal["still"]
    seconds: int = 1


class Moving(Document):
    kind: Literal["moving", "sliding"]
    factor: float = Field(default=1.0, gt=0)
    rounds: tuple[int, int] | None = None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.rounds is not None and self.rounds[0] > self.rounds[1]:
            raise ValueError("rounds: the last is before the first")
        return self


Part = Annotated[Still | Moving, Field(discriminator="kind")]


class Whole(Document):
    name: str
    colour: Literal["red", "green"] = "red"
    parts: tuple[Annotated[Still | Moving, Field(discriminator="kind")], ...] = Field(
        default=(), min_length=1
    )
    by_name: dict[str, Still] = Field(default_factory=dict)
    by_number: dict[int, bool | int | float] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _two_faults(self) -> Self:
        if self.name == "bad":
            raise ValueError("name: is bad\nparts.1: is bad, too\nall in all: no key")
        return self


def told(**content) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_document(Whole, {"name": "a", "parts": [{"kind": "still"}], **content}, where="test")
    head, *lines = caught.value.what.splitlines()
    assert head == f"{len(lines)} fault(s) in the document:"
    return [line.removeprefix("  - ") for line in lines]


def test_entries_count_from_1_and_tags_are_no_keys():
    # The very key that was refused is no guess, though another kind of entry has it.
    found = told(parts=[{"kind": "still"}, {"kind": "still", "factor": 2}])
    assert found == ["parts.2.factor: unknown key; still has kind, seconds"]
    assert told(parts=[{"kind": "moving", "facter": 2}]) == [
        "parts.1.facter: unknown key; did you mean 'factor'?"
    ]
    assert told(parts=[{"kind": "moving", "factor": 0}])[0].startswith(
        "parts.1.factor: should be greater than 0"
    )


def test_a_kind_that_is_not_there_is_told_with_what_was_perhaps_meant():
    assert told(parts=[{"kind": "slidng"}]) == ["parts.1.kind: there is no 'slidng'; did you mean 'sliding'?"]
    assert told(parts=[{"kind": "x"}]) == [
        "parts.1.kind: there is no 'x'; use one of: still, moving, sliding"
    ]
    assert told(parts=[{}]) == ["parts.1.kind: is missing"]
    assert told(colour="gren") == ["colour: should be 'red' or 'green'; did you mean 'green'? (found 'gren')"]


def test_what_follows_from_another_fault_is_not_told():
    # The faulty entry is not kept, so the list looks empty.
    assert told(parts=[{"kind": "x"}])[1:] == [] and "at least 1 item" in told(parts=[])[0]


def test_checks_of_our_own_name_their_key_and_are_a_line_each():
    assert told(parts=[{"kind": "moving", "rounds": [3, 2]}]) == [
        "parts.1.rounds: the last is before the first"
    ]
    assert told(name="bad") == ["name: is bad", "parts.1: is bad, too", "(top level): all in all: no key"]


def test_keys_of_mappings_are_shown_as_they_stand():
    assert told(by_name={"still": {"kind": "still", "secnds": 1}}) == [
        "by_name.still.secnds: unknown key; did you mean 'seconds'?"
    ]
    # One value that is none of several kinds is one fault.
    assert told(by_number={24103: "x"}) == [
        "by_number.24103: should be true or false or a whole number or a number (found 'x')"
    ]


def test_a_guess_is_never_the_word_itself():
    assert did_you_mean("factor", ["factor", "seconds"]) == ""
    assert did_you_mean("factr", ["factor"]) == "; did you mean 'factor'?"
