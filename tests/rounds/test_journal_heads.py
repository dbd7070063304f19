"""Neither side rewrites its journal unnoticed: heads are signed, exchanged each round, and compared later."""

import functools
import hashlib
import json
import shutil

import pytest
from flwr.app import ConfigRecord, RecordDict

from cardionets_core.audit import journal
from cardionets_core.config.connection import SiteFolder
from cardionets_core.config.study import Study
from cardionets_core.config.workspace import Workspace
from cardionets_core.errors import DataError, ReplyRefusedError
from cardionets_core.exchange.heads import (
    NO_HEAD,
    PURPOSE,
    Head,
    server_journal,
    signed_content,
    site_journal,
)
from cardionets_core.exchange.messages import Order, Reply, RoundName
from cardionets_core.trust.keys import make_key, private_openssh, public_openssh, read_private, read_public
from cardionets_core.trust.signatures import fits, sign
from client.app import make_app
from client.heads import signed_head
from client.site_request import ask_for_certificate
from server.app import run_study
from server.head_trust import HeadTrust, head_trust
from server.heads import CONTRADICTED, SITE_HEAD, SiteHeads
from server.journal_audit import exported, open_journal, verified
from server.provision.admission import admit, read_asked
from server.provision.authority import ensure_server_certificate
from server.workspace_folder import make_workspace
from simulation.flower import hospital_of_partition
from simulation.local_grid import LocalGrid

SITES = ("alpha", "gamma")


def study(**changes) -> Study:
    phase = {"task": "ecg_mae", "rounds": 3, "local_steps": 2, "batch_size": 4, "optimiser": {"lr": 1e-3}}
    content = {"name": "heads", "seed": 11, "sites": {"minimum": 2, "deadline_s": 30, "attempts": 2}}
    return Study.model_validate({**content, "phases": [phase], **changes})


def run(hospitals, folder, *, tamper=lambda node, content: content, tell=lambda event: None):
    apps = [make_app(functools.partial(hospital_of_partition, (hospitals[name],))) for name in SITES]
    configs = [{"partition-id": 0, "num-partitions": 1}] * len(apps)
    grid = LocalGrid(apps, node_configs=configs, names=SITES, tamper=tamper)
    return run_study(grid, study(), folder=folder, track=False, progress=tell)


def journal_of(path):
    return path.parent / "state" / "journal.jsonl"


def events(path, event):
    return [body for body in journal.bodies(path) if body["event"] == event]


def rewrite(path, change):
    """Change the bodies and make the whole chain anew, as somebody who holds the disk can."""
    kept = [json.loads(line.partition(" ")[2]) for line in path.read_text().splitlines()]
    previous, lines = journal.GENESIS, []
    for number, body in enumerate(change(kept), start=1):
        text = json.dumps(
            {**body, "number": number, "previous": previous}, sort_keys=True, separators=(",", ":")
        )
        previous = hashlib.sha256(text.encode()).hexdigest()
        lines.append(f"{previous} {text}\n")
    path.write_text("".join(lines))


def hidden(bodies):
    """As if a training had been one of fewer people."""
    place = next(i for i, body in enumerate(bodies) if body.get("kind") == "train" or "site" in body)
    bodies[place] = {**bodies[place], "patients": 1}
    return bodies


@pytest.fixture
def consortium_of_trust(hospitals, tmp_path):
    """A workspace with an authority, in which both hospitals are registered; its run folder."""
    make_workspace(tmp_path / "home", address="localhost:19092", consortium="heart")
    workspace = Workspace((tmp_path / "home").resolve())
    ensure_server_certificate(workspace)
    for name in SITES:
        root = hospitals[name].parent
        asked = read_asked(root / ask_for_certificate(SiteFolder(root), name)["request"])
        admit(workspace, asked)
        shutil.copy(workspace.trust / "ca.crt", root / "trust" / "ca.crt")
    return workspace.runs / "heads"


# -- a whole study -------------------------------------------------------------------------------------------


