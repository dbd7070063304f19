"""YAML of studies and sites, and JSON of any hand: plain values, or one refusal with its line."""

from __future__ import annotations

import os
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cardionets_core.config.read import MOST_FAULTS, parse_document, read_mapping, read_text_mapping
from cardionets_core.config.site import SiteConfig
from cardionets_core.config.study import Study
from cardionets_core.errors import ConfigError
from cardionets_core.plain_json import parse_json, read_bounded, read_json

TEXTS = {
    "a list as a key": "? [a]\n: b",
    "a mapping as a key": "? {a: b}\n: c",
    "a day that is none": "a: 2020-13-45",
    "an empty number": "a: !!int ''",
    "an empty fraction": "a: !!float ''",
    "a third truth value": "a: !!bool maybe",
    "a moment in words": "a: !!timestamp soon",
    "a mapping of no pairs": "!!map [a, b]",
    "a number of many digits": "a: " + "9" * 6000,
    "a character beyond all": 'a: "\\UFFFFFFFF"',
    "half of a character": 'a: "\\ud800"',
    "half of a character as a key": '"\\udfff": 1',
    "lists in lists": "a: " + "[" * 50_000,
    "sequences in sequences": "- " * 40_000,
    "mappings in mappings": "? " * 2000 + "a",
    "an alias": "a: &x [1]\nb: *x",
    "laughs": "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: [*c, *c]",
    "merged mappings": "a: &a {x: 1}\nb: {<<: [*a, *a]}",
    "an object of Python": "a: !!python/object/apply:os.system [ls]",
    "a name of Python": "a: !!python/name:os.system",
    "a tag of nobody": "a: !ours b",
    "a byte of nothing": "a\0: 1",
    "two documents": "a: 1\n---\nb: 2",
    "a key twice": "a: 1\na: 2",
    "no mapping": "- 1",
    "a set of lists": "a: !!set {[a]: }",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_document_with_this_is_refused_in_little_time(text):
    start = time.monotonic()
    with pytest.raises(ConfigError) as refused:
        read_text_mapping(text.encode(), where="document")
    assert time.monotonic() - start < 5.0 and refused.value.where.startswith("document")
    str(refused.value).encode()


def test_bytes_that_are_no_text_and_large_documents_are_refused():
    for content in (b"\xff\xfe", b"a: \xed\xa0\x80", b" " * 1_000_001):
        with pytest.raises(ConfigError):
            read_text_mapping(content, where="document")


def test_a_document_of_thousands_of_faults_tells_some_of_them_at_once():
    text = "\n".join(f"key-{number}: 1" for number in range(15_000))
    start = time.monotonic()
    with pytest.raises(ConfigError, match=r"and 14\d\d\d more") as refused:
        parse_document(Study, read_text_mapping(text.encode(), where="study"), where="study")
    assert refused.value.what.count("\n") == MOST_FAULTS + 1 and time.monotonic() - start < 20.0


@pytest.mark.parametrize("value", ["0x" + "f" * 300_000, "x" * 500_000, "[[1]]", ".nan", "-.inf", "!!null x"])
def test_a_value_of_any_size_is_shown_in_part(value):
    for model in (Study, SiteConfig):
        with pytest.raises(ConfigError) as refused:
            parse_document(
                model, read_text_mapping(f'name: {value}\n"k\\e[2J": 1'.encode(), where="d"), where="d"
            )
        assert len(str(refused.value)) < 5000 and "\x1b" not in str(refused.value)


def test_a_pipe_and_a_folder_are_no_documents(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, tmp_path / "absent"):
        with pytest.raises(ConfigError):
            read_mapping(path)
        with pytest.raises(OSError):
            read_json(path)


@given(st.text(max_size=60))
@settings(max_examples=200)
def test_any_text_is_a_mapping_of_plain_values_or_refused(text):
    try:
        found = read_text_mapping(text.encode("utf-8", "surrogatepass"), where="document")
    except ConfigError:
        return
    assert isinstance(found, dict)


YAML_PARTS = st.lists(
    st.sampled_from(["a", ": ", "\n", "- ", "[", "]", "{", "}", "? ", "&x ", "*x", "!!int ", "!!set ", "<<: ",
                     "'",
                     '"', "|", "%", "#", "0x1", "1e9", "~", "2020-01-01", "  ", "---\n", ",", "\\ud800"]),
    max_size=14,
)  # fmt: skip


@given(YAML_PARTS)
@settings(max_examples=300)
def test_any_parts_of_yaml_are_a_mapping_or_refused(parts):
    try:
        found = read_text_mapping("".join(parts).encode(), where="document")
        parse_document(Study, found, where="document")
    except ConfigError as refused:
        str(refused).encode()


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a":' * 50_000,
        '{"a":1,"a":2}',
        "NaN",
        "-Infinity",
        "1e999",
        "9" * 5000,
        b"\xff",
        "",
        "{",
        "01",
    ],
)
def test_json_of_another_hand_has_one_kind_of_fault(text):
    with pytest.raises(ValueError):
        parse_json(text)


def test_our_own_records_may_hold_what_is_not_finite(tmp_path):
    (tmp_path / "a.json").write_text('{"loss": NaN}')
    assert read_json(tmp_path / "a.json", finite=False)["loss"] != 0
    with pytest.raises(ValueError):
        read_bounded(tmp_path / "a.json", most_bytes=5)
