"""What a site refuses, and that it leaves as a code only, whatever went wrong inside."""

import functools
import importlib.metadata
import json
import shutil

import numpy as np
import pytest
import yaml
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from cardionets_core.exchange.messages import (
    Order,
    PackedModule,
    RoundName,
    order_to_envelope,
    reply_from_envelope,
)
from cardionets_core.exchange.tensors import layout_of, pack
from cardionets_core.models import build_module
from cardionets_core.training.tensors import export_tensors
from client.app import make_app
from server.app import run_study
from server.records import from_records, to_records
from simulation.flower import hospital_of_partition
from simulation.local_grid import LocalGrid

SECRET = "9000011 in /hospital/records"


def ask(order, path, *, change=None):
    """Send one order to one site over Flower's messages; returns its reply."""
    grid = LocalGrid([make_app(functools.partial(hospital_of_partition, (path,)))])
    records = to_records(order_to_envelope(order))
    if change:
        records = change(records)
    kind = {"census": "query.census"}.get(order.kind, order.kind)
    (reply,) = grid.send_and_receive([Message(records, dst_node_id=1000, message_type=kind)])
    assert not reply.has_error()
    return reply_from_envelope(from_records(reply.content))


def packed(name):
    tensors = export_tensors(build_module(name, "nano", seed=1))
    return PackedModule(layout=layout_of(tensors), values=pack(tensors))


def train_order(study, task="ecg_mae", **changes):
    index = [phase.task for phase in study.phases].index(task)
    content = {
        "kind": "train",
        "name": RoundName(study_digest=study.digest, phase=index, round=1, attempt=1),
        "study_json": study.to_json(),
        "modules": {name: packed(name) for name in ("ecg_encoder", "ecg_decoder")},
    }
    return Order(**{**content, **changes})


@pytest.fixture
def site(consortium, tmp_path):
    """A copy of a small hospital that a test may break."""
    folder = tmp_path / "alpha"
    shutil.copytree(consortium.paths["alpha"].parent, folder, copy_function=shutil.copy2)
    return folder / "site.yaml"


def rewrite(path, **keys):
    content = yaml.safe_load(path.read_text())
    for key, value in keys.items():
        section, _, name = key.partition("__")
        content[section] = {**content[section], name: value} if name else value
    path.write_text(yaml.safe_dump(content))


def test_a_good_order_is_answered(site, study):
    reply = ask(train_order(study), site)
    assert reply.code == "" and set(reply.modules) == {"ecg_encoder", "ecg_decoder"}


@pytest.mark.parametrize(
    "code, keys",
    [
        ("config-invalid", {"polcy": {}}),
        ("phase-not-permitted", {"policy__phases": ["align"]}),
        ("phase-not-permitted", {"policy__maximum_rounds": 1}),
        ("too-few-patients", {"policy__minimum_patients": 1000}),
        ("disclosure-refused", {"policy__maximum_reply_bytes": 100}),
        ("cache-stale", {"prepare__split": {"validation": 0.4, "test": 0.4}}),
        ("cache-foreign", {"site": "delta"}),
        ("config-invalid", {"device__name": "cuda"}),
    ],
)
def test_what_the_site_does_not_permit_leaves_as_its_code(site, study, code, keys):
    rewrite(site, **keys)
    reply = ask(train_order(study), site)
    assert (reply.code, reply.modules, reply.sums, reply.facts) == (code, {}, {}, "")
    assert (site.parent / "client.log").read_text()


def census(study):
    name = RoundName(study_digest=study.digest, phase=1, round=0, attempt=1)
    return Order(kind="census", name=name, study_json=study.to_json())


def test_how_many_patients_there_are_is_told_only_if_the_site_permits_it(site, study):
    told = json.loads(ask(census(study), site).facts)
    assert sum(told["patients"].values()) > 0
    assert told["versions"]["flwr"] == importlib.metadata.version("flwr")
    rewrite(site, policy__cohort_sizes=False)
    hidden = json.loads(ask(census(study), site).facts)
    assert set(told) - set(hidden) == {"patients", "recordings", "refusals"}
    assert hidden == {key: told[key] for key in hidden}


def test_a_missing_folder_is_told_to_it_and_sent_as_a_code(site, study):
    shutil.rmtree(site.parent / "ecg")
    assert ask(census(study), site).code == "folder-missing"
    log = (site.parent / "client.log").read_text()
    assert '"what": "there is no folder <data>/…"' in log and '"code": "folder-missing"' in log


def test_a_site_without_cmr_says_so(consortium, study, tmp_path):
    folder = tmp_path / "beta"
    shutil.copytree(consortium.paths["beta"].parent, folder, copy_function=shutil.copy2)
    rewrite(folder / "site.yaml", policy__phases=["cmr_mae"])
    order = train_order(study, "cmr_mae", modules={n: packed(n) for n in ("cmr_encoder", "cmr_decoder")})
    assert ask(order, folder / "site.yaml").code == "modality-missing"