def test_each_side_holds_heads_that_lie_on_the_others_chain_and_are_signed(hospitals, consortium_of_trust):
    folder = consortium_of_trust
    assert run(hospitals, folder)["status"] == "completed"
    server = folder / "journal.jsonl"
    journal.verify(server)
    trust = head_trust(folder)
    own = server_journal(study().digest)
    for name in SITES:
        path = journal_of(hospitals[name])
        heads = [body for body in events(server, SITE_HEAD) if body["site"] == name]
        # One for each reply, censuses among them: every line of the site that left.
        left = [body for body in journal.bodies(path) if body["event"] in ("reply-left", "reply-sent-again")]
        assert [body["lines"] for body in heads] == [body["number"] for body in left]
        for body in heads:
            assert journal.hash_of(path, body["lines"]) == body["head"] and body["key_is"] == "registered"
            content = signed_content(Head(lines=body["lines"], hash=body["head"]), journal=site_journal(name))
            assert fits(trust.site_key(name), bytes.fromhex(body["signature"]), content, purpose=PURPOSE)
        known = [body for body in left if "server_lines" in body]
        # Only the very first order goes out before the server's journal has any line.
        assert len(known) >= len(left) - 1
        for body in known:
            assert journal.hash_of(server, body["server_lines"]) == body["server_head"]
            assert body["server_head_is"] == "signed"
            content = signed_content(Head(lines=body["server_lines"], hash=body["server_head"]), journal=own)
            key = read_public(body["server_key"].encode(), where="test")
            assert public_openssh(key) == public_openssh(trust.public_key())
            assert fits(key, bytes.fromhex(body["server_signature"]), content, purpose=PURPOSE)
        assert [b["server_lines"] for b in known] == sorted(b["server_lines"] for b in known)
    assert not events(server, CONTRADICTED)


def test_heads_change_nothing_of_the_model_and_go_unsigned_where_nobody_has_keys(hospitals, tmp_path):
    result = run(hospitals, tmp_path / "run")
    body = events(journal_of(hospitals["alpha"]), "reply-left")[-1]
    assert body["server_head_is"] == "unsigned" and "server_signature" not in body
    assert {body["key_is"] for body in events(tmp_path / "run" / "journal.jsonl", SITE_HEAD)} == {
        "first-seen"
    }
    for path in hospitals.values():
        shutil.rmtree(path.parent / "state", ignore_errors=True)
    again = run(hospitals, tmp_path / "again")
    assert result["model_digest"] == again["model_digest"]


# -- found afterwards ----------------------------------------------------------------------------------------

CHANGES = {"rewritten": hidden, "cut off": lambda bodies: bodies[:-2], "removed": lambda bodies: bodies[1:]}


@pytest.mark.parametrize("kind", sorted(CHANGES))
def test_a_site_that_rewrote_its_journal_is_found_by_the_servers_heads(
    hospitals, consortium_of_trust, tmp_path, client, kind
):
    folder = consortium_of_trust
    run(hospitals, folder)
    heads = tmp_path / "heads.json"
    heads.write_text(json.dumps(exported(open_journal(folder))))
    site = hospitals["alpha"]
    good = client("journal", "verify", "--site", site, "--against", heads, "--format", "json")
    found = json.loads(good.stdout)
    assert good.returncode == 0 and found["whole"] and found["heads"] == found["signed"] >= 4
    rewrite(journal_of(site), CHANGES[kind])
    alone = client("journal", "verify", "--site", site)
    assert alone.returncode == 0 and "whole" in alone.stdout
    caught = client("journal", "verify", "--site", site, "--against", heads)
    assert caught.returncode == 4 and "the other side knew" in caught.stderr
    assert "signed by this journal's owner" in caught.stderr


@pytest.mark.parametrize("kind", sorted(CHANGES))
def test_a_server_that_rewrote_its_journal_is_found_by_a_sites_heads(
    hospitals, consortium_of_trust, tmp_path, client, server, kind
):
    folder = consortium_of_trust
    run(hospitals, folder)
    heads = tmp_path / "heads.json"
    done = client("journal", "export-heads", "--site", hospitals["gamma"])
    assert done.returncode == 0
    heads.write_text(done.stdout)
    good = server("journal", folder, "verify", "--against", heads, "--format", "json")
    found = json.loads(good.stdout)
    assert good.returncode == 0 and found["heads"] == found["signed"] >= 4
    path = folder / "journal.jsonl"
    # The last lines came after the last order: no site knows them.
    change = (lambda bodies: bodies[:3]) if kind == "cut off" else CHANGES[kind]
    rewrite(path, change)
    assert server("journal", folder, "verify").returncode == 0
    caught = server("journal", folder, "verify", "--against", heads)
    assert caught.returncode == 4 and "signed by this journal's owner" in caught.stderr


