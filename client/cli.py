"""``cardionets-client``: hospital IT's program. stdout is the result, stderr progress."""

from __future__ import annotations

import enum
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cardionets_core.errors import CardioNetsError, DataError, UsageError
from client.commands import approve, budget, journal, logs, membership, rehearse, service, status
from client.commands.answer import (
    DeclaredOption,
    Format,
    FormatOption,
    SiteCommand,
    SiteOption,
    VersionOption,
    answering,
)
from client.ending import Stopped, error_json, run_program, tell_error

if TYPE_CHECKING:
    from cardionets_core.config.site import SiteConfig
    from cardionets_core.data.sources.local_files import Part

cli = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="A hospital's side: look into its files, prepare its data, join a consortium, see what left the "
    "building, predict from ECGs. First look: inspect, check, prepare. To join: request, init, rehearse, "
    "approve, start. Every day: status, logs, journal, budget. Nothing leaves but through start.",
    epilog="Every step in order: docs/operators.md. What may leave: docs/what-leaves.md",
)
membership.register(cli)


@cli.callback()
def _program(version: VersionOption = False) -> None:
    """Options of the program itself; the option's own callback has done what it asks."""


class PredictionFormat(enum.StrEnum):
    """How predictions are printed."""

    table = "table"
    json = "json"
    csv = "csv"


@cli.command(cls=SiteCommand)
def prepare(
    site: SiteOption = Path("site.yaml"),
    format: FormatOption = Format.table,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only count what would be read")] = False,
) -> None:
    """Read the hospital's records once and pack them into the cache; a second call does nothing new.

    Then writes the quality report, quality.html and quality.json, into the folder report of the cache. It
    shows recordings and stays in the building.
    """
    from client.wording import prepare_lines, preview_lines

    with answering(format, stopped="nothing was read yet; run the same command again to go on"):
        from cardionets_core.config.site import read_site

        config = read_site(site)
        if dry_run:
            from client.preview import preview

            _print(preview(config), preview_lines, format)
            return
        content, error = _prepared(config)
    _print(content | ({"error": error_json(error)} if error else {}), prepare_lines, format)
    if error is not None:
        tell_error(error)
        raise SystemExit(error.exit_code)


def _prepared(config: SiteConfig) -> tuple[dict[str, Any], CardioNetsError | None]:
    """The summary of a prepared site, and the error where nothing of it can be used."""
    from cardionets_core.data.prepare import prepare as prepare_cache
    from client.doctor.folders import exposed_key
    from client.report.quality_report import prepared_summary
    from client.report.unusable import nothing_usable
    from client.screen import Screen

    with Screen(sys.stderr) as screen:
        try:
            cohort = prepare_cache(config, progress=screen.tell)
            content = prepared_summary(config, cohort, progress=screen.tell)
        except Stopped as stopped:
            done, total = screen.reached.get("read", (0, 0))
            if total:
                kept = f"{done:,} of {total:,} recordings are done and kept"
                stopped.told = f"stopped: {kept}; run the same command again to go on"
            raise
        exposed = exposed_key(config.folders.secret)
        if exposed is not None:
            screen.note(f"warning [{exposed.code}]: {exposed}")
    return content, nothing_usable(content)


@cli.command(cls=SiteCommand)
def check(
    site: SiteOption = Path("site.yaml"),
    sample: Annotated[
        int, typer.Option("--sample", min=0, help="recordings that go through the whole path")
    ] = 8,
    picture: Annotated[
        Path | None, typer.Option("--picture", help="draw the sample into this PNG; keep it in the building")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="write over an earlier picture")] = False,
    format: FormatOption = Format.table,
) -> None:
    """Look at document, folders, machine, data and cache, and list every problem with its remedy.

    Works before prepare was ever run, and changes nothing. The exit code is that of the worst problem.
    """
    from client.checks import check_site
    from client.screen import Screen
    from client.wording import check_lines

    with answering(format, stopped="nothing was changed"), Screen(sys.stderr) as screen:
        if picture is not None and picture.exists() and not replace:
            raise UsageError(f"{picture} is there already", remedy="name another file, or give --replace")
        found = check_site(site, sample=sample, progress=screen.tell)
        if picture is not None and not found.sampled:
            screen.note("no picture was written: no recording could be sampled")
        elif picture is not None:
            from client.report.sample_picture import write_sample_picture

            write_sample_picture(picture, found.sampled)
            screen.note(f"the picture shows recordings of patients and stays in the building: {picture}")
    _print(found.to_json(), check_lines, format)
    raise SystemExit(found.exit_code)


