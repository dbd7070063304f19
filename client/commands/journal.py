"""``cardionets-client journal``: what left the building, and whether the record of it is whole."""

from __future__ import annotations

import enum
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cardionets_core.errors import UsageError
from client.commands.answer import Format, FormatOption, SiteCommand, SiteOption, answer, answering

if TYPE_CHECKING:
    from cardionets_core.audit.against import Witnessed
    from cardionets_core.config.site import SiteConfig


class Action(enum.StrEnum):
    """What to do with the journal."""

    show = "show"
    verify = "verify"
    export_heads = "export-heads"


def register(cli: typer.Typer) -> None:
    """Add the command to the program."""
    cli.command(cls=SiteCommand)(journal)


def journal(
    action: Annotated[
        Action, typer.Argument(help="show it, verify its chain, or print the heads of coordinators' journals")
    ] = Action.show,
    site: SiteOption = Path("site.yaml"),
    against: Annotated[
        Path | None, typer.Option("--against", help="verify: heads that the coordinator has exported")
    ] = None,
    verify: Annotated[bool, typer.Option("--verify", hidden=True)] = False,
    format: FormatOption = Format.table,
) -> None:
    """Print what left the building, a line for each; or check that no line was changed.

    Times are this machine's, phases count from 1, bytes are those of arrays and of names and texts together,
    and digests are shortened. With --format json, one JSON object a line as it was written, with whole
    digests: seconds since 1970, and phases from 0.

    `verify --against FILE` finds a journal that was rewritten whole, or cut off: FILE is what
    `cardionets-server journal RUN export-heads` prints at the coordinator. `export-heads` prints what this
    site knows of the coordinator's journal, for the coordinator.
    """
    from client.journal import JOURNAL, server_heads

    if verify:
        action = Action.verify
    with answering(format):
        if against is not None and action is not Action.verify:
            raise UsageError("--against goes with verify", where="--against")
        from cardionets_core.config.site import read_site

        config = read_site(site)
        path = config.folders.state / JOURNAL
        if action is Action.verify:
            content = _verified(config, path, site=site, against=against)
        elif action is Action.export_heads:
            from cardionets_core.audit.against import heads_json

            content = heads_json(server_heads(path), holder=f"site/{config.site}")
        elif path.exists():
            from cardionets_core.audit.journal import verify as verify_chain

            verify_chain(path)
    if not path.exists():
        print("nothing has left the building yet", file=sys.stderr)
    if action is Action.export_heads:
        print(json.dumps(content, sort_keys=True, indent=1))
    elif action is Action.verify:
        if path.exists() or format is Format.json or against is not None:
            answer(content, _verified_lines, format)
    elif path.exists():
        _show(path, format)


def _show(path: Path, format: Format) -> None:
    from cardionets_core.audit.lines import journal_bodies
    from client.journal_lines import journal_table

    bodies = journal_bodies(path)
    for line in bodies if format is Format.json else journal_table(bodies):
        print(line)


def _verified(config: SiteConfig, path: Path, *, site: Path, against: Path | None) -> dict[str, Any]:
    from cardionets_core.audit.against import read_heads, verify_against
    from cardionets_core.exchange.heads import site_journal

    heads = [] if against is None else read_heads(against)
    proves = _proves(config, site.absolute().parent) if heads else lambda head: False
    found = verify_against(path, heads, journal=site_journal(config.site), proves=proves)
    content: dict[str, Any] = {"lines": found.lines, "whole": True}
    if against is not None:
        content |= {"heads": found.heads, "signed": found.signed}
    return content


def _proves(config: SiteConfig, root: Path) -> Callable[[Witnessed], bool]:
    from cardionets_core.exchange.heads import PURPOSE, Head, signed_content
    from cardionets_core.trust.signatures import fits
    from client.heads import held_key

    key = held_key(root, config.folders.state)

    def proves(head: Witnessed) -> bool:
        content = signed_content(Head(lines=head.lines, hash=head.hash), journal=head.journal)
        try:
            signature = bytes.fromhex(head.signature)
        except ValueError:
            return False
        return key is not None and fits(key.public_key(), signature, content, purpose=PURPOSE)

    return proves


def _verified_lines(found: dict[str, Any]) -> Iterator[str]:
    yield f"{found['lines']} lines, whole"
    if "heads" in found:
        knew, signed = found["heads"], found["signed"]
        yield f"{knew} heads that the coordinator knew lie on it, {signed} of them signed by this site"