def test_a_forged_accusation_is_told_as_one_without_a_signature(hospitals, consortium_of_trust, tmp_path):
    folder = consortium_of_trust
    run(hospitals, folder)
    content = {"journal": server_journal(study().digest), "lines": 2, "hash": "ab" * 32}
    heads = tmp_path / "heads.json"
    heads.write_text(json.dumps({"schema_version": 1, "holder": "site/alpha", "heads": [content]}))
    with pytest.raises(DataError, match="without a signature"):
        verified(open_journal(folder), against=heads)


# -- found while a study runs --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(CHANGES))
def test_a_journal_that_is_rewritten_between_rounds_is_told_on_both_sides_at_once(hospitals, tmp_path, kind):
    replies, told = [0], []
    path = journal_of(hospitals["alpha"])

    def tamper(node, content):
        if node == 1000:
            replies[0] += 1
            if replies[0] == 3:  # census, training, measurement of the first round
                rewrite(path, CHANGES[kind])
        return content

    assert run(hospitals, tmp_path / "run", tamper=tamper, tell=told.append)["status"] == "completed"
    server = tmp_path / "run" / "journal.jsonl"
    loud = events(server, CONTRADICTED)
    assert loud and {body["site"] for body in loud} == {"alpha"}
    assert "does not find the head" in loud[0]["what"] or "shorter" in loud[0]["what"]
    (own,) = events(path, "journal-contradicted")  # the next heads go on from the new history
    assert own["known_lines"] > 0
    warnings = [event.text for event in told if event.kind == "warning"]
    assert any("the journal of alpha contradicts" in text for text in warnings)
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert any("alpha" in text for text in status["warnings"])
    assert not events(journal_of(hospitals["gamma"]), "journal-contradicted")


def test_another_key_than_the_sites_leaves_it_out_of_the_round(hospitals, tmp_path):
    replies = [0]
    state = hospitals["alpha"].parent / "state"

    def tamper(node, content):
        if node == 1000:
            replies[0] += 1
            if replies[0] == 1:
                (state / "journal.key").write_bytes(private_openssh(make_key()))
        return content

    with pytest.raises(Exception, match="the study needs 2"):
        run(hospitals, tmp_path / "run", tamper=tamper)
    refused = events(tmp_path / "run" / "journal.jsonl", "reply-refused")
    assert {body["site"] for body in refused} == {"alpha"}
    assert all("another key" in body["reason"] for body in refused)


@pytest.mark.parametrize("kind", ["absent", "foreign", "moved"])
def test_a_registered_site_must_sign_its_own_head(hospitals, consortium_of_trust, kind):
    foreign = make_key()

    def tamper(node, content):
        fields = dict(content.config_records["fields"])
        if node != 1000:
            return content
        if kind == "absent":
            fields |= {"head/lines": 0, "head/hash": "0" * 64, "head/signature": "", "head/holder": ""}
        elif kind == "foreign":
            bare = Head(lines=int(fields["head/lines"]), hash=str(fields["head/hash"]))
            signature = sign(foreign, signed_content(bare, journal="site/alpha"), purpose=PURPOSE)
            fields |= {"head/signature": signature.hex(), "head/holder": public_openssh(foreign.public_key())}
        else:
            fields["head/lines"] = int(fields["head/lines"]) + 1
        return RecordDict({"fields": ConfigRecord(fields), "arrays": content.array_records["arrays"]})

    with pytest.raises(Exception, match="the study needs 2"):
        run(hospitals, consortium_of_trust, tamper=tamper)
    refused = events(consortium_of_trust / "journal.jsonl", "reply-refused")
    assert refused and {body["site"] for body in refused} == {"alpha"}


def test_a_server_head_that_another_signed_is_refused_by_the_site(
    hospitals, consortium_of_trust, monkeypatch
):
    folder = consortium_of_trust
    honest = HeadTrust.signed

    def forged(self, head, *, journal):
        made = honest(self, head, journal=journal)
        signature = sign(make_key(), signed_content(head, journal=journal), purpose=PURPOSE)
        return Head(lines=made.lines, hash=made.hash, signature=signature.hex(), holder=made.holder)

    monkeypatch.setattr(HeadTrust, "signed", forged)
    folder.mkdir(parents=True)
    journal.append(folder / "journal.jsonl", "begun", {})
    with pytest.raises(Exception, match="the study needs 2"):
        run(hospitals, folder)
    (line, *_) = events(journal_of(hospitals["alpha"]), "refusal-left")
    assert line["code"] == "order-refused" and line["server_head_is"] == "forged"


