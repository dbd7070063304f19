"""A site's cache that was rewritten with all its digests: torn, never an index that leads out of it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cardionets_core.config.site import read_site
from cardionets_core.data.cache import open_published
from cardionets_core.data.manifest import (
    DISEASES,
    MANIFEST,
    PHENOTYPES,
    RECORDS,
    ROWS,
    cohort_folder,
    read_manifest,
)
from cardionets_core.data.prepare import prepare
from cardionets_core.errors import CacheForeignError, CardioNetsError, DataError
from simulation.make import make_hospitals
from simulation.scenario import Scenario

HOSPITAL = {
    "site": "alpha",
    "layout": "mimic_iv_ecg",
    "patients": 8,
    "split": {"validation": 0.2, "test": 0.2},
    "policy": {"minimum_patients": 5, "minimum_cell": 1},
}
STUDY = {
    "name": "s",
    "phases": [{"task": "ecg_mae", "rounds": 1, "local_steps": 1, "optimiser": {"lr": 1e-3}}],
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    scenario = Scenario.model_validate({"name": "c", "seed": 2, "hospitals": [HOSPITAL], "study": STUDY})
    (path,) = make_hospitals(scenario, folder, workers=1)
    config = read_site(path)
    prepare(config)
    shutil.copytree(cohort_folder(config), folder / "kept")
    return config, folder / "kept"


@pytest.fixture
def config(made):
    shutil.rmtree(cohort_folder(made[0]))
    shutil.copytree(made[1], cohort_folder(made[0]))
    return made[0]


def signed(config, **changes):
    folder = cohort_folder(config)
    content = {**json.loads((folder / MANIFEST).read_text()), **changes}
    for name in content["tables"] if isinstance(content["tables"], dict) else ():
        if (folder / name).is_file():
            content["tables"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    content.pop("sum")
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    (folder / MANIFEST).write_text(json.dumps({**content, "sum": hashlib.sha256(text.encode()).hexdigest()}))


def opened(config):
    return open_published(config, now=read_manifest(config).fingerprint, verify=True)


@pytest.mark.parametrize(
    "changes",
    [
        {"files": {"ecg": ["../../x.bin", 0]}}, {"files": {"ecg": ["..", 0]}}, {"files": []}, {"files": {}},
        {"counts": {"rows": -1}}, {"counts": []}, {"refusals": {"a": "b"}}, {"refusals": 3}, {"tables": {}},
        {"tables": {"../../x": "y"}}, {"fingerprint": {}}, {"fingerprint": 3}, {"content_digest": 7},
        {"more": 1},
    ],
)  # fmt: skip
def test_a_manifest_with_this_is_torn(config, changes):
    signed(config, **changes)
    with pytest.raises(CacheForeignError):
        opened(config)


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "3", "", "9" * 5000, '{"site":1,"site":2}'])
def test_a_manifest_that_is_none_is_torn(config, text):
    path = cohort_folder(config) / MANIFEST
    path.write_text(text)
    with pytest.raises(CacheForeignError):
        opened(config)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(CacheForeignError):
        opened(config)


def column(config, name, key, change):
    path = cohort_folder(config) / name
    table = pq.read_table(path)
    values = change(table[key].to_pylist())
    pq.write_table(table.set_column(table.column_names.index(key), key, pa.array(values)), path)
    signed(config)


TABLES = {
    "a patient in words": (ROWS, "patient", lambda found: ["x"] * len(found)),
    "a fourth split": (ROWS, "split", lambda found: [3] * len(found)),
    "an ECG that is not there": (ROWS, "ecg", lambda found: [10**6] * len(found)),
    "an ECG of no number": (ROWS, "ecg", lambda found: [None] * len(found)),
    "a cine that is not there": (ROWS, "4ch", lambda found: [0] * len(found)),
    "a place before the file": (RECORDS, "ecg_offset", lambda found: [-7] * len(found)),
    "a place behind the file": (RECORDS, "ecg_offset", lambda found: [2**40] * len(found)),
    "a length beyond the file": (RECORDS, "ecg_samples", lambda found: [2**40] * len(found)),
    "a length whose end overflows": (RECORDS, "ecg_samples", lambda found: [2**63 - 1] * len(found)),
    "a signature behind the file": (RECORDS, "signature_start", lambda found: [2**40] * len(found)),
    "another digest": (RECORDS, "digest", lambda found: ["ab" * 32] * len(found)),
    "pseudonyms of one": (ROWS, "pseudonym", lambda found: ["x"] * len(found)),
}


@pytest.mark.parametrize(("name", "key", "change"), TABLES.values(), ids=TABLES)
def test_a_table_with_this_is_torn(config, name, key, change):
    column(config, name, key, change)
    with pytest.raises(DataError):
        opened(config)


@pytest.mark.parametrize("name", [ROWS, RECORDS])
def test_a_table_that_is_none_or_lacks_a_column_is_torn(config, name):
    path = cohort_folder(config) / name
    whole = path.read_bytes()
    for content in (b"", b"PAR1PAR1", whole[:-30], whole[:4] + whole[40:]):
        path.write_bytes(content)
        signed(config)
        with pytest.raises(CacheForeignError):
            opened(config)
    path.write_bytes(whole)
    table = pq.read_table(path)
    keys = (
        ("patient", "split", "ecg", "age_years", "sex")
        if name == ROWS
        else ("ecg_offset", "digest", "item_4ch")
    )
    for key in keys:
        pq.write_table(table.drop_columns([key]), path)
        signed(config)
        with pytest.raises(CacheForeignError):
            opened(config)


def test_a_small_file_that_unpacks_to_gigabytes_is_torn_before_it_is_read(config):
    path = cohort_folder(config) / ROWS
    schema = pq.read_schema(path)
    rows = 1_000_000
    batch = pa.table({field.name: pa.nulls(rows, field.type) for field in schema})
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for _ in range(25):
            writer.write_table(batch)
    assert path.stat().st_size < 10**6
    signed(config)
    with pytest.raises(CacheForeignError):
        opened(config)


@pytest.mark.parametrize("name", [PHENOTYPES, DISEASES])
def test_labels_of_another_shape_type_or_length_are_torn(config, name):
    path = cohort_folder(config) / name
    rows, names = np.load(path).shape
    for array in (
        np.zeros((rows + 1, names), "<f4"), np.zeros((rows, names), "<f8"), np.zeros(rows, "<f4"),
        np.zeros((), "<f4"),
        np.asfortranarray(np.zeros((rows, names), "<f4")), np.array([["x"] * names] * rows),
    ):  # fmt: skip
        np.save(path, array)
        signed(config)
        with pytest.raises(CacheForeignError):
            opened(config)
    for content in (b"", b"\x93NUMPY\x01\x00\xff\xff", b"\x93NUMPY\x01\x00\x76\x00{" + b"-" * 117):
        path.write_bytes(content)
        signed(config)
        with pytest.raises(CacheForeignError):
            opened(config)


def test_what_was_only_signed_again_opens(config):
    signed(config)
    try:
        assert len(opened(config).ecg_samples) > 0
    except CardioNetsError as error:
        pytest.fail(str(error))
