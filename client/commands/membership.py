"""``request`` and ``init``: how a site becomes a member, and how a newer kit is taken in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from cardionets_core.errors import UsageError
from client.commands.answer import Format, FormatOption, answer, answering


def register(cli: typer.Typer) -> None:
    """Add the commands to the program."""
    cli.command()(request)
    cli.command()(init)


def request(
    site: Annotated[
        str, typer.Option("--site", help="the site's name in the consortium", show_default=False)
    ],
    out: Annotated[Path, typer.Option("--out", help="the site's folder; made if absent", show_default=False)],
    format: FormatOption = Format.table,
) -> None:
    """Make this site's own key and a request to send to the coordinator. The key never leaves the folder.

    A second call finds key and request again and replaces neither.
    """
    with answering(format):
        from cardionets_core.config.connection import SiteFolder
        from client.site_request import ask_for_certificate

        content = ask_for_certificate(SiteFolder(out.expanduser().resolve()), site)
    answer(content, _request_lines, format)


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="the site's folder; made if absent")],
    kit: Annotated[Path, typer.Option("--kit", help="the coordinator's NAME-kit.zip", show_default=False)],
    passphrase_file: Annotated[
        Path | None, typer.Option("--passphrase-file", help="where the kit holds an encrypted key")
    ] = None,
    fingerprint: Annotated[
        str | None,
        typer.Option(
            "--fingerprint", help="of the authority, as the coordinator read it out; it must be this"
        ),
    ] = None,
    runtime_port: Annotated[
        int | None, typer.Option("--runtime-port", min=1, max=65535, help="on loopback; default 9201")
    ] = None,
    health_port: Annotated[
        int | None, typer.Option("--health-port", min=1, max=65535, help="on loopback; default 9202")
    ] = None,
    format: FormatOption = Format.table,
) -> None:
    """Check a startup kit and unpack it; a newer one renews certificate, address and code.

    Keys and site.yaml that are there stay as they are. Nothing is written before every check has passed.
    """
    with answering(format):
        from cardionets_core.config.connection import SiteFolder
        from client.startup_kit import choose_ports, install_kit

        passphrase = _passphrase(passphrase_file) if passphrase_file is not None else None
        place = SiteFolder(folder.expanduser().resolve())
        content = install_kit(kit, place, passphrase=passphrase, authority=fingerprint)
        choose_ports(place, runtime_port=runtime_port, health_port=health_port)
    answer(content, _init_lines, format)


def _passphrase(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise UsageError(
            "the passphrase cannot be read",
            where=str(path),
            remedy="give a file that holds it and nothing else",
        ) from error


def _request_lines(content: dict[str, Any]) -> Iterator[str]:
    from cardionets_core.trust.keys import spoken

    yield f"site {content['site']}: made {' and '.join(content['made']) or 'nothing, all is there'}"
    yield f"send      {content['request']}"
    yield f"keep      {content['key']} (secret; back it up, encrypted)"
    yield f"read out  {spoken(content['fingerprint'])}"
    yield "          to the coordinator by telephone, who compares it before admitting this site"


def _init_lines(content: dict[str, Any]) -> Iterator[str]:
    from cardionets_core.trust.keys import spoken

    yield f"site {content['site']} of {content['consortium']}: {content['folder']}"
    yield f"server     {content['server']}"
    yield f"authority  {spoken(content['authority_fingerprint'])}"
    if not content["authority_compared"]:
        yield "           compare it with the coordinator by telephone before you go on"
    yield f"own key    {spoken(content['key_fingerprint'])}, certificate for {content['days_left']:.0f} days"
    if content["kept"]:
        yield f"left as it was: {', '.join(content['kept'])}"
    yield f"package    {', '.join(content['package']) or 'none yet; a later kit brings it'}"
    yield "next: site.yaml, then prepare, check, approve, start; see README.md in the folder"
