"""Sites come, are renewed and go by the coordinator's commands; no call touches another site."""

import hashlib
import io
import json
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives import serialization

from cardionets_core.audit.journal import verify
from cardionets_core.config.workspace import Workspace
from cardionets_core.errors import CertificateInvalidError, ConfigError
from cardionets_core.trust.certificates import key_of, read_certificate
from cardionets_core.trust.keys import fingerprint, make_key, public_der, public_pem, read_private
from cardionets_core.trust.kit import KEY, open_kit
from server.provision.authority import authority, ensure_server_certificate
from server.provision.listing import list_sites
from server.provision.registry import read_registry


def digests(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*")) if path.is_file()
    }  # fmt: skip


def admit(server, workspace, asked, *more, code=0):
    return server("admit", workspace, asked.request, "--fingerprint", asked.fingerprint, *more, code=code)


def test_provision_makes_authority_keys_and_kits_and_a_second_call_makes_no_authority(server, workspace):
    first = server("provision", workspace, "--site", "alpha", "--site", "beta").content
    assert [each["site"] for each in first["sites"]] == ["alpha", "beta"]
    place = Workspace(workspace)
    for each in first["sites"]:
        passphrase = (workspace / "kits" / f"{each['site']}.passphrase").read_text().strip()
        kit = open_kit(workspace / "kits" / f"{each['site']}-kit.zip")
        assert passphrase.encode() not in b"".join(kit.files.values())
        with pytest.raises(CertificateInvalidError, match="encrypted"):
            read_private(kit.files[KEY], where="x")
        key = read_private(kit.files[KEY], where="x", passphrase=passphrase)
        certificate = read_certificate(kit.files["trust/site.crt"], where="x")
        assert fingerprint(key.public_key()) == fingerprint(key_of(certificate)) == each["fingerprint"]
        registered = serialization.load_ssh_public_key(
            (place.trust / "sites" / f"{each['site']}.pub").read_bytes()
        )
        assert fingerprint(registered) == each["fingerprint"]
    again = server("provision", workspace).content
    assert again["authority_fingerprint"] == first["authority_fingerprint"] and again["sites"] == []
    secret = [
        *(workspace / "kits").iterdir(),
        *workspace.glob("trust/*.key"),
        workspace / "trust" / "sites.json",
    ]
    assert {stat.S_IMODE(path.stat().st_mode) for path in secret} == {0o600}
    assert {
        stat.S_IMODE((workspace / n).stat().st_mode) for n in ("trust", "kits", "link", "trust/sites")
    } == {0o700}


def test_admit_answers_with_a_kit_without_a_key(server, workspace, asks):
    asked = asks("alpha")
    made = admit(server, workspace, asked)
    assert asked.fingerprint[:4] in made.told
    kit = open_kit(workspace / "kits" / "alpha-kit.zip")
    assert KEY not in kit.files and made.content["sites"][0]["passphrase_file"] is None
    assert b"\nsite: alpha\n" in kit.files["site.yaml"] and b"localhost:19092" in kit.files["connection.yaml"]
    row = read_registry(Workspace(workspace)).named("alpha")
    assert (row.fingerprint, row.status) == (asked.fingerprint, "admitted")
    lines = (workspace / "trust" / "journal.jsonl").read_text().splitlines()
    events = [json.loads(line.partition(" ")[2])["event"] for line in lines]
    assert events == ["authority-made", "server-certificate-issued", "site-admitted"]
    assert verify(workspace / "trust" / "journal.jsonl") == 3


def test_the_registry_knows_a_key_in_every_form(server, workspace, asks):
    asked = asks("alpha")
    admit(server, workspace, asked)
    registry = read_registry(Workspace(workspace))
    key = serialization.load_ssh_public_key(registry.rows[0].public_key.encode())
    for form in (registry.rows[0].public_key, public_der(key), public_pem(key)):
        assert registry.site_of_key(form).site == "alpha"
    assert registry.site_of_key(public_pem(make_key().public_key())) is None
    assert registry.site_of_key(b"noise") is None and registry.site_of_key("") is None
    now = datetime.now(UTC)
    assert [row.site for row in registry.admitted(now)] == ["alpha"]
    assert registry.admitted(now + timedelta(days=398)) == ()


def test_an_admission_needs_the_fingerprint_or_a_yes(server, workspace, asks):
    asked, other = asks("alpha"), asks("beta")
    wrong = server("admit", workspace, asked.request, "--fingerprint", other.fingerprint, code=6)
    assert wrong.content["error"]["code"] == "not-admitted"
    nobody = server("admit", workspace, asked.request, code=2)
    assert "--yes" in nobody.content["error"]["remedy"]
    assert read_registry(Workspace(workspace)).rows == ()
    server("admit", workspace, asked.request, "--yes")


