"""The files of the server that use names of Flower that are not public, and the names themselves."""

import importlib
import importlib.metadata

import pytest

from server.link import objects, superlink, transfer


@pytest.mark.parametrize("module", [objects, superlink, transfer], ids=lambda module: module.__name__)
def test_it_was_written_for_this_flower(module):
    assert importlib.metadata.version("flwr").startswith(module.FLWR_MINOR + "."), (
        f"read {module.__name__} again: it uses names that are not public"
    )


def test_a_locked_database_is_waited_for_longer(monkeypatch):
    mixin = importlib.import_module("flwr.supercore.sql_mixin")
    monkeypatch.setattr(mixin, "SQLITE_PRAGMAS", mixin.SQLITE_PRAGMAS)
    before = dict(mixin.SQLITE_PRAGMAS)
    superlink.patient_database(123_000)
    after = dict(mixin.SQLITE_PRAGMAS)
    assert after == {**before, "busy_timeout": "123000"} and before["busy_timeout"] != "123000"


def test_a_clock_that_is_ahead_is_borne(monkeypatch):
    auth = importlib.import_module("flwr.superlink.routers.fleet.node_auth")
    monkeypatch.setattr(auth, "SYSTEM_TIME_TOLERANCE", auth.SYSTEM_TIME_TOLERANCE)
    superlink.tolerant_clock(77.0)
    assert auth.SYSTEM_TIME_TOLERANCE == 77.0
