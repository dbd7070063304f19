"""The table says what the result holds, and nothing of what the study did not measure."""

from pathlib import Path

from server.report import finite
from server.summary import summary_of
from simulation.table import result_table


def entry(phase, task, pooled, *, sites=None, external=None):
    rows = [{"site": site, "metrics": metrics} for site, metrics in (sites or {}).items()]
    return {
        "phase": phase,
        "task": task,
        "primary": "x",
        "higher_is_better": True,
        "round": 1,
        "seconds": 1.0,
        "sites": [],
        "test": {"pooled": pooled, "sites": rows, "external": external or {}},
    }


def table_of(*rounds, **more):
    content = {
        "study": {"name": "s", "phases": [{"task": each["task"]} for each in rounds]},
        "status": "completed",
        "model_digest": "ab" * 32,
        "sites": [],
        "rounds": list(rounds),
        "summary": finite(summary_of(rounds)),
        "comparison": [],
        **more,
    }
    return result_table(content, Path("out"))


def row_of(table, *words):
    (line,) = [line for line in table.splitlines() if all(word in line for word in words)]
    return line.split()


def test_a_study_of_one_phase_has_no_other_parts():
    text = table_of(entry(0, "ecg_mae", {"correlation": 0.5}))
    assert "ecg_mae" in text
    for word in ("AUROC", "SSIM", "memorisation", "calibration", "LV area"):
        assert word not in text


def test_drawn_cines_stand_beside_their_references():
    pooled = {"ssim": 0.6, "ssim_shuffled": 0.5, "ssim_unconditional": 0.4, "ssim_mean_cine": 0.7}
    kinds = {"drawn": {"area_r": 0.9}, "shuffled": {"area_r": 0.1}, "unconditional": {"area_r": None}}
    text = table_of(
        entry(0, "generate", pooled, external={"x": {"ssim": 0.3}}),
        drawings={"area_r_meter": 0.95, "members": {"n": 12, **kinds}},
    )
    assert row_of(text, "members", "0.600") == ["members", "0.600", "0.500", "0.400", "0.700"]
    assert row_of(text, "x ", "0.300") == ["x", "0.300", "-", "-", "-"]
    assert row_of(text, "members", "0.900") == ["members", "0.900", "0.100", "-", "12"]
    assert "0.950" in text and "mean cine" in text and "drawn minus mean" not in text


def test_drawn_cines_stand_beside_the_mean_cine_of_all_members():
    kinds = {kind: {"area_r": 0.5, "ssim": value} for kind, value in
             (("drawn", 0.66), ("shuffled", 0.62), ("unconditional", 0.63))}  # fmt: skip
    mean = {"ssim": 0.65, "gain": 0.01, "gain_se": 0.002}
    text = table_of(
        entry(0, "generate", {"ssim": 0.6}),
        drawings={"area_r_meter": 0.95, "harbour": {"n": 12, **kinds, "mean_cine": mean}},
    )
    row = row_of(text, "harbour", "0.660")
    assert row == ["harbour", "0.660", "0.620", "0.630", "0.650", "0.010", "(SE", "0.002)"]


def test_the_verdict_on_memorisation_is_one_line():
    found = {"passes": 1.0, "conclusive": 1.0, "training_share": 0.51, "duplicates": 0.0}
    assert "memorisation: passes" in table_of(entry(0, "memorisation", found))
    assert "DOES NOT PASS" in table_of(entry(0, "memorisation", {**found, "passes": 0.0}))
    few = {**found, "passes": 0.0, "conclusive": 0.0}
    assert "too few cases to pass" in table_of(entry(0, "memorisation", few))


def test_what_a_drawn_cine_adds_to_the_ecg_is_a_gain_with_its_p_value():
    found = {
        "ecg_only/auroc_mean": 0.8,
        "auroc_mean": 0.85,
        "auroc_gain_mean": 0.05,
        "auroc_gain_mean_low": 0.01,
        "auroc_gain_mean_high": 0.09,
        "auroc_gain_mean_p": 0.02,
    }
    text = table_of(entry(0, "fuse", found))
    assert row_of(text, "members") == ["members", "0.800", "0.850", "0.050", "0.010", "to", "0.090", "0.020"]


def test_screening_shows_the_sites_together_and_the_external_site():
    sites = {name: {"auroc/cad": 0.8, "auroc_se/cad": 0.05} for name in "abc"}
    external = {"x": {"auroc/cad": 0.66}}
    text = table_of(entry(0, "screening", {"auroc/cad": 0.75}, sites=sites, external=external))
    row = row_of(text, "cad")
    # Pooled, without an interval; three sites; together; no variation between sites; external.
    assert row[:5] == ["cad", "0.750", "-", "3", "0.800"] and row[-2:] == ["0.000", "0.660"]


def test_phenotypes_are_counted_after_holm():
    columns = [
        {"title": "LV mass", "r2": 0.5, "r2_other": 0.1, "difference": 0.4, "p_holm": 0.01},
        {"title": "RV mass", "r2": 0.2, "r2_other": 0.3, "difference": -0.1, "p_holm": 0.04},
        {"title": "LA volume", "r2": 0.2, "r2_other": 0.1, "difference": 0.1, "p_holm": None},
    ]
    words = {"arm": "unaligned", "task": "probe", "metric": "r2_mean", "population": "members"}
    difference = {**words, "mean": 0.1, "ci_low": 0.0, "ci_high": 0.2, "p": 0.03, "columns": columns}
    text = table_of(entry(0, "probe", {"r2_mean": 0.2}), differences=[difference])
    assert "of 3 phenotypes" in text and "better than unaligned in 1 and worse in 1" in text
    assert "LV mass, R2 0.100 to 0.500" in text


def test_a_recall_stands_beside_what_chance_would_give():
    round_ = entry(0, "align", {}) | {"primary": "recall@5"}
    round_["pooled"] = {"recall@5": 0.625, "chance@5": 0.5}
    assert row_of(table_of(round_), "align")[-4:] == ["0.625", "0.625", "0.500", "1.0"]
    text = table_of(entry(0, "probe", {}) | {"primary": "r2_mean", "pooled": {"r2_mean": 0.25}})
    assert row_of(text, "probe")[-3:] == ["0.250", "0.250", "1.0"]
