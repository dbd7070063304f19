"""The model card says what the result says, under all its headings, and no more of people than was told."""

from __future__ import annotations

from copy import deepcopy

import pytest

from cardionets_core.config.study import Study
from server.release.card import RESEARCH_ONLY, SIMULATED, ReleaseFacts, card_of
from server.release.card_page import card_page
from server.release.card_tables import GROUPS_ALONE, metric_lines
from server.report import result_of
from server.summary import summary_of

STUDY = Study.model_validate(
    {"name": "heads", "phases": [{"task": "screening", "rounds": 1}, {"task": "memorisation", "rounds": 1}]}
)
SITES = {
    "riverside": {"site": "riverside", "role": "member", "phases": {"screening": "serves"},
                  "patients": {"train": 1200, "validation": 80, "test": 90}, "recordings": {"ecg": 1500}},
    "shy": {"site": "shy", "role": "member", "phases": {"screening": "serves"}},
    "far": {"site": "far", "role": "external", "phases": {"screening": "phase-not-permitted"}},
}  # fmt: skip
SCREENED = {"auroc_mean": 0.8125, "auroc_mean_low": 0.75, "auroc_mean_high": 0.86, "auroc/cad": 0.8125,
            "auroc_low/cad": 0.74, "auroc_high/cad": 0.87, "positives/cad": 30.0, "n/cad": 90.0,
            "auroc_mean/sex-F": 0.79, "auroc_mean/age-under-45": 0.66, "n_patients": 90.0}  # fmt: skip
MEMORISED = {"passes": 1.0, "conclusive": 1.0, "training_share": 0.51, "training_share_low": 0.4,
             "training_share_high": 0.6, "duplicates": 0.0, "held_out_duplicates": 0.01, "duplicates_p": 0.9,
             "n_patients": 40.0}  # fmt: skip


def content(*, memorised=MEMORISED, **study):
    def entry(phase, task, pooled, primary, external=()):
        return {"phase": phase, "round": 1, "task": task, "primary": primary, "higher_is_better": True,
                "test": {"pooled": pooled, "sites": [], "external": dict(external)}}  # fmt: skip

    rounds = [
        entry(0, "screening", SCREENED, "auroc_mean", {"far": {"auroc_mean": 0.7, "auroc/cad": 0.7}}.items())
    ]
    if memorised:
        rounds.append(entry(1, "memorisation", memorised, "passes"))
    made = result_of(Study.model_validate({**STUDY.model_dump(), **study}), SITES, None)
    made |= {"rounds": rounds, "summary": summary_of(rounds), "model_digest": "ab" * 32}
    return {**made, "modules": {"ecg_encoder": "cd" * 32, "cmr_generator": "ef" * 32}}


def part(card, title):
    return card.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_every_heading_stands_there_and_what_it_is_for_comes_first():
    card = card_of(content())
    assert card.startswith(f"# Model card: heads\n\n**{RESEARCH_ONLY}**\n")
    titles = [line[3:] for line in card.splitlines() if line.startswith("## ")]
    assert titles == [
        "Model details", "Intended use", "Out of scope", "Training data", "Metrics", "Subgroups",
        "Calibration", "Privacy", "Memorisation test", "Limits", "Licence and provenance",
    ]  # fmt: skip


def test_counts_stand_where_they_were_told_and_nowhere_else():
    data = part(card_of(content()), "Training data")
    assert "| riverside | trained | 1,200 | 80 | 90 | 1,500 | not told | not told | none |" in data
    assert f"| shy | trained |{' not told |' * 6} none |" in data
    assert f"| far | measured only |{' not told |' * 6} screening |" in data
    assert "simulation" not in data
    simulated = part(card_of({**content(), "scenario": "demo"}), "Training data")
    assert "ran in simulation**, scenario `demo`" in simulated and "synthetic" in simulated


def test_a_card_of_simulated_patients_says_so_before_anything_else():
    card = card_of({**content(), "scenario": "demo"})
    assert card.startswith(f"# Model card: heads\n\n**{RESEARCH_ONLY}**\n\n**{SIMULATED}**\n")
    assert "hospitals of a simulation" in part(card, "Model details")
    assert f'<p class="note bad"><b>{SIMULATED}</b></p>' in card_page(card)
    real = card_of(content())
    assert SIMULATED not in real and "hospitals of a simulation" not in real


