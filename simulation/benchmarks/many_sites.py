"""As many sites as one likes from one drawn hospital, each with a document, a key and a cache of its own.

Comes in: a number and a folder. Goes out: the path of each ``site.yaml``. The first hospital is drawn and
prepared like any other; the others are folders of hard links to its cache, whose manifest bears their name.
A thousand hospitals drawn one by one would take most of an hour, and a round does not depend on their data.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from cardionets_core.config.site import read_site
from cardionets_core.data.cache import MANIFEST, cohort_folder, read_manifest
from cardionets_core.data.prepare import prepare
from simulation.make import make_hospitals
from simulation.scenario import Scenario
from simulation.writers.site_document import write_site

PATIENTS = 8
TEMPLATE = "template"
SECRET = Path("secret") / "pseudonym.key"


def make_sites(folder: Path, count: int, *, study: dict[str, Any]) -> list[Path]:
    """Make what is not there yet.

    Args:
        folder: for the template and the sites.
        count: of sites.
        study: any study that a scenario may carry.

    Returns:
        The documents, in the order of the sites' names.
    """
    template = _template(folder / TEMPLATE, study=study)
    return [_copy(template, folder / "sites" / f"site-{number:05d}") for number in range(count)]


def _template(folder: Path, *, study: dict[str, Any]) -> Path:
    hospital = {
        "site": TEMPLATE,
        "layout": "mimic_iv_ecg",
        "patients": PATIENTS,
        "split": {"validation": 0.0, "test": 0.0},
        "policy": {"minimum_patients": 5, "minimum_cell": 1},
    }
    content = {"name": "scale", "seed": 1, "hospitals": [hospital], "study": study}
    (path,) = make_hospitals(Scenario.model_validate(content), folder, workers=1)
    prepare(read_site(path))
    return path


def _copy(template: Path, folder: Path) -> Path:
    """A site whose files are the template's, under its own name and with its own state."""
    path = folder / "site.yaml"
    if path.exists():
        return path
    config = read_site(template)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(config.folders.cache, folder / "cache", copy_function=os.link)
    (folder / SECRET).parent.mkdir(mode=0o700)
    shutil.copy2(config.folders.secret, folder / SECRET)
    manifest = replace(read_manifest(config), site=folder.name)
    target = folder / "cache" / cohort_folder(config).name / MANIFEST
    target.unlink()  # a link: the template's own must stay
    target.write_text(manifest.to_json(), encoding="utf-8")
    write_site(
        path,
        {
            "schema_version": 1,
            "site": folder.name,
            "source": config.source.model_dump(mode="json"),
            "device": {"name": "cpu", "threads": 1},
            "prepare": config.prepare.model_dump(mode="json"),
            "policy": config.policy.model_dump(mode="json"),
            "folders": {"cache": "cache", "state": "state", "secret": str(SECRET)},
        },
    )
    return path
