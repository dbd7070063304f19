"""Large records are given back at once, also inside a heap that was set aside."""

import gc
import weakref

import pytest

from server.memory import LARGE_BYTES, give_back, young_heap


class Record:
    """Refers to itself, as Flower's records do."""

    def __init__(self):
        self.own = self


@pytest.fixture(autouse=True)
def _collector_at_rest():
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("nbytes, gone", [(LARGE_BYTES + 1, True), (LARGE_BYTES, False)])
def test_what_is_large_is_gone_at_once(nbytes, gone):
    with young_heap():
        record = Record()
        seen = weakref.ref(record)
        del record
        give_back(nbytes)
        assert (seen() is None) == gone


def test_the_heap_from_before_is_set_aside_and_comes_back():
    before = Record()
    seen = weakref.ref(before)
    with young_heap():
        del before
        give_back(LARGE_BYTES + 1)
        assert seen() is not None
    gc.collect()
    assert seen() is None
