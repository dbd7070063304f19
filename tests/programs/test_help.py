"""``--help`` teaches: every command says what it does, and every argument and option what it means."""

import importlib

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
