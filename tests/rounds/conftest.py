"""A small consortium on disk, made once a session: two paired hospitals and one with ECG only."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from cardionets_core.config.site import read_site
from cardionets_core.config.study import Study
from cardionets_core.data.cohort import Cohort
from cardionets_core.data.prepare import prepare
from simulation.make import make_hospitals
from simulation.scenario import Scenario

SCANNER = {"spacing_mm": 2.2, "pixels": 80, "frames": 20}
SMALL = {"repeat_share": 0.2, "split": {"validation": 0.2, "test": 0.3}}
POLICY = {"minimum_patients": 5, "minimum_cell": 1}


@dataclass(frozen=True)
class Consortium:
    """Where the hospitals lie, and their opened caches."""

    paths: dict[str, Path]
    cohorts: dict[str, Cohort]


@pytest.fixture(scope="session")
def consortium(tmp_path_factory) -> Consortium:
    hospitals = [
        {"site": "alpha", "layout": "local_wfdb", "patients": 22, "scanner": SCANNER},
        {"site": "beta", "layout": "mimic_iv_ecg", "patients": 16},
        {
            "site": "gamma",
            "layout": "local_csv",
            "patients": 22,
            "scanner": SCANNER,
            "cart": {"rate_hz": 250, "lowpass_hz": 100},
        },
    ]
    content = {
        "name": "tiny",
        "seed": 3,
        "hospitals": [{**hospital, **SMALL, "policy": POLICY} for hospital in hospitals],
        "study": small_study().model_dump(mode="json"),
    }
    folder = tmp_path_factory.mktemp("consortium")
    made = make_hospitals(Scenario.model_validate(content), folder, workers=1)
    return Consortium(
        paths={path.parent.name: path for path in made},
        cohorts={path.parent.name: prepare(read_site(path)) for path in made},
    )


def small_study(**changes) -> Study:
    """All four phases in a few steps."""
    optimiser = {"lr": 1e-3}
    phase = {"rounds": 2, "local_epochs": 1, "batch_size": 8, "optimiser": optimiser}
    content = {
        "name": "tiny",
        "seed": 5,
        "sites": {"minimum": 2, "deadline_s": 60, "attempts": 2},
        "phases": [
            {"task": "cmr_mae", **phase},
            {"task": "ecg_mae", **phase},
            {"task": "align", **phase},
            {"task": "probe", "rounds": 1, "options": {"bootstrap_replicates": 50}},
        ],
    }
    return Study.model_validate({**content, **changes})


@pytest.fixture(scope="session")
def study() -> Study:
    return small_study()