def test_no_exception_text_leaves_the_site(site, study, monkeypatch):
    def explode(*arguments, **options):
        raise RuntimeError(SECRET)

    monkeypatch.setattr("client.training.train_locally", explode)
    records = to_records(order_to_envelope(train_order(study)))
    grid = LocalGrid([make_app(functools.partial(hospital_of_partition, (site,)))])
    (reply,) = grid.send_and_receive([Message(records, dst_node_id=1000, message_type="train")])
    envelope = from_records(reply.content)
    assert reply_from_envelope(envelope).code == "internal"
    assert SECRET not in repr(dict(envelope.fields)) + repr(envelope.arrays)
    log = (site.parent / "client.log").read_text()
    (line,) = [line for line in map(json.loads, log.splitlines()) if line["event"] == "order-failed"]
    assert line["error"] == "builtins.RuntimeError" and line["at"].endswith("explode") and SECRET not in log


def test_a_diverged_training_sends_nothing(site, study):
    phases = tuple(
        phase.model_copy(
            update={
                "optimiser": phase.optimiser.model_copy(update={"lr": 1e30}),
                "local_epochs": None,
                "local_steps": 4,
            }
        )
        if phase.task == "ecg_mae"
        else phase
        for phase in study.phases
    )
    diverging = study.model_copy(update={"phases": phases})
    reply = ask(train_order(diverging), site)
    assert reply.code == "non-finite-loss" and not reply.modules


def spoil(order, kind):
    module = order.modules["ecg_encoder"]
    values = module.values.copy()
    if kind == "nan":
        values[0] = np.nan
    elif kind == "short":
        values = values[:-1]
    elif kind == "dtype":
        values = values.astype(np.float64)
    return {**order.modules, "ecg_encoder": PackedModule(layout=module.layout, values=values)}


@pytest.mark.parametrize("kind", ["nan", "short", "dtype"])
def test_a_bad_tensor_in_an_order_is_refused(site, study, kind):
    order = train_order(study)
    assert ask(train_order(study, modules=spoil(order, kind)), site).code == "order-refused"


@pytest.mark.parametrize(
    "changes",
    [
        {"modules": {}},
        {"study_json": "{}"},
        {"name": RoundName(study_digest="0" * 64, phase=1, round=1, attempt=1)},
        {"frozen": {"cmr_encoder": "0" * 64}},
    ],
)
def test_an_order_that_does_not_fit_its_study_is_refused(site, study, changes):
    assert ask(train_order(study, **changes), site).code == "order-refused"


@pytest.mark.parametrize("phase, number", [(9, 1), (-1, 1), (1, 0), (1, 3)])
def test_an_order_for_a_round_that_does_not_exist_is_refused(site, study, phase, number):
    name = RoundName(study_digest=study.digest, phase=phase, round=number, attempt=1)
    assert ask(train_order(study, name=name), site).code == "order-refused"


def test_records_of_another_make_are_refused(site, study):
    def strip(records):
        return RecordDict({"arrays": records.array_records["arrays"]})

    def newer(records):
        fields = {**dict(records.config_records["fields"]), "format": 99}
        return RecordDict({"fields": ConfigRecord(fields), "arrays": records.array_records["arrays"]})

    def odd(records):
        return RecordDict(
            {"fields": ConfigRecord({"x": 1}), "arrays": ArrayRecord({"y": Array(np.zeros(1))})}
        )

    assert ask(train_order(study), site, change=strip).code == "order-refused"
    assert ask(train_order(study), site, change=odd).code == "order-refused"
    assert ask(train_order(study), site, change=newer).code == "format-too-new"


def test_a_frozen_module_must_have_its_digest_and_be_there(site, study):
    modules = {name: packed(name) for name in ("ecg_encoder", "ecg_projection", "cmr_projection")}
    absent = train_order(study, "align", modules=modules, frozen={"cmr_encoder": "a" * 64})
    assert ask(absent, site).code == "frozen-module-missing"
    wrong = train_order(
        study,
        "align",
        modules=modules,
        frozen={"cmr_encoder": "a" * 64},
        frozen_modules={"cmr_encoder": packed("cmr_encoder")},
    )
    assert ask(wrong, site).code == "order-refused"
    escape = train_order(study, "align", modules=modules, frozen={"cmr_encoder": "../../secret/key"})
    assert ask(escape, site).code == "order-refused"


def test_a_broken_site_is_named_and_the_others_go_on(consortium, study, site, tmp_path):
    site.write_text("site: [")
    paths = [site, consortium.paths["beta"], consortium.paths["gamma"]]
    phase = next(phase for phase in study.phases if phase.task == "ecg_mae")
    grid = LocalGrid([make_app(functools.partial(hospital_of_partition, tuple(paths))) for _ in paths])
    result = run_study(
        grid, study.model_copy(update={"phases": (phase,)}), folder=tmp_path / "run", track=False
    )
    assert result["status"] == "completed"
    alpha = next(row for row in result["sites"] if row["site"] == "alpha")
    assert alpha["phases"] == {"ecg_mae": "config-invalid"}
    assert json.dumps(result).count(str(tmp_path)) == 0
