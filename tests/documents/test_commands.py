"""Every command of README and docs can be typed: programs, commands, options and make words are there."""

from __future__ import annotations

import contextlib
import importlib
import re
import sys
from pathlib import Path

import click
import pytest
import typer

sys.path.append(str(Path(__file__).parent))
from commands import PROGRAMS, ROOT, blocks, blocks_of, inline_commands, words_of
from walks import NOT_TYPED, WALKS

FENCED = [(block.document, line) for block in blocks() for line in block.lines]
INLINE = sorted({*inline_commands()} - {*FENCED})
TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
MODULE = {"cardionets-server": "server", "cardionets-client": "client", "cardionets-sim": "simulation"}


# Commands that no block holds; each has tests of its own.
UNTYPED = {("cardionets-server", "kit"), ("cardionets-sim", "privacy")}


def parse(program: str, words: list[str]) -> None:
    """Have the program's own parser read the words, and do nothing.

    Raises:
        click.UsageError: a command, option or argument that is not there, or a value that is refused.
    """
    command: click.Command = typer.main.get_command(importlib.import_module(f"{MODULE[program]}.cli").cli)
    context = click.Context(command, info_name=program)
    while isinstance(command, click.Group):
        if not words:
            return
        name, command, words = command.resolve_command(context, words)
        context = click.Context(command, info_name=name, parent=context)
    command.parse_args(context, list(words))


@pytest.mark.parametrize(("document", "line"), sorted({*FENCED}), ids=lambda value: value)
def test_what_the_documents_tell_to_type_can_be_typed(document, line):
    check(words_of(line))


@pytest.mark.parametrize(("document", "line"), INLINE, ids=lambda value: value)
def test_what_the_documents_name_is_there(document, line):
    """A command that is only named may lack its arguments."""
    with contextlib.suppress(click.MissingParameter):
        check(words_of(line))


def check(words):
    if words and words[0].endswith("sudo"):
        words = words[1:]
    name = words[0].removeprefix(".venv/bin/")
    if name in PROGRAMS:
        try:
            parse(name, words[1:])
        except click.BadParameter as refused:
            if "does not exist" not in refused.message:  # what an earlier line makes, or FILE
                raise
    elif name == "make":
        assert {word for word in words[1:] if "=" not in word} <= TARGETS
    elif words[1:3] and words[1] == "-m" and words[2].startswith("simulation"):
        path = ROOT / (words[2].replace(".", "/") + ".py")
        source = (path if path.is_file() else path.with_suffix("") / "__main__.py").read_text()
        assert [option for option in words if option.startswith("--") and f'"{option}"' not in source] == []


def test_the_parser_refuses_what_is_not_there():
    for wrong in (["no-such-command"], ["run", "demo", "--out", "x", "--no-such-option"], ["run"]):
        with pytest.raises(click.UsageError):
            parse("cardionets-sim", wrong)


def test_every_block_is_typed_by_a_test_or_has_a_reason():
    typed = [block for walk in WALKS.values() for block in blocks_of(walk)]
    excused = blocks_of(NOT_TYPED)
    assert [block.lines for block in blocks() if block not in typed and block not in excused] == []
    assert [block.lines for block in excused if block in typed] == []


def test_every_command_that_is_only_named_is_typed_somewhere():
    """Named in a sentence, ``cardionets-server pause DIR`` is typed in the block that explains it."""
    typed = {line for block in blocks() for line in block.lines}
    said = {tuple(words_of(line.removeprefix(".venv/bin/"))[:2]) for line in typed}
    named = {tuple(words_of(line)[:2]) for _, line in inline_commands() if line.startswith("cardionets")}
    assert named - said == UNTYPED
