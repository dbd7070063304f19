"""Spellings of the twelve leads (FORMATS sections 1, 4 and 5)."""

from __future__ import annotations

from cardionets_core.data.records import LEADS

_PREFIXES = ("mdc_ecg_lead_", "lead ", "lead_", "ecg_")
_SUFFIX = " (einthoven)"
_BY_SPELLING = {lead.lower(): lead for lead in LEADS} | {"di": "I", "dii": "II", "diii": "III"}


def canonical_lead(name: str) -> str:
    """The name as in ``LEADS`` where it is one of the twelve, whatever its case; else the name stripped."""
    stripped = name.strip()
    key = stripped.lower().removesuffix(_SUFFIX)
    for prefix in _PREFIXES:
        key = key.removeprefix(prefix)
    return _BY_SPELLING.get(key, stripped)
