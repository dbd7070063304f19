"""A small hospital with some damaged recordings, and hospital IT's program run in this process."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import yaml

from simulation.make import make_hospitals
from simulation.scenario import Scenario

PATIENTS = 12


@dataclass(frozen=True)
class Ended:
    """How the program ended."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Hospital:
    """Where it lies, and every identifier that its files and tables hold."""

    site: Path
    identifiers: frozenset[str]

    @property
    def folder(self) -> Path:
        return self.site.parent


@pytest.fixture(scope="session")
def client(run: Callable[..., Any]) -> Callable[..., Ended]:
    """Runs ``cardionets-client`` with arguments."""

    def ended(*arguments: object) -> Ended:
        done = run("cardionets-client", *arguments)
        return Ended(code=done.returncode, out=done.stdout, err=done.stderr)

    return ended


@pytest.fixture(scope="session")
def made_once(tmp_path_factory) -> Hospital:
    hospital = {"site": "alpha", "layout": "local_wfdb", "patients": PATIENTS, "repeat_share": 0.0,
                "scanner": {"spacing_mm": 2.2, "pixels": 80, "frames": 20},
                "split": {"validation": 0.2, "test": 0.2},
                "policy": {"minimum_patients": 5, "minimum_cell": 1}}  # fmt: skip
    study = {"name": "tiny", "seed": 1, "sites": {"minimum": 1, "deadline_s": 60},
             "phases": [{"task": "ecg_mae", "rounds": 1, "local_epochs": 1, "batch_size": 8,
                         "optimiser": {"lr": 1e-3}}]}  # fmt: skip
    scenario = Scenario.model_validate({"name": "tiny", "seed": 3, "hospitals": [hospital], "study": study})
    (site,) = make_hospitals(scenario, tmp_path_factory.mktemp("hospital"), workers=1)
    with (site.parent / "index.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    people = [f"{row['patient']},{40 + 2 * n},{'FM'[n % 2]}" for n, row in enumerate(rows)]
    people.insert(0, "patient,age,sex")
    (site.parent / "people.csv").write_text("\n".join(people) + "\n")
    document = yaml.safe_load(site.read_text())
    document["source"]["cmr"]["view"] = "4ch"
    sexes = {"column": "sex", "female": ["F"], "male": ["M"]}
    document["source"]["people"] = {"table": "people.csv", "age": "age", "sex": sexes}
    site.write_text(yaml.safe_dump(document))
    _damage(site.parent)
    names = {row["patient"] for row in rows}
    stems = {
        path.name.split(".")[0] for folder in ("ecg", "cmr") for path in (site.parent / folder).iterdir()
    }
    return Hospital(site=site, identifiers=frozenset(names | stems))


@pytest.fixture
def hospital(made_once, tmp_path) -> Hospital:
    """A copy that a test may break; times of files are kept."""
    shutil.copytree(made_once.folder, tmp_path / "alpha", copy_function=shutil.copy2)
    return Hospital(site=tmp_path / "alpha" / "site.yaml", identifiers=made_once.identifiers)


def _damage(folder: Path) -> None:
    """One flat ECG, one of a wrong gain, one cine in which nothing moves; the cut one is the simulation's."""
    flat, loud = sorted((folder / "ecg").glob("*.dat"))[5:7]
    flat.write_bytes(bytes(flat.stat().st_size))
    header = loud.with_suffix(".hea")
    header.write_text(header.read_text().replace(" 1000", " 5"))
    cine = sorted((folder / "cmr").glob("*.nii.gz"))[2]
    image = nibabel.load(cine)
    still = np.repeat(np.asarray(image.dataobj)[..., :1], image.shape[-1], axis=-1)
    nibabel.save(nibabel.Nifti1Image(still, image.affine, image.header), cine)
