"""Works of cells for tests: a fresh process imports them by name."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cardionets_core.errors import DataError
from simulation.cells.cell import CellResult


@dataclass(frozen=True, kw_only=True)
class Counted:
    """Counts its tries in a file beside its folder, and may fail or wait."""

    tries: Path
    value: float = 1.0
    fails: str = ""
    waits_s: float = 0.0
    starts_anew: bool = False

    def run(self, folder: Path) -> CellResult:
        with self.tries.open("a") as handle:
            handle.write(f"{(folder / 'half').exists()}\n")
        (folder / "half").write_text("done")
        sys.stdout.write("said by a cell\n")
        sys.stdout.flush()
        time.sleep(self.waits_s)
        if self.fails == "data":
            raise DataError("the disk is empty", where="disk", remedy="fill it")
        if self.fails == "bug":
            raise ZeroDivisionError("nothing")
        if self.fails == "killed":
            os.kill(os.getpid(), 9)
        return CellResult(content={"value": self.value}, arrays={"x": np.full(3, self.value)})
