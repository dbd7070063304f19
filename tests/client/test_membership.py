"""From a request to a folder with a good kit; kits that are refused; a newer kit over an older one."""

import hashlib
import json
import re
import stat
import zipfile
from pathlib import Path

import pytest
import yaml

from cardionets_core.config.connection import SiteFolder, open_site_folder
from cardionets_core.config.site import read_site
from cardionets_core.trust.keys import fingerprint, spoken
from client.site_request import site_key


def answer(run, program, *arguments, code=0):
    done = run(program, *arguments, "--format", "json")
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def server(run):
    return lambda *arguments, code=0: answer(run, "cardionets-server", *arguments, code=code)


@pytest.fixture
def site(run):
    return lambda *arguments, code=0: answer(run, "cardionets-client", *arguments, code=code)


@pytest.fixture
def home(server, tmp_path):
    server("init", tmp_path / "home", "--consortium", "heart", "--address", "localhost:19092")
    return tmp_path / "home"


@pytest.fixture
def admitted(server, site, home, tmp_path):
    """The hospital alpha, whose kit waits to be unpacked into the folder of its key."""
    asked = site("request", "--site", "alpha", "--out", tmp_path / "alpha")
    server("admit", home, asked["request"], "--fingerprint", asked["fingerprint"])
    return tmp_path / "alpha"


def digests(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*")) if path.is_file()
    }  # fmt: skip


def test_a_request_is_made_once_and_found_again(site, tmp_path):
    first = site("request", "--site", "alpha", "--out", tmp_path / "alpha")
    assert first["made"] == ["key", "request"]
    key = tmp_path / "alpha" / "trust" / "site.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600 and stat.S_IMODE(key.parent.stat().st_mode) == 0o700
    before = digests(tmp_path)
    again = site("request", "--site", "alpha", "--out", tmp_path / "alpha")
    assert (again["made"], again["fingerprint"]) == ([], first["fingerprint"]) and digests(tmp_path) == before
    assert b"PRIVATE" not in Path(first["request"]).read_bytes()
    site("request", "--site", "beta", "--out", tmp_path / "alpha", code=2)
    site("request", "--site", "Alpha", "--out", tmp_path / "other", code=2)
    key.chmod(0o644)
    assert (
        site("request", "--site", "alpha", "--out", tmp_path / "alpha", code=5)["error"]["code"] == "privacy"
    )


def test_a_kit_completes_the_folder_of_the_request(run, site, home, admitted):
    key = (admitted / "trust" / "site.key").read_bytes()
    made = site("init", admitted, "--kit", home / "kits" / "alpha-kit.zip")
    folder = open_site_folder(admitted)
    assert folder.config().server == "localhost:19092" and read_site(folder.site_yaml).site == "alpha"
    assert (folder.trust / "site.key").read_bytes() == key
    assert fingerprint(site_key(folder).public_key()) == made["key_fingerprint"]
    assert made["days_left"] == pytest.approx(397, abs=0.1) and made["kept"] == ["trust/site.key"]
    for name in ("README.md", "cardionets-client.service", "Dockerfile", "compose.yaml"):
        text = (admitted / name).read_text()
        assert "$" not in re.sub(r"\$(\{SITE_|\(id|TORCH_INDEX)", "", text)
        # Never by its name, which pip would ask an index for.
        assert not re.search(r"pip install[^\n]*[\" ]cardionets(==|\[|\"| )", text), name
    wheel = "wheels/cardionets-0.1.0-py3-none-any.whl"
    for name in ("README.md", "Dockerfile"):
        lines = [line for line in (admitted / name).read_text().splitlines() if "pip install -" in line]
        assert any("--no-index --no-deps" in line and line.endswith(wheel) for line in lines)
    assert "COPY wheels/ /wheels/" in (admitted / "Dockerfile").read_text()
    assert (admitted / "Dockerfile.dockerignore").read_text().split("\n")[1:] == [
        "*",
        "!wheels",
        "!wheels/*.whl",
        "",
    ]
    readme = (admitted / "README.md").read_text()
    account = re.search(r"^User=(\w+)$", (admitted / "cardionets-client.service").read_text(), re.M)[1]
    assert re.search(rf"useradd .* {account}$", readme, re.M)
    assert f"chown -R {account}:{account} /srv/cardionets/alpha" in readme
    bare = [line for line in readme.splitlines() if line.startswith("/opt/cardionets/bin/cardionets-client")]
    assert bare == [] and f"sudo -u {account} /opt/cardionets/bin/cardionets-client init" in readme
    assert spoken(made["authority_fingerprint"]) in (admitted / "README.md").read_text()


