"""From the store's entries to the content of a publication (step 4 of the walk).

Comes in: what the source lists and what the store holds. Goes out: rows, records and labels in the order of
pseudonym, visit and recording, so that a cache that grew bit by bit and one made at once have one digest.
Nothing is written here.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from cardionets_core.config.site import SiteConfig
from cardionets_core.data.cohort import CINE_FRAMES, CINE_PIXELS, SEXES, SPLITS
from cardionets_core.data.listing import Listing
from cardionets_core.data.pairs import pair_visits
from cardionets_core.data.phenotypes import FIELDS
from cardionets_core.data.records import LABELS, LEADS, VIEWS, Person
from cardionets_core.data.sources import Source
from cardionets_core.data.split import split_of
from cardionets_core.data.store_log import Entry

_Name = TypeVar("_Name", int, str)
BYTES_A_SAMPLE = 2 * len(LEADS)
BYTES_A_CINE = CINE_FRAMES * CINE_PIXELS * CINE_PIXELS
PLACES = ("ecg_offset", "ecg_samples", "signature_start", *(f"item_{view}" for view in VIEWS))
INTERNAL = ("key", "digest", *PLACES)
"""Columns of ``records.parquet`` that only the cache itself needs."""


@dataclass(kw_only=True)
class Draft:
    """The content of a publication in the making.

    Attributes:
        rows: column to values: patient, split, ecg, a column a view, age_years, sex.
        pseudonyms: of the rows.
        records: column to values: key, digest, kind, reason, flags, split, pseudonym and ``PLACES``.
        facts: name to number of the record to value.
        phenotypes: number of the row to values; rows without any are absent.
        diseases: number of the row to values; rows without any are absent.
        flags: doubt to number of records.
        refusals: reason to number of records.
        content: digest of rows and records.
    """

    rows: dict[str, list[Any]] = field(default_factory=dict)
    pseudonyms: list[str] = field(default_factory=list)
    records: dict[str, list[Any]] = field(default_factory=dict)
    facts: dict[str, dict[int, float | str]] = field(default_factory=dict)
    phenotypes: dict[int, dict[int, float]] = field(default_factory=dict)
    diseases: dict[int, dict[str, float]] = field(default_factory=dict)
    flags: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    content: Any = field(default_factory=hashlib.sha256)
    ecgs: int = 0

    def __post_init__(self) -> None:
        names = ("kind", "reason", "flags", "split", "pseudonym", *INTERNAL)
        self.records = {name: [] for name in names}
        self.rows = {name: [] for name in ("patient", "split", "ecg", *VIEWS, "age_years", "sex")}

    def add_record(self, entry: Entry, *, pseudonym: str, split: int) -> int:
        """Add a recording; gives the number of its ECG among all accepted ones, or -1."""
        number = len(self.records["key"])
        offset, length = entry.places.get("ecg", (-1, 0))
        signature, _ = entry.places.get("signature", (-1, 0))
        values = {"kind": entry.kind, "reason": entry.reason or None, "flags": list(entry.flags),
                  "split": SPLITS[split], "pseudonym": pseudonym, "key": entry.key, "digest": entry.digest,
                  "ecg_offset": offset // BYTES_A_SAMPLE, "ecg_samples": length // BYTES_A_SAMPLE,
                  "signature_start": signature}  # fmt: skip
        for view in VIEWS:
            values[f"item_{view}"] = entry.places.get(view, (-1, 0))[0] // BYTES_A_CINE
        for name, value in values.items():
            self.records[name].append(value)
        for name, fact in entry.facts.items():
            self.facts.setdefault(name, {})[number] = fact
        self.flags.update(entry.flags)
        if entry.reason:
            self.refusals[entry.reason] += 1
        self._digest(entry.kind, entry.reason, entry.digest, *entry.flags)
        if "ecg" not in entry.places:
            return -1
        self.ecgs += 1
        return self.ecgs - 1

    def add_row(
        self, *, pseudonym: str, split: int, ecg: int, cines: Mapping[str, Entry], person: Person
    ) -> None:
        """Add a row; rows of one person come one after another."""
        known = bool(self.pseudonyms) and self.pseudonyms[-1] == pseudonym
        number = len(self.pseudonyms)
        values = {"patient": self.rows["patient"][-1] + (not known) if self.pseudonyms else 0,
                  "split": split, "ecg": ecg, "age_years": person.age_years, "sex": -1}  # fmt: skip
        if person.sex is not None:
            values["sex"] = SEXES.index(person.sex)
        for view in VIEWS:
            start, _ = cines[view].places[view] if view in cines else (-1, 0)
            values[view] = start // BYTES_A_CINE
        for name, value in values.items():
            self.rows[name].append(value)
        self.pseudonyms.append(pseudonym)
        if person.phenotypes:
            self.phenotypes[number] = person.phenotypes
        if person.diseases:
            self.diseases[number] = person.diseases
        views = (f"{view}={cines[view].digest}" for view in VIEWS if view in cines)
        self._digest(pseudonym, split, ecg, person.age_years, person.sex, *views)

    def phenotype_array(self) -> np.ndarray:
        """Float32 [R, 82], NaN where missing."""
        return _array(self.phenotypes, FIELDS, total=len(self.pseudonyms))

    def disease_array(self) -> np.ndarray:
        """Float32 [R, 8] in the order of ``LABELS``, NaN where not known."""
        return _array(self.diseases, LABELS, total=len(self.pseudonyms))

    def row_table(self) -> pa.Table:
        """``rows.parquet``."""
        types = {"split": pa.int8(), "sex": pa.int8(), "age_years": pa.float32()}
        columns = {name: pa.array(v, type=types.get(name, pa.int64())) for name, v in self.rows.items()}
        return pa.table({"pseudonym": pa.array(self.pseudonyms, type=pa.string()), **columns})

    def record_table(self) -> pa.Table:
        """``records.parquet``; facts are nullable columns, numbers unless one of them is a word."""
        columns: dict[str, pa.Array] = {}
        total = len(self.records["key"])
        for name in sorted(self.facts):
            found = self.facts[name]
            words = any(isinstance(value, str) for value in found.values())
            values = [found.get(number) for number in range(total)]
            columns[name] = pa.array(
                [None if value is None else str(value) for value in values] if words
                else [None if value is None else float(value) for value in values],
                type=pa.string() if words else pa.float64(),
            )  # fmt: skip
        for name, values in self.records.items():
            kinds = {"flags": pa.list_(pa.string()), **dict.fromkeys(PLACES, pa.int64())}
            columns[name] = pa.array(values, type=kinds.get(name, pa.string()))
        columns["accepted"] = pa.array([reason is None for reason in self.records["reason"]], type=pa.bool_())
        return pa.table(columns)

    def counts(self) -> dict[str, int]:
        """Of records, rows, people, ECGs and cines."""
        cines = sum(item >= 0 for view in VIEWS for item in self.records[f"item_{view}"])
        return {"records": len(self.records["key"]), "rows": len(self.pseudonyms), "ecgs": self.ecgs,
                "patients": len(set(self.pseudonyms)), "cines": cines}  # fmt: skip

    def _digest(self, *words: object) -> None:
        self.content.update(("\x1f".join(str(word) for word in words) + "\x1e").encode())


def compose(
    config: SiteConfig, *, key: bytes, listing: Listing, entries: Mapping[str, Entry], source: Source
) -> Draft:
    """Rows, records and labels of everything that is listed.

    Args:
        config: of the site.
        key: of the site.
        listing: what may be shown.
        entries: what the store holds; everything that is listed stands there.
        source: what the tables say of people.

    Raises:
        SourceInvalidError: a table cannot be read.
    """
    draft = Draft()
    keys = {recording: name for name, recording in listing.recordings.items()}
    shares = config.prepare.split
    for visit in pair_visits(keys, key=key):
        split = split_of(key, visit.pseudonym, validation=shares.validation, test=shares.test)
        cines: dict[str, Entry] = {}
        for recording in visit.cines:
            entry = entries[keys[recording]]
            draft.add_record(entry, pseudonym=visit.pseudonym, split=split)
            cines.update(dict.fromkeys(entry.places, entry))
        numbers = [
            draft.add_record(entries[keys[recording]], pseudonym=visit.pseudonym, split=split)
            for recording in visit.ecgs
        ]
        ecgs = [number for number in numbers if number >= 0]
        if cines or ecgs:
            person = source.person(visit.patient, visit.visit)
            for ecg in ecgs or [-1]:
                draft.add_row(pseudonym=visit.pseudonym, split=split, ecg=ecg, cines=cines, person=person)
    draft.content.update(draft.phenotype_array().tobytes())
    draft.content.update(draft.disease_array().tobytes())
    return draft


def _array(rows: Mapping[int, Mapping[_Name, float]], names: tuple[_Name, ...], *, total: int) -> np.ndarray:
    values = np.full((total, len(names)), np.nan, dtype="<f4")
    for number, row in rows.items():
        values[number] = [row.get(name, np.nan) for name in names]
    return values
