"""The phase ``principal``: axes of the frozen cine feature, the same at every site (SCIENCE 5.2f, 5.5).

A closed-form task. Sites send the sums of their training cines' features; the server solves once. A PCA of
each site's own would silently make the weights and the targets of the align phase incomparable.

Legend: R rows, D feature's width, P components that ``cmr_principal`` holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, cast

import numpy as np

from cardionets_core.data.cohort import Split
from cardionets_core.models.solved import CmrPrincipal
from cardionets_core.privacy.counts import DIVISOR, Counts
from cardionets_core.tasks.base import ClosedFormTask, Modules, Scalar, SiteView, Sums, count_sums, one
from cardionets_core.tasks.features import cmr_features
from cardionets_core.tasks.principal import default_components, feature_sums, solve_principal
from cardionets_core.tasks.short_axis import VIEW_CHOICE, VIEW_OPTION

CHUNK_ROWS = 1024


class PrincipalComponents(ClosedFormTask):
    """Principal components of the cine feature over all sites; each cine counts once.

    Options:
        view: of the cines, ``4ch`` or ``sax``; each view has components of its own.
    """

    name = "principal"
    trains = ("cmr_principal",)
    reads = ("cmr_encoder",)
    needs = frozenset({"cine"})
    decomposes = False
    primary = "explained"
    higher_is_better = True
    defaults: ClassVar[dict[str, Scalar]] = VIEW_OPTION
    choices: ClassVar[dict[str, tuple[str, ...]]] = VIEW_CHOICE
    counts: ClassVar[Counts] = {"n": DIVISOR}

    def sums(self, modules: Modules, site: SiteView) -> Sums:
        """``n`` (1,), ``Sx`` [D], ``Sxx`` [D, D] of the features, and ``axes`` [P].

        ``axes`` is zeros: the server solves without the module, and reads from its length how many components
        the module holds.
        """
        principal = cast(CmrPrincipal, modules["cmr_principal"])
        count, width = principal.components.shape
        found = feature_sums(np.zeros((0, width)))
        for feature_RD in _chunks(modules, site, split="train"):
            for name, value in feature_sums(feature_RD).items():
                found[name] = found[name] + value
        return {**found, "axes": np.zeros(count)}

    def solve(self, sums: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """``mean`` [D], ``components`` [P, D], ``variance`` [P], ``sigma_squared`` [1].

        Raises:
            TooFewPatientsError: fewer than two cines at all sites together.
        """
        count = len(sums["axes"])
        solved = solve_principal(sums, components=count)
        found = {
            "mean": solved.mean_D,
            "components": solved.components_PD,
            "variance": solved.eigenvalues_D[:count],
            "sigma_squared": one(solved.sigma_squared),
        }
        return {name: np.ascontiguousarray(value, dtype=np.float32) for name, value in found.items()}

    def metric_sums(self, modules: Modules, site: SiteView, *, split: Split, seed: int) -> Sums:
        """Sums of ``d = x - mean``, with the solved mean, and of its coordinates ``phi = A d``.

        ``Sd`` [D], ``Sdd`` [1] of the squared norm, ``Sphi`` [P], ``Sphiphi`` [P] of squares.
        """
        principal = cast(CmrPrincipal, modules["cmr_principal"])
        count, width = principal.components.shape
        found = {"Sd": np.zeros(width), "Sdd": one(0.0), "Sphi": np.zeros(count), "Sphiphi": np.zeros(count)}
        for feature_RD in _chunks(modules, site, split=split):
            d_RD = feature_RD - principal.mean.detach().double().cpu().numpy()
            phi_RP = d_RD @ principal.components.detach().double().cpu().numpy().T
            found["Sd"] += d_RD.sum(axis=0)
            found["Sdd"] += (d_RD**2).sum()
            found["Sphi"] += phi_RP.sum(axis=0)
            found["Sphiphi"] += (phi_RP**2).sum(axis=0)
        return {**count_sums(site.cohort, site.rows(self.needs, split)), **found}

    def metrics(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Share of the variance of these cines, about their own mean, that lies along the components.

        ``explained = sum_p (Sphiphi_p - Sphi_p^2 / n) / (Sdd - |Sd|^2 / n)``, over all P components;
        ``explained/phi`` over the first ``min(128, D/2)``, in which the weighted loss measures distances.
        """
        n = float(sums["n_rows"][0])
        found = {"n_rows": n, "n_patients": float(sums["n_patients"][0])}
        if n < 2:
            return found
        total = float(sums["Sdd"][0] - (sums["Sd"] ** 2).sum() / n)
        if total <= 0.0:
            return found
        along_P = sums["Sphiphi"] - sums["Sphi"] ** 2 / n
        found["explained"] = float(along_P.sum() / total)
        found["explained/phi"] = float(along_P[: default_components(len(sums["Sd"]))].sum() / total)
        return found


def _chunks(modules: Modules, site: SiteView, *, split: Split) -> Iterator[np.ndarray]:
    """Features of all cines of a split, float64 [R, D], some rows at a time; nothing without rows."""
    rows = site.rows(PrincipalComponents.needs, split)
    for begin in range(0, len(rows), CHUNK_ROWS):
        feature_RD = cmr_features(modules["cmr_encoder"], site, rows[begin : begin + CHUNK_ROWS])
        yield feature_RD.double().cpu().numpy()
