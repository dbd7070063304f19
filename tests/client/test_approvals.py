"""What IT approved: the record, what waits, how bundles are read, and the signature that Flower checks."""

import hashlib
import io
import json
import os
import stat
import warnings
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardionets_core.config.study import Study
from cardionets_core.errors import (
    CodeNotApprovedError,
    OrderRefusedError,
    PeerError,
    PrivacyError,
    UsageError,
)
from client.approvals import ApprovalStore
from client.approvals.bundle import LARGEST_FILE_BYTES, printable, read_bundle
from client.approvals.differences import file_changes, unified
from client.approvals.pending import MOST
from client.approvals.signing import KEY_NAME, TRUSTED, approval_key, vouch

DOCUMENT = (
    '[project]\nname = "app"\nversion = "1.2"\n'
    '[tool.flwr.app.components]\nclientapp = "client.app:app"\nserverapp = "server.app:app"\n'
)


def zipped(files, *, document=DOCUMENT):
    target = io.BytesIO()
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(target, "w") as archive:
        for name, content in [("pyproject.toml", document), *files]:
            archive.writestr(name, content)
    return target.getvalue()


def study_text(**changes) -> str:
    phase = {"task": "ecg_mae", "rounds": 1, "local_epochs": 1, "optimiser": {"lr": 1e-3}}
    return Study.model_validate({"name": "s", "phases": [phase], **changes}).to_json()


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def store(tmp_path):
    return ApprovalStore(tmp_path / "approvals")


# -- the record --------------------------------------------------------------------------------------------


def test_nothing_is_approved_until_somebody_says_so_and_the_last_word_counts(store):
    code, text = b"code", study_text()
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert not store.is_code_approved(sha(code)) and not store.is_study_approved(digest)
    assert store.approve_code(code, note="looked at it") == sha(code)
    assert store.approve_study(text) == digest
    assert store.is_code_approved(sha(code)) and store.is_study_approved(digest)
    # A study's digest is no permission for code, nor the other way round.
    assert not store.is_code_approved(digest) and not store.is_study_approved(sha(code))
    assert store.approved_code(sha(code)) == code and store.approved_study(digest) == text

    assert store.withdraw(sha(code)[:12]).digest == sha(code)
    assert not store.is_code_approved(sha(code)) and store.is_study_approved(digest)
    store.approve_code(code)
    assert store.is_code_approved(sha(code))
    (said,) = store.standing().approved("code")
    assert said.who and said.note == ""


@pytest.mark.parametrize(
    "harm",
    [
        lambda lines: [lines[0].replace(b"code-approved", b"code-withdrawn"), *lines[1:]],
        lambda lines: lines[1:],
        lambda lines: [lines[1], lines[0], lines[2]],
        lambda lines: [*lines, b'{"event": "code-approved"}'],
        lambda lines: [*lines[:2], lines[2][:40]],
        lambda lines: [b"\xff\xfe not text", *lines],
    ],
)
def test_a_broken_record_approves_nothing_and_takes_no_further_word(store, harm):
    for content in (b"a", b"b", b"c"):
        store.approve_code(content)
    record = store.folder / "store.jsonl"
    record.write_bytes(b"\n".join(harm(record.read_bytes().splitlines())) + b"\n")
    assert not any(store.is_code_approved(sha(content)) for content in (b"a", b"b", b"c"))
    assert store.standing().fault
    with pytest.raises(CodeNotApprovedError, match="broken"):
        store.approve_code(b"d")
    with pytest.raises(CodeNotApprovedError, match="broken"):
        store.withdraw(sha(b"a"))


def test_a_line_of_another_kind_in_a_whole_chain_counts_as_broken(store):
    from cardionets_core.audit import journal

    store.approve_code(b"a")
    journal.append(
        store.folder / "store.jsonl", "everything-approved", {"digest": "x", "who": "", "note": ""}
    )
    assert not store.is_code_approved(sha(b"a")) and "broken" in store.standing().fault


@pytest.mark.parametrize("prefix", ["", "abc", "0" * 64])
def test_a_withdrawal_must_name_one_approval(store, prefix):
    store.approve_code(b"a")
    with pytest.raises(UsageError, match="approvals begin with"):
        store.withdraw(prefix)
    assert store.is_code_approved(sha(b"a"))


