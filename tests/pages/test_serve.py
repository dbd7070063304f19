"""The loopback server of a page: who gets in, what is told, what is refused."""

from __future__ import annotations

import http.client
import re

import pytest

from cardionets_core.errors import ConfigError, UsageError
from cardionets_core.pages.page import live_policy
from cardionets_core.pages.serve import PageServer, Shown


@pytest.fixture
def told():
    return {"part": "<p>one</p>", "error": None}


@pytest.fixture
def server(told):
    def show() -> Shown:
        if told["error"]:
            raise told["error"]
        return Shown(page=f"<html>{told['part']}</html>", part=told["part"])

    made = PageServer(0, show)
    made.start()
    yield made
    made.stop()


def ask(server, path, method="GET", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    try:
        connection.request(
            method, path, headers={name.replace("_", "-"): value for name, value in headers.items()}
        )
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read().decode()
    finally:
        connection.close()


def cookie_of(server):
    status, headers, _ = ask(server, server.address.partition(str(server.port))[2])
    assert status == 303 and headers["Location"] == "/"
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(headers["Set-Cookie"].split("; "))
    return headers["Set-Cookie"].partition(";")[0]


def test_nobody_gets_in_without_the_token(server):
    for path in ("/", "/part", "/?token=", "/?token=wrong", "/?token=%C3%A9", "/elsewhere"):
        status, _, body = ask(server, path)
        assert status == 403 and "<p>" not in body
    name = cookie_of(server).partition("=")[0]
    assert ask(server, "/", Cookie=f"{name}=wrong")[0] == 403
    assert ask(server, "/", Cookie="\x7f;;=")[0] == 403


def test_the_first_visit_leaves_a_cookie_and_a_clean_address(server, told):
    cookie = cookie_of(server)
    status, headers, body = ask(server, "/", Cookie=cookie)
    assert status == 200 and told["part"] in body
    assert re.fullmatch(r"[\w-]{32}", cookie.partition("=")[2])
    assert ask(server, "/elsewhere", Cookie=cookie)[0] == 404
    for name, value in {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff",
                        "Referrer-Policy": "no-referrer"}.items():  # fmt: skip
        assert headers[name] == value
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert "Access-Control-Allow-Origin" not in headers


def test_a_part_comes_again_only_when_it_changed(server, told):
    cookie = cookie_of(server)
    status, headers, body = ask(server, "/part", Cookie=cookie)
    assert (status, body) == (200, told["part"])
    assert ask(server, "/part", Cookie=cookie, If_None_Match=headers["ETag"])[::2] == (304, "")
    told["part"] = "<p>two</p>"
    server._made = None
    assert ask(server, "/part", Cookie=cookie, If_None_Match=headers["ETag"])[::2] == (200, "<p>two</p>")


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", ""])
def test_another_name_of_this_machine_is_refused(server, host):
    assert ask(server, "/", Host=host, Cookie=cookie_of(server))[0] == 421


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "NONSENSE"])
def test_it_is_read_only(server, method):
    status, headers, body = ask(server, "/", method=method, Cookie=cookie_of(server))
    assert (status, headers["Allow"]) == (405, "GET, HEAD")
    assert "<" not in body


def test_head_has_the_headers_alone(server):
    status, headers, body = ask(server, "/", method="HEAD", Cookie=cookie_of(server))
    assert status == 200 and int(headers["Content-Length"]) > 0 and body == ""


def test_a_page_that_cannot_be_made_says_why(server, told):
    cookie = cookie_of(server)
    told["error"] = ConfigError("torn", where="server.yaml", remedy="mend it")
    status, headers, body = ask(server, "/part", Cookie=cookie)
    assert status == 503 and "torn" in body and headers["Content-Type"].startswith("text/plain")


def test_two_starts_have_two_tokens_and_a_taken_port_is_told(server):
    other = PageServer(0, lambda: Shown(page="", part=""))
    assert other.address.partition("=")[2] != server.address.partition("=")[2]
    other.stop()
    with pytest.raises(UsageError, match="cannot be served on port"):
        PageServer(server.port, lambda: Shown(page="", part=""))


def test_the_policy_names_no_other_host():
    policy = live_policy()
    assert "default-src 'none'" in policy and "connect-src 'self'" in policy
    assert "http" not in policy and "'unsafe-eval'" not in policy
    assert re.search(r"script-src 'sha256-[A-Za-z0-9+/]{43}='", policy)