def test_metrics_bring_their_intervals_and_people():
    metrics = part(card_of(content()), "Metrics")
    pooled = "members together | 0.812 | 0.750 to 0.860 | bootstrap over people | 90 |"
    assert f"| screening | `auroc_mean` | {pooled}" in metrics
    assert "|  |  | far (external) | 0.700 | – | none | not told |" in metrics
    assert "| coronary artery disease | 0.812 | 0.740 to 0.870 | 30 of 90 | 0.700 |" in metrics
    groups = part(card_of(content()), "Subgroups")
    assert "| phase | metric | women |" in groups and "| phase | metric | under 45 |" in groups
    assert GROUPS_ALONE in groups


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (MEMORISED, "**Passes.**"),
        ({**MEMORISED, "passes": 0.0}, "**Does not pass.**"),
        ({**MEMORISED, "passes": 0.0, "conclusive": 0.0}, "**Not conclusive: too few cases to pass.**"),
        (None, "It was not made"),
    ],
)
def test_the_memorisation_test_is_told_as_it_ended(found, said):
    assert said in part(card_of(content(memorised=found)), "Memorisation test")


def test_privacy_is_that_of_the_study():
    none = part(card_of(content()), "Privacy")
    assert "mechanism: none" in none and "secure aggregation: no" in none
    private = {"mechanism": "dp_sgd", "epsilon": 8.0, "delta": 1e-5}
    both = content(privacy=private, secure_aggregation={"threshold": 2})
    told = part(card_of(both), "Privacy")
    assert "epsilon at most 8 at delta 1e-05" in told and "sums over at least 2" in told
    assert "epsilon covers the steps of training alone" in told and "memorisation" in told
    assert "not private" in part(card_of(content(privacy={**private, "deterministic": True})), "Privacy")


def test_a_release_says_what_is_in_it_and_a_paused_study_what_it_is():
    paused = deepcopy(content())
    paused["status"] = "paused"
    assert "has not ended" in part(card_of(paused), "Model details")
    facts = ReleaseFacts(
        modules={"ecg_encoder": 1000}, model_digest="12" * 32, left_out=("cmr_generator",),
        onnx={"predict.onnx": 3e-6}, without_generator=True, samples=500, rate_hz=250,
    )  # fmt: skip
    card = card_of(content(), release=facts)
    assert "`onnx/predict.onnx` differs from the torch model by at most 3.0e-06" in part(card, "Limits")
    assert "generator was left out" in part(card, "Limits")
    assert "this release is unsigned" in part(card, "Licence and provenance")
    assert "There is no generator in this model." in part(card, "Memorisation test")
    assert "modules: ecg_encoder\n" in card


def test_a_card_tells_the_generators_of_both_views_apart():
    phases = [
        {"task": "screening", "rounds": 1},
        {"task": "memorisation", "rounds": 1},
        {"task": "memorisation", "rounds": 1, "options": {"view": "sax"}},
    ]
    told = content(memorised={"passes": 1.0, "conclusive": 1.0, "training_share": 0.5, "n_patients": 40.0})
    told["study"]["phases"] = phases
    told["modules"] = {"sax_generator": "1", "sax_tokenizer": "2"}
    short = part(card_of(told), "Memorisation test")
    assert "There is no generator" not in short and "Short axis: It was not made for this generator." in short
    told["modules"] = {"cmr_generator": "1", "sax_generator": "2"}
    told["rounds"].append({**told["rounds"][-1], "phase": 2})
    both = part(card_of(told), "Memorisation test")
    assert both.count("Asked in the generator's latent space") == 2 and "**Short axis: " in both


def test_metrics_of_both_views_are_told_apart():
    phases = [
        {"task": "tokenizer", "rounds": 1},
        {"task": "tokenizer", "rounds": 1, "options": {"view": "sax"}},
    ]
    told = content(phases=phases)
    measured = {"psnr": 25.0, "n_patients": 50.0}
    told["rounds"] = [
        {**told["rounds"][0], "phase": place, "task": "tokenizer", "primary": "psnr",
         "test": {"pooled": measured, "sites": [{"site": "riverside", "metrics": measured}], "external": {}}}
        for place in (0, 1)
    ]  # fmt: skip
    told["summary"] = summary_of(told["rounds"])
    lines = metric_lines(told)
    assert [line.split(" |")[0] for line in lines[2:4]] == ["| tokenizer", "| tokenizer (sax)"]
    assert any("tokenizer `psnr` | tokenizer (sax) `psnr`" in line for line in lines[4:])
    assert "2 phases: tokenizer, tokenizer (sax)" in part(card_of(told), "Model details")


def test_results_with_demographics_are_not_called_those_of_the_ecg():
    told = part(card_of(content(parts={"ecg_encoder": "vit-film"})), "Limits")
    assert "of ECG and demographics together" in told
    assert "demographics" not in part(card_of(content(generation="cardiacnets")), "Limits")


def test_the_card_names_the_generation():
    told = part(card_of(content(generation="cardiacnets")), "Model details")
    assert "preset `nano+cardiacnets`" in told
