"""``approve`` and ``rehearse`` as hospital IT meets them, and orders of studies that were not approved."""

import hashlib
import io
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from flwr.app import Message
from safetensors.numpy import load_file

from cardionets_core.config.site import read_site
from cardionets_core.config.workspace import Workspace
from cardionets_core.exchange.messages import Order, RoundName, order_to_envelope, reply_from_envelope
from cardionets_core.models import build_module
from cardionets_core.training.seeds import derive_seed
from client.app import make_app, site_path
from client.approvals import ApprovalStore
from client.modules import pack_module
from client.round import answer
from server.bundle import build_bundle, staged_files
from server.records import from_records, to_records
from simulation.local_grid import LocalGrid


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> bytes:
    return build_bundle(Workspace(tmp_path_factory.mktemp("workspace"))).path.read_bytes()


@pytest.fixture
def folder(consortium, tmp_path):
    """A site's own copy of alpha's folder; times of files are kept, or the cache would be stale."""
    shutil.copytree(consortium.paths["alpha"].parent, tmp_path / "alpha", copy_function=shutil.copy2)
    return tmp_path / "alpha"


def repacked(bundle: bytes, change) -> bytes:
    """The bundle with its files changed, as somebody would who builds one by hand."""
    with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in change(files).items():
            archive.writestr(name, content)
    return target.getvalue()


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# -- approve -----------------------------------------------------------------------------------------------


def test_kit_and_study_are_shown_approved_and_no_longer_wait(folder, bundle, study, run):
    (folder / "package").mkdir()
    (folder / "package" / "cardionets-0.1.0.fab").write_bytes(bundle)
    (folder / "package" / "study.yaml").write_text(yaml.safe_dump(study.model_dump(mode="json")))

    asked = run("cardionets-client", "approve", folder)  # nobody sits at this terminal
    assert asked.returncode == 5, asked.stderr
    assert sha(bundle) in asked.stdout and study.digest in asked.stdout
    assert "identical, file by file" in asked.stdout and "permitted here: yes" in asked.stdout
    assert not (folder / "approvals" / "store.jsonl").exists()

    other = run("cardionets-client", "approve", folder, "--yes", "--only", sha(bundle), "--format", "json")
    told = json.loads(other.stdout)
    assert other.returncode == 5 and told["approved"] == [sha(bundle)] and told["waiting"] == [study.digest]

    done = run("cardionets-client", "approve", folder, "--yes", "--note", "board of 3 May")
    assert done.returncode == 0 and "board of 3 May" in done.stdout
    store = ApprovalStore(folder / "approvals")
    assert store.is_code_approved(sha(bundle)) and store.is_study_approved(study.digest)
    assert "nothing waits" in run("cardionets-client", "approve", folder).stdout

    back = run("cardionets-client", "approve", folder, "--withdraw", sha(bundle)[:16])
    assert back.returncode == 0 and not store.is_code_approved(sha(bundle))
    assert run("cardionets-client", "approve", folder, "--withdraw", sha(bundle)[:16]).returncode == 2
    assert run("cardionets-client", "approve", folder).returncode == 5


def test_what_changed_since_the_last_approval_is_told_line_by_line(folder, bundle, run):
    store = ApprovalStore(folder / "approvals")
    store.approve_code(bundle)

    def change(files):
        return {
            **files,
            "client/gate.py": b"def release(*_):\n    pass\n",
            "client/spy.py": b"x = '\x1b[2J'\n",
        }

    changed = repacked(bundle, change)
    store.pending.keep_code(changed)
    told = json.loads(run("cardionets-client", "approve", folder, "--format", "json").stdout)
    (code,) = told["code"]
    gate = len(staged_files()["client/gate.py"].splitlines())
    assert code["sha256"] == sha(changed) and code["last_approved"] == sha(bundle)
    for rows in (code["since_last_approved"], code["differs_from_installed"]):
        assert [(row["path"], row["kind"], row["plus"]) for row in rows] == [
            ("client/gate.py", "changed", 2),
            ("client/spy.py", "added", 1),
        ]
        assert gate - 3 <= rows[0]["minus"] <= gate
    shown = run("cardionets-client", "approve", folder, "--diff")
    assert shown.returncode == 5 and "+def release(*_):" in shown.stdout
    assert "\x1b" not in shown.stdout and "+x = '\\x1b[2J'" in shown.stdout
    assert not store.is_code_approved(sha(changed))


