"""``--site`` takes a site's folder as well as the document in it, in every command that has it."""

import json
from pathlib import Path

import pytest

from client.commands.answer import site_document


@pytest.mark.parametrize(
    "command",
    [
        ("check", "--sample", 0),
        ("prepare", "--dry-run"),
        ("journal",),
        ("journal", "verify"),
        ("budget",),
        ("rehearse",),
    ],
    ids=lambda words: " ".join(map(str, words)),
)
def test_a_folder_means_the_document_in_it(command, hospital, client):
    ended = [client(*command, "--site", given) for given in (hospital.site, hospital.folder)]
    assert ended[0].code == ended[1].code
    assert "no plain file" not in ended[1].out + ended[1].err
    if command[0] == "rehearse":  # no study waits here; the error names the folder
        assert f"where: {hospital.folder}\n" in ended[1].err
    if command[0] != "check":  # that one tells free space and the time
        assert ended[0].out == ended[1].out and ended[0].err == ended[1].err
    else:
        assert f"site       {hospital.folder.name}" in ended[1].out


@pytest.mark.parametrize("command", ["check", "prepare", "budget", "rehearse", "journal verify"])
def test_a_folder_that_is_given_bare_is_answered_with_the_option(command, hospital, client):
    done = client(*command.split(), hospital.folder)
    told = " ".join(done.err.replace("│", " ").split())
    assert done.code == 2 and f"cardionets-client {command.split()[0]} --site DIR" in told


def test_inspect_reads_what_a_folder_of_a_site_declares(hospital, client):
    some = sorted((hospital.folder / "ecg").glob("*.hea"))[0]
    by = [client("inspect", some, "--site", given) for given in (hospital.site, hospital.folder)]
    assert by[0] == by[1] and by[1].code == 0


def test_a_folder_without_a_document_is_named_with_what_it_lacks(tmp_path, client):
    done = client("budget", "--site", tmp_path, "--format", "json")
    error = json.loads(done.out)["error"]
    assert done.code == 3 and error["where"] == str(tmp_path / "site.yaml")


def test_a_folder_that_may_not_be_looked_into_is_no_crash(tmp_path, monkeypatch):
    def refused(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_dir", refused)
    assert site_document(tmp_path) == tmp_path and site_document(None) is None
