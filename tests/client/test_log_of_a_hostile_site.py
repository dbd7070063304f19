"""A site whose files, tables and errors are full of marks, through all that it does: no mark in any log."""

import functools
import json

import numpy as np
import pytest
import yaml
from flwr.app import Message

import client.log
from cardionets_core.config.site import read_site
from cardionets_core.config.study import Study
from cardionets_core.data.prepare import prepare
from cardionets_core.errors import DataError
from cardionets_core.exchange.messages import (
    Order,
    PackedModule,
    RoundName,
    order_to_envelope,
    reply_from_envelope,
)
from cardionets_core.exchange.tensors import layout_of, pack
from cardionets_core.logs.reading import read_lines
from cardionets_core.models import build_module
from cardionets_core.training.tensors import export_tensors
from client.app import make_app
from server.records import from_records, to_records
from simulation.flower import hospital_of_partition
from simulation.local_grid import LocalGrid

MARK = "ZZMARK"
STUDY = Study.model_validate(
    {"name": "marks", "seed": 1, "sites": {"minimum": 1, "deadline_s": 60},
     "phases": [
         {"task": "ecg_mae", "rounds": 3, "local_steps": 2, "batch_size": 4, "optimiser": {"lr": 1e-3}}
     ]}
)  # fmt: skip


def order(kind, round_number, **changes):
    tensors = {
        name: export_tensors(build_module(name, "nano", seed=1)) for name in ("ecg_encoder", "ecg_decoder")
    }
    modules = {
        name: PackedModule(layout=layout_of(found), values=pack(found)) for name, found in tensors.items()
    }
    name = RoundName(study_digest=STUDY.digest, phase=0, round=round_number, attempt=1)
    found = {"kind": kind, "name": name, "study_json": STUDY.to_json()}
    return Order(**{**found, **({} if kind == "census" else {"modules": modules}), **changes})


def ask(asked, path):
    grid = LocalGrid([make_app(functools.partial(hospital_of_partition, (path,)))])
    kind = {"census": "query.census"}.get(asked.kind, asked.kind)
    (reply,) = grid.send_and_receive(
        [Message(to_records(order_to_envelope(asked)), dst_node_id=1000, message_type=kind)]
    )
    return reply_from_envelope(from_records(reply.content)).code


@pytest.fixture
def hospital(hospital):
    """Everybody trains, so that the damaged recordings leave enough."""
    document = yaml.safe_load(hospital.site.read_text())
    document["prepare"] = {"split": {"validation": 0.0, "test": 0.0}}
    hospital.site.write_text(yaml.safe_dump(document))
    return hospital