def test_names_and_keys_that_are_taken_are_refused_and_nothing_changes(server, workspace, asks):
    asked = asks("alpha")
    admit(server, workspace, asked)
    before = digests(workspace)
    for name in ("alpha", "Alpha", "../alpha", "a" * 64, ""):
        server("provision", workspace, "--site", "gamma", "--site", name, code=2)
    server("provision", workspace, "--site", "gamma", "--site", "gamma", code=2)
    assert "taken" in admit(server, workspace, asked, code=2).content["error"]["what"]
    assert "taken" in admit(server, workspace, asks("alpha", "elsewhere"), code=2).content["error"]["what"]
    asked.request.unlink()
    (asked.folder.root / "alpha.request").unlink(missing_ok=True)
    assert (
        "is that of alpha" in admit(server, workspace, asks("beta", "alpha"), code=2).content["error"]["what"]
    )
    assert digests(workspace) == before


def test_renew_keeps_the_key_and_touches_no_other_site(server, workspace, asks):
    asked = asks("alpha")
    old = admit(server, workspace, asked).content["sites"][0]
    server("provision", workspace, "--site", "beta")
    before = digests(workspace)
    new = server("renew", workspace, "--site", "alpha").content["sites"][0]
    assert new["fingerprint"] == old["fingerprint"] and new["serial"] != old["serial"]
    row = read_registry(Workspace(workspace)).named("alpha")
    assert (row.serial, len(read_registry(Workspace(workspace)).rows)) == (new["serial"], 2)
    changed = {name for name, digest in digests(workspace).items() if before.get(name) != digest}
    assert changed == {
        "trust/sites.json",
        "trust/journal.jsonl",
        "trust/sites/alpha.crt",
        "kits/alpha-kit.zip",
    }
    server("renew", workspace, code=2)
    server("renew", workspace, "--site", "nobody", code=6)


def test_a_key_that_still_lies_in_its_kit_is_not_lost_by_a_new_one(server, workspace):
    server("provision", workspace, "--site", "alpha")
    path = workspace / "kits" / "alpha-kit.zip"
    key = open_kit(path).files[KEY]
    for command in ("renew", "kit"):
        made = server(command, workspace, "--site", "alpha").content["sites"][0]
        assert open_kit(path).files[KEY] == key and made["passphrase_file"]
    path.unlink()  # sent
    assert server("kit", workspace).content["sites"][0]["passphrase_file"] is None
    assert KEY not in open_kit(path).files


def test_a_revoked_site_is_out_for_good_and_comes_back_with_another_key_only(server, workspace, asks):
    asked = asks("alpha")
    admit(server, workspace, asked)
    admit(server, workspace, asks("beta"))
    server("revoke", workspace, "--site", "alpha", "--reason", " ", "--yes", code=2)
    assert "--yes" in server("revoke", workspace, "--site", "alpha", "--reason", "lost", code=2).told
    gone = server("revoke", workspace, "--site", "alpha", "--reason", "lost", "--yes").content
    assert gone["status"] == "revoked"
    registry = read_registry(Workspace(workspace))
    assert [row.site for row in registry.admitted()] == ["beta"]
    assert registry.site_of_key(registry.named("alpha").public_key).status == "revoked"
    assert not (workspace / "kits" / "alpha-kit.zip").exists()
    for arguments in (["renew", workspace, "--site", "alpha"], ["kit", workspace, "--site", "alpha"],
                      ["revoke", workspace, "--site", "alpha", "--reason", "again", "--yes"]):  # fmt: skip
        assert "was revoked: lost" in server(*arguments, code=6).content["error"]["what"]
    assert "stays revoked" in admit(server, workspace, asked, "--readmit", code=2).content["error"]["what"]
    fresh = asks("alpha", "new-machine")
    assert "--readmit" in admit(server, workspace, fresh, code=2).content["error"]["remedy"]
    server("provision", workspace, "--site", "alpha", code=2)
    admit(server, workspace, fresh, "--readmit")
    registry = read_registry(Workspace(workspace))
    assert [row.site for row in registry.admitted()] == ["beta", "alpha"]
    assert registry.of_fingerprint(asked.fingerprint).status == "revoked"
    assert registry.named("alpha").fingerprint == fresh.fingerprint


def test_the_list_warns_well_before_an_end(server, workspace, asks):
    admit(server, workspace, asks("alpha"))
    place = Workspace(workspace)
    now = datetime.now(UTC)
    assert list_sites(place, now=now)["warnings"] == []
    soon = list_sites(place, now=now + timedelta(days=397 - 44))
    assert [warning["remedy"].split("DIR ")[1] for warning in soon["warnings"]] == [
        "--site alpha", "--server, then restart the service"
    ]  # fmt: skip
    over = list_sites(place, now=now + timedelta(days=400))
    assert over["sites"][0]["status"] == "expired" and "expired 3 days ago" in over["warnings"][0]["what"]
    assert server("sites", workspace).content["sites"][0]["days_left"] == pytest.approx(397, abs=0.1)


