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

if TYPE_CHECKING:
    from cardionets_core.data.sources.local_files import Part

cli = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Look into a hospital's files, prepare its data, check the site, and see what left the building.",
)


class Format(enum.StrEnum):
    """How a result is printed."""

    table = "table"
    json = "json"


SiteOption = Annotated[Path, typer.Option("--site", help="the site's document, site.yaml")]
FormatOption = Annotated[Format, typer.Option("--format", help="what stdout gets")]


@cli.command()
def prepare(
    site: SiteOption = Path("site.yaml"),
    format: FormatOption = Format.table,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only count what would be read")] = False,
) -> None:
    """Read the hospital's records once and pack them into the cache; a second call does nothing new.

    Then writes the quality report, quality.html and quality.json, into the folder report of the cache. It
    shows recordings and stays in the building.
    """
    from cardionets_core.config.site import read_site
    from client.screen import Screen
    from client.wording import prepare_lines, preview_lines

    config = read_site(site)
    if dry_run:
        from client.preview import preview

        _print(preview(config), preview_lines, format)
        return
    from cardionets_core.data.prepare import prepare as prepare_cache
    from client.report.quality_report import prepared_summary

    with Screen(sys.stderr) as screen:
        cohort = prepare_cache(config, progress=screen.tell)
        content = prepared_summary(config, cohort, progress=screen.tell)
    _print(content, prepare_lines, format)


@cli.command()
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

    if picture is not None and picture.exists() and not replace:
        raise UsageError(f"{picture} is there already", remedy="name another file, or give --replace")
    with Screen(sys.stderr) as screen:
        found = check_site(site, sample=sample, progress=screen.tell)
        if picture is not None:
            from client.report.sample_picture import write_sample_picture

            write_sample_picture(picture, found.sampled)
            screen.note(f"the picture shows recordings of patients and stays in the building: {picture}")
    _print(found.to_json(), check_lines, format)
    raise SystemExit(found.exit_code)


@cli.command()
def inspect(
    paths: Annotated[list[Path], typer.Argument(exists=True, show_default=False, help="files or folders")],
    site: Annotated[
        Path | None, typer.Option("--site", help="a site.yaml that declares rate, unit and the like")
    ] = None,
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

    declared: Sequence[Part] = ()
    if site is not None:
        from cardionets_core.config.site import read_site

        declared = declared_parts(read_site(site))
    tally = Tally()
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
def journal(
    site: SiteOption = Path("site.yaml"),
    verify: Annotated[bool, typer.Option("--verify", help="check the chain of hashes only")] = False,
) -> None:
    """Print what left the building, one JSON object a line, or check that no line was changed."""
    from cardionets_core.audit.journal import verify as verify_chain
    from cardionets_core.config.site import read_site
    from client.gate import JOURNAL

    path = read_site(site).folders.state / JOURNAL
    if not path.exists():
        print("nothing has left the building yet", file=sys.stderr)
        return
    lines = verify_chain(path)
    if verify:
        print(f"{lines} lines, whole")
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        print(line.partition(" ")[2])


def _print(content: dict[str, Any], lines: Callable[[dict[str, Any]], Iterable[str]], format: Format) -> None:
    """The result on stdout: one JSON object, or lines for people."""
    if format is Format.json:
        print(json.dumps(content, sort_keys=True, allow_nan=False))
    else:
        print("\n".join(lines(content)))


def main() -> None:
    """Entry point; a known error becomes its message and exit code."""
    try:
        cli()
    except CardioNetsError as error:
        print(f"error [{error.code}]: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    main()
