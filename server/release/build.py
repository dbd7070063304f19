"""A release from a finished run: judged, written, listed, signed, and given its name in one step.

Comes in: what the command line asks. Goes out: a folder or a zip that is whole, or nothing. The same run
gives the same bytes, on any day and on any machine with the same versions.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cardionets_core.durable import is_disk_fault, on_disk, place_folder, sync_file, sync_folder, write_whole
from cardionets_core.errors import CardioNetsError, CheckpointError, StorageFailedError, UsageError
from cardionets_core.release.archive import pack_release
from cardionets_core.release.layout import CHECKSUMS, SIGNATURE, checksums_of, sizes_of
from cardionets_core.release.signature import signature_document
from server.release.conditions import GENERATOR, NEEDS_GENERATOR, objections, says_nothing
from server.release.contents import Chosen, file_names, write_contents
from server.release.onnx_export import check_installed
from server.release.run_folder import FinishedRun, find_run, read_run
from server.release.signing import SigningKey, signing_key
from server.release.spent import Spent, read_spent

ZIP = ".zip"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseRequest:
    """What is asked for.

    Attributes:
        folder: a workspace or a run folder.
        out: folder to make, or a file that ends in ``.zip``.
        without_generator: leave out what draws cines.
        key: file of the key that signs; None for the workspace's authority.
        passphrase: file of its passphrase.
        budgets: files of sites' budgets.
        replace: an earlier release may lie there.
    """

    folder: Path
    out: Path
    without_generator: bool = False
    key: Path | None = None
    passphrase: Path | None = None
    budgets: Sequence[Path] = ()
    replace: bool = False


def plan_release(request: ReleaseRequest) -> dict[str, Any]:
    """What would be in the release, and all that stands against it; writes nothing.

    Raises:
        UsageError: something would be written over, there is no folder to write into, or a file that is named
            cannot be read.
        StorageFailedError: this account may not look where it is to lie.
    """
    check_installed()
    _check_out(request)
    content: dict[str, Any] = {"dry_run": True, "out": request.out.name}
    nothing: dict[str, Any] = {"modules": {}, "left_out": [], "files": [], "signed_by": ""}
    try:
        run = read_run(find_run(request.folder))
    except CheckpointError as error:
        return content | nothing | {"objections": [error]}
    against, chosen, _ = _judged(run, request)
    parameters = {name: run.model_json["modules"][name]["parameters"] for name in chosen.modules}
    return content | {
        "study": run.study.name,
        "study_digest": run.study.digest,
        "modules": parameters,
        "left_out": list(chosen.left_out),
        "files": file_names(chosen.modules, signed=bool(chosen.signed_by)),
        "signed_by": chosen.signed_by,
        "objections": against,
    }


def build_release(request: ReleaseRequest) -> dict[str, Any]:
    """Make the release.

    Returns:
        The content of ``release.json``, with ``out``, ``files`` and ``signed_by``.

    Raises:
        UsageError: something lies there already, or there is no folder to write into.
        MachineUnfitError: the libraries of the ONNX export are not installed.
        PrivacyError: the memorisation test or the study's privacy stands against it.
        CheckpointError: the study has not completed, something is torn, or the ONNX export differs.
        StorageFailedError: the disk did not take it; nothing lies there.
    """
    check_installed()
    _check_out(request)
    run = read_run(find_run(request.folder))
    against, chosen, signer = _judged(run, request)
    if against:
        raise _refusal(against)
    out = request.out.resolve()
    with on_disk(out.parent, keeps="there is no half release"):
        part = _part_folder(out)
        try:
            part.chmod(0o755)
            content = write_contents(run, chosen, part)
            _seal(part, signer)
            sizes = sizes_of(part)
            _place(part, out)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return content | {"out": request.out.name, "files": dict(sizes), "signed_by": chosen.signed_by}


def _judged(
    run: FinishedRun, request: ReleaseRequest
) -> tuple[list[CardioNetsError], Chosen, SigningKey | None]:
    spent = read_spent(request.budgets, run.study)
    with_generator = objections(run, with_generator=True, spent=spent)
    without = objections(run, with_generator=False, spent=spent)
    dropped = {*GENERATOR, *NEEDS_GENERATOR} if request.without_generator else set()
    names = sorted(run.model.digests)
    signer = signing_key(run.workspace, key=request.key, passphrase=request.passphrase)
    chosen = Chosen(
        modules=tuple(name for name in names if name not in dropped),
        left_out=tuple(name for name in names if name in dropped),
        without_generator=request.without_generator and len(with_generator) > len(without),
        signed_by="" if signer is None else signer.words,
        epsilon=_epsilons(spent),
    )
    against = without if request.without_generator else with_generator
    return [*against, *says_nothing(chosen.modules, run.folder, preset=run.study.models)], chosen, signer


def _epsilons(spent: Mapping[str, Spent]) -> dict[str, float]:
    return {site: each.epsilon for site, each in sorted(spent.items())}


def _refusal(against: Sequence[CardioNetsError]) -> CardioNetsError:
    """One error for all: of the family of the first, privacy before anything else."""
    first = min(against, key=lambda error: error.exit_code)
    others = [error for error in against if error is not first]
    what = "; ".join([first.what, *(f"{error.what} ({error.where})" for error in others)])
    return type(first)(what, where=first.where, remedy=first.remedy)


def _check_out(request: ReleaseRequest) -> None:
    with on_disk(request.out, keeps="nothing was written"):
        _refuse_out(request)


def _refuse_out(request: ReleaseRequest) -> None:
    parent = request.out.resolve().parent
    if not parent.is_dir():
        raise UsageError(
            f"{parent} is no folder" if parent.exists() else f"there is no folder {parent}",
            where="--out",
            remedy="make that folder first, or name another file or folder",
        )
    if request.out.exists() and not request.replace:
        raise UsageError(
            f"{request.out} is there already",
            where="--out",
            remedy="name another folder or file, or give --replace",
        )
    if request.out.exists() and (request.out.suffix == ZIP) != request.out.is_file():
        raise UsageError(
            f"{request.out} is no earlier release", where="--out", remedy="name another folder or file"
        )
    if request.out.is_dir() and any(request.out.iterdir()) and not (request.out / CHECKSUMS).is_file():
        raise UsageError(
            f"{request.out} is no earlier release, and is not replaced",
            where="--out",
            remedy="name another folder",
        )


def _part_folder(out: Path) -> Path:
    try:
        return Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".part", dir=out.parent))
    except OSError as error:
        if is_disk_fault(error):
            raise
        raise StorageFailedError(
            f"nothing can be written into {out.parent}: {error.strerror}",
            where="--out",
            remedy="name a file or folder on a disk that this account may write",
        ) from error


def _seal(folder: Path, signer: SigningKey | None) -> None:
    checksums = checksums_of(folder)
    (folder / CHECKSUMS).write_bytes(checksums)
    if signer is not None:
        document = signature_document(checksums, signer.key, certificate=signer.certificate)
        text = json.dumps(document, indent=2, sort_keys=True) + "\n"
        write_whole(folder / SIGNATURE, text.encode())


def _place(part: Path, out: Path) -> None:
    for name in sizes_of(part):
        (part / name).chmod(0o644)
        sync_file(part / name)
    if out.suffix != ZIP:
        place_folder(part, out)
        return
    packed = part.with_name(f"{part.name}{ZIP}")
    try:
        pack_release(part, packed)
        sync_file(packed)
        packed.replace(out)
        sync_folder(out.parent)
    finally:
        packed.unlink(missing_ok=True)
