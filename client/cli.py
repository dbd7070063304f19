"""``cardionets-client``: hospital IT's program. stdout is the result, stderr progress."""

from __future__ import annotations

import enum
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from cardionets_core.errors import CardioNetsError

cli = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Index a hospital's data, check that the site can serve, and see what left the building.",
)


class Format(enum.StrEnum):
    """How a result is printed."""

    table = "table"
    json = "json"


SiteOption = Annotated[Path, typer.Option("--site", help="the site's document, site.yaml")]
FormatOption = Annotated[Format, typer.Option("--format", help="what stdout gets")]


@cli.command()
def prepare(site: SiteOption = Path("site.yaml"), format: FormatOption = Format.table) -> None:
    """Read the hospital's records once and pack them into the cache; a second call does nothing new."""
    from cardionets_core.config.site import read_site
    from cardionets_core.data.cache import summary
    from cardionets_core.data.prepare import prepare as prepare_cache

    def tell(what: str, done: int, total: int) -> None:
        if done == total or done % 100 == 0:
            print(f"{what} · {done} of {total}", file=sys.stderr)

    content = {"schema_version": 1, **summary(prepare_cache(read_site(site), progress=tell))}
    if format is Format.json:
        print(json.dumps(content, sort_keys=True))
        return
    for key, value in content.items():
        if isinstance(value, dict):
            print(f"{key}: " + (", ".join(f"{name} {count}" for name, count in value.items()) or "none"))


@cli.command()
def check(site: SiteOption = Path("site.yaml"), format: FormatOption = Format.table) -> None:
    """Say for every phase whether this site can serve it, and list every problem with its remedy."""
    from client.checks import check_site

    found = check_site(site)
    if format is Format.json:
        print(json.dumps(found.to_json(), sort_keys=True))
    else:
        for name, state in found.phases.items():
            print(f"phase {name:10} {state}")
        for problem in found.problems:
            print(f"problem [{problem.code}]: {problem}")
        print("no problems" if not found.problems else f"{len(found.problems)} problem(s)")
    raise SystemExit(found.exit_code)


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


def main() -> None:
    """Entry point; a known error becomes its message and exit code."""
    try:
        cli()
    except CardioNetsError as error:
        print(f"error [{error.code}]: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    main()
