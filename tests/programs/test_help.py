"""``--help`` teaches: every command says what it does, and every argument and option what it means."""

import importlib
import importlib.metadata
import subprocess
import sys

import click
import pytest
import typer

PROGRAMS = {"cardionets-server": "server", "cardionets-client": "client", "cardionets-sim": "simulation"}


def commands(program):
    """Words of a command to the command, groups opened."""
    found = {}

    def open_group(words, command):
        if isinstance(command, click.Group):
            for name, inner in command.commands.items():
                open_group((*words, name), inner)
        else:
            found[words] = command

    open_group((), typer.main.get_command(importlib.import_module(f"{PROGRAMS[program]}.cli").cli))
    return found


EVERY = [(program, *words) for program in PROGRAMS for words in commands(program)]


@pytest.mark.parametrize("line", EVERY, ids=" ".join)
def test_a_command_and_all_that_it_takes_are_explained(line, run):
    program, *words = line
    command = commands(program)[tuple(words)]
    assert command.help and len(command.help.split()) >= 4
    shown = " ".join(run(program, *words, "--help").stdout.replace("│", " ").split())
    for parameter in command.params:
        if parameter.name == "help" or getattr(parameter, "hidden", False):
            continue
        assert parameter.help, f"{parameter.name} is not explained"
        first = " ".join(parameter.help.split()[:2])
        assert first in shown, f"the help of {parameter.name} is not shown"


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_tells_its_versions_and_loads_nothing_heavy(program):
    code = (
        f"import sys; sys.argv=[{program!r}, '--version']; from {PROGRAMS[program]}.cli import main\n"
        "try: main()\nexcept SystemExit as ended: assert not ended.code\n"
        "print(sorted({'torch', 'flwr', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    told, heavy = done.stdout.splitlines()
    for name in ("cardionets", "flwr", "torch"):
        assert f"{name} {importlib.metadata.version(name)}" in told
    assert heavy == "[]"


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_command_of_the_program_stands_in_its_help(program, run):
    shown = run(program, "--help").stdout
    assert all(f" {words[0]} " in shown for words in commands(program))


def test_the_daily_words_of_a_hospital_are_those_that_there_are(run):
    shown = " ".join(run("cardionets-client", "--help").stdout.split())
    daily = shown.partition("Every day: ")[2].partition(".")[0].split(", ")
    assert daily == ["status", "logs", "journal", "budget"]
    assert {(word,) for word in daily} <= set(commands("cardionets-client"))
