"""A whole site with its cache and its app, and journals of both sides, for the fuzzer."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from wire_surfaces import STUDY
from wounds import NAMES, VALUES, mutate, pick, wounded_arrays, wounded_json

from cardionets_core.audit import journal
from cardionets_core.audit.against import Witnessed, heads_json, read_heads, verify_against
from cardionets_core.audit.lines import journal_bodies, journal_line
from cardionets_core.config.site import read_site
from cardionets_core.data.cache import open_published
from cardionets_core.data.manifest import DISEASES, MANIFEST, PHENOTYPES, RECORDS, ROWS, cohort_folder
from cardionets_core.data.prepare import prepare
from cardionets_core.errors import OrderRefusedError, error_codes
from cardionets_core.exchange.messages import Order, RoundName, order_to_envelope
from cardionets_core.exchange.tensors import module_digest
from cardionets_core.models import build_module
from client.app import make_app
from client.journal import server_heads
from client.modules import pack_module
from server.rounds import _answer
from simulation.flower import hospital_of_partition
from simulation.local_grid import LocalGrid
from simulation.make import make_hospitals
from simulation.scenario import Scenario

Case = Callable[[np.random.Generator], str]
HOSPITAL = {
    "site": "alpha",
    "layout": "mimic_iv_ecg",
    "patients": 20,
    "split": {"validation": 0.2, "test": 0.2},
    "policy": {"minimum_patients": 5, "minimum_cell": 1},
}


def a_site(folder: Path) -> Path:
    """A prepared hospital with ECGs alone; its ``site.yaml``."""
    content = {"name": "wire", "seed": 3, "hospitals": [HOSPITAL], "study": json.loads(STUDY.to_json())}
    (path,) = make_hospitals(Scenario.model_validate(content), folder / "hospitals", workers=1)
    prepare(read_site(path))
    return path


def caches(folder: Path) -> Case:
    """A publication that was rewritten with all its digests: torn, or every number leads to something."""
    config = read_site(a_site(folder))
    kept, cohort = folder / "cohort", cohort_folder(config)
    shutil.copytree(cohort, kept)
    made = json.loads((cohort / MANIFEST).read_text())

    def case(rng: np.random.Generator) -> str:
        shutil.rmtree(cohort)
        shutil.copytree(kept, cohort)
        content = json.loads(json.dumps(made))
        name = pick((ROWS, RECORDS, PHENOTYPES, DISEASES, MANIFEST), rng)
        path = cohort / name
        if name == MANIFEST and rng.random() < 0.3:
            path.write_bytes(mutate(path.read_bytes(), rng))
        else:
            if name == MANIFEST:
                content.pop("sum")
                try:
                    content = json.loads(wounded_json(content, rng))
                except (ValueError, RecursionError):
                    content = {}
            elif name.endswith(".parquet") and rng.random() < 0.7:
                pq.write_table(_strange_table(pq.read_table(path), rng), path)
            else:
                path.write_bytes(mutate(path.read_bytes(), rng))
            if isinstance(content, dict):
                _sign(content, cohort)
            (cohort / MANIFEST).write_text(json.dumps(content))
        from cardionets_core.data.manifest import read_manifest

        manifest = read_manifest(config)
        found = open_published(config, now=manifest.fingerprint, verify=bool(rng.random() < 0.5))
        for offset, samples in zip(found.ecg_offsets, found.ecg_samples, strict=True):
            assert len(found.ecg_counts[12 * offset : 12 * (offset + samples)]) == 12 * samples, (
                "a place outside"
            )
        rows = len(found.row_patient)
        assert all(-1 <= int(row) < len(found.ecg_samples) for row in found.row_ecg), "an index outside"
        assert found.phenotypes.shape[0] == found.diseases.shape[0] == len(found.row_split) == rows
        return "opened"

    return case


def _sign(content: dict[str, object], cohort: Path) -> None:
    tables = content.get("tables")
    if isinstance(tables, dict):
        for name in (ROWS, RECORDS, PHENOTYPES, DISEASES):
            if name in tables:
                tables[name] = hashlib.sha256((cohort / name).read_bytes()).hexdigest()
    content.pop("sum", None)
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    content["sum"] = hashlib.sha256(text.encode()).hexdigest()


def _strange_table(table: pa.Table, rng: np.random.Generator) -> pa.Table:
    name = pick(table.column_names, rng)
    place = table.column_names.index(name)
    kind = int(rng.integers(0, 6))
    if kind == 0:
        return table.remove_column(place)
    if kind == 1:
        return table.slice(0, int(rng.integers(0, len(table))))
    if kind == 2:
        return pa.concat_tables([table, table])
    values = [pick((-2, -1, 0, 1, 5, 127, 2**31, 2**62, None), rng) for _ in range(len(table))]
    if kind == 3:
        values = [str(value) for value in values]  # type: ignore[misc]
    column = pa.array(values)
    with contextlib.suppress(pa.ArrowException):
        column = column.cast(table.schema.field(name).type) if kind == 4 else column
    return table.set_column(place, name, column)


def sites(folder: Path) -> Case:
    """Orders as Flower's messages to a whole site: a code of the tree, or a reply that passed its gate."""
    path = a_site(folder)
    grid = LocalGrid([make_app(functools.partial(hospital_of_partition, (path,)))])
    kinds = {
        "census": "query.census",
        "statistics": "query.statistics",
        "train": "train",
        "evaluate": "evaluate",
    }
    packed = {
        name: pack_module(build_module(name, "nano", seed=1)) for name in ("ecg_encoder", "ecg_decoder")
    }
    digests = {name: module_digest(module.layout, module.values) for name, module in packed.items()}
    beside = {each.name for each in folder.iterdir()}

    def case(rng: np.random.Generator) -> str:
        kind = pick(kinds, rng)
        name = RoundName(study_digest=STUDY.digest, phase=0, round=0 if kind == "census" else 1, attempt=1)
        order = Order(kind=kind, name=name, study_json=STUDY.to_json())
        if kind != "census":
            order = Order(
                kind=kind, name=name, study_json=STUDY.to_json(), modules=packed, trained=digests,
                measure=bool(rng.random() < 0.3),
            )  # fmt: skip
        envelope = order_to_envelope(order)
        fields, contents = dict(envelope.fields), wounded_arrays(dict(envelope.arrays), rng)
        if rng.random() < 0.6:
            field = pick(fields, rng)
            scalars = [each for each in VALUES if type(each) in (str, int, float, bool) and _travels(each)]
            fields[field if rng.random() < 0.7 else pick([n for n in NAMES if n.isascii()], rng)] = pick(
                scalars, rng
            )
        if rng.random() < 0.3:
            fields["study"] = (
                wounded_json(json.loads(STUDY.to_json()), rng).encode("ascii", "replace").decode()
            )
            if rng.random() < 0.7:
                fields["study-digest"] = hashlib.sha256(str(fields["study"]).encode()).hexdigest()
        content = RecordDict(
            {
                "fields": ConfigRecord(fields),
                "arrays": ArrayRecord(
                    {name: Array("float32", (1,), "numpy.ndarray", data) for name, data in contents.items()}
                ),
            }
        )
        message = Message(content, dst_node_id=1000, message_type=kinds[kind])
        (reply,) = grid.send_and_receive([message])
        assert not reply.has_error(), f"an exception left the site: {reply.error}"
        answer = _answer(reply, node=1000, seconds=0.0)
        assert answer.reply is not None, answer.code
        assert {each.name for each in folder.iterdir()} == beside, "written outside"
        code = answer.reply.code
        assert code in ("", *error_codes()) and code != "internal", _told(path)
        if code:
            raise OrderRefusedError(code)
        return "answered"

    return case


