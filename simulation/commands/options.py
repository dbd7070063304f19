"""What several commands of ``cardionets-sim`` take, and what the shell proposes for it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

INTERRUPTED = 130
"""Exit code after Ctrl-C."""
SCENARIOS = Path(__file__).parents[1] / "scenarios"


def _scenario_names(incomplete: str) -> list[str]:
    """Shipped scenarios that begin so; the shell goes on with files where there are none."""
    return sorted(path.stem for path in SCENARIOS.glob("*.yaml") if path.stem.startswith(incomplete))


ScenarioArgument = Annotated[
    str,
    typer.Argument(
        help="name of a shipped scenario, or path of a scenario file", autocompletion=_scenario_names
    ),
]
DataOption = Annotated[
    Path | None, typer.Option("--data", help="folder of real recordings, for scenarios that use them")
]
InitialOption = Annotated[
    Path | None, typer.Option("--initial", help="folder of the weights that the study names as initial")
]
