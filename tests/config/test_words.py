"""What a wrong name or address is told: words that say how it is written, and no regular expression."""

from __future__ import annotations

import pytest

from cardionets_core.config import patterns
from cardionets_core.config.connection import ConnectionConfig
from cardionets_core.config.read import parse_document
from cardionets_core.config.study import Study
from cardionets_core.config.workspace import ServerConfig
from cardionets_core.errors import ConfigError

SERVER = {"consortium": "heart", "address": "hub.example.org:9092"}


def told(model, content):
    with pytest.raises(ConfigError) as caught:
        parse_document(model, content, where="here")
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"address": "hub.example.org"}, "address: give HOST:PORT, such as hub.example.org:9092"),
        ({"address": "hub.example.org:99999"}, "address: the port lies in 1 to 65535"),
        ({"consortium": "Heart Study"}, "consortium: give a name of lower-case letters, digits and hyphens"),
        ({"tracking": {"uri": "nowhere"}}, "tracking.uri: the address is of no kind that MLflow stores to"),
        ({"inner_port": 9092}, "three different ones, not 9092, 9092, 9102"),
        ({"health_port": 9101}, "three different ones, not 9092, 9101, 9101"),
    ],
)
def test_a_wrong_value_of_server_yaml_is_told_in_words(changes, words):
    message = told(ServerConfig, SERVER | changes)
    assert words in message
    for foreign in ("pattern", "^", "Value error", "unknown keys are refused"):
        assert foreign not in message


def test_names_in_other_documents_are_told_alike():
    assert patterns.WORDS[patterns.ADDRESS] in told(ConnectionConfig, {"server": "hub"})
    message = told(Study, {"name": "My Study", "phases": [], "initial": {"ecg_encoder": "abc"}})
    assert patterns.WORDS[patterns.STUDY_NAME] in message and patterns.WORDS[patterns.SHA256] in message


def test_unknown_keys_are_spoken_of_where_there_is_one():
    assert "unknown keys are refused" in told(ServerConfig, SERVER | {"adress": "a:1"})
