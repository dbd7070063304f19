"""The table of ``docs/benchmarks.md`` that follows from ``docs/benchmarks.json``, and that file itself.

Comes in: entries. Goes out: text between two marks of the page; what people wrote around it stays.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cardionets_core.durable import write_json, write_whole
from cardionets_core.errors import UsageError
from cardionets_core.plain_json import read_json
from simulation.benchmarks.catalogue import names

SCHEMA_VERSION = 1
WIDTH = 120
BEGIN = "<!-- written by make bench: begin -->"
END = "<!-- written by make bench: end -->"


def read_committed(path: Path) -> dict[str, dict[str, Any]]:
    """The committed entries by name; none where there is no file.

    Raises:
        UsageError: the file is none of ours.
    """
    if not path.exists():
        return {}
    try:
        content = read_json(path)
        if content["schema_version"] != SCHEMA_VERSION:
            raise ValueError("another version")
        return {entry["name"]: dict(entry) for entry in content["benchmarks"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            "the committed figures cannot be read",
            where=str(path),
            remedy="restore the file from the repository, or remove it to begin anew",
        ) from error


def write_committed(path: Path, entries: Mapping[str, Mapping[str, Any]]) -> None:
    """Write entries in the order of the catalogue."""
    ordered = [dict(entries[name]) for name in in_order(entries)]
    write_json(path, {"schema_version": SCHEMA_VERSION, "benchmarks": ordered})


def write_page(path: Path, entries: Mapping[str, Mapping[str, Any]]) -> None:
    """Put the table into the page, in the place of the one before.

    Raises:
        UsageError: the page lacks the two marks.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError("the page cannot be read", where=str(path), remedy="name it with --page") from error
    write_whole(path, with_table(text, entries, where=str(path)).encode())


def with_table(text: str, entries: Mapping[str, Mapping[str, Any]], *, where: str = "") -> str:
    """A page's text with the table of these entries between its marks.

    Raises:
        UsageError: it does not have each mark once, in order.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after:
        raise UsageError(
            "the page does not have the two marks between which the table goes",
            where=where,
            remedy=f"put a line {BEGIN} and after it a line {END} where the table is to stand",
        )
    table = "\n".join(table_lines(entries))
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def table_lines(entries: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """The table: where it was measured, then a row a figure."""
    numbered = _machines(entries)
    yield ""
    for letter, text in numbered.values():
        yield from textwrap.wrap(f"Machine {letter}: {text}.", width=WIDTH, break_on_hyphens=False)
    yield ""
    yield "| what | ratio | to | machine, day | command |"
    yield "|---|---|---|---|---|"
    for name in in_order(entries):
        entry = entries[name]
        letter = numbered[_machine_key(entry)][0]
        place = f"{letter}, {entry['date']}"
        command = f"`{entry['command']}`"
        for row in entry["rows"]:
            ratio, to = _told(row)
            yield f"| {row['what']} | {ratio} | {to} | {place} | {command} |"
        if entry["status"] != "done":
            yield f"| {name}: failed: {_plain(entry['fault'])} | none | | {place} | {command} |"
    yield ""


def in_order(entries: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Names in the catalogue's order; those that it no longer has come last."""
    known = names()
    return [name for name in known if name in entries] + sorted(set(entries) - set(known))


def _told(row: Mapping[str, Any]) -> tuple[str, str]:
    if row["baseline"]:
        return f"{row['value']:g}", _plain(row["baseline"])
    value = row["value"]
    told = f"{value / 1e6:,.0f} MB" if row["unit"] == "bytes" else f"{value:g} {row['unit']}".rstrip()
    return f"no ratio: {told}", ""


def _machines(entries: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[str, str]]:
    """Key of a machine to its number and its description."""
    found: dict[str, tuple[str, str]] = {}
    for name in in_order(entries):
        key = _machine_key(entries[name])
        if key not in found:
            found[key] = (str(len(found) + 1), key)
    return found


def _machine_key(entry: Mapping[str, Any]) -> str:
    """What the machine and the libraries were, and what ran beside."""
    machine, versions = entry["machine"], entry["versions"]
    libraries = ", ".join(f"{name} {versions[name]}" for name in sorted(versions))
    text = f"{machine['cores']} cores of {machine['processor']}, {machine['memory_gb']} GB"
    text += f", {machine['system']}; {libraries}"
    return f"{text}; {entry['note']}" if entry["note"] else text


def _plain(text: str) -> str:
    return text.replace("|", "/")
