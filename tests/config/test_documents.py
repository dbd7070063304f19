"""Documents: every fault at once, with its key; equal studies have equal digests."""

import os
from pathlib import Path

import pytest

from cardionets_core.config.read import read_mapping
from cardionets_core.config.site import read_site
from cardionets_core.config.study import Study, read_study, study_from_json
from cardionets_core.errors import ConfigError, OrderRefusedError

SITE = """
schema_version: 1
site: northfield
source: {kind: local_site, ecg: {format: wfdb, folder: ecg}}
policy: {phases: [ecg_mae]}
"""


def write(tmp_path, text, name="site.yaml"):
    path = tmp_path / name
    path.write_text(text)
    return path


def study(**changes):
    content = {
        "name": "s",
        "phases": [{"task": "ecg_mae", "rounds": 1, "local_epochs": 1, "optimiser": {"lr": 0.1}}],
    }
    return Study.model_validate({**content, **changes})


def test_paths_become_absolute_beside_the_document(tmp_path):
    config = read_site(write(tmp_path, SITE))
    assert config.source.ecg.folder == tmp_path.resolve() / "ecg"
    assert config.folders.cache == tmp_path.resolve() / "cache"


def test_every_fault_is_told_at_once_with_its_key_and_a_guess(tmp_path):
    text = SITE.replace("policy: {phases: [ecg_mae]}", "polcy: {}\ndevice: {threads: 0}")
    with pytest.raises(ConfigError) as caught:
        read_site(write(tmp_path, text))
    message = str(caught.value)
    assert "polcy: unknown key; did you mean 'policy'?" in message
    assert "policy: is missing" in message
    assert "device.threads" in message
    assert "site.yaml" in message


@pytest.mark.parametrize(
    "text, told",
    [
        ("a: [1", "not valid YAML"),
        ("- 1", "not a mapping"),
        ("a: 1\na: 2", "stands twice"),
        ("a: !!python/object/apply:os.system ['true']", "not valid YAML"),
        ("\xff", "not"),
    ],
)
def test_a_file_that_is_no_document(tmp_path, text, told):
    path = tmp_path / "x.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=told):
        read_mapping(path)


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_what_is_no_plain_file_is_not_opened(tmp_path, kind):
    path = tmp_path / "site.yaml"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(ConfigError, match="no plain file"):
        read_site(path)


def test_an_absent_file(tmp_path):
    with pytest.raises(ConfigError, match="there is no file"):
        read_study(Path(tmp_path / "none.yaml"))


def test_the_digest_is_of_the_meaning_not_of_the_spelling(tmp_path):
    one = write(
        tmp_path,
        "name: s\nphases: [{task: ecg_mae, rounds: 1, local_steps: 2, optimiser: {lr: 0.1}}]",
        "1.yaml",
    )
    two = write(
        tmp_path,
        "phases:\n- optimiser: {lr: 1.0e-1}\n  local_steps: 2\n  rounds: 1\n  task: ecg_mae\nname: s",
        "2.yaml",
    )
    assert read_study(one).digest == read_study(two).digest
    assert study(seed=1).digest != study(seed=2).digest


def test_a_study_survives_the_wire_and_a_changed_one_does_not():
    asked = study()
    assert study_from_json(asked.to_json(), digest=asked.digest) == asked
    with pytest.raises(OrderRefusedError):
        study_from_json(study(seed=5).to_json(), digest=asked.digest)
    with pytest.raises(OrderRefusedError):
        study_from_json("[]", digest=asked.digest)


@pytest.mark.parametrize(
    "phase",
    [
        {"task": "t", "rounds": 1, "local_epochs": 1, "local_steps": 1},
        {"task": "t", "rounds": 1, "optimiser": {"lr": 1}},
        {"task": "t", "rounds": 1, "local_epochs": 1, "optimiser": {"lr": 1, "blr": 1}},
        {"task": "t", "rounds": 1, "local_epochs": 1, "optimiser": {}},
    ],
)
def test_phases_that_contradict_themselves(phase):
    with pytest.raises(ValueError, match=r"one of|needs|exactly"):
        study(phases=[phase])