def test_the_authority_is_never_made_again(server, workspace):
    server("provision", workspace)
    place = Workspace(workspace)
    certificate = (place.trust / "ca.crt").read_bytes()
    (place.trust / "ca.key").rename(place.trust / "hidden")
    lost = server("provision", workspace, code=6).content["error"]
    assert "backup" in lost["remedy"] and not (place.trust / "ca.key").exists()
    (place.trust / "hidden").rename(place.trust / "ca.key")
    (place.trust / "ca.key").chmod(0o644)
    assert server("provision", workspace, code=5).content["error"]["code"] == "privacy"
    (place.trust / "ca.key").chmod(0o600)
    text = place.server_yaml.read_text()
    place.server_yaml.write_text(text.replace("consortium: heart", "consortium: lung"))
    assert "not of 'lung'" in server("provision", workspace, code=3).content["error"]["what"]
    assert (place.trust / "ca.crt").read_bytes() == certificate


def test_an_interrupted_first_call_goes_on_with_the_key_that_is_there(server, workspace):
    place = Workspace(workspace)
    server("provision", workspace)
    digest = authority(place).fingerprint
    (place.trust / "ca.crt").unlink()
    (place.trust / "server.crt").unlink()
    server("provision", workspace)
    assert authority(place).fingerprint == digest


def test_a_new_name_of_the_server_asks_for_a_new_certificate_of_the_same_key(server, workspace):
    place = Workspace(workspace)
    key = ensure_server_certificate(place).key_file.read_bytes()
    place.server_yaml.write_text(place.server_yaml.read_text().replace("names: []", "names: [hub.example]"))
    with pytest.raises(CertificateInvalidError, match=r"hub\.example") as refused:
        ensure_server_certificate(place)
    assert "renew DIR --server" in refused.value.remedy
    server("renew", workspace, "--server")
    assert ensure_server_certificate(place).key_file.read_bytes() == key
    done = subprocess.run(
        ["openssl", "x509", "-noout", "-ext", "subjectAltName", "-in", place.trust / "server.crt"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "DNS:hub.example" in done.stdout and "IP Address:127.0.0.1" in done.stdout


@pytest.mark.parametrize(
    "change, told",
    [
        (lambda rows: "{", "cannot be used"),
        (lambda rows: json.dumps({"sites": rows}), "not a list"),
        (lambda rows: json.dumps([*rows, rows[0]]), "stands twice"),
        (lambda rows: json.dumps([rows[0] | {"fingerprint": "0" * 64}]), "not that of its key"),
        (lambda rows: json.dumps([rows[0] | {"status": "maybe"}]), "status"),
        (lambda rows: json.dumps([rows[0] | {"more": 1}]), "unknown key"),
        (lambda rows: json.dumps([rows[0] | {"not_after": "tomorrow"}]), "not_after"),
    ],
)
def test_a_registry_that_was_touched_admits_nobody_by_a_guess(server, workspace, asks, change, told):
    admit(server, workspace, asks("alpha"))
    path = workspace / "trust" / "sites.json"
    path.write_text(change(json.loads(path.read_text())))
    with pytest.raises(ConfigError, match=told):
        read_registry(Workspace(workspace))


def test_a_question_that_is_not_answered_with_yes_names_the_way_on(workspace, asks, run, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    request = asks("alpha").request
    nobody = run("cardionets-server", "admit", workspace, request)
    assert nobody.returncode == 2 and "to do: give --fingerprint" in nobody.stderr
    monkeypatch.setattr(sys, "stdin", Terminal("no\n"))
    denied = run("cardionets-server", "admit", workspace, request)
    assert denied.returncode == 2 and "nobody was admitted; ask the hospital" in denied.stderr
    assert "--yes" not in denied.stderr and not list((workspace / "kits").glob("*.zip"))


def test_a_kit_carries_bundle_and_study_where_both_are_there(server, workspace, asks):
    admit(server, workspace, asks("alpha"))
    path = workspace / "kits" / "alpha-kit.zip"
    assert not [name for name in open_kit(path).files if name.startswith("package/")]
    (workspace / "code" / "a.b.1-0-0.0123.fab").write_bytes(b"bundle")
    server("kit", workspace)
    files = open_kit(path).files
    assert files["package/a.b.1-0-0.0123.fab"] == b"bundle"
    assert json.loads(files["package/study.json"])["name"] == "first-study"
    first = path.read_bytes()
    server("kit", workspace)
    assert path.read_bytes() == first
    (workspace / "code" / "other.fab").write_bytes(b"bundle")
    server("kit", workspace, code=3)
