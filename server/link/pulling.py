"""How soon the ServerApp looks again for a reply's bytes that are still on their way.

A SuperNode announces its reply first and sends the bytes after. Flower waits 1, 2, 4 and at most 10 s between
two looks at each missing object; beside a transfer of a few seconds that is most of the round. Uses names of
Flower that are not public (written for flwr 1.41; a test says so when that changes).
"""

from __future__ import annotations

import functools
import importlib
from typing import Any

FLWR_MINOR = "1.41"
FIRST_S = 0.05
LONGEST_S = 1.0
LONGEST_WAIT_S = 1800.0
"""For all objects of one reply; the link forgets a transfer that stands still long before."""


def look_often() -> None:
    """Make Flower's grid of this process look often; a second call changes nothing."""
    grid: Any = importlib.import_module("flwr.superlink.grid.http_grid")
    if not isinstance(grid.pull_objects, functools.partial):
        grid.pull_objects = functools.partial(
            grid.pull_objects,
            initial_backoff=FIRST_S,
            backoff_cap=LONGEST_S,
            max_tries_per_object=None,
            max_time=LONGEST_WAIT_S,
        )
