"""The ServerApp: reads the run config, runs the study, writes the run folder.

The run config holds a few scalars only: ``study`` (a YAML file, or the name of one in ``server/studies``),
``out`` (the run folder), ``initial`` (a folder of weights to start from), ``hospitals`` (for clients in
simulation) and ``track``. All else is the study's.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from cardionets_core.config.study import Study, read_study
from cardionets_core.errors import CardioNetsError, ConfigError
from server.checkpoints import export_model
from server.link.transfer import move_bytes_sparingly
from server.progress import Progress, line, silent
from server.report import result_of
from server.rounds import SiteLink
from server.study_files import find_study
from server.study_run import StudyRun

RESULT = "result.json"


def run_study(
    grid: Grid,
    study: Study,
    *,
    folder: Path,
    progress: Progress = silent,
    track: bool = True,
    initial: Path | None = None,
) -> dict[str, Any]:
    """Run or resume a study and write its run folder.

    Args:
        grid: Flower's grid.
        study: what to run.
        folder: receives ``checkpoints``, ``model``, ``result.json`` and ``mlflow.db``.
        progress: called for every event.
        track: whether to write the MLflow store.
        initial: folder of the weights that the study names as ``initial``.

    Returns:
        The content of ``result.json``.

    Raises:
        CardioNetsError: the study could not go on; ``result.json`` then says ``paused`` and why.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.json").write_text(study.to_json() + "\n", encoding="utf-8")
    run = StudyRun(study, link=SiteLink(grid), folder=folder, progress=progress, initial=initial)
    try:
        checkpoint = run.run()
    except CardioNetsError as error:
        checkpoint_or_none = run.checkpoints.latest()
        content = result_of(study, run.members.facts, checkpoint_or_none, error=error)
        write_json(folder / RESULT, content)
        raise
    export_model(checkpoint, folder / "model", study=study)
    content = result_of(study, run.members.facts, checkpoint)
    write_json(folder / RESULT, content)
    if track:
        from server.tracking import track_result

        content["tracking"] = track_result(content, store=folder / "mlflow.db", artefacts=folder / "mlflow")
        write_json(folder / RESULT, content)
    return content


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file in one step, so that a reader never sees half of it."""
    part = path.with_name(f".{path.name}.part")
    with part.open("w", encoding="utf-8") as handle:
        json.dump(content, handle, indent=2, sort_keys=True, allow_nan=False)
        handle.write("\n")
        handle.flush()
        os.fsync(handle.fileno())
    part.replace(path)


app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Flower's entry point; progress goes to the log as plain lines."""
    from flwr.common.logger import log

    move_bytes_sparingly()
    study = read_study(find_study(str(context.run_config.get("study", ""))))
    out = str(context.run_config.get("out", ""))
    if not out:
        raise ConfigError("the run has no folder", where="run config: out", remedy="give -c 'out=\"/path\"'")
    run_study(
        grid,
        study,
        folder=Path(out),
        progress=lambda event: log(20, line(event)),
        track=bool(context.run_config.get("track", True)),
        initial=Path(str(initial)) if (initial := context.run_config.get("initial", "")) else None,
    )
