"""Labels, subtypes, age and sex of every layout reach the cohort as they were drawn."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest

from cardionets_core.config.read import parse_document
from cardionets_core.config.site import read_site
from cardionets_core.data.cohort import SEXES
from cardionets_core.data.manifest import ROWS, cohort_folder
from cardionets_core.data.prepare import prepare
from cardionets_core.data.pseudonym import load_key, pseudonym
from cardionets_core.data.records import DISEASES, LABELS, SUBTYPES
from simulation.make import draw_patient, make_hospitals
from simulation.scenario import Scenario
from simulation.writers import local_site, mimic_iv_ecg, uk_biobank

PATIENTS = 14
NAMES = {
    "uk_biobank": lambda site, index: str(uk_biobank.eid_of(index)),
    "mimic_iv_ecg": lambda site, index: str(mimic_iv_ecg.subject_of(index)),
    "local_wfdb": local_site.name_of,
    "local_csv": local_site.name_of,
}


@pytest.mark.parametrize("layout", NAMES)
def test_people_reach_the_cohort(tmp_path, layout):
    patients = PATIENTS * (3 if layout == "mimic_iv_ecg" else 1)
    hospital = {"site": "one", "layout": layout, "patients": patients, "repeat_share": 0.3, "mean_age": 80,
                "prevalence": {"cm": 0.4, "hf": 0.2, "ph": 0.1}, "cart": {"rate_hz": 500},
                "scanner": {"frames": 20, "pixels": 80, "spacing_mm": 2.2}}  # fmt: skip
    study = {"name": "people", "phases": [{"task": "probe", "rounds": 1}]}
    content = {"name": "people", "seed": 2, "hospitals": [hospital], "study": study}
    scenario = parse_document(Scenario, content, where="test")
    (path,) = make_hospitals(scenario, tmp_path / "h", workers=1)
    config = read_site(path)
    cohort = prepare(config)
    assert cohort.diseases.shape == (len(cohort.row_patient), len(LABELS)) and len(LABELS) == 8
    key = load_key(config.folders.secret)
    rows = np.array(pq.read_table(cohort_folder(config) / ROWS)["pseudonym"].to_pylist())
    seen: Counter[str] = Counter()
    for index in range(patients):
        visits = draw_patient(scenario, "one", index).visits
        heart = visits[0].heart
        mine = np.flatnonzero(rows == pseudonym(key, NAMES[layout]("one", index)))
        for labels in cohort.diseases[mine]:
            found = dict(zip(LABELS, labels.tolist(), strict=True))
            if heart.diseases:  # with one code of the chapter I, the other diseases are unknown
                assert {name for name in DISEASES if found[name] == 1} == heart.diseases
                assert not any(found[name] == 0 for name in DISEASES)
            else:
                assert set(labels[: len(DISEASES)].tolist()) == {0.0} or np.isnan(labels).all()
            kinds = [found[name] for name in SUBTYPES]
            if heart.subtype is None:
                assert np.isnan(kinds).all()
            else:
                assert kinds == [float(name == heart.subtype) for name in SUBTYPES]
            seen[heart.subtype or "none"] += 1
        sexes = {SEXES[code] for code in cohort.row_sex[mine] if code >= 0}
        assert sexes <= {heart.sex[0].upper()}
        seen["sex"] += int((cohort.row_sex[mine] >= 0).sum())
        if len(mine) == len(visits):
            ages = np.array([float(int(visit.heart.age_years)) for visit in visits])
            if layout == "mimic_iv_ecg":
                ages[ages >= 91] = np.nan
            np.testing.assert_array_equal(cohort.row_age_years[mine], ages)
            seen["age"] += len(mine)
    total = len(rows)
    assert sum(seen[name] for name in ("none", *SUBTYPES)) == total > patients
    assert all(seen[name] for name in ("none", "dcm", "hcm"))
    assert seen["sex"] > 0.9 * total and seen["age"] > 0.7 * total