def test_a_provisioned_kit_needs_its_passphrase_once(server, site, home, tmp_path):
    server("provision", home, "--site", "alpha")
    kit, passphrase = home / "kits" / "alpha-kit.zip", home / "kits" / "alpha.passphrase"
    folder = tmp_path / "alpha"
    assert "--passphrase-file" in site("init", folder, "--kit", kit, code=2)["error"]["remedy"]
    (tmp_path / "wrong").write_text("not-it\n")
    wrong = site("init", folder, "--kit", kit, "--passphrase-file", tmp_path / "wrong", code=6)
    assert "does not open" in wrong["error"]["what"] and not folder.exists()
    made = site("init", folder, "--kit", kit, "--passphrase-file", passphrase)
    key = folder / "trust" / "site.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600 and b"OPENSSH PRIVATE KEY" in key.read_bytes()
    assert fingerprint(site_key(SiteFolder(folder)).public_key()) == made["key_fingerprint"]
    assert site("init", folder, "--kit", kit)["kept"] == ["site.yaml", "trust/site.key"]


def test_a_renewed_kit_changes_certificate_and_address_and_leaves_the_rest(server, site, home, admitted):
    kit = home / "kits" / "alpha-kit.zip"
    old = site("init", admitted, "--kit", kit)
    (admitted / "site.yaml").write_text("mine: true\n")
    (admitted / "package").mkdir()
    (admitted / "package" / "older.fab").write_bytes(b"")
    before = digests(admitted)
    text = (home / "server.yaml").read_text()
    (home / "server.yaml").write_text(text.replace("localhost:19092", "localhost:19093"))
    (home / "code" / "new.fab").write_bytes(b"bundle")
    server("renew", home, "--site", "alpha")
    new = site("init", admitted, "--kit", kit)
    assert new["serial"] != old["serial"] and new["key_fingerprint"] == old["key_fingerprint"]
    after = digests(admitted)
    changed = {name for name in before | after if before.get(name) != after.get(name)}
    assert changed == {"connection.yaml", "trust/site.crt", "README.md", "package/new.fab",
                       "package/older.fab", "package/study.json"}  # fmt: skip
    assert [path.name for path in (admitted / "package").glob("*.fab")] == ["new.fab"]


def test_an_older_kit_does_not_come_back(server, site, home, admitted, monkeypatch):
    kit = home / "kits" / "alpha-kit.zip"
    first = kit.read_bytes()
    import cardionets_core.trust.certificates as certificates

    monkeypatch.setattr(certificates, "BACKDATED", certificates.timedelta(minutes=30))
    server("renew", home, "--site", "alpha")
    site("init", admitted, "--kit", kit)
    before = digests(admitted)
    kit.write_bytes(first)
    assert "older" in site("init", admitted, "--kit", kit, code=6)["error"]["what"]
    assert digests(admitted) == before


