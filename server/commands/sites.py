"""``provision``, ``admit``, ``kit``, ``renew``, ``revoke``, ``sites``: who belongs to the consortium."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cardionets_core.errors import UsageError
from server.commands.answer import Format, FormatOption, answer, answering
from server.commands.completion import site_names

if TYPE_CHECKING:
    from cardionets_core.config.workspace import Workspace
    from server.provision.admission import Admission, Asked

FolderArgument = Annotated[Path, typer.Argument(metavar="DIR", help="the coordinator's workspace")]
SiteOption = Annotated[
    str, typer.Option("--site", autocompletion=site_names, help="name of the site", show_default=False)
]
YesOption = Annotated[bool, typer.Option("--yes", help="ask nothing")]


def register(cli: typer.Typer) -> None:
    """Add the commands to the program."""
    for command in (provision, admit, kit, renew, revoke, sites, roster):
        cli.command()(command)


def provision(
    folder: FolderArgument = Path(),
    site: Annotated[
        list[str] | None,
        typer.Option("--site", autocompletion=site_names, help="make key and kit for it; repeatable"),
    ] = None,
    format: FormatOption = Format.table,
) -> None:
    """Make authority and server certificate where they are absent; with --site also keys and kits.

    The better way for a site is that it makes its own key: cardionets-client request, then admit here. A key
    made here travels in the kit, encrypted; its passphrase lies beside the kit in a file of its own.
    """
    with answering(format):
        from server.provision.admission import provision as provision_sites
        from server.provision.authority import authority, server_certificate

        workspace = _workspace(folder)
        made = provision_sites(workspace, site or [])
        certificate = server_certificate(workspace).certificate
        content = {
            "authority_fingerprint": authority(workspace).fingerprint,
            "server_ends": f"{certificate.not_valid_after_utc:%Y-%m-%d}",
            "sites": [_admission(each) for each in made],
        }
    answer(content, _provision_lines, format)


def admit(
    folder: FolderArgument,
    request: Annotated[Path, typer.Argument(metavar="NAME.request", help="what the site sent")],
    fingerprint: Annotated[
        str | None, typer.Option("--fingerprint", help="that the site read out; it must be this one")
    ] = None,
    readmit: Annotated[
        bool, typer.Option("--readmit", help="let a revoked name come back, with another key")
    ] = False,
    yes: YesOption = False,
    format: FormatOption = Format.table,
) -> None:
    """Admit a site that made its own key: answers with its certificate, in a kit without a key.

    Shows the fingerprint of the site's key. Compare it by telephone before you say yes: whoever can change
    the request on its way could put in a key of their own.
    """
    with answering(format):
        from server.provision.admission import admit as admit_site
        from server.provision.admission import read_asked

        workspace = _workspace(folder)
        asked = read_asked(request)
        _confirm(asked, fingerprint, yes=yes)
        content = {"sites": [_admission(admit_site(workspace, asked, readmit=readmit))]}
    answer(content, _sites_made_lines, format)


def kit(
    folder: FolderArgument = Path(),
    site: Annotated[
        list[str] | None,
        typer.Option("--site", autocompletion=site_names, help="default: every admitted site"),
    ] = None,
    format: FormatOption = Format.table,
) -> None:
    """Make kits again, with today's address, code and study; keys and certificates stay as they are."""
    with answering(format):
        from server.provision.admission import remake_kit
        from server.provision.roster import known_sites

        workspace = _workspace(folder)
        names = site or known_sites(workspace)
        content = {"sites": [_admission(remake_kit(workspace, name)) for name in names]}
    answer(content, _sites_made_lines, format)


def renew(
    folder: FolderArgument = Path(),
    site: Annotated[
        list[str] | None,
        typer.Option("--site", autocompletion=site_names, help="whose certificate; repeatable"),
    ] = None,
    server: Annotated[bool, typer.Option("--server", help="the server's own certificate")] = False,
    format: FormatOption = Format.table,
) -> None:
    """Issue new certificates for the same keys; a site gets a new kit, to unpack over its folder."""
    with answering(format):
        from server.provision.admission import renew as renew_site
        from server.provision.authority import renew_server_certificate

        if not site and not server:
            raise UsageError(
                "nothing is named to renew", where="renew", remedy="give --site NAME, or --server, or both"
            )
        workspace = _workspace(folder)
        content: dict[str, Any] = {"sites": [_admission(renew_site(workspace, name)) for name in site or []]}
        if server:
            certificate = renew_server_certificate(workspace).certificate
            content["server_ends"] = f"{certificate.not_valid_after_utc:%Y-%m-%d}"
    answer(content, _sites_made_lines, format)