def test_what_changed_in_the_study_is_told_by_key_with_both_values(folder, study, run):
    store = ApprovalStore(folder / "approvals")
    store.approve_study(study.to_json())
    content = study.model_dump(mode="json")
    content["phases"][1]["rounds"] = 5000
    content["aggregation"]["strategy"] = "fedavgm"
    changed = type(study).model_validate(content)
    store.pending.keep_study(changed.to_json())
    told = json.loads(run("cardionets-client", "approve", folder, "--format", "json").stdout)
    (facts,) = told["studies"]
    assert facts["since_last_approved"] == [
        {"key": "aggregation.strategy", "old": "fedavg", "new": "fedavgm"},
        {"key": "phases.2.rounds", "old": 2, "new": 5000},
    ]
    assert [phase["permitted"] for phase in facts["phases"]][:2] == ["yes", "no: policy.maximum_rounds"]


def test_the_bytes_that_are_told_are_those_that_leave(folder, study, run):
    """Against real replies: an update, the sums of its measurement, and those of the probe."""
    store = ApprovalStore(folder / "approvals")
    store.pending.keep_study(study.to_json())
    (facts,) = json.loads(run("cardionets-client", "approve", folder, "--format", "json").stdout)["studies"]
    rehearsed = ["rehearse", "--site", folder / "site.yaml", "--format", "json"]
    for number, kinds in ((2, ("train", "evaluate")), (4, ("train", "evaluate"))):
        content = json.loads(run("cardionets-client", *rehearsed, "--phase", number).stdout)
        left = {row["kind"]: row["bytes"] for row in content["replies"]}
        phase = facts["phases"][number - 1]
        told = {"train": phase["update_bytes"] + phase["sum_bytes"], "evaluate": phase["metric_sum_bytes"]}
        assert {kind: left[kind] for kind in kinds} == told


def test_a_study_that_this_installation_does_not_know_cannot_be_approved(folder, study, run):
    content = study.model_dump(mode="json")
    content["phases"][0]["task"] = "mind_reading"
    unknown = type(study).model_validate(content)
    ApprovalStore(folder / "approvals").pending.keep_study(unknown.to_json())
    done = run("cardionets-client", "approve", folder, "--yes")
    assert done.returncode == 5 and "mind_reading" in done.stdout and unknown.digest in done.stderr


def test_a_file_that_cannot_be_looked_at_is_told_and_is_no_approval(folder, bundle, tmp_path, run):
    (tmp_path / "torn.fab").write_bytes(bundle[:1000])
    done = run("cardionets-client", "approve", folder, "--package", tmp_path / "torn.fab", "--yes")
    assert done.returncode == 5 and "not a readable zip" in done.stderr
    missing = run("cardionets-client", "approve", folder, "--package", tmp_path / "none.fab")
    assert missing.returncode == 4
    assert run("cardionets-client", "approve", tmp_path).returncode == 3
    (tmp_path / "whole.fab").write_bytes(bundle)
    wrong = run(
        "cardionets-client",
        "approve",
        folder,
        "--package",
        tmp_path / "whole.fab",
        "--yes",
        "--only",
        "0" * 64,
    )
    assert wrong.returncode == 2 and not ApprovalStore(folder / "approvals").standing().decisions


def test_a_kit_is_looked_at_as_it_came(folder, bundle, study, tmp_path, run):
    with zipfile.ZipFile(tmp_path / "KIT.zip", "w") as kit:
        kit.writestr("package/cardionets-0.1.0.fab", bundle)
        kit.writestr("package/study.json", json.dumps(study.model_dump(mode="json"), indent=2))
        kit.writestr("README.md", "# For IT\n")
    done = run("cardionets-client", "approve", folder, "--package", tmp_path / "KIT.zip", "--yes")
    assert done.returncode == 0, done.stderr
    store = ApprovalStore(folder / "approvals")
    assert store.is_code_approved(sha(bundle)) and store.is_study_approved(study.digest)


