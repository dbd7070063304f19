"""The coordinator's program: DIR may be left out, its help fits 80 columns, a wrong folder gets a hint."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
import typer

from server.cli import cli

NAMES = sorted(typer.main.get_command(cli).commands)
LEFT_OUT = {
    "sites": [],
    "plan": [],
    "provision": [],
    "kit": [],
    "renew": ["--server"],
    "roster": [],
    "status": [],
    "package": [],
    "revoke": ["--site", "a", "--reason", "r", "--yes"],
    "release": ["--out", "r", "--dry-run"],
}


@pytest.mark.parametrize(("command", "options"), LEFT_OUT.items(), ids=LEFT_OUT)
def test_a_folder_that_is_left_out_is_the_one_that_one_is_in(tmp_path, run, monkeypatch, command, options):
    assert run("cardionets-server", "init", tmp_path / "hub").returncode == 0
    assert run("cardionets-server", "provision", tmp_path / "hub", "--site", "a").returncode == 0
    named = json.loads(run("cardionets-server", "plan", tmp_path / "hub", "--format", "json").stdout)
    assert named["approved"]
    monkeypatch.chdir(tmp_path / "hub")
    if command == "roster":
        assert run("cardionets-server", "provision", "--site", "b").returncode == 0
    done = run("cardionets-server", command, *options)
    if command == "release":
        assert done.returncode == 7 and "no study has run in this workspace" in done.stdout
    else:
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", ["", *NAMES])
def test_no_paragraph_of_the_help_is_wrapped_twice(run, monkeypatch, command):
    """A line of it is short only where the next word did not fit."""
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 80)
    shown = run("cardionets-server", *command.split(), "--help").stdout.splitlines()
    end = next(place for place, line in enumerate(shown) if line.startswith("╭"))
    lines = [line.rstrip() for line in shown[:end]]
    text = lines[next(i for i, line in enumerate(lines) if "Usage:" in line) + 1 :]
    text = text[text.index("") :]
    assert len("".join(text).split()) > 3 and max(map(len, text)) <= 80
    for line, following in pairwise(text):
        if line and following:
            assert len(line) + 1 + len(following.split()[0]) > 79, f"{line!r} is followed by {following!r}"


def test_watching_a_run_folder_says_how_it_is_watched(tmp_path, run):
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "status.json").write_text('{"state": "completed"}')
    done = run("cardionets-server", "watch", tmp_path / "first")
    assert done.returncode == 2
    assert f"cardionets-server watch {tmp_path / 'first'} --web" in done.stderr
    (tmp_path / "bare").mkdir()
    assert "init" in run("cardionets-server", "watch", tmp_path / "bare").stderr
