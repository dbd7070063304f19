"""What IT is shown of a code bundle before it says yes.

Comes in: a bundle's bytes, the installed code, the bundle that was approved last. Goes out: JSON-ready facts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from cardionets_core.exchange.package import PACKAGES, installed_files
from client.approvals.bundle import CodeBundle, printable, read_bundle
from client.approvals.differences import file_changes, lines_of
from client.approvals.store import CODE, ApprovalStore


def code_facts(bundle: CodeBundle, store: ApprovalStore) -> dict[str, Any]:
    """What a bundle is, and what differs from what is known here.

    Args:
        bundle: that waits.
        store: knows what was approved last.
    """
    last = last_bundle(store, but=bundle.sha256)
    differing = [asdict(change) for change in file_changes(installed_files(), shared_files(bundle.files))]
    return {
        "sha256": bundle.sha256,
        "name": printable(bundle.name),
        "version": printable(bundle.version),
        "files": len(bundle.files),
        "lines": sum(len(lines_of(content)) for content in bundle.files.values()),
        "bytes": sum(len(content) for content in bundle.files.values()),
        "client_app": printable(bundle.client_app),
        "dependencies": [printable(item) for item in bundle.dependencies],
        "identical_to_installed": not differing,
        "differs_from_installed": differing,
        "further_files": sorted(
            printable(path) for path in set(bundle.files) - set(shared_files(bundle.files))
        ),
        "withdrawn": asdict(said) if (said := store.standing().withdrawal(CODE, bundle.sha256)) else None,
        "last_approved": last.sha256 if last else "",
        "since_last_approved": [asdict(change) for change in file_changes(last.files, bundle.files)]
        if last
        else [],
    }


def last_bundle(store: ApprovalStore, *, but: str = "") -> CodeBundle | None:
    """The bundle that was approved last and still stands.

    Args:
        store: of the site.
        but: a SHA-256 that does not count.
    """
    for said in reversed(store.standing().approved(CODE)):
        content = store.approved_code(said.digest)
        if content is not None and said.digest != but:
            return read_bundle(content)
    return None


def shared_files(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Those files of a bundle that an installation has too: all of its packages, not its documents."""
    return {path: content for path, content in files.items() if path.partition("/")[0] in PACKAGES}
