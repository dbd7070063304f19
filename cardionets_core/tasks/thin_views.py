"""Rows that may be told of by view: no kind of row stands for fewer people than a site tells of.

A row has the 4-chamber view, the short axis, or both. Sums of each view and of all rows together tell how
many rows are of each kind, so a kind of fewer people than ``site.smallest_cell`` is left out of all of them.
Rows alone are chosen here; nothing is counted or sent.
"""

from __future__ import annotations

import numpy as np

from cardionets_core.tasks.site_view import SiteView


def without_thin_kinds(site: SiteView, rows: np.ndarray) -> np.ndarray:
    """The rows without those kinds of them that are of fewer people than ``site.smallest_cell``.

    Args:
        site: the site.
        rows: int64, rows with a cine of either view.
    """
    cohort = site.cohort
    kind = 2 * (cohort.items("4ch")[rows] >= 0) + (cohort.items("sax")[rows] >= 0)
    told = [each for each in np.unique(kind) if cohort.patients(rows[kind == each]) >= site.smallest_cell]
    return rows[np.isin(kind, told)]