# -- the server's memory of heads ----------------------------------------------------------------------------


class Sender:
    """A site of which only the head counts."""

    def __init__(self, tmp_path, name="alpha"):
        self.name, self.key, self.path = name, make_key(), tmp_path / f"{name}.jsonl"

    def reply(self, **changes):
        lines, digest = journal.append_line(self.path, "reply-left", {})
        head = signed_head(lines, digest, site=self.name, key=self.key, agrees=True)
        return Reply(site=self.name, name=NAME, **{"head": head, **changes})


NAME = RoundName(study_digest="ab" * 32, phase=0, round=1, attempt=1)


def server_side(tmp_path):
    path = tmp_path / "server.jsonl"
    told = []
    heads = SiteHeads(
        path,
        lambda event, facts: journal.append(path, event, facts),
        study_digest=NAME.study_digest,
        trust=HeadTrust(),
    )
    heads.warn = lambda order, text: told.append(text)
    return heads, told


def asked(heads, site="alpha"):
    head, known = heads.of_order(site)
    return Order(kind="train", name=NAME, study_json="{}", head=head, known_head=known)


def test_late_replies_are_no_contradiction_and_do_not_take_the_head_back(tmp_path):
    heads, told = server_side(tmp_path)
    sender, first = Sender(tmp_path), asked(heads)
    early, late = sender.reply(), sender.reply()
    second = asked(heads)
    heads.take(late, second, "alpha")
    heads.take(early, first, "alpha")
    assert told == [] and heads.of_order("alpha")[1].lines == 2
    heads.take(sender.reply(), asked(heads), "alpha")
    assert told == [] and heads.of_order("alpha")[1].lines == 3


def test_a_server_that_starts_anew_remembers_heads_and_keys(tmp_path):
    heads, _ = server_side(tmp_path)
    sender = Sender(tmp_path)
    for _ in range(3):
        heads.take(sender.reply(), asked(heads), "alpha")
    known = heads.of_order("alpha")[1]
    again, told = server_side(tmp_path)
    assert again.of_order("alpha")[1] == known and again.of_order("beta")[1] == NO_HEAD
    with pytest.raises(ReplyRefusedError, match="another key"):
        other = Sender(tmp_path / "new")
        other.reply()
        again.take(other.reply(), asked(again), "alpha")
    # The journal was begun anew: shorter than what an earlier process has heard, whatever the order said.
    sender.path.unlink()
    bare = Order(kind="train", name=NAME, study_json="{}")
    again.take(sender.reply(), bare, "alpha")
    assert len(told) == 1 and "shorter" in told[0]
    again.take(sender.reply(), asked(again), "alpha")
    assert len(told) == 1  # told once


def test_two_lines_in_one_place_contradict(tmp_path):
    heads, told = server_side(tmp_path)
    sender, order = Sender(tmp_path), asked(heads)
    heads.take(sender.reply(), order, "alpha")
    twin = signed_head(1, "cd" * 32, site="alpha", key=sender.key, agrees=True)
    heads.take(Reply(site="alpha", name=NAME, head=twin), order, "alpha")
    assert len(told) == 1 and "same place" in told[0]


def test_a_code_may_come_without_a_head(tmp_path):
    heads, told = server_side(tmp_path)
    heads.take(Reply(site="alpha", name=NAME, code="config-invalid"), asked(heads), "alpha")
    assert told == [] and not (tmp_path / "server.jsonl").exists()


def test_a_key_of_a_sites_own_is_made_once(hospitals, tmp_path):
    run(hospitals, tmp_path / "run")
    path = hospitals["alpha"].parent / "state" / "journal.key"
    key = read_private(path.read_bytes(), where="test")
    run(hospitals, tmp_path / "again")
    assert public_openssh(read_private(path.read_bytes(), where="test").public_key()) == public_openssh(
        key.public_key()
    )


@pytest.fixture
def client(request):
    return functools.partial(request.getfixturevalue("run"), "cardionets-client")


@pytest.fixture
def server(request):
    return functools.partial(request.getfixturevalue("run"), "cardionets-server")
