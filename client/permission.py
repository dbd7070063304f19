"""Whether this site's IT approved the study of an order, before anything of it is done (row 0 of the walk).

Comes in: an order and where the site's document lies. Asked first, before torch is imported and data is
opened. The code that runs here came from the coordinator and was let in by the site's SuperNode
(``client.supernode``); this module only keeps honest code from running where nobody guards it.
"""

from __future__ import annotations

from pathlib import Path

from cardionets_core.config.study import study_from_json
from cardionets_core.errors import CodeNotApprovedError, StudyNotApprovedError
from cardionets_core.exchange.messages import Order
from client.approvals import ApprovalStore
from client.approvals.store import CODE

APPROVALS = "approvals"


def require_guard(site_path: Path) -> ApprovalStore:
    """The site's approvals, which must be there and must have let some code in.

    Args:
        site_path: of ``site.yaml``; its folder holds the approvals.

    Raises:
        CodeNotApprovedError: nobody guards this site, or nothing is approved any more.
    """
    folder = site_path.absolute().parent / APPROVALS
    if not folder.is_dir():
        raise CodeNotApprovedError(
            "this SuperNode runs code, but the site has no folder of approvals",
            where=str(folder),
            remedy="run: cardionets-client approve, and start the site with: cardionets-client start",
        )
    store = ApprovalStore(folder)
    standing = store.standing()
    if standing.fault or not standing.approved(CODE):
        raise CodeNotApprovedError(
            standing.fault or "no code is approved on this site",
            where=str(folder),
            remedy="run: cardionets-client approve",
        )
    return store


def require_study(order: Order, store: ApprovalStore) -> None:
    """Let an order of an approved study pass; keep the study of any other for IT to look at.

    Args:
        order: as it came off the wire.
        store: the site's approvals.

    Raises:
        OrderRefusedError: the order's study is not the one that its digest names.
        StudyNotApprovedError: IT did not approve it.
    """
    study = study_from_json(order.study_json, digest=order.name.study_digest)
    if store.is_study_approved(study.digest):
        return
    kept = store.pending.keep_study(study.to_json())
    raise StudyNotApprovedError(
        f"the study {study.name} ({study.digest[:16]}) is not approved on this site",
        where="order",
        remedy="look at it with: cardionets-client approve"
        if kept
        else "ask the coordinator for the study: it could not be kept here",
        facts={"study_name": study.name},
    )
