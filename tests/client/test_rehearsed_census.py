"""A rehearsal says of a census what holds for it: its counts are exempt from the policy's smallest cell."""

import json

import pytest
import yaml

from cardionets_core.config.study import Study

STUDY = Study.model_validate(
    {
        "name": "tiny",
        "phases": [
            {"task": "ecg_mae", "rounds": 1, "local_epochs": 1, "batch_size": 8, "optimiser": {"lr": 1e-3}}
        ],
    }
)


@pytest.mark.parametrize("sizes", [True, False])
def test_small_counts_of_files_leave_and_the_reader_is_told_so(hospital, client, tmp_path, sizes):
    document = yaml.safe_load(hospital.site.read_text())
    document["policy"] |= {"minimum_cell": 5, "cohort_sizes": sizes}
    document["prepare"] = {"split": {"validation": 0.0, "test": 0.0}}  # few people: all of them train
    hospital.site.write_text(yaml.safe_dump(document))
    (tmp_path / "study.json").write_text(STUDY.to_json())
    assert client("prepare", "--site", hospital.folder).code == 0
    options = ("--site", hospital.folder, "--study", tmp_path / "study.json")
    census = json.loads(client("rehearse", *options, "--format", "json").out)["replies"][0]
    shown = client("rehearse", *options).out
    facts = json.loads(census["fields"]["facts"])
    assert census["kind"] == "census"
    if sizes:
        assert 0 < min(facts["refusals"].values()) < 5  # what the words below are about
        assert "also below\n      policy.minimum_cell" in shown and "policy.cohort_sizes: false" in shown
    else:
        assert not {"refusals", "patients", "recordings"} & facts.keys()
        assert "policy.minimum_cell" not in shown.partition("train: ")[0]