def marked(hospital):
    """Names of files, a column, values of a table, and the path of the folder itself bear marks."""
    folder = hospital.folder
    for number, file in enumerate(sorted((folder / "ecg").glob("*.hea"))[8:10]):
        (folder / "ecg" / f"{MARK}-{number}-Jane-Doe-1931-02-03.xml").write_text(
            f"<r><name>{MARK} Jane Doe</name><id>{MARK}4711</id>{file.read_text()[:50]}"
        )
    rows = (folder / "people.csv").read_text().splitlines()
    rows += [f"{MARK}{number},{MARK}-1931-02-0{number},F" for number in range(1, 4)]
    (folder / "people.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def texts(monkeypatch):
    """The texts of all errors that an order ended in: what must not stand in the log."""
    found = []
    real = client.log.log_error

    def remembered(log, error, **options):
        found.append(str(error))
        return real(log, error, **options)

    monkeypatch.setattr(client.log, "log_error", remembered)
    return found


def test_no_mark_in_any_log(hospital, client, texts, monkeypatch, caplog, capfd):
    folder, site = marked(hospital), hospital.site
    codes = [ask(order("census", 0), site)]
    prepare(read_site(site))
    client("check", "--site", site)
    codes += [ask(order("census", 0), site), ask(order("train", 1), site), ask(order("train", 1), site)]
    assert codes == ["cache-missing", "", "", ""]

    refused = []
    with monkeypatch.context() as patched:  # a crash, and a refusal, full of marks
        for error in (
            ValueError(f"{MARK} Jane Doe"),
            KeyError(f"{MARK}4711"),
            UnicodeDecodeError("utf-8", MARK.encode(), 0, 1, f"{MARK}"),
            OSError(28, f"{MARK} no space", f"/data/{MARK}.xml"),
            DataError(f"{MARK} of Jane Doe", where=f"{folder}/ecg/{MARK}-0.xml", remedy=f"look at {MARK}"),
            DataError(f"the journal's last line {MARK}", where=f"/mnt/{MARK}/state:4", remedy=MARK),
        ):

            def explode(*arguments, error=error, **options):
                raise error

            patched.setattr("client.training.train_locally", explode)
            refused.append(ask(order("train", 2), site))
    assert refused == ["internal", "internal", "internal", "storage-failed", "data", "data"]

    people = (folder / "people.csv").read_text()
    for broken in (people.replace("patient,", f"{MARK},"), f"{MARK}\n" * 4, people + f"{MARK}" * 90_000):
        (folder / "people.csv").write_text(broken)
        refused.append(ask(order("census", 0), site))
    (folder / "people.csv").unlink()
    refused.append(ask(order("census", 0), site))
    (folder / "ecg").rename(folder / f"{MARK}-ecg")
    refused.append(ask(order("census", 0), site))
    document = site.read_text()
    site.write_text(document.replace("folder: ", f"folder: {MARK}-", 1))
    refused.append(ask(order("census", 0), site))
    site.write_text(document + f"{MARK}: Jane Doe\n")
    refused.append(ask(order("census", 0), site))
    site.write_text(f"[{MARK}")
    refused.append(ask(order("census", 0), site))
    strange = RoundName(study_digest=f"{MARK}", phase=0, round=1, attempt=1)
    refused.append(ask(order("train", 1, name=strange, study_json=f'{{"{MARK}": 1}}'), site))
    assert sum(map(bool, refused)) >= 10 and len(set(refused) - {""}) >= 5, refused

    # The errors were full of marks and of the site's identifiers; the logs are not.
    assert sum(MARK in text for text in texts) > 6
    logs = {path.name: path.read_text() for path in folder.rglob("*.log*")}
    logs |= {"words of the process": caplog.text + "".join(capfd.readouterr())}
    assert "client.log" in logs
    words = {MARK, "Jane", "Doe", "1931", "4711", str(folder.parent), *hospital.identifiers}
    assert not [(word, name) for name, text in logs.items() for word in words if word in text]
    lines = list(read_lines(folder / "client.log"))
    assert len(lines) == len(logs["client.log"].splitlines())
    events = {line["event"] for line in lines}
    assert events >= {"order-reached", "trained", "reply-left", "reply-sent-again", "refusal-left",
                      "order-refused", "order-failed", "order-answered"}  # fmt: skip
    told = [line for line in lines if line["event"] == "order-refused"]
    assert all(line["what"] and line["code"] for line in told)
    assert any(line.get("where") == "site.yaml: source.people" for line in told), json.dumps(told, indent=1)


def test_a_log_that_cannot_be_written_says_nothing_of_a_patient_elsewhere(hospital, caplog, monkeypatch):
    prepare(read_site(hospital.site))
    (hospital.folder / "client.log").symlink_to("/dev/full")

    def explode(*arguments, **options):
        raise ValueError(f"{MARK} Jane Doe")

    monkeypatch.setattr("client.training.train_locally", explode)
    assert ask(order("train", 1), hospital.site) == "internal"
    assert "ended with internal (ValueError)" in caplog.text and MARK not in caplog.text


def test_seconds_are_those_of_the_work(hospital):
    prepare(read_site(hospital.site))
    ask(order("train", 1), hospital.site)
    lines = {line["event"]: line for line in read_lines(hospital.folder / "client.log")}
    assert 0 <= lines["trained"]["seconds"] <= lines["order-answered"]["seconds"]
    assert np.isfinite(lines["trained"]["seconds"])
