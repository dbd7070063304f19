"""``release`` and ``verify-release``: hand a model over, and check one that was handed over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from textwrap import wrap
from typing import Annotated, Any

import typer

from cardionets_core.errors import CardioNetsError
from server.commands.answer import Format, FormatOption, answer, answering, error_json


def register(cli: typer.Typer) -> None:
    """Add the commands to the program."""
    cli.command()(release)
    cli.command(name="verify-release")(verify_release)


def release(
    *,
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="a workspace, or a run: DIR/runs/NAME-DIGEST"),
    ] = Path(),
    out: Annotated[Path, typer.Option("--out", help="folder to make, or a file that ends in .zip")],
    without_generator: Annotated[
        bool,
        typer.Option(
            "--without-generator",
            help="leave out what draws cines, as where its memorisation test failed",
        ),
    ] = False,
    key: Annotated[
        Path | None,
        typer.Option("--key", help="EC P-384 private key that signs, instead of the workspace's authority"),
    ] = None,
    passphrase_file: Annotated[
        Path | None, typer.Option("--passphrase-file", help="file with the passphrase of --key")
    ] = None,
    budget: Annotated[
        list[Path] | None,
        typer.Option(
            "--budget", help="what a site says it has spent: its `cardionets-client budget --format json`"
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="only say what would be in it, and what stands against it")
    ] = False,
    replace: Annotated[bool, typer.Option("--replace", help="write over an earlier release")] = False,
    format: FormatOption = Format.table,
) -> None:
    """Hand over the model of a completed study: weights, ONNX, model card, checksums, signature.

    Use it once the study has completed and before anybody outside gets the model. It refuses (exit code 5)
    where the generator did not pass the memorisation test, or the run did not keep the privacy that its study
    asks for; and (7) where the study has not completed or a file is torn. There is no way around a refusal
    but --without-generator, which leaves out what the memorisation test stands against.

    Whoever receives it checks it with verify-release, or by `cardionets-client predict --model RELEASE`,
    which does so by itself. Two releases of one run are the same, byte for byte.
    """
    from server.release.build import ReleaseRequest, build_release, plan_release

    request = ReleaseRequest(
        folder=folder,
        out=out,
        without_generator=without_generator,
        key=key,
        passphrase=passphrase_file,
        budgets=budget or (),
        replace=replace,
    )
    with answering(format):
        content = plan_release(request) if dry_run else build_release(request)
    against: list[CardioNetsError] = content.pop("objections", [])
    if dry_run:
        content["objections"] = [error_json(error) for error in against]
    answer(content, _plan_lines if dry_run else _release_lines, format)
    if against:
        raise SystemExit(min(error.exit_code for error in against))


def verify_release(
    path: Annotated[Path, typer.Argument(exists=True, metavar="RELEASE", help="a folder or a zip")],
    trust: Annotated[
        Path | None,
        typer.Option("--trust", help="who must have signed it: the consortium's ca.crt, or a public key"),
    ] = None,
    fingerprint: Annotated[
        str | None, typer.Option("--fingerprint", help="of the key that must have signed it: 64 digits")
    ] = None,
    format: FormatOption = Format.table,
) -> None:
    """Check a release that was handed to you: every file against its checksum, and who signed it.

    Without --trust or --fingerprint a signature only shows that nothing was changed since it was made;
    compare the fingerprint that is printed with the one that the consortium tells you. Exit code 7 where a
    file was changed, 6 where the signature is wrong or of somebody else.
    """
    from cardionets_core.release.layout import sizes_of
    from cardionets_core.release.opening import opened_release, trusted_by
    from cardionets_core.training.model_folder import read_model_folder

    with answering(format), opened_release(path, trusted_by(trust, fingerprint)) as found:
        model = read_model_folder(found.model)
        content = {
            "study": model.study,
            "study_digest": model.study_digest,
            "model_digest": model.model_digest,
            "modules": sorted(model.digests),
            "files": len(sizes_of(found.folder)),
            "signed_by": found.signed_by,
            "fingerprint": None if found.signer is None else found.signer.fingerprint,
            "trusted": found.signer is not None and found.signer.vouched,
        }
    answer(content, _verified_lines, format)


def _plan_lines(content: dict[str, Any]) -> Iterator[str]:
    if content["modules"]:
        yield f"release of {content['study']} to {content['out']} (nothing was written)"
        for name, count in content["modules"].items():
            yield f"  {name:26} {count:>12,} parameters"
        for name in content["left_out"]:
            yield f"  {name:26} {'left out':>12}"
        others = [name for name in content["files"] if not name.endswith(".safetensors")]
        yield from wrap(f"and {', '.join(others)}", 100, initial_indent="  ", subsequent_indent="  ")
        yield f"  {_signature(content['signed_by'])}"
    else:
        yield f"there is no model to release to {content['out']} (nothing was written)"
    if not content["objections"]:
        yield "nothing stands against it"
    for error in content["objections"]:
        yield f"against it [{error['code']}]: {error['what']}"
        if error["where"]:
            yield f"  where: {error['where']}"
        yield f"  to do: {error['remedy']}"


def _release_lines(content: dict[str, Any]) -> Iterator[str]:
    total = sum(content["files"].values())
    yield f"released {content['study']} to {content['out']}: {len(content['files'])} files, {total:,} bytes"
    yield f"  model {content['model_digest']}"
    if content["left_out"]:
        yield f"  left out: {', '.join(content['left_out'])}"
    for name, difference in content["onnx_largest_relative_difference"].items():
        yield f"  onnx/{name} differs from torch by at most {difference:.1e} of an output's scale"
    yield f"  {_signature(content['signed_by'])}"


def _signature(signed_by: str) -> str:
    return (
        f"signed by {signed_by}"
        if signed_by
        else (
            "UNSIGNED: nobody can tell that it comes from you; release from a workspace, or give --key FILE"
        )
    )


def _verified_lines(content: dict[str, Any]) -> Iterator[str]:
    yield f"whole: {content['files']} files of the release of study {content['study']}"
    yield f"  model {content['model_digest']}"
    yield f"  {content['signed_by']}"
