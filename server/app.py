"""The ServerApp: reads the run config, runs the study, writes the run folder.

The run config holds a few scalars only: ``study`` (a YAML file, or the name of one in ``server/studies``),
``out`` (the run folder), ``initial`` (a folder of weights to start from), ``hospitals`` (for clients in
simulation) and ``track``. All else is the study's.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from cardionets_core.config.study import Study, read_study
from cardionets_core.durable import on_disk, write_json, write_whole
from cardionets_core.errors import CardioNetsError, ConfigError
from cardionets_core.service.state import only_one
from server.checkpoints import export_model
from server.link.transfer import move_bytes_sparingly
from server.link.wanted import RESULT, RUN_LOCK
from server.memory import young_heap
from server.progress import Progress, line, silent
from server.report import result_of
from server.rounds import SiteLink
from server.study_files import find_study
from server.study_run import StudyRun

OTHER_RUN_S = 60.0
"""How long a run waits for an earlier one of the same folder that has lost its SuperLink and is ending."""


def run_study(
    grid: Grid,
    study: Study,
    *,
    folder: Path,
    progress: Progress = silent,
    track: bool = True,
    initial: Path | None = None,
    minimum_free_bytes: int = 0,
) -> dict[str, Any]:
    """Run or resume a study and write its run folder.

    Args:
        grid: Flower's grid.
        study: what to run.
        folder: receives ``checkpoints``, ``rounds``, ``model``, ``result.json``, ``status.json``,
            ``journal.jsonl`` and ``mlflow.db``; a file ``requests/pause`` in it pauses the study.
        progress: called for every event.
        track: whether to write the MLflow store.
        initial: folder of the weights that the study names as ``initial``.
        minimum_free_bytes: the study pauses before a round where the disk has less.

    Returns:
        The content of ``result.json``.

    Raises:
        UsageError: another run of this folder goes on.
        CardioNetsError: the study could not go on; ``result.json`` then says ``paused`` and why.
    """
    with on_disk(folder, keeps="nothing was begun"):
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "study.json", (study.to_json() + "\n").encode())
    one_run = only_one(folder, name=RUN_LOCK, what="a run of this study", patience_s=OTHER_RUN_S)
    with one_run, young_heap():
        return _run_alone(grid, study, folder, progress, track, initial, minimum_free_bytes)


def _run_alone(
    grid: Grid,
    study: Study,
    folder: Path,
    progress: Progress,
    track: bool,
    initial: Path | None,
    minimum_free_bytes: int,
) -> dict[str, Any]:
    run = StudyRun(
        study,
        link=SiteLink(grid),
        folder=folder,
        progress=progress,
        initial=initial,
        minimum_free_bytes=minimum_free_bytes,
    )
    try:
        checkpoint = run.run()
        with on_disk(folder, keeps="the last checkpoint is whole"):
            export_model(checkpoint, folder / "model", study=study)
            content = result_of(study, run.members.facts, checkpoint)
            write_json(folder / RESULT, content)
    except CardioNetsError as error:
        with contextlib.suppress(CardioNetsError, OSError):
            # A checkpoint that cannot be read, or a full disk, must not hide why the study paused.
            checkpoint_or_none = run.checkpoints.latest()
            write_json(folder / RESULT, result_of(study, run.members.facts, checkpoint_or_none, error=error))
            run.status.ended(checkpoint_or_none, error)
            run.page.ended(checkpoint_or_none, run.status.content())
        raise
    run.status.ended(checkpoint)
    run.page.ended(checkpoint, run.status.content())
    if track:
        from server.tracking import track_result

        content["tracking"] = track_result(content, store=folder / "mlflow.db", artefacts=folder / "mlflow")
        write_json(folder / RESULT, content)
    return content


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
        minimum_free_bytes=int(context.run_config.get("minimum-free-bytes", 0)),
    )