@cli.command()
def inspect(
    paths: Annotated[list[Path], typer.Argument(exists=True, show_default=False, help="files or folders")],
    site: DeclaredOption = None,
    format: FormatOption = Format.table,
) -> None:
    """Say what is read of files and folders, or why not; writes nothing.

    A folder is walked; a DICOM study in one folder, or a WFDB header with its signal files, is one recording.
    No name is printed: 2.14 is the fourteenth recording or unknown file of the second PATH, in the order of
    their paths. With --format json, one object a line for each. Peak and rms are those of the file's signal
    in mV, before any filter; frames are counted from 1. Exit code 4 only where nothing could be read.
    """
    from client.inspection import Tally, declared_parts, inspect_paths
    from client.wording import inspection_lines, tally_lines

    tally = Tally()
    with answering(format, stopped="the rest was not looked at, and nothing was changed"):
        declared: Sequence[Part] = ()
        if site is not None:
            from cardionets_core.config.site import read_site

            declared = declared_parts(read_site(site))
        for found in inspect_paths(paths, declared=declared):
            tally.add(found)
            if format is Format.json:
                print(json.dumps(found, allow_nan=False), flush=True)
            elif found["format"] is not None or paths[found["argument"] - 1].is_file():
                print("\n".join(inspection_lines(found)), flush=True)
    print("\n".join(tally_lines(tally)), file=sys.stderr if format is Format.json else sys.stdout)
    if not tally.read:
        raise SystemExit(DataError.exit_code)


@cli.command()
def predict(
    paths: Annotated[
        list[Path],
        typer.Argument(exists=True, show_default=False, help="ECGs of any readable format, or folders"),
    ],
    model: Annotated[
        Path,
        typer.Option(
            "--model", help="a release (folder or zip), or the model folder of a run", show_default=False
        ),
    ],
    trust: Annotated[
        Path | None,
        typer.Option("--trust", help="who must have signed the release: the consortium's ca.crt"),
    ] = None,
    fingerprint: Annotated[
        str | None, typer.Option("--fingerprint", help="of the key that must have signed the release")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="folder for synthetic cines: NIfTI, GIF and PNG")
    ] = None,
    page: Annotated[
        Path | None, typer.Option("--page", help="write one HTML page; keep it in the building")
    ] = None,
    no_cine: Annotated[bool, typer.Option("--no-cine", help="draw no synthetic cine")] = False,
    seed: Annotated[int, typer.Option("--seed", min=0, help="of the synthetic cine")] = 0,
    explain: Annotated[
        list[str] | None,
        typer.Option(
            "--explain", help="a field such as 24103, or cad, cm, hf, pc, ph: which leads and times count"
        ),
    ] = None,
    site: DeclaredOption = None,
    device: Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1, or auto")] = "cpu",
    replace: Annotated[bool, typer.Option("--replace", help="write over earlier files")] = False,
    format: Annotated[
        PredictionFormat, typer.Option("--format", help="what stdout gets")
    ] = PredictionFormat.table,
) -> None:
    """Predict from ECGs what a cardiac MRI might show. **Research use only. Not for diagnosis.**

    Phenotypes with units, the range of the study's training patients and an interval from held-out errors;
    probabilities of diseases; and, with --out or --page, a cine that is marked as synthetic and on which
    nothing can be measured. Recordings are numbered as by inspect; no name is printed. What the model does
    not hold is said. Exit code 4 where any recording was refused; the others are predicted all the same.

    A release is checked first, every file and its signature, and works on any machine: no workspace, no
    network. Whoever signed it is told; with --trust or --fingerprint it must be that one.
    """
    from cardionets_core.release.opening import trusted_by
    from client.predict.lines import prediction_csv, prediction_lines
    from client.predict.output import Output
    from client.predict.run import Request, predict_all, refused
    from client.screen import Screen

    answer = Format.json if format is PredictionFormat.json else Format.table
    with answering(answer, stopped="files that are there are whole"), Screen(sys.stderr) as screen:
        declared: Sequence[Part] = ()
        if site is not None:
            from cardionets_core.config.site import read_site
            from client.inspection import declared_parts

            declared = declared_parts(read_site(site))
        content = predict_all(
            Request(
                paths=paths,
                model=model,
                trusted=trusted_by(trust, fingerprint),
                output=Output(folder=out, page=page, replace=replace),
                cine=not no_cine,
                seed=seed,
                explain=explain or (),
                declared=declared,
                device=device,
            ),
            progress=screen.tell,
        )
        if content["model"]["release"] is not None:
            screen.note(f"the model is a release, {content['model']['release']['signed_by']}")
        if page is not None:
            screen.note(f"the page shows recordings of patients and stays in the building: {page}")
    if format is PredictionFormat.csv:
        print(prediction_csv(content), end="")
    else:
        _print(content, prediction_lines, answer)
    if refused(content):
        raise SystemExit(DataError.exit_code)


def _print(content: dict[str, Any], lines: Callable[[dict[str, Any]], Iterable[str]], format: Format) -> None:
    """The result on stdout: one JSON object, or lines for people."""
    if format is Format.json:
        print(json.dumps(content, sort_keys=True, allow_nan=False))
    else:
        print("\n".join(lines(content)))


journal.register(cli)
budget.register(cli)
approve.register(cli)
rehearse.register(cli)
service.register(cli)
status.register(cli)
logs.register(cli)


def main() -> None:
    """Entry point; a known error becomes its message and exit code."""
    run_program(cli)


if __name__ == "__main__":
    main()