def test_the_sites_own_ports_stay_when_a_kit_brings_a_new_address(server, site, home, admitted):
    kit = home / "kits" / "alpha-kit.zip"
    site("init", admitted, "--kit", kit)
    document = admitted / "connection.yaml"
    own = {"runtime_port": 9301, "health_port": 9302, "logs": {"maximum_bytes": 20000, "keep": 3}}
    document.write_text(yaml.safe_dump(yaml.safe_load(document.read_text()) | own))
    before = open_site_folder(admitted).config()
    text = (home / "server.yaml").read_text()
    (home / "server.yaml").write_text(text.replace("localhost:19092", "hub.example:19093"))
    server("kit", home)
    site("init", admitted, "--kit", kit)
    after = open_site_folder(admitted).config()
    assert after == before.model_copy(update={"server": "hub.example:19093"})
    assert after.runtime_port == 9301 and after.logs.keep == 3
    before = digests(admitted)
    site("init", admitted, "--kit", kit)
    assert digests(admitted) == before


def test_kits_of_others_do_not_enter_a_folder(server, site, home, admitted, tmp_path):
    site("init", admitted, "--kit", home / "kits" / "alpha-kit.zip")
    server("provision", home, "--site", "beta")
    server("init", tmp_path / "lung", "--consortium", "lung", "--address", "localhost:19092")
    server("provision", tmp_path / "lung", "--site", "alpha")
    before = digests(admitted)
    for kit, word in ((home / "kits" / "beta-kit.zip", "'beta'"),
                      (tmp_path / "lung" / "kits" / "alpha-kit.zip", "'lung'")):  # fmt: skip
        passphrase = kit.with_name(kit.name.replace("-kit.zip", ".passphrase"))
        refused = site("init", admitted, "--kit", kit, "--passphrase-file", passphrase, code=6)["error"]
        assert refused["code"] == "not-admitted" and word in refused["what"]
    assert digests(admitted) == before


def test_a_kit_answers_one_key_and_one_authority(server, site, home, admitted, tmp_path):
    kit = home / "kits" / "alpha-kit.zip"
    assert "request" in site("init", tmp_path / "bare", "--kit", kit, code=2)["error"]["remedy"]
    site("request", "--site", "alpha", "--out", tmp_path / "twin")
    assert "another key" in site("init", tmp_path / "twin", "--kit", kit, code=6)["error"]["what"]
    authority = server("provision", home)["authority_fingerprint"]
    wrong = site("init", admitted, "--kit", kit, "--fingerprint", authority[::-1], code=6)["error"]
    assert "not the one" in wrong["what"] and not (admitted / "connection.yaml").exists()
    assert site("init", admitted, "--kit", kit, "--fingerprint", spoken(authority))["authority_compared"]


def test_a_kit_that_was_touched_writes_nothing(site, home, admitted):
    kit = home / "kits" / "alpha-kit.zip"
    with zipfile.ZipFile(kit) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    before = digests(admitted)
    for change in ({"connection.yaml": files["connection.yaml"].replace(b"localhost", b"elsewhere")},
                   {"../../escape": b""}, {"more": b""}):  # fmt: skip
        with zipfile.ZipFile(kit, "w") as archive:
            for name, content in (files | change).items():
                archive.writestr(name, content)
        assert site("init", admitted, "--kit", kit, code=6)["error"]["code"] == "certificate-invalid"
    for mistaken in (kit.parent, kit.with_name("nothere.zip"), home / "study.yaml"):
        told = site("init", admitted, "--kit", mistaken, code=2)["error"]
        assert told["code"] == "usage" and "look at the path" in told["remedy"]
    assert digests(admitted) == before


def test_an_interrupted_unpacking_is_finished_by_the_same_command(site, home, admitted, monkeypatch):
    import client.startup_kit as startup_kit

    def full(path, content, **named):
        if path.name == "connection.yaml":
            raise OSError(28, "No space left on device")
        write(path, content, **named)

    write = startup_kit.write_file
    monkeypatch.setattr(startup_kit, "write_file", full)
    kit = home / "kits" / "alpha-kit.zip"
    assert site("init", admitted, "--kit", kit, code=7)["error"]["code"] == "storage-failed"
    assert not (admitted / "connection.yaml").exists()
    monkeypatch.undo()
    site("init", admitted, "--kit", kit)
    assert open_site_folder(admitted).config().site == "alpha"
