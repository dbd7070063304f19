"""Faults of a document in words: which key, what is wrong there, and what was perhaps meant.

Comes in: what pydantic found, and the model. Goes out: a line a fault. Entries of lists are counted from 1.
Tags that pydantic puts into a place, to tell kinds of entries apart, are no keys and are not shown.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from cardionets_core.config.patterns import WORDS as PATTERNS

LONGEST_SHOWN = 200
NO_KEY = "(top level)"
_WORDS = {
    "missing": "is missing",
    "union_tag_not_found": "is missing",
    "bool_type": "should be true or false",
    "bool_parsing": "should be true or false",
    "int_type": "should be a whole number",
    "int_parsing": "should be a whole number",
    "int_from_float": "should be a whole number",
    "float_type": "should be a number",
    "float_parsing": "should be a number",
    "string_type": "should be text",
    "list_type": "should be a list",
    "tuple_type": "should be a list",
    "dict_type": "should be a mapping of keys to values",
    "model_type": "should be a mapping of keys to values",
    "model_attributes_type": "should be a mapping of keys to values",
}


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` where one of the known words is like it, else nothing."""
    close = difflib.get_close_matches(word, [each for each in known if each != word], n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def fault_lines(model: type[BaseModel], items: Sequence[Any]) -> list[str]:
    """A line a fault, in pydantic's order, each once.

    Args:
        model: of the document.
        items: of ``ValidationError.errors``, with their context.
    """
    # A list whose entries are faulty seems to be too short as well.
    deeper = {tuple(item["loc"][:depth]) for item in items for depth in range(len(item["loc"]))}
    found: dict[str, dict[str, str]] = {}
    for item in items:
        if item["type"] == "too_short" and tuple(item["loc"]) in deeper:
            continue
        for key, told in _told(model, item):
            shown = "" if item["type"] == "extra_forbidden" else _shown(item.get("input"))
            found.setdefault(_printable(key), {})[told] = shown
    return [line for key, told in found.items() for line in _lines(key, told)]


def _lines(key: str, told: Mapping[str, str]) -> Iterator[str]:
    """Faults of one key; a value that may be of several kinds, and is of none, is told once."""
    kinds = [text for text in told if text in _WORDS.values() and text.startswith("should be ")]
    if len(kinds) > 1:
        either = " or ".join(text.removeprefix("should be ") for text in kinds)
        yield f"{key}: should be {either}{told[kinds[0]]}"
    for text, shown in told.items():
        if len(kinds) < 2 or text not in kinds:
            yield f"{key}: {text}{shown}"


def _told(model: type[BaseModel], item: Any) -> Iterator[tuple[str, str]]:
    """Key and words of an item; a check of ours may have found several faults, a line each."""
    kind, context = item["type"], item.get("ctx") or {}
    parts, here, tag = _walked(model, item["loc"], unknown_last=kind == "extra_forbidden")
    if kind == "extra_forbidden":
        yield ".".join(parts), _unknown_key(parts[-1], here, tag)
    elif kind in ("union_tag_invalid", "union_tag_not_found"):
        name = str(context.get("discriminator", "")).strip("'")
        key = ".".join([*parts, name])
        if kind == "union_tag_not_found":
            yield key, _WORDS[kind]
        else:
            known = [each.strip("' ") for each in str(context["expected_tags"]).split(",")]
            given = str(context["tag"])
            guess = did_you_mean(given, known) or f"; use one of: {', '.join(known)}"
            yield key, f"there is no {_short(given)!r}{guess}"
    elif kind == "value_error":
        for line in str(context.get("error", item["msg"])).splitlines():
            named, colon, rest = line.partition(": ")
            first = named.partition(".")[0]
            if colon and named.isprintable() and " " not in named and first in _fields(here):
                yield ".".join([*parts, named]), rest
            else:
                yield ".".join(parts) or NO_KEY, line
    else:
        text = PATTERNS.get(str(context.get("pattern"))) or _WORDS.get(kind)
        text = text or item["msg"].replace("Input should", "should", 1)
        if kind == "literal_error" and isinstance(item.get("input"), str):
            text += did_you_mean(item["input"], str(context["expected"]).replace(" or ", ", ").split("'"))
        yield ".".join(parts) or NO_KEY, text


def _unknown_key(key: str, here: Sequence[type[BaseModel]], tag: str) -> str:
    known = sorted(_fields(here))
    if guess := did_you_mean(key, known):
        return f"unknown key{guess}"
    return f"unknown key; {tag} has {', '.join(known)}" if tag else "unknown key"


def _walked(
    model: type[BaseModel], loc: Sequence[Any], *, unknown_last: bool
) -> tuple[list[str], list[type[BaseModel]], str]:
    """The keys of a place, the documents that it may be in, and the kind of the last entry that has one."""
    parts: list[str] = []
    places: list[Any] = [model]
    tag = ""
    for depth, part in enumerate(loc):
        known = _fields(_documents(places))
        of_mapping = any(get_origin(each) in (dict, Mapping) for each in places)
        if isinstance(part, int):
            parts.append(str(part if of_mapping else part + 1))
            places, tag = [inner for each in places for inner in _inner(each)], ""
        elif part in known:
            parts.append(part)
            places, tag = known[part], ""
        elif of_mapping and part != "[key]" and not part.startswith("("):
            parts.append(part)
            places, tag = [inner for each in places for inner in _inner(each)], ""
        elif unknown_last and depth == len(loc) - 1:
            parts.append(part)
        elif narrowed := [each for each in _documents(places) if part in _tags(each)]:
            places, tag = list(narrowed), part
    return parts, _documents(places), tag


def _inner(annotation: Any) -> list[Any]:
    """What the entries of a list or the values of a mapping may be."""
    kind, arguments = get_origin(annotation), get_args(annotation)
    if kind in (dict, Mapping):
        return _ways(arguments[1])
    if kind in (tuple, list, Sequence):
        return [way for each in arguments if each is not Ellipsis for way in _ways(each)]
    return []


def _ways(annotation: Any) -> list[Any]:
    """What a value may be, without the wrappings."""
    if get_origin(annotation) is Annotated:
        return _ways(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [way for each in get_args(annotation) for way in _ways(each)]
    return [annotation]


def _documents(places: Sequence[Any]) -> list[type[BaseModel]]:
    return [each for each in places if isinstance(each, type) and issubclass(each, BaseModel)]


def _fields(documents: Sequence[type[BaseModel]]) -> dict[str, list[Any]]:
    """Key to what its value may be, of all documents that may stand in a place."""
    found: dict[str, list[Any]] = {}
    for document in documents:
        for name, field in document.model_fields.items():
            found.setdefault(field.alias or name, []).extend(_ways(field.annotation))
    return found


def _tags(document: type[BaseModel]) -> set[str]:
    """Choices by which a document is told from others."""
    return {
        str(choice)
        for field in document.model_fields.values()
        if field.is_required()
        for choice in get_args(field.annotation)
    }


def _printable(key: str) -> str:
    return _short(key if key.isprintable() else ascii(key))


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_SHOWN else text[:LONGEST_SHOWN] + "…"


def _shown(given: Any) -> str:
    """What was found, as far as a person wants to see it."""
    if isinstance(given, int) and given.bit_length() > 200:
        return " (found a number of too many digits)"
    if not isinstance(given, (str, int, float)):
        return ""
    return f" (found {_short(repr(given))})"