def test_a_broken_record_is_told_and_nothing_can_be_approved(folder, bundle, run):
    store = ApprovalStore(folder / "approvals")
    store.approve_code(bundle)
    record = folder / "approvals" / "store.jsonl"
    record.write_text(record.read_text().replace("code-approved", "code-approved "))
    done = run("cardionets-client", "approve", folder)
    assert "nothing counts as approved" in done.stderr
    store.pending.keep_code(bundle)
    again = run("cardionets-client", "approve", folder, "--yes")
    assert again.returncode == 5 and "store.jsonl" in again.stderr and not store.is_code_approved(sha(bundle))


# -- orders of a study -------------------------------------------------------------------------------------


def census(study, path):
    """A census order as a SuperNode hands it on, whose context names the site's document."""
    grid = LocalGrid([make_app(site_path)], node_configs=[{"site-config": str(path)}])
    order = Order(
        kind="census",
        name=RoundName(study_digest=study.digest, phase=1, round=0, attempt=1),
        study_json=study.to_json(),
    )
    records = to_records(order_to_envelope(order))
    (reply,) = grid.send_and_receive([Message(records, dst_node_id=1000, message_type="query.census")])
    assert not reply.has_error()
    return reply_from_envelope(from_records(reply.content))


def test_an_order_is_followed_only_where_code_and_study_are_approved(folder, bundle, study):
    path, store = folder / "site.yaml", ApprovalStore(folder / "approvals")
    # Nobody guards this site: the bundle's own code stops before it reads the order.
    assert census(study, path).code == "code-not-approved"
    store.approve_study(study.to_json())
    assert census(study, path).code == "code-not-approved"
    store.approve_code(bundle)
    assert census(study, path).code == "" and json.loads(census(study, path).facts)["patients"]["train"] > 0

    other = type(study).model_validate({**study.model_dump(mode="json"), "seed": 6})
    refused = census(other, path)
    assert refused.code == "study-not-approved" and refused.facts == ""
    assert store.pending.studies() == {other.digest: other.to_json().encode()}
    assert "is not approved on this site" in (folder / "client.log").read_text()
    store.approve_study(other.to_json())
    assert census(other, path).code == ""
    store.withdraw(other.digest)
    assert census(other, path).code == "study-not-approved" and census(study, path).code == ""
    (folder / "approvals" / "store.jsonl").write_text("torn")
    assert census(study, path).code == "code-not-approved"


def test_an_order_cannot_borrow_the_digest_of_an_approved_study(folder, bundle, study):
    store = ApprovalStore(folder / "approvals")
    store.approve_code(bundle)
    store.approve_study(study.to_json())
    other = type(study).model_validate({**study.model_dump(mode="json"), "seed": 6})
    grid = LocalGrid([make_app(site_path)], node_configs=[{"site-config": str(folder / "site.yaml")}])
    order = Order(
        kind="census",
        name=RoundName(study_digest=study.digest, phase=1, round=0, attempt=1),
        study_json=other.to_json(),
    )
    records = to_records(order_to_envelope(order))
    (reply,) = grid.send_and_receive([Message(records, dst_node_id=1000, message_type="query.census")])
    assert reply_from_envelope(from_records(reply.content)).code == "order-refused"
    assert store.pending.studies() == {}


def test_torch_is_not_imported_for_an_order_that_is_refused(folder, study):
    """The refusal is decided with what is needed to read the order, and no data or model code is loaded."""
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "import client.app, client.permission\n"
        "from cardionets_core.exchange.messages import Order, RoundName\n"
        f"path = Path({str(folder / 'site.yaml')!r})\n"
        "try:\n    client.permission.require_guard(path)\n"
        "except Exception as error:\n    print(error.code)\n"
        "print('torch' in sys.modules, 'cardionets_core.data.cache' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["code-not-approved", "False", "False"], done.stderr


