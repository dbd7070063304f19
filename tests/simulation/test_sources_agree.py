"""The core's own sources read what the writers write, and count the defects that were put in."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from cardionets_core.config.read import parse_document
from cardionets_core.config.site import read_site
from cardionets_core.data.records import LEADS, EcgRecord
from cardionets_core.data.sources.registry import open_source
from cardionets_core.errors import RecordRefused
from simulation.make import draw_patient, make_hospitals
from simulation.scenario import Scenario
from simulation.writers.uk_biobank import eid_of

STUDY = {"name": "readable", "study": {"name": "readable", "phases": [{"task": "probe", "rounds": 1}]}}
SCENARIO = parse_document(
    Scenario,
    {
        **STUDY,
        "seed": 4,
        "hospitals": [
            {"site": site, "layout": layout, "patients": 10, "repeat_share": 0.3, "scanner": {"frames": 20}}
            for site, layout in (
                ("bank", "uk_biobank"),
                ("icu", "mimic_iv_ecg"),
                ("north", "local_wfdb"),
                ("lake", "local_csv"),
            )
        ],
    },
    where="test",
)


@pytest.fixture(scope="module")
def sites(tmp_path_factory):
    paths = make_hospitals(SCENARIO, tmp_path_factory.mktemp("hospitals") / "h", workers=1)
    return {path.parent.name: open_source(read_site(path)) for path in paths}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_everything_is_read_but_the_broken_files(sites):
    refused: dict[str, Counter[str]] = {}
    for site, source in sites.items():
        listed = source.recordings()
        refused[site] = Counter(source.refusals)
        for recording in listed:
            try:
                record = source.read(recording)
            except RecordRefused as refusal:
                refused[site][refusal.reason] += 1
                continue
            if isinstance(record, EcgRecord):
                assert set(record.leads) == set(LEADS)
                assert record.fs_hz == 500
    assert refused["bank"]["withdrawn"] >= 1
    assert refused["bank"]["ecg-truncated"] + refused["bank"]["ecg-unreadable"] == 1
    assert refused["icu"]["ecg-file-missing"] == 1
    assert refused["north"]["ecg-truncated"] == 1


@pytest.mark.parametrize("layout", ["uk_biobank", "mimic_iv_ecg", "local_wfdb", "local_csv"])
def test_shuffled_leads_reach_the_readers_of_every_layout(tmp_path, layout):
    def scenario(leads):
        hospital = {"site": "one", "layout": layout, "patients": 1, "repeat_share": 0,
                    "scanner": {"frames": 20, "pixels": 80, "spacing_mm": 2.2},
                    "cart": {"leads": leads}}  # fmt: skip
        return SCENARIO.model_copy(
            update={"hospitals": Scenario.model_validate({**STUDY, "hospitals": [hospital]}).hospitals}
        )

    (site,) = make_hospitals(scenario("shuffled"), tmp_path / "h", workers=1)
    source = open_source(read_site(site))
    (listed,) = [recording for recording in source.recordings() if recording.kind == "ecg"]
    record = source.read(listed)
    truth = draw_patient(scenario("right"), "one", 0).visits[0].ecg.signal_mv
    for true, name in enumerate(sorted(LEADS)):
        np.testing.assert_allclose(record.signal_mv[record.leads.index(name)], truth[true], atol=0.0026)


def test_a_biobank_participant_comes_back_whole(sites):
    source, patient = sites["bank"], draw_patient(SCENARIO, "bank", 0)
    visit = patient.visits[0]
    mine = {r.kind: r for r in source.recordings() if (r.patient, r.visit) == (str(eid_of(0)), "2")}
    np.testing.assert_allclose(source.read(mine["ecg"]).signal_mv, visit.ecg.signal_mv, atol=0.0026)
    (cine,) = source.read(mine["cine"])
    np.testing.assert_array_equal(cine.pixels, visit.cine.stack.pixels)
    assert cine.spacing_mm == visit.cine.stack.spacing_mm
    assert cine.frame_ms == pytest.approx(visit.cine.stack.frame_ms, abs=1e-2)
    assert source.person(str(eid_of(0)), "2").phenotypes == pytest.approx(visit.phenotypes)
