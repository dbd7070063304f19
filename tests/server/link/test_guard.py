"""What the outer listener passes, and what it refuses: by path, method, length and key."""

import asyncio
import base64
import json

import pytest
from flwr.superlink.routers.fleet.router import router as fleet_router

from server.link.guard import FLEET, HEARTBEAT, MAXIMUM_BODY_BYTES, Guard


class Call:
    """One call of the guard around an application that only notes that it was reached."""

    def __init__(self, path, *, method="POST", headers=(), status=200, kind="http"):
        self.reached, self.sent, self.seen = False, [], []
        self._status = status
        guard = Guard(
            self._app,
            admission=lambda key: {
                b"good": ("alpha", ""),
                b"old": ("beta", "certificate-invalid"),
            }.get(key, ("", "not-admitted")),
            versions={"cardionets": "1"},
            seen=lambda site, path, when_s: self.seen.append((site, path)),
        )
        scope = {"type": kind, "path": path, "method": method, "headers": list(headers)}
        asyncio.run(guard(scope, self._receive, self._send))

    async def _app(self, scope, receive, send):
        self.reached = True
        await send({"type": "http.response.start", "status": self._status, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    async def _receive(self):
        return {"type": "http.request", "body": b""}

    async def _send(self, message):
        self.sent.append(message)

    @property
    def status(self):
        return self.sent[0]["status"]

    @property
    def body(self):
        return json.loads(self.sent[1]["body"])


def key(name):
    return (b"flwr-public-key", base64.b64encode(name))


LENGTH = (b"content-length", b"10")


def test_a_site_reaches_the_calls_of_its_supernode_and_is_noted():
    for path in FLEET:
        call = Call(path, headers=[key(b"good"), LENGTH])
        assert call.reached and call.seen == [("alpha", path)]


def test_the_calls_that_are_passed_are_flowers_but_for_registering():
    routes = {route.path for route in fleet_router.routes}
    assert routes - FLEET == {"/v1/fleet/register-node", "/v1/fleet/unregister-node"}
    assert routes >= FLEET


@pytest.mark.parametrize(
    "path",
    [
        "/v1/control/start-run",
        "/v1/control/list-nodes",
        "/v1/runtime/acquire-task",
        "/v1/fleet/register-node",
        "/v1/fleet/unregister-node",
        "/v1/fleet/pull-messages/",
        "/v1/fleet/../control/list-runs",
        "//v1/fleet/pull-messages",
        "/docs",
        "/openapi.json",
        "/",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
def test_everything_else_is_refused_even_with_an_admitted_key(path, method):
    call = Call(path, method=method, headers=[key(b"good"), LENGTH])
    assert not call.reached and call.status == 403 and call.body == {"code": "forbidden"}


def test_a_fleet_path_is_passed_for_post_alone():
    assert Call(HEARTBEAT, method="GET", headers=[key(b"good"), LENGTH]).status == 403


@pytest.mark.parametrize(
    "headers, code",
    [
        ([], "not-admitted"),
        ([key(b"unknown")], "not-admitted"),
        ([(b"flwr-public-key", b"%%%")], "not-admitted"),
        ([key(b"old")], "certificate-invalid"),
    ],
)
def test_a_key_that_is_not_admitted_gets_a_code_and_no_further(headers, code):
    call = Call(HEARTBEAT, headers=[*headers, LENGTH])
    assert (call.reached, call.status, call.body, call.seen) == (False, 401, {"code": code}, [])


@pytest.mark.parametrize("length", [[], [b"x"], [str(MAXIMUM_BODY_BYTES + 1).encode()]])
def test_a_body_that_is_too_large_or_of_unknown_length_is_refused(length):
    headers = [key(b"good"), *((b"content-length", value) for value in length)]
    call = Call(HEARTBEAT, headers=headers)
    assert not call.reached and call.status == 413


def test_health_names_versions_and_needs_no_key():
    call = Call("/health", method="GET")
    assert (call.status, call.body) == (200, {"status": "ok", "cardionets": "1"})
    assert not call.reached


def test_a_call_that_flower_refuses_is_no_sign_of_life():
    assert Call(HEARTBEAT, headers=[key(b"good"), LENGTH], status=401).seen == []


def test_a_websocket_is_closed():
    call = Call(HEARTBEAT, kind="websocket")
    assert call.sent == [{"type": "websocket.close", "code": 1008}] and not call.reached
