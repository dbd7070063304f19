"""What a census may tell of a site, key by key (row 9 of the walk).

Comes in: the JSON text that a site would answer with. Goes out: the same, with its counts rounded, or a
refusal that names the key. A census holds no free text: every value is a number, a word of a list, a digest
or a version.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from cardionets_core.errors import DisclosureRefusedError
from cardionets_core.plain_json import parse_json
from cardionets_core.privacy.counts import rounded
from cardionets_core.refusal_reasons import REFUSAL_REASONS

ROLES = frozenset({"member", "external"})
PROGRAMS = frozenset({"cardionets", "flwr", "torch"})
SPLITS = frozenset({"train", "validation", "test"})
RECORDINGS = frozenset({"ecg", "cine", "sax", "pair"})
"""``cine`` and ``pair`` count the 4-chamber view, ``sax`` the short axis, where a site keeps it."""
COUNTED: Mapping[str, frozenset[str]] = {
    "patients": SPLITS,
    "recordings": RECORDINGS,
    "refusals": frozenset(REFUSAL_REASONS),
}
"""Keys that hold counts, with the names that may be counted; told only where the policy tells sizes."""
MOST_HELD = 10_000
DIGEST = re.compile(r"[0-9a-f]{64}")
VERSION = re.compile(r"\d{1,6}(\.\d{1,8}){0,3}([.-]?(a|b|c|rc|dev|post)\d{0,8})?(\+[a-z0-9.]{1,30})?")


def told_census(text: str, *, sizes: bool, multiple: int) -> str:
    """The census as it may leave.

    Args:
        text: JSON of one object.
        sizes: whether the policy tells how many patients and recordings there are.
        multiple: to which counts are rounded.

    Raises:
        DisclosureRefusedError: names the key that may not leave, or not so.
    """
    try:
        facts = parse_json(text)
    except ValueError as error:
        raise DisclosureRefusedError("the census cannot be read", where="gate") from error
    if not isinstance(facts, dict):
        raise DisclosureRefusedError("the census is no object", where="gate")
    checks: dict[str, Callable[[Any], bool]] = {
        "role": partial(_is_word, words=ROLES),
        "holds": _are_digests,
        "versions": _are_versions,
    }
    if sizes:
        checks |= {key: partial(_are_counts, names=names) for key, names in COUNTED.items()}
    for key, value in facts.items():
        if key not in checks or not checks[key](value):
            raise DisclosureRefusedError(f"{key!r} of the census may not leave, or not so", where="gate")
    for key in COUNTED.keys() & facts.keys():
        facts[key] = {name: _rounded(count, multiple) for name, count in facts[key].items()}
    return json.dumps(facts, sort_keys=True)


def _is_word(value: Any, words: frozenset[str]) -> bool:
    return isinstance(value, str) and value in words


def _rounded(count: int, multiple: int) -> int:
    return int(rounded(np.array([float(count)]), multiple=multiple)[0])


def _are_counts(value: Any, names: frozenset[str]) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() <= names
        and all(type(count) is int and 0 <= count < 2**53 for count in value.values())
    )


def _are_digests(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= MOST_HELD
        and all(isinstance(digest, str) and DIGEST.fullmatch(digest) for digest in value)
    )


def _are_versions(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() <= PROGRAMS
        and all(isinstance(version, str) and VERSION.fullmatch(version) for version in value.values())
    )
