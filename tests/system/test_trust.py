"""Adding, renewing and losing a site while others work on; strangers, expired certificates, wrong clocks."""

from __future__ import annotations

import contextlib
import datetime
import itertools
import json
import shutil
import subprocess
import sys

import psutil
import pytest
import yaml

from cardionets_core.service.state import end_tree
from client.service import processes
from simulation.deployment import free_ports

pytestmark = pytest.mark.system
NUMBERS = itertools.count(1)
HEARTBEAT_S = 45.0
"""A SuperNode is heard every 30 s at most; within one heartbeat a revoked one is out."""


@pytest.fixture
def delta(field, tmp_path):
    """A fourth hospital, not admitted yet; a name that was revoked once is not given again."""
    name = f"delta{next(NUMBERS)}"
    field.add_site(name, tmp_path / name, like="gamma")
    yield field.site(name)
    field.remove_site(name)


def link_of(field, name):
    return field.run("cardionets-client", "status", field.sites[name], "--format", "json").json()["link"]


def test_a_site_is_added_renewed_and_revoked_and_no_other_is_touched(field, delta):
    name = delta.root.name
    before = {site: field.process(site, "supernode") for site in field.sites_in_order}
    field.admit(name)
    field.start_site(name)
    field.until(lambda: field.row(name)["connected"], seconds=60)
    key = (delta.trust / "site.key").read_bytes()
    ends = field.row(name)["certificate_days_left"]

    field.change_server(certificates={"site_days": 500})
    field.run("cardionets-server", "renew", field.server, "--site", name)
    kit = field.workspace.kits / f"{name}-kit.zip"
    field.run("cardionets-client", "init", "--kit", kit, delta.root)
    assert (delta.trust / "site.key").read_bytes() == key
    assert field.row(name)["certificate_days_left"] > ends + 50
    assert field.row(name)["connected"]

    reason = "left the consortium"
    field.run("cardionets-server", "revoke", field.server, "--site", name, "--reason", reason, "--yes")
    field.until(lambda: link_of(field, name) == "not admitted", seconds=HEARTBEAT_S)
    assert field.row(name)["status"] == "revoked" and not field.row(name)["connected"]
    assert {site: field.process(site, "supernode") for site in field.sites_in_order} == before
    assert all(field.row(site)["connected"] for site in field.sites_in_order)


def test_a_supernode_that_was_never_admitted_stays_outside(field, delta):
    name = delta.root.name
    field.run("cardionets-client", "request", "--site", name, "--out", delta.root)
    alpha = field.site("alpha")
    connection = yaml.safe_load(alpha.connection_yaml.read_text()) | {"site": name}
    connection |= dict(zip(("runtime_port", "health_port"), free_ports(2), strict=True))
    delta.connection_yaml.write_text(yaml.safe_dump(connection))
    for file in ("ca.crt", "site.crt"):
        shutil.copyfile(alpha.trust / file, delta.trust / file)
    field.run("cardionets-client", "start", delta.root, "--background", check=False)
    field.until(lambda: link_of(field, name) == "not admitted", seconds=60)
    assert name not in {site["site"] for site in field.status()["sites"]}


def test_a_wrong_authority_is_refused_by_the_site(field, delta, tmp_path):
    name = delta.root.name
    field.admit(name)
    other = tmp_path / "other"
    field.run("cardionets-server", "init", other, "--address", "127.0.0.1:1")
    field.run("cardionets-server", "provision", other)
    shutil.copyfile(other / "trust" / "ca.crt", delta.trust / "ca.crt")
    field.run("cardionets-client", "start", delta.root, "--background", check=False)
    done = field.run("cardionets-client", "check", "--site", delta.site_yaml, "--format", "json", check=False)
    codes = {problem["code"] for problem in done.json()["problems"]}
    assert "certificate-invalid" in codes
    assert field.row(name)["heartbeat_s_ago"] is None


def test_a_site_whose_certificate_has_expired_is_refused_until_it_is_renewed(field, delta):
    name = delta.root.name
    field.admit(name)
    registry = field.workspace.trust / "sites.json"
    rows = json.loads(registry.read_text())
    past = (datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    for row in rows:
        if row["site"] == name:
            row["not_after"] = past
    registry.write_text(json.dumps(rows))
    field.run("cardionets-client", "start", delta.root, "--background", check=False)
    field.until(lambda: link_of(field, name) == "certificate refused", seconds=60)
    field.run("cardionets-server", "renew", field.server, "--site", name)
    field.until(lambda: field.row(name)["connected"], seconds=90)


@pytest.mark.parametrize("skew_s, gets_in", [(60, True), (-60, True), (600, False), (-600, False)])
def test_a_clock_that_is_wrong_by_a_minute_or_ten(field, delta, tmp_path, skew_s, gets_in):
    name = delta.root.name
    field.admit(name)
    with supernode_with_wrong_clock(delta, skew_s, log=tmp_path / "skewed.log") as process:
        if gets_in:
            field.until(lambda: field.row(name)["connected"], seconds=60)
        else:
            process.wait(60)  # Flower's SuperNode calls it a graceful end
            assert not field.row(name)["connected"]
            assert "401 signature-refused" in (tmp_path / "skewed.log").read_text()


@contextlib.contextmanager
def supernode_with_wrong_clock(folder, skew_s, *, log):
    """The site's SuperNode, believing in another time; otherwise as its service would start it."""
    spec = next(spec for spec in processes(folder) if spec.name == "supernode")
    code = (
        "import datetime, flwr.supernode.node_auth_http_interceptor as signing\n"
        f"true = signing.now\nsigning.now = lambda: true() + datetime.timedelta(seconds={skew_s})\n"
        "from client.supernode import main\nmain()\n"
    )
    command = [sys.executable, "-P", "-c", code, *spec.command[spec.command.index("client.supernode") + 1 :]]
    folder.node.mkdir(exist_ok=True)
    with log.open("wb") as handle:
        process = subprocess.Popen(
            command, env=dict(spec.environment), cwd=folder.node, stdout=handle, stderr=subprocess.STDOUT
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                end_tree(psutil.Process(process.pid), grace_s=10)
            process.wait(10)
