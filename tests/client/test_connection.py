"""The way to the coordinator, station by station, against a small TLS server on loopback."""

import base64
import email.utils
import http.server
import json
import shutil
import socket
import ssl
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
import yaml
from flwr.supercore.primitives.asymmetric import bytes_to_public_key, verify_signature

from cardionets_core.config.connection import SiteFolder
from cardionets_core.trust.certificates import (
    certificate_pem,
    issue_server,
    issue_site,
    make_authority,
)
from cardionets_core.trust.keys import make_key, private_openssh, private_pem, public_pem
from cardionets_core.trust.secret_files import make_secret_folder, write_file
from client.connection_wording import connection_lines
from client.doctor.admission import signed_headers
from client.doctor.connection import check_connection
from client.doctor.health import Answer, judge_clock
from client.doctor.network import check_proxies
from server.provision.kits import versions

FLOWERS_OWN_401 = (401, {"detail": "Invalid SuperNode authentication"})


class Coordinator:
    """A TLS server that answers as the outer listener does; what it says can be changed."""

    def __init__(self, folder, *, names=("localhost",), days=100, began=None, rogue=False):
        self.key = make_key()
        self.authority = make_authority(
            self.key, consortium="heart", now=datetime.now(UTC) - timedelta(days=900)
        )
        self.health = (200, {"status": "ok", **versions()})
        self.fleet = FLOWERS_OWN_401
        self.ahead_s = 0.0
        self.asked = []
        signer_key = make_key() if rogue else self.key
        signer = make_authority(signer_key, consortium="rogue") if rogue else self.authority
        key = make_key()
        certificate = issue_server(key.public_key(), names=names, days=days, signer=signer,
                                   signer_key=signer_key, now=began)  # fmt: skip
        write_file(folder / "server.key", private_pem(key), secret=True)
        write_file(folder / "server.crt", certificate_pem(certificate), secret=False)
        rules = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        rules.load_cert_chain(folder / "server.crt", folder / "server.key")
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self._say(outer.health if self.path == "/health" else (403, {"code": "forbidden"}))

            def do_POST(self):
                outer.asked.append(
                    (self.path, dict(self.headers), self.rfile.read(int(self.headers["Content-Length"])))
                )
                self._say(outer.fleet)

            def _say(self, answer):
                status, content = answer
                body = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def date_time_string(self, timestamp=None):
                return email.utils.formatdate(time.time() - outer.ahead_s, usegmt=True)

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            def get_request(self):
                plain, address = super().get_request()
                return rules.wrap_socket(plain, server_side=True, do_handshake_on_connect=False), address

            def handle_error(self, request, client_address):
                pass  # a client that refuses the certificate goes away in the handshake

        self.server = Server(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05})
        self.thread.start()

    @property
    def port(self):
        return self.server.server_address[1]

    def close(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def coordinator(tmp_path):
    running = []

    def start(**options):
        running.append(Coordinator(tmp_path, **options))
        return running[-1]

    yield start
    for each in running:
        each.close()


def site_of(coordinator, folder, *, host="localhost", port=None, days=100, began=None, other_key=False):
    """A site's folder as a kit leaves it."""
    key = make_key()
    public = make_key().public_key() if other_key else key.public_key()
    certificate = issue_site(public, site="alpha", days=days, signer=coordinator.authority,
                             signer_key=coordinator.key, now=began)  # fmt: skip
    found = SiteFolder(folder / "site")
    make_secret_folder(found.trust)
    write_file(found.trust / "ca.crt", certificate_pem(coordinator.authority), secret=False)
    write_file(found.trust / "site.crt", certificate_pem(certificate), secret=False)
    write_file(found.trust / "site.key", private_openssh(key), secret=True)
    document = {"consortium": "heart", "site": "alpha", "server": f"{host}:{port or coordinator.port}",
                **{f"{name}_version": version for name, version in versions().items()}}  # fmt: skip
    found.connection_yaml.write_text(yaml.safe_dump(document))
    return found


def found_codes(findings):
    assert all(problem.remedy for problem in findings.problems)
    return [problem.code for problem in findings.problems]


def look(folder, **environment):
    return check_connection(folder, environment=environment)


def test_a_good_way_has_no_problem_and_tells_every_station(coordinator, tmp_path):
    home = coordinator()
    findings = look(site_of(home, tmp_path))
    assert found_codes(findings) == [] and findings.notices == []
    facts = findings.facts
    assert facts["admitted"] and facts["tls"] == "TLSv1.3" and abs(facts["clock_ahead_s"]) <= 1
    assert facts["server_days_left"] == pytest.approx(100, abs=0.1)
    assert facts["own_certificate"]["days_left"] == pytest.approx(100, abs=0.1)
    assert "loopback" in facts["inbound"] and facts["versions"]["here"] == versions()
    told = "\n".join(connection_lines(facts))
    assert "admitted" in told and "certificate for 100 more days" in told


def test_the_probe_is_signed_as_flower_checks_it_and_asks_for_nothing(coordinator, tmp_path):
    home = coordinator()
    look(site_of(home, tmp_path))
    ((path, headers, body),) = home.asked
    assert (path, body, headers["Content-Type"]) == ("/v1/fleet/pull-messages", b"", "application/protobuf")
    public = bytes_to_public_key(base64.b64decode(headers["flwr-public-key"]))
    signature = base64.b64decode(headers["flwr-signature"])
    assert verify_signature(public, headers["flwr-timestamp"].encode("ascii"), signature)
    age = datetime.now(UTC) - datetime.fromisoformat(headers["flwr-timestamp"])
    assert timedelta(0) <= age < timedelta(seconds=30)


def test_the_signed_key_is_in_the_form_that_flower_compares():
    from flwr.supercore.primitives.asymmetric import public_key_to_bytes

    key = make_key()
    assert base64.b64decode(signed_headers(key)["flwr-public-key"]) == public_key_to_bytes(key.public_key())
    assert public_pem(key.public_key()) == public_key_to_bytes(key.public_key())


@pytest.mark.parametrize(
    "fleet, code",
    [
        ((401, {"code": "not-admitted"}), "not-admitted"),
        ((401, {"code": "certificate-invalid"}), "certificate-invalid"),
        ((403, {"code": "forbidden"}), "unreachable"),
        ((403, {}), "unreachable"),
        ((502, {}), "unreachable"),
    ],
)
def test_what_the_listener_says_of_the_key(coordinator, tmp_path, fleet, code):
    home = coordinator()
    home.fleet = fleet
    findings = look(site_of(home, tmp_path))
    assert found_codes(findings) == [code] and findings.facts.get("admitted") is False


def test_a_name_that_is_not_there(coordinator, tmp_path):
    findings = look(site_of(coordinator(), tmp_path, host="nowhere.invalid"))
    assert found_codes(findings) == ["unreachable"] and "looked up" in findings.problems[0].what


def test_a_port_that_nobody_listens_on(coordinator, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    findings = look(site_of(coordinator(), tmp_path, host="127.0.0.1", port=port))
    assert found_codes(findings) == ["unreachable"] and "Connection refused" in findings.problems[0].what
    assert "nothing inbound" in findings.problems[0].remedy


def test_a_port_that_does_not_speak_tls(coordinator, tmp_path):
    def hang_up(listener):
        for _ in range(2):
            connection, _ = listener.accept()
            connection.sendall(b"220 mail\r\n")
            connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=hang_up, args=(listener,))
        thread.start()
        findings = look(site_of(coordinator(), tmp_path, host="127.0.0.1", port=listener.getsockname()[1]))
        thread.join()
    assert found_codes(findings) == ["unreachable"] and "not with TLS" in findings.problems[0].what


@pytest.mark.parametrize(
    "options, told",
    [
        ({"rogue": True}, "another authority"),
        ({"days": 10, "began": datetime.now(UTC) - timedelta(days=12, hours=1)}, "expired 2 days ago"),
        ({"began": datetime.now(UTC) + timedelta(days=3, hours=2)}, "begins in 3 days"),
        ({"names": ("elsewhere.example",)}, "for another name"),
    ],
)
def test_a_server_that_is_not_the_consortiums(coordinator, tmp_path, options, told):
    home = coordinator(**options)
    findings = look(site_of(home, tmp_path))
    assert found_codes(findings) == ["certificate-invalid"] and told in findings.problems[0].what
    assert home.asked == []  # nothing was sent to it


def test_certificates_that_end_soon_are_told_before_they_do(coordinator, tmp_path):
    findings = look(site_of(coordinator(days=20), tmp_path, days=10))
    assert found_codes(findings) == []
    assert {notice.what.partition(" ends")[0] for notice in findings.notices} == {
        "the site's certificate", "the server's certificate"
    }  # fmt: skip


def test_the_own_certificate_and_key_are_judged_without_any_server(coordinator, tmp_path):
    home = coordinator()
    began = datetime.now(UTC) - timedelta(days=30)
    folder = site_of(home, tmp_path, days=5, began=began, other_key=True, port=1, host="127.0.0.1")
    findings = look(folder)
    assert found_codes(findings) == ["certificate-invalid", "certificate-invalid", "unreachable"]
    assert "expired 25 days ago" in findings.problems[0].what and "another key" in findings.problems[1].what
    (folder.trust / "site.key").chmod(0o644)
    assert found_codes(look(folder))[0] == "privacy"
    (folder.trust / "site.key").unlink()
    assert found_codes(look(folder))[0] == "usage"
    shutil.rmtree(folder.trust)
    assert found_codes(look(folder)) == ["usage", "config-invalid", "config-invalid"]


@pytest.mark.parametrize(
    "ahead_s, code, notices",
    [(0, [], 0), (60, [], 0), (150, ["machine-unfit"], 0), (-50, [], 0), (-90, [], 1),
     (-600, ["machine-unfit"], 0), (600, ["machine-unfit"], 0)],
)  # fmt: skip
def test_the_clock_is_judged_as_the_link_judges_it(coordinator, tmp_path, ahead_s, code, notices):
    home = coordinator()
    home.ahead_s = ahead_s
    findings = look(site_of(home, tmp_path))
    assert found_codes(findings) == code and len(findings.notices) == notices
    assert findings.facts["clock_ahead_s"] == pytest.approx(ahead_s, abs=2)


def test_a_slow_answer_is_no_wrong_clock():
    answer = Answer(
        status=200, body=b"", date=email.utils.formatdate(1000.0, usegmt=True), asked_s=1200.0, took_s=400.0
    )
    assert judge_clock(answer).problems == []
    quick = Answer(status=200, body=b"", date=answer.date, asked_s=1200.0, took_s=0.1)
    assert [problem.code for problem in judge_clock(quick).problems] == ["machine-unfit"]
    assert judge_clock(Answer(status=200, body=b"", date="", asked_s=0, took_s=0)).facts == {
        "clock_ahead_s": None
    }


def test_versions_must_be_equal(coordinator, tmp_path):
    home = coordinator()
    home.health = (200, {"status": "ok", **versions(), "flwr": "1.40.0"})
    folder = site_of(home, tmp_path)
    findings = look(folder)
    assert found_codes(findings) == ["version-mismatch"] and "flwr==1.40.0" in findings.problems[0].remedy
    home.health = (200, {"status": "ok", **versions(), "cardionets": "9.9"})
    (other,) = check_connection(folder).problems
    # By its file: for a name, pip asks a public index.
    assert "pip install wheels/cardionets-9.9-py3-none-any.whl" in other.remedy
    home.health = (200, {"status": "ok", **versions()})
    folder.connection_yaml.write_text(
        folder.connection_yaml.read_text().replace(versions()["flwr"], "1.39.0")
    )
    findings = look(folder)
    assert found_codes(findings) == [] and "kit" in findings.notices[0].what


@pytest.mark.parametrize("health", [(500, {}), (200, {"status": "asleep"}), (200, ["no object"])])
def test_a_server_that_is_not_well(coordinator, tmp_path, health):
    home = coordinator()
    home.health = health
    assert found_codes(look(site_of(home, tmp_path))) == ["unreachable"]


@pytest.mark.parametrize(
    "environment, caught",
    [
        ({}, False),
        ({"HTTPS_PROXY": "http://proxy:3128"}, True),
        ({"all_proxy": "http://proxy:3128", "NO_PROXY": "example.org"}, True),
        ({"https_proxy": "http://proxy:3128", "no_proxy": "a, hub.example.net"}, False),
        ({"https_proxy": "http://proxy:3128", "no_proxy": ".example.net"}, False),
        ({"https_proxy": "http://proxy:3128", "no_proxy": "*"}, False),
        ({"http_proxy": "http://proxy:3128"}, False),
    ],
)
def test_a_proxy_that_would_catch_the_call_is_told(coordinator, tmp_path, environment, caught):
    config = site_of(coordinator(), tmp_path, host="hub.example.net").config()
    findings = check_proxies(config, environment)
    assert bool(findings.notices) == caught and findings.problems == []
    assert not caught or "NO_PROXY" in findings.notices[0].remedy


def test_check_has_the_part_where_a_kit_was_unpacked_and_only_there(coordinator, hospital, client, tmp_path):
    without = json.loads(client("check", "--site", hospital.site, "--sample", 0, "--format", "json").out)
    assert "connection" not in without
    home = coordinator()
    home.fleet = (401, {"code": "not-admitted"})
    folder = site_of(home, tmp_path)
    shutil.copytree(folder.root, hospital.folder, dirs_exist_ok=True)
    done = client("check", "--site", hospital.site, "--sample", 0, "--format", "json")
    found = json.loads(done.out)
    assert found["connection"]["admitted"] is False
    assert "not-admitted" in [problem["code"] for problem in found["problems"]] and done.code == 6
    assert f"localhost:{home.port}" in client("check", "--site", hospital.site, "--sample", 0).out