# -- rehearse ----------------------------------------------------------------------------------------------


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_rehearsal_before_prepare_names_the_sites_own_cache(folder, study, tmp_path, run):
    cache = read_site(folder / "site.yaml").folders.cache
    shutil.rmtree(cache)
    (tmp_path / "study.json").write_text(study.to_json())
    done = run(
        "cardionets-client", "rehearse", "--site", folder / "site.yaml", "--study", tmp_path / "study.json"
    )
    assert done.returncode == 4 and "only the code cache-missing would leave" in done.stdout
    assert f"where: {cache}" in done.stderr and "prepare" in done.stderr and "rehearsal-" not in done.stderr


def test_a_rehearsal_shows_the_very_reply_of_a_round_and_leaves_no_trace(folder, study, tmp_path, run):
    path, before = folder / "site.yaml", files_of(folder)
    (tmp_path / "study.json").write_text(study.to_json())
    out = tmp_path / "out"
    options = ["--site", path, "--study", tmp_path / "study.json", "--phase", 2, "--format", "json"]
    done = run("cardionets-client", "rehearse", *options, "--out", out)
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)
    assert files_of(folder) == before
    assert content["sent"] is False and content["task"] == "ecg_mae"
    kinds = [(row["kind"], row["split"]) for row in content["replies"]]
    assert kinds == [("census", ""), ("train", ""), ("evaluate", "validation"), ("evaluate", "test")]

    # A real order with the same first weights gets the same reply, but for the clock.
    modules = {
        name: pack_module(build_module(name, study.models, seed=derive_seed(study.seed, "initial", name)))
        for name in ("ecg_encoder", "ecg_decoder")
    }
    name = RoundName(study_digest=study.digest, phase=1, round=1, attempt=1)
    order = Order(kind="train", name=name, study_json=study.to_json(), modules=modules)
    reply = answer(order, site_path=path)
    kept = load_file(out / "train.safetensors")
    shown = {array["name"]: array for array in content["replies"][1]["arrays"]}
    assert set(kept) == set(shown) == {f"module/{module}" for module in modules}
    for module in modules:
        values, told = reply.modules[module].values, shown[f"module/{module}"]
        assert np.array_equal(kept[f"module/{module}"], values)
        assert told["sha256"] == sha(values.tobytes()) and told["bytes"] == values.nbytes
        assert (told["minimum"], told["maximum"]) == (float(values.min()), float(values.max()))
        assert told["norm"] == pytest.approx(float(np.linalg.norm(values.astype(np.float64))), rel=1e-12)
    fields = content["replies"][1]["fields"]
    assert fields["value/loss"] == reply.values["loss"]
    assert fields["samples/ecg_encoder"] == reply.samples["ecg_encoder"]
    assert content["replies"][1]["patients"] > 0
    assert run("cardionets-client", "rehearse", *options, "--out", out).returncode == 2


def test_frozen_modules_are_random_in_a_rehearsal_and_it_says_so(folder, study, run):
    store = ApprovalStore(folder / "approvals")
    store.approve_study(study.to_json())  # nothing is named: the approved study is taken
    done = run("cardionets-client", "rehearse", "--site", folder / "site.yaml", "--phase", 4)
    assert done.returncode == 0, done.stderr
    assert "random weights stood in for the trained ones of: ecg_encoder" in done.stdout
    assert "nothing was sent" in done.stdout and "evaluate (test patients)" in done.stdout


def test_a_refusal_is_shown_as_the_code_that_would_leave(folder, study, tmp_path, run):
    path = folder / "site.yaml"
    path.write_text(path.read_text().replace("minimum_patients: 5", "minimum_patients: 500"))
    (tmp_path / "study.json").write_text(study.to_json())
    options = ["--site", path, "--study", tmp_path / "study.json"]
    done = run("cardionets-client", "rehearse", *options)
    assert done.returncode == 4
    assert "only the code too-few-patients would leave" in done.stdout and "500" in done.stderr
    assert run("cardionets-client", "rehearse", *options, "--phase", 9).returncode == 2
    assert run("cardionets-client", "rehearse", "--site", path).returncode == 3