def revoke(
    *,
    folder: FolderArgument = Path(),
    site: SiteOption,
    reason: Annotated[str, typer.Option("--reason", help="why; it is kept", show_default=False)],
    yes: YesOption = False,
    format: FormatOption = Format.table,
) -> None:
    """Put a site out, at once and for good: its key is never admitted again. Touches no other site."""
    with answering(format):
        from server.provision.admission import known_site
        from server.provision.admission import revoke as revoke_site
        from server.provision.registry import read_registry

        workspace = _workspace(folder)
        row = known_site(read_registry(workspace), site)
        if not yes:
            _ask(
                f"revoke {site} (key {row.fingerprint[:16]}…)? ",
                unasked="give --yes",
                denied="nothing was revoked; run the command again where the site is to go",
            )
        gone = revoke_site(workspace, site, reason=reason)
        content = {
            "site": gone.site,
            "status": gone.status,
            "fingerprint": gone.fingerprint,
            "reason": gone.reason,
        }
    answer(content, lambda found: [f"{found['site']} is revoked: {found['reason']}"], format)


def sites(folder: FolderArgument = Path(), format: FormatOption = Format.table) -> None:
    """List the sites with the days that their certificates have left; warns well before an end."""
    with answering(format):
        from server.provision.listing import list_sites

        content = list_sites(_workspace(folder))
    from server.provision.listing import site_lines

    answer(content, site_lines, format)


def roster(
    folder: FolderArgument = Path(),
    site: Annotated[
        list[str] | None,
        typer.Option(
            "--site", autocompletion=site_names, help="only these sites; repeatable. All that are admitted"
        ),
    ] = None,
    format: FormatOption = Format.table,
) -> None:
    """Print the sites' public keys as a study with secure aggregation names them; put it into study.yaml.

    The threshold is the fewest sites whose sum is ever opened. It is printed as two thirds of them: more
    than half keeps a coordinator that lies from opening two sums; more withstands sites that help it.
    """
    with answering(format):
        from server.provision.roster import roster_of

        content = roster_of(_workspace(folder), site or [])
    answer(content, _roster_lines, format)


def _roster_lines(content: dict[str, Any]) -> Iterator[str]:
    yield "secure_aggregation:"
    yield f"  threshold: {content['threshold']}"
    yield "  roster:"
    for name, line in content["roster"].items():
        yield f"    {name}: {line}"


def _workspace(folder: Path) -> Workspace:
    from cardionets_core.config.workspace import open_workspace

    return open_workspace(folder)


def _confirm(asked: Asked, fingerprint: str | None, *, yes: bool) -> None:
    """The key is the one that the site reads out, or somebody says yes."""
    from cardionets_core.errors import NotAdmittedError
    from cardionets_core.trust.keys import heard, spoken

    print(f"site {asked.site} asks with the key\n  {spoken(asked.fingerprint)}", file=sys.stderr)
    if fingerprint is not None:
        if heard(fingerprint) != asked.fingerprint:
            raise NotAdmittedError(
                "the request's key is not the one whose fingerprint was given",
                where=f"{asked.site}: {spoken(asked.fingerprint)}",
                remedy="admit nobody; ask the site to read its fingerprint again and send a new request",
            )
    elif not yes:
        _ask(
            "does the site read out the same? ",
            unasked='give --fingerprint "…" as the site reads it out; --yes would compare nothing',
            denied="nobody was admitted; ask the hospital by telephone what it reads, or for a new request",
        )


def _ask(question: str, *, unasked: str, denied: str) -> None:
    """A yes from a person; anything else ends the command with nothing changed.

    Args:
        question: asked on stderr.
        unasked: what to do where nobody can be asked.
        denied: what to do after any other answer than yes.
    """
    if not sys.stdin.isatty():
        raise UsageError(
            "the command asks a question, and nobody is there to answer",
            where="terminal",
            remedy=unasked,
        )
    print(f"{question}[yes/no] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UsageError("not confirmed; nothing was changed", where="terminal", remedy=denied)


def _admission(made: Admission) -> dict[str, Any]:
    return {
        "site": made.row.site,
        "fingerprint": made.row.fingerprint,
        "serial": made.row.serial,
        "not_after": made.row.not_after,
        "kit": str(made.kit),
        "passphrase_file": str(made.passphrase_file) if made.passphrase_file else None,
    }


def _provision_lines(content: dict[str, Any]) -> Iterator[str]:
    from cardionets_core.trust.keys import spoken

    yield f"authority  {spoken(content['authority_fingerprint'])}"
    yield "           sites compare this fingerprint when they unpack a kit"
    yield from _sites_made_lines(content)


def _sites_made_lines(content: dict[str, Any]) -> Iterator[str]:
    if "server_ends" in content:
        yield f"server     certificate until {content['server_ends']}"
    made: Sequence[dict[str, Any]] = content["sites"]
    for each in made:
        yield f"{each['site']:10} certificate until {each['not_after'][:10]} · kit {each['kit']}"
        if each["passphrase_file"]:
            yield f"           passphrase, to send by another way: {each['passphrase_file']}"
