"""``cardionets-client rehearse``: one round on the site's own data, to see what would leave."""

from __future__ import annotations

import enum
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cardionets_core.errors import CardioNetsError, ConfigError, UsageError
from client.commands.answer import SiteCommand, SiteOption
from client.ending import error_json, tell_error

if TYPE_CHECKING:
    from cardionets_core.config.study import Study
    from client.rehearsal import Left

SCHEMA_VERSION = 1


class Format(enum.StrEnum):
    """How a result is printed."""

    table = "table"
    json = "json"


def register(cli: typer.Typer) -> None:
    """Add the command to the program."""
    cli.command(cls=SiteCommand)(rehearse)


def rehearse(
    site: SiteOption = Path("site.yaml"),
    study: Annotated[
        Path | None,
        typer.Option("--study", help="a .json or .yaml; default: the approved study, or the one that waits"),
    ] = None,
    phase: Annotated[int, typer.Option("--phase", min=1, help="which phase of the study, from 1")] = 1,
    out: Annotated[
        Path | None, typer.Option("--out", help="folder to make: each reply as .json and .safetensors")
    ] = None,
    format: Annotated[Format, typer.Option("--format", help="what stdout gets")] = Format.table,
) -> None:
    """Answer one round of a study as a real one, with the installed code, and show all that would leave.

    Nothing is sent, and journal, optimiser and kept replies are not touched. Weights are random ones of the
    study's seed, also where a real round would bring trained ones; sums of other sites are absent.
    """
    try:
        if out is not None and out.exists():
            raise UsageError(f"{out} is there already", where="--out", remedy="name a folder to make")
        content, failed = _rehearsed(site, study, phase=phase - 1, out=out)
    except CardioNetsError as error:
        if format is Format.json:
            typer.echo(json.dumps({"schema_version": SCHEMA_VERSION, "error": error_json(error)}))
        raise
    if format is Format.json:
        typer.echo(json.dumps(content, sort_keys=True, allow_nan=False))
    else:
        typer.echo("\n".join(_lines(content)))
    for refusal in failed:
        tell_error(refusal)
    if failed:
        raise SystemExit(max(refusal.exit_code for refusal in failed))


def _rehearsed(
    site: Path, given: Path | None, *, phase: int, out: Path | None
) -> tuple[dict[str, Any], list[CardioNetsError]]:
    study = _study(site, given)
    from client.rehearsal import left_facts, rehearsal_of

    with tempfile.TemporaryDirectory(prefix="rehearsal-") as scratch:
        rehearsal = rehearsal_of(
            site,
            study,
            phase=phase,
            scratch=Path(scratch),
            tell=lambda line: typer.echo(line, err=True),
        )
        replies, failed = [], []
        for left in rehearsal.run():
            replies.append(left_facts(left))
            failed += [left.error] if left.error else []
            if out is not None:
                _write(out, left, replies[-1])
        content = {
            "schema_version": SCHEMA_VERSION,
            "site": rehearsal.config.site,
            "study": study.name,
            "study_digest": study.digest,
            "phase": phase + 1,
            "task": rehearsal.task.name,
            "title": study.phases[phase].title,
            "random_modules": list(rehearsal.task.reads),
            "given_modules": sorted(set(study.initial) & set(rehearsal.modules)),
            "sent": False,
            "masked_when_sent": rehearsal.masked,
            "replies": replies,
        }
    return content, failed


def _study(site: Path, given: Path | None) -> Study:
    from cardionets_core.config.study import read_study
    from client.approvals.store import STUDY, ApprovalStore
    from client.approvals.waiting import find_waiting

    if given is not None:
        return read_study(given)
    folder = site.absolute().parent
    store = ApprovalStore(folder / "approvals")
    from client.approvals.study_facts import last_study

    approved = last_study(store) if store.standing().approved(STUDY) else None
    waiting = find_waiting(store, package=folder / "package").studies
    if approved is None and len(waiting) != 1:
        raise ConfigError(
            f"no study is approved here, and {len(waiting)} wait",
            where=str(folder),
            remedy="name one with --study",
        )
    return approved or next(iter(waiting.values()))


def _write(out: Path, left: Left, facts: dict[str, Any]) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    from cardionets_core.exchange.messages import reply_to_envelope

    out.mkdir(parents=True, exist_ok=True, mode=0o700)
    name = f"{left.kind}-{left.split}" if left.split else left.kind
    (out / f"{name}.json").write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    if left.reply is not None:
        arrays = reply_to_envelope(left.reply).arrays
        if arrays:
            kept = {key: np.ascontiguousarray(value) for key, value in arrays.items()}
            save_file(kept, out / f"{name}.safetensors")


def _lines(content: dict[str, Any]) -> Iterator[str]:
    yield f"rehearsal at {content['site']}: {content['study']}, phase {content['phase']} ({content['title']})"
    yield "  nothing was sent; journal, optimiser and kept replies are as they were"
    if content["masked_when_sent"]:
        yield "  secure aggregation: all but the census leaves as one masked vector, which looks like chance"
    random = ", ".join(content["random_modules"])
    if random:
        yield f"  random weights stood in for the trained ones of: {random}"
    if content["given_modules"]:
        yield f"  random weights stood in for given ones of: {', '.join(content['given_modules'])}"
    for reply in content["replies"]:
        yield from _reply_lines(reply)


def _reply_lines(reply: dict[str, Any]) -> Iterator[str]:
    name = f"{reply['kind']} ({reply['split']} patients)" if reply["split"] else reply["kind"]
    if reply["code"]:
        yield f"{name}: refused; only the code {reply['code']} would leave"
        return
    behind = f" · {reply['patients']} patients behind it" if reply["patients"] else ""
    yield f"{name}: {reply['bytes']:,} bytes in {len(reply['arrays'])} arrays{behind}"
    for key, value in sorted(reply["fields"].items()):
        shown = f"{len(value):,} characters: names and shapes" if key.startswith("layout/") else value
        if key in ("head/signature", "head/holder"):
            shown = f"{len(value):,} characters: of a scratch journal here, of the site's own when it is sent"
        yield f"    field {key} = {shown}"
        if key == "facts" and '"refusals"' in str(value):
            yield "      counts of files and splits: exact unless policy.count_rounding is set, also below"
            yield "      policy.minimum_cell; policy.cohort_sizes: false keeps them (docs/what-leaves.md)"
    for array in reply["arrays"]:
        shape = " x ".join(map(str, array["shape"]))
        yield (
            f"    array {array['name']} · {array['dtype']} {shape} · {array['bytes']:,} bytes"
            f" · {array['minimum']:.4g} to {array['maximum']:.4g} · norm {array['norm']:.4g}"
            f" · {array['sha256'][:16]}"
        )
