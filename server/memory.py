"""Gives large tensors back at once, without walking the whole heap for it.

Flower's records refer to themselves, so what they hold waits for the garbage collector. A collection walks
every object of the process, most of which are libraries that stay; a study sets those aside first.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

LARGE_BYTES = 4_000_000
"""Below this, tensors may wait until the collector comes by itself."""


@contextlib.contextmanager
def young_heap() -> Iterator[None]:
    """Inside the block, collections look only at what was made inside it."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def give_back(nbytes: int) -> None:
    """Collect what large records leave behind.

    Args:
        nbytes: of the tensors that are no longer needed.
    """
    if nbytes > LARGE_BYTES:
        gc.collect()
