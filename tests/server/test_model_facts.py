"""What is said of a model's quality holds for the model that is handed out."""

from __future__ import annotations

import json

from cardionets_core.config.study import Study
from server.model_facts import model_facts

TRAINED = {"local_epochs": 1, "optimiser": {"lr": 1e-3}}


def study_of(*tasks):
    phases = [
        {"task": task, "rounds": 1, **(TRAINED if task not in ("probe", "calibrate") else {})}
        for task in tasks
    ]
    return Study.model_validate({"name": "facts", "preset": "nano", "phases": phases})


def entry(phase, task, **pooled):
    return {"phase": phase, "task": task, "round": 1, "test": {"pooled": pooled}}


def test_metrics_hold_until_a_later_phase_trains_what_was_measured():
    study = study_of("ecg_mae", "probe", "align", "probe", "screening")
    history = [entry(n, phase.task, value=float(n)) for n, phase in enumerate(study.phases)]
    facts = model_facts(study, history)
    # Align trains the encoder that the first probe read; screening trains its own head alone.
    assert [each["current"] for each in facts["evaluation"]] == [False, False, True, True, True]
    assert [each["test"]["value"] for each in facts["evaluation"]] == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert facts["study"] == {"name": "facts", "digest": study.digest} and facts["preset"] == "nano"
    assert facts["evaluation"][1]["modules"] == ["ecg_encoder", "phenotype_probe"]


def test_a_head_that_is_trained_with_its_encoder_outdates_the_head_before():
    study = study_of("screening", "phenotype")
    raw = json.loads(study.to_json())
    raw["phases"][1]["options"] = {"train_encoder": True}
    moved = Study.model_validate(raw)
    history = [entry(0, "screening", auroc_mean=0.7), entry(1, "phenotype", r2_mean=0.2)]
    assert [each["current"] for each in model_facts(study, history)["evaluation"]] == [True, True]
    assert [each["current"] for each in model_facts(moved, history)["evaluation"]] == [False, True]


def test_rounds_without_test_metrics_and_numbers_that_json_cannot_say_are_left_out():
    study = study_of("screening")
    rounds = [{"phase": 0, "task": "screening", "round": 1, "pooled": {"auroc_mean": 0.6}}]
    assert model_facts(study, rounds)["evaluation"] == []
    rounds.append(entry(0, "screening", auroc_mean=0.7, broken=float("nan")))
    assert model_facts(study, rounds)["evaluation"][0]["test"] == {"auroc_mean": 0.7}


def test_a_model_says_how_its_cines_were_drawn():
    raw = json.loads(study_of("ecg_mae", "generate").to_json())
    raw["phases"][1]["options"] = {"temperature": 0.3, "ar_steps": 2, "draws": 4}
    drawn = model_facts(Study.model_validate(raw), [])["drawing"]
    assert drawn == {"guidance": 0.0, "temperature": 0.3, "ar_steps": 2, "diffusion_steps": 0, "draws": 4}
    # Without a phase that draws it is the preset's way.
    assert set(model_facts(study_of("ecg_mae"), [])["drawing"].values()) == {0}
