"""A registered site's key and address get a refusal for everything but a SuperNode's own calls."""

from __future__ import annotations

import base64
import datetime
import ssl
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

pytestmark = pytest.mark.system

PATHS = (
    "/v1/control/list-runs",
    "/v1/control/list-nodes",
    "/v1/control/register-node",
    "/v1/control/unregister-node",
    "/v1/control/start-run",
    "/v1/control/stop-run",
    "/v1/control/stream-logs",
    "/v1/runtime/acquire-task",
    "/v1/runtime/get-nodes",
    "/v1/runtime/push-messages",
    "/v1/runtime/pull-messages",
    "/v1/fleet/register-node",
    "/v1/fleet/unregister-node",
    "/docs",
    "/openapi.json",
)


def signed(key) -> dict[str, str]:
    """The headers with which a SuperNode proves its key."""
    moment = datetime.datetime.now(datetime.UTC).isoformat()
    signature = key.sign(moment.encode("ascii"), ec.ECDSA(hashes.SHA256()))
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return {
        "flwr-public-key": base64.b64encode(public).decode(),
        "flwr-signature": base64.b64encode(signature).decode(),
        "flwr-timestamp": moment,
        "content-type": "application/x-protobuf",
    }


def trusting(site) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(site.trust / "ca.crt"))


@pytest.fixture
def client(field):
    site = field.site("alpha")
    with httpx.Client(base_url=f"https://{site.config().server}", verify=trusting(site), timeout=20) as found:
        yield found


@pytest.fixture
def key(field):
    return serialization.load_ssh_private_key((field.site("alpha").trust / "site.key").read_bytes(), None)


def test_a_registered_site_reaches_its_own_calls_alone(field, client, key):
    assert client.get("/health").json()["status"] == "ok"
    known = {route for route in client.get("/openapi.json").text.split('"') if route.startswith("/v1/")}
    assert known == set(), "the outer listener told its routes"
    for path in PATHS:
        answer = client.post(path, headers=signed(key), content=b"")
        assert (answer.status_code, answer.json()) == (403, {"code": "forbidden"}), path


def test_the_paths_that_are_refused_are_those_of_the_inner_listener(field):
    """The list above is not made up: the inner listener, on loopback, serves these very routes."""
    site, config = field.site("alpha"), field.workspace.config()
    with httpx.Client(
        base_url=f"https://127.0.0.1:{config.inner_port}", verify=trusting(site), timeout=20
    ) as inner:
        routes = set(inner.get("/openapi.json").json()["paths"])
    outer = {path for path in routes if path.startswith(("/v1/control", "/v1/runtime"))}
    assert len(outer) > 15
    with httpx.Client(base_url=f"https://{site.config().server}", verify=trusting(site), timeout=20) as door:
        for path in outer:
            assert door.post(path, content=b"").status_code == 403, path


def test_flowers_own_command_line_is_refused_at_the_door(field, tmp_path):
    """list, register, run and stop, as a hospital would try them with Flower's own program."""
    site = field.site("alpha")
    (tmp_path / "config.toml").write_text(
        f'[superlink]\ndefault = "it"\n[superlink.it]\naddress = "{site.config().server}"\n'
        f'root-certificates = "{site.trust / "ca.crt"}"\n'
    )
    public = tmp_path / "mine.pub"
    public.write_bytes(
        ec.generate_private_key(ec.SECP384R1())
        .public_key()
        .public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    )
    environment = {"FLWR_HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path),
                   "FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}  # fmt: skip
    for words in (
        ("list", "it"),
        ("supernode", "list", "it"),
        ("supernode", "register", str(public), "it"),
        ("run", str(field.workspace.code / "app"), "it"),
        ("stop", "1", "it"),
    ):
        done = subprocess.run(
            [Path(sys.executable).with_name("flwr"), *words, "--format", "json"],
            capture_output=True, text=True, env=environment, timeout=120, check=False,
        )  # fmt: skip
        assert '"success": true' not in done.stdout, words
        assert "403" in done.stdout + done.stderr or "forbidden" in (done.stdout + done.stderr).lower(), words


def test_an_unknown_key_and_a_wrong_authority_stay_outside(field, client, tmp_path):
    stranger = ec.generate_private_key(ec.SECP384R1())
    answer = client.post("/v1/fleet/pull-messages", headers=signed(stranger), content=b"")
    assert (answer.status_code, answer.json()) == (401, {"code": "not-admitted"})
    with pytest.raises(httpx.ConnectError), httpx.Client(timeout=10) as trusting_others:
        trusting_others.get(f"https://{field.site('alpha').config().server}/health")