def test_only_a_study_in_canonical_json_can_be_approved(store):
    with pytest.raises(OrderRefusedError):
        store.approve_study(study_text() + " ")
    with pytest.raises(OrderRefusedError):
        store.approve_study("{}")
    assert not store.standing().decisions


def test_a_copy_that_was_changed_afterwards_is_not_shown_as_the_approved_one(store):
    store.approve_code(b"a")
    (store.folder / "code" / f"{sha(b'a')}.fab").write_bytes(b"b")
    assert store.is_code_approved(sha(b"a"))  # the hash was approved, and the hash is what runs
    assert store.approved_code(sha(b"a")) is None


def test_what_is_kept_is_for_this_account_only(store):
    store.approve_code(b"a")
    store.pending.keep_code(b"b")
    approval_key(store.folder)
    for path in store.folder.rglob("*"):
        if path.name != "store.jsonl":
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


# -- what waits --------------------------------------------------------------------------------------------


def test_what_waits_is_bounded_and_what_is_asked_for_now_stays(store):
    for number in range(30):
        assert store.pending.keep_code(b"%d" % number)
        path = store.folder / "pending" / f"{sha(b'%d' % number)}.fab"
        os.utime(path, (number, number))
    assert list(store.pending.codes().values()) == [b"%d" % n for n in range(30 - MOST[".fab"], 30)]
    assert not store.pending.keep_code(bytes(16_000_001))
    assert not store.pending.keep_study("x" * 1_000_001)


def test_keeping_never_raises_even_where_nothing_can_be_written(tmp_path):
    (tmp_path / "approvals").write_text("a file in the place of the folder")
    store = ApprovalStore(tmp_path / "approvals")
    assert store.pending.keep_code(b"a") is False and store.pending.codes() == {}
    assert not store.is_code_approved(sha(b"a"))


def test_what_was_approved_waits_no_longer(store):
    text = study_text()
    store.pending.keep_code(b"a")
    store.pending.keep_study(text)
    store.approve_code(b"a")
    store.approve_study(text)
    assert store.pending.codes() == {} and store.pending.studies() == {}


def test_a_waiting_file_is_named_by_what_it_holds(store):
    store.pending.keep_code(b"a")
    (store.folder / "pending" / f"{sha(b'a')}.fab").write_bytes(b"b")
    assert store.pending.codes() == {sha(b"b"): b"b"}


# -- bundles as data ---------------------------------------------------------------------------------------


def test_a_bundle_is_read_without_flowers_list_of_contents():
    content = zipped([("client/app.py", "x = 1\n"), (".info/CONTENT", "list")])
    bundle = read_bundle(content)
    assert bundle.sha256 == sha(content) and (bundle.name, bundle.version) == ("app", "1.2")
    assert set(bundle.files) == {"pyproject.toml", "client/app.py"} and bundle.client_app == "client.app:app"


@pytest.mark.parametrize(
    "content, told",
    [
        (b"", "not a readable zip"),
        (b"PK\x03\x04 torn", "not a readable zip"),
        (zipped([("a.py", "1"), ("a.py", "2")]), "names a file twice"),
        (zipped([("a.py", "1"), ("A.py", "2")]), "names a file twice"),
        (zipped([("../a.py", "1")]), "outside of itself"),
        (zipped([("/a.py", "1")]), "outside of itself"),
        (zipped([("a\\b.py", "1")]), "outside of itself"),
        (zipped([("a.py", bytes(LARGEST_FILE_BYTES + 1))]), "too large"),
        (zipped([(f"{n}.py", "") for n in range(4000)]), "at most 4000"),
        (zipped([], document="[project]\nname = 1"), "not that of a Flower app"),
        (zipped([], document="not toml ["), "not that of a Flower app"),
        (bytes(16_000_001), "at most 16,000,000"),
    ],
)
def test_what_is_no_plain_bundle_is_refused(content, told):
    with pytest.raises(PeerError, match=told):
        read_bundle(content)


