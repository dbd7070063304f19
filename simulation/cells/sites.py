"""A cell's own view of the hospitals: their data and caches are shared, what a site remembers is the cell's.

Sites keep replies, moments and journals by the name of a study. Two cells may run one study under different
schedules, or at the same time, so each cell has documents of its own that point to the hospitals' data.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from cardionets_core.config.site import read_site
from cardionets_core.config.study import Study
from cardionets_core.durable import write_whole
from simulation.rosters import with_roster


def own_sites(paths: Sequence[Path], folder: Path) -> tuple[Path, ...]:
    """Documents of the hospitals with a state folder of their own; those that are there are kept.

    Args:
        paths: the hospitals' documents.
        folder: receives a folder a site.
    """
    found = []
    for path in paths:
        config = read_site(path)
        content = config.model_dump(mode="json")
        target = folder / config.site / "site.yaml"
        content["folders"]["state"] = str(target.parent.resolve() / "state")
        # JSON is YAML too.
        write_whole(target, (json.dumps(content, indent=1) + "\n").encode(), wait=False)
        found.append(target)
    return tuple(found)


def own_roster(study: Study, paths: Sequence[Path]) -> Study:
    """The study with the keys of these documents' sites, where it masks sums."""
    if study.secure_aggregation is None:
        return study
    secure = study.secure_aggregation.model_copy(update={"roster": {}})
    return with_roster(study.model_copy(update={"secure_aggregation": secure}), paths)
