"""The SuperNode of a benchmark: Flower's own at the project's pace, without a site's approvals.

Takes the arguments of ``flower-supernode``.
"""

from __future__ import annotations

import importlib
from types import SimpleNamespace
from typing import Any

from client.pace import Pace

if __name__ == "__main__":
    loop: Any = importlib.import_module("flwr.supernode.start_client_internal")
    loop.time = SimpleNamespace(sleep=Pace())
    program: Any = importlib.import_module("flwr.supernode.cli")
    program.flower_supernode()