def test_a_bundle_that_swells_when_it_is_unpacked_is_refused():
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(11):
            archive.writestr(f"{number}.py", bytes(4_000_000))
    assert len(target.getvalue()) < 100_000
    with pytest.raises(PeerError, match="40,000,000"):
        read_bundle(target.getvalue())


@pytest.mark.parametrize("packing", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_bundle_with_torn_content_is_refused(packing):
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", packing) as archive:
        archive.writestr("a.py", os.urandom(2000))
    content = bytearray(target.getvalue())
    content[200:400] = bytes(200)
    with pytest.raises(PeerError, match="readable zip"):
        read_bundle(bytes(content))


@given(st.binary(max_size=300))
def test_hostile_bytes_end_as_a_refusal(content):
    with pytest.raises(PeerError):
        read_bundle(b"PK\x03\x04" + content)


@given(st.text())
def test_text_of_a_stranger_cannot_steer_a_terminal(text):
    assert all(sign.isprintable() or sign == "\t" for sign in printable(text))


# -- differences -------------------------------------------------------------------------------------------


def test_lines_are_counted_as_they_came_and_went():
    before = {"a.py": b"1\n2\n3\n", "gone.py": b"1\n2\n", "same.py": b"x"}
    after = {"a.py": b"1\nzwei\n3\n4\n", "new.py": b"1\n", "same.py": b"x"}
    assert [(c.path, c.kind, c.plus, c.minus) for c in file_changes(before, after)] == [
        ("a.py", "changed", 2, 1),
        ("gone.py", "removed", 0, 2),
        ("new.py", "added", 1, 0),
    ]
    shown = list(unified(before, after))
    assert "-2" in shown and "+zwei" in shown and "+++ /dev/null" in shown and "--- /dev/null" in shown
    assert file_changes(after, after) == []


@given(st.dictionaries(st.sampled_from("abc"), st.binary(max_size=30)), st.binary(max_size=30))
def test_equal_files_never_differ_and_others_always_do(files, content):
    changed = {**files, "a": content}
    assert file_changes(files, files) == []
    assert bool(file_changes(files, changed)) == (files != changed)


# -- the signature -----------------------------------------------------------------------------------------


def test_flowers_own_check_accepts_what_the_site_vouches_for_and_nothing_else(tmp_path):
    from flwr.supercore.fab import Fab
    from flwr.supernode.cli.flower_supernode import (
        _try_obtain_trusted_entities,
        _validate_public_keys_ed25519,
    )
    from flwr.supernode.start_client_internal import _verify_fab

    key = approval_key(tmp_path / "approvals")
    trusted = _try_obtain_trusted_entities(tmp_path / "approvals" / TRUSTED)
    _validate_public_keys_ed25519(trusted)
    assert set(trusted) == {KEY_NAME}
    record = vouch(key, b"code")
    assert _verify_fab(Fab(sha(b"code"), b"code", record), trusted)
    assert not _verify_fab(Fab(sha(b"code"), b"cods", record), trusted)
    assert not _verify_fab(Fab(sha(b"code"), b"code", {}), trusted)
    other = vouch(approval_key(tmp_path / "other"), b"code")
    assert not _verify_fab(Fab(sha(b"code"), b"code", other), trusted)
    late = {KEY_NAME: json.dumps({**json.loads(record[KEY_NAME]), "signed_at": 1})}
    assert not _verify_fab(Fab(sha(b"code"), b"code", late), trusted)


def test_the_key_is_made_once_and_a_wrong_one_is_refused(tmp_path):
    first = approval_key(tmp_path).private_bytes_raw()
    assert approval_key(tmp_path).private_bytes_raw() == first
    (tmp_path / TRUSTED).write_text("fpk_stranger: ssh-ed25519 AAAA\n")
    approval_key(tmp_path)
    assert KEY_NAME in (tmp_path / TRUSTED).read_text()
    (tmp_path / "key").chmod(0o644)
    with pytest.raises(PrivacyError, match="open to other accounts"):
        approval_key(tmp_path)
    (tmp_path / "key").chmod(0o600)
    (tmp_path / "key").write_bytes(b"no key")
    with pytest.raises(PrivacyError, match="cannot be read"):
        approval_key(tmp_path)
