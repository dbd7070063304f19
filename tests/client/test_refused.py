"""What hospital IT reads in the SuperNode's log when the coordinator sends it away."""

import http.server
import logging
import threading

import httpx
import pytest
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.supernode import fleet_http_connection as connection

from client.refused import refusal_code, tell_refusals
from client.standing import TELLING


@pytest.fixture
def coordinator():
    """Answers every call with the status and body that a test sets."""

    class Handler(http.server.BaseHTTPRequestHandler):
        status, body = 200, b""

        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(self.status)
            self.send_header("content-length", str(len(self.body)))
            self.end_headers()
            self.wfile.write(self.body)

        def log_message(self, *arguments):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Handler, f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    "status, body, said",
    [
        (401, b'{"code": "not-admitted"}', "not-admitted"),
        (401, b'{"code": "certificate-invalid"}', "certificate-invalid"),
        (401, b"Unauthorized", "signature-refused"),
        (503, b'{"code": "not-admitted"}', None),
        (200, b"", None),
    ],
)
def test_the_code_of_a_refusal_is_logged(coordinator, monkeypatch, caplog, status, body, said):
    handler, address = coordinator
    handler.status, handler.body = status, body
    monkeypatch.setattr(connection, "FleetHttpClient", connection.FleetHttpClient)
    tell_refusals()
    monkeypatch.setattr(logging.getLogger("flwr"), "propagate", True)
    with connection.FleetHttpClient.from_server_address(address, True, None, interceptors=[]) as client:
        if status == 200:
            client.SendNodeHeartbeat(SendNodeHeartbeatRequest())
        else:
            with pytest.raises(httpx.HTTPStatusError):
                client.SendNodeHeartbeat(SendNodeHeartbeatRequest())
    lines = [record.getMessage() for record in caplog.records if "REFUSED" in record.getMessage()]
    assert len(lines) == (said is not None)
    if said:
        assert said in lines[0] and "cardionets-client check" in lines[0]
        assert any(mark in lines[0] for mark, _ in TELLING)


def test_every_code_that_is_told_has_a_meaning_in_the_status():
    marks = {mark for mark, _ in TELLING}
    assert {refusal_code(b""), refusal_code(b'"not-admitted"')} <= marks
