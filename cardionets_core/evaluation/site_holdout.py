"""Rows of the report by site: pooled, each site, all but one, external, and leave-one-site-out.

Comes in: sums of each site, and what makes metrics of them. Goes out: rows. The pooled value holds variance
between sites; the rows beside it show how much.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cardionets_core.errors import OrderRefusedError
from cardionets_core.evaluation.sums import add_sums

Sums = Mapping[str, np.ndarray]
Metrics = Callable[[Sums], dict[str, float]]
Kind = Literal["pooled", "site", "without", "external", "left-out", "left-out-pooled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteRow:
    """One row of the table.

    Attributes:
        kind: ``pooled`` over the sites that train; one ``site``; pooled ``without`` one; an ``external`` site
            that never trains; ``left-out``, a site measured with the model of the others, and their pool.
        site: the site that the row is about, empty for a pool.
        metrics: name to value.
    """

    kind: Kind
    site: str
    metrics: dict[str, float]


def site_rows(
    sums: Mapping[str, Sums],
    metrics: Metrics,
    *,
    external: Collection[str] = (),
    trained: Collection[str] = (),
) -> list[SiteRow]:
    """One model at all sites.

    Args:
        sums: site to its sums, of training and external sites.
        metrics: sums to metrics.
        external: sites whose patients no step of the training saw; they are in no pool.
        trained: sites that trained any module of the model.

    Returns:
        The pool, each site, the pool without each site (from two sites on), each external site; in the order
        of the names.

    Raises:
        OrderRefusedError: an external site has trained.
    """
    _refuse_trained(external, trained=trained)
    inside = {site: sums[site] for site in sorted(sums) if site not in external}
    rows: list[SiteRow] = []
    if inside:
        rows.append(SiteRow(kind="pooled", site="", metrics=metrics(add_sums(inside))))
    rows += [SiteRow(kind="site", site=site, metrics=metrics(own)) for site, own in inside.items()]
    if len(inside) > 1:
        for left in inside:
            others = {site: own for site, own in inside.items() if site != left}
            rows.append(SiteRow(kind="without", site=left, metrics=metrics(add_sums(others))))
    rows += [
        SiteRow(kind="external", site=site, metrics=metrics(sums[site]))
        for site in sorted(sums)
        if site in external
    ]
    return rows


def left_out_rows(
    sums: Mapping[str, Sums], metrics: Metrics, *, trained: Mapping[str, Collection[str]]
) -> list[SiteRow]:
    """Leave-one-site-out: each site measured with a model that was trained without it.

    Args:
        sums: left-out site to the sums that it measured.
        metrics: sums to metrics.
        trained: left-out site to the sites that trained its model.

    Returns:
        Each left-out site, then their pool, in which every patient counts once. The pool of a rank metric
        (AUROC) compares scores of different models; read it beside the sites, or pool by ``random_effects``.

    Raises:
        OrderRefusedError: a left-out site trained its own model.
    """
    for site in sums:
        _refuse_trained([site], trained=trained[site])
    rows = [SiteRow(kind="left-out", site=site, metrics=metrics(sums[site])) for site in sorted(sums)]
    if sums:
        rows.append(SiteRow(kind="left-out-pooled", site="", metrics=metrics(add_sums(sums))))
    return rows


def _refuse_trained(sites: Collection[str], *, trained: Collection[str]) -> None:
    both = sorted(set(sites) & set(trained))
    if both:
        raise OrderRefusedError(
            f"{', '.join(both)} trained the model and cannot be an external site",
            where="evaluation",
            remedy="train without the site, or report it as a training site",
        )
