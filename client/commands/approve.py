"""``cardionets-client approve``: look at the code and the study that came; say yes, or take it back."""

from __future__ import annotations

import enum
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cardionets_core.errors import CardioNetsError, ConfigError, PrivacyError, UsageError
from client.ending import error_json

if TYPE_CHECKING:
    from cardionets_core.config.connection import SiteFolder
    from cardionets_core.config.site import SiteConfig
    from client.approvals.store import ApprovalStore
    from client.approvals.waiting import Waiting

SCHEMA_VERSION = 1


class Format(enum.StrEnum):
    """How a result is printed."""

    table = "table"
    json = "json"


def register(cli: typer.Typer) -> None:
    """Add the command to the program."""
    cli.command()(approve)


def approve(
    folder: Annotated[Path, typer.Argument(help="the site's folder", metavar="DIR")] = Path(),
    package: Annotated[
        Path | None,
        typer.Option("--package", help="look at this bundle (.fab), kit (.zip) or study only"),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", help="SHA-256 that the coordinator told you; nothing else is approved"),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="approve without a question")] = False,
    diff: Annotated[
        bool, typer.Option("--diff", help="print every changed line against the last approved code")
    ] = False,
    withdraw: Annotated[
        str | None, typer.Option("--withdraw", help="take back the approval of this SHA-256")
    ] = None,
    note: Annotated[str, typer.Option("--note", help="a word for the record")] = "",
    format: Annotated[Format, typer.Option("--format", help="what stdout gets")] = Format.table,
) -> None:
    """Show the code and the study that wait, with what changed since the last approved, and approve them.

    Looks into the kit's package and at what arrived and was refused. Nothing of it is run or unpacked. Each
    approval stands in approvals/store.jsonl with time and account. Exit code 5 where something still waits.
    """
    from client.approvals.store import ApprovalStore
    from client.approvals.waiting import find_waiting

    try:
        site = _site_folder(folder)
        store = ApprovalStore(site.approvals)
        if withdraw is not None:
            _withdraw(store, withdraw, note, format)
            return
        found = find_waiting(store, package=site.package, given=package)
        content = _content(found, store, _config(site))
        if format is Format.table:
            _show(content, found, store, diff=diff)
        _decide(content, found, store, only=only, yes=yes, ask=format is Format.table, note=note)
    except CardioNetsError as error:
        if format is Format.json:
            typer.echo(json.dumps({"schema_version": SCHEMA_VERSION, "error": error_json(error)}))
        raise
    _tell(content, store, format)
    if content["waiting"] or content["faults"]:
        raise SystemExit(PrivacyError.exit_code)


def _site_folder(folder: Path) -> SiteFolder:
    from cardionets_core.config.connection import SiteFolder, check_may_be_site

    site = SiteFolder(folder.expanduser().resolve())
    if not site.connection_yaml.is_file() and not site.site_yaml.is_file():
        check_may_be_site(folder)
        raise ConfigError(
            f"{folder} is no site's folder: it holds neither connection.yaml nor site.yaml",
            where=str(folder),
            remedy="name the folder that `cardionets-client init` made",
        )
    return site


def _config(site: SiteFolder) -> SiteConfig | None:
    from cardionets_core.config.site import read_site

    try:
        return read_site(site.site_yaml)
    except ConfigError:
        return None


def _content(found: Waiting, store: ApprovalStore, config: SiteConfig | None) -> dict[str, Any]:
    """All that is shown, JSON-ready."""
    from client.approvals.code_facts import code_facts

    content: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "approved": [], "waiting": []}
    content["code"] = [code_facts(bundle, store) for _, bundle in found.codes.values()]
    content["studies"] = []
    if found.studies:
        from client.approvals.study_facts import study_facts

        for study in found.studies.values():
            try:
                content["studies"].append(study_facts(study, store, config=config))
            except ConfigError as error:
                facts = {"digest": study.digest, "name": study.name, "preset": study.models}
                content["studies"].append({**facts, "seed": study.seed, "problem": error_json(error)})
    content["faults"] = [error_json(fault) for fault in found.faults]
    return content


def _show(content: dict[str, Any], found: Waiting, store: ApprovalStore, *, diff: bool) -> None:
    from client.approvals.code_facts import last_bundle, shared_files
    from client.approvals.differences import unified
    from client.approvals.lines import code_lines, study_lines

    for facts in content["code"]:
        typer.echo("\n".join(code_lines(facts)))
        if diff:
            from cardionets_core.exchange.package import installed_files

            after = found.codes[facts["sha256"]][1]
            before = last_bundle(store, but=after.sha256)
            # Without an earlier approval the installed code is what IT knows.
            pair = (before.files, after.files) if before else (installed_files(), shared_files(after.files))
            for line in unified(*pair):
                typer.echo(line)
    for facts in content["studies"]:
        typer.echo("\n".join(study_lines(facts)))
    for fault in found.faults:
        typer.echo(f"error [{fault.code}]: {fault}", err=True)


def _decide(
    content: dict[str, Any],
    found: Waiting,
    store: ApprovalStore,
    *,
    only: list[str] | None,
    yes: bool,
    ask: bool,
    note: str,
) -> None:
    """Ask for each, or take --yes; fills ``approved`` and ``waiting``."""
    known = {*found.codes, *found.studies}
    for digest in only or ():
        allowed = store.is_code_approved(digest) or store.is_study_approved(digest)
        if digest not in known and not allowed:
            raise UsageError(
                f"nothing that waits has the SHA-256 {digest}",
                where="--only",
                remedy="compare all 64 characters with what the coordinator told you",
            )
    for facts in (*content["code"], *content["studies"]):
        digest = facts["sha256"] if "sha256" in facts else facts["digest"]
        wanted = not only or digest in only
        if "problem" in facts or not wanted or not (yes or (ask and _asked(facts))):
            content["waiting"].append(digest)
            continue
        if digest in found.codes:
            store.approve_code(found.codes[digest][0], note=note)
        else:
            store.approve_study(found.studies[digest].to_json(), note=note)
        content["approved"].append(digest)


def _asked(facts: dict[str, Any]) -> bool:
    if not sys.stdin.isatty():
        return False
    what = f"code {facts['sha256'][:16]}" if "sha256" in facts else f"study {facts['name']}"
    return typer.confirm(f"approve the {what}?", default=False, err=True)


def _withdraw(store: ApprovalStore, prefix: str, note: str, format: Format) -> None:
    said = store.withdraw(prefix, note=note)
    if format is Format.json:
        typer.echo(json.dumps({"schema_version": SCHEMA_VERSION, "withdrawn": asdict(said)}, sort_keys=True))
    else:
        typer.echo(f"withdrawn: {said.kind} {said.digest}; it is refused from its next order on")


def _tell(content: dict[str, Any], store: ApprovalStore, format: Format) -> None:
    """What stands now."""
    from client.approvals.lines import record_lines

    standing = store.standing()
    content["standing"] = [asdict(said) for kind in ("code", "study") for said in standing.approved(kind)]
    content["fault"] = standing.fault
    if format is Format.json:
        typer.echo(json.dumps(content, sort_keys=True))
        return
    if not content["code"] and not content["studies"]:
        typer.echo("nothing waits for approval")
    typer.echo("\n".join(record_lines(content["standing"])))
    if standing.fault:
        typer.echo(f"warning: {standing.fault}: nothing counts as approved", err=True)
    for digest in content["waiting"]:
        typer.echo(f"not approved: {digest}", err=True)