def _travels(value: object) -> bool:
    """Whether Flower's records take it: numbers of 64 bits, and text."""
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    return not isinstance(value, str) or value.isascii()


def _told(site: Path) -> str:
    return (site.parent / "client.log").read_text()[-1500:]


def journals(folder: Path) -> Case:
    """A journal, wounded or signed anew, through everything that reads one."""
    path, given = folder / "journal.jsonl", folder / "heads.json"
    facts = {"study": "ab" * 32, "phase": 0, "attempt": 1, "server_lines": 3, "server_head": "cd" * 32}
    for number in range(4):
        journal.append(path, "reply-left", {**facts, "round": number})
    valid = path.read_bytes()
    lines = [json.loads(line.partition(b" ")[2]) for line in valid.splitlines()]
    seen = Witnessed(journal="site/alpha", lines=2, hash="ef" * 32)
    uses: dict[str, Callable[[], object]] = {
        "verify": lambda: journal.verify(path),
        "head": lambda: journal.head(path),
        "append": lambda: journal.append(path, "reply-left", {}),
        "bodies": lambda: list(journal.bodies(path)),
        "mend": lambda: journal.mend(path),
        "hash": lambda: journal.hash_of(path, 2),
        "lines": lambda: [journal_line(body) for body in journal_bodies(path)],
        "server-heads": lambda: list(server_heads(path)),
        "against": lambda: verify_against(
            path, read_heads(given), journal="site/alpha", proves=lambda head: False
        ),
    }

    def case(rng: np.random.Generator) -> str:
        given.write_bytes(wounded_json(heads_json([seen], holder="server"), rng).encode("utf-8", "replace"))
        path.write_bytes(mutate(valid, rng) if rng.random() < 0.4 else _signed_anew(lines, rng))
        uses[pick(uses, rng)]()
        return "read"

    return case


def _signed_anew(lines: list[dict[str, object]], rng: np.random.Generator) -> bytes:
    previous, found, wounded = journal.GENESIS, b"", int(rng.integers(0, len(lines)))
    for number, line in enumerate(lines):
        body = {**line, "previous": previous}
        text = json.dumps(body, sort_keys=True, separators=(",", ":"))
        content = (wounded_json(body, rng) if number == wounded else text).encode("utf-8", "replace")
        previous = hashlib.sha256(content).hexdigest()
        found += previous.encode() + b" " + content + b"\n"
    return found


SURFACES: dict[str, Callable[[Path], Case]] = {"caches": caches, "sites": sites, "journals": journals}
