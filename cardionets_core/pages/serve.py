"""Serves one page on this machine, to whoever has its token: read only, on loopback, bounded.

Comes in: a function that makes the page. Goes out: the page at ``/``, and its main part at ``/part`` with an
ETag, so that the page's script puts in a new one only where something changed. The token is made anew at each
start; the first visit with it leaves a cookie, and the address is clean from then on. A request under another
host's name is refused, so that no foreign page can reach it through DNS.
"""

from __future__ import annotations

import hashlib
import http.cookies
import http.server
import secrets
import threading
import time
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cardionets_core.errors import CardioNetsError, UsageError
from cardionets_core.pages.page import live_policy

LOOPBACK = "127.0.0.1"
MOST_AT_ONCE = 16
PATIENCE_S = 10.0
"""For a client that sends its request slowly."""
FRESH_S = 1.0
"""A page is not made more often than that, however many look."""
PLAIN = "text/plain; charset=utf-8"
HTML = "text/html; charset=utf-8"
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What is served.

    Attributes:
        page: the whole page.
        part: what its ``main`` holds.
    """

    page: str
    part: str

    @property
    def etag(self) -> str:
        """Changes with the part."""
        return f'"{hashlib.sha256(self.part.encode()).hexdigest()[:32]}"'


class PageServer:
    """Serves a page from threads of its own.

    Args:
        port: on loopback; 0 takes any that is free.
        show: makes the page; may raise a ``CardioNetsError``, which visitors are told.

    Raises:
        UsageError: the port is taken.
    """

    def __init__(self, port: int, show: Callable[[], Shown]) -> None:
        self._show = show
        self._lock = threading.Lock()
        self._made: tuple[float, Shown] | None = None
        self._token = secrets.token_urlsafe(24)
        self._room = threading.BoundedSemaphore(MOST_AT_ONCE)
        try:
            self._server = http.server.ThreadingHTTPServer((LOOPBACK, port), self._handler())
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise UsageError(
                f"the page cannot be served on port {port}: {reason}",
                where="--port",
                remedy="end what uses it, or leave --port out: a free one is taken",
            ) from error
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def port(self) -> int:
        """The port that is served."""
        return int(self._server.server_address[1])

    @property
    def address(self) -> str:
        """What a browser opens; it holds the token."""
        return f"http://{LOOPBACK}:{self.port}/?token={self._token}"

    def start(self) -> None:
        """Serve from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Serve no longer."""
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str, *, host: str, cookie: str, etag: str) -> tuple[int, dict[str, str], str]:
        """Status, headers and body for one request.

        Args:
            path: as asked for.
            host: of the ``Host`` header.
            cookie: of the ``Cookie`` header.
            etag: of ``If-None-Match``.
        """
        if host not in (f"{LOOPBACK}:{self.port}", f"localhost:{self.port}"):
            return 421, {"Content-Type": PLAIN}, "This page is served under 127.0.0.1 only.\n"
        asked = urllib.parse.urlsplit(path)
        if asked.path not in ("/", "/part"):
            known = self._has_cookie(cookie)
            return (404 if known else 403), {"Content-Type": PLAIN}, "There is no such page.\n"
        given = urllib.parse.parse_qs(asked.query, max_num_fields=4).get("token", [])
        if asked.path == "/" and given and self._is_token(given[-1]):
            # A token in the address would stay in the history of the browser.
            kept = f"{self._cookie}={self._token}; HttpOnly; SameSite=Strict; Path=/"
            return 303, {"Location": "/", "Set-Cookie": kept, "Content-Type": PLAIN}, ""
        if not self._has_cookie(cookie):
            text = "This page is open only to whoever has the address that its program told, token and all.\n"
            return 403, {"Content-Type": PLAIN}, text
        return self._shown(asked.path, etag)

    def _shown(self, path: str, etag: str) -> tuple[int, dict[str, str], str]:
        try:
            shown = self._fresh()
        except CardioNetsError as error:
            return 503, {"Content-Type": PLAIN, "Retry-After": "2"}, f"{error}\n"
        if path == "/":
            return 200, {"Content-Type": HTML}, shown.page
        if etag == shown.etag:
            return 304, {"ETag": shown.etag}, ""
        return 200, {"Content-Type": HTML, "ETag": shown.etag}, shown.part

    def _fresh(self) -> Shown:
        with self._lock:
            if self._made is None or time.monotonic() - self._made[0] > FRESH_S:
                self._made = (time.monotonic(), self._show())
            return self._made[1]

    @property
    def _cookie(self) -> str:
        # Cookies of one machine are shared by all its ports.
        return f"cardionets-{self.port}"

    def _has_cookie(self, header: str) -> bool:
        try:
            found = http.cookies.SimpleCookie(header).get(self._cookie)
        except http.cookies.CookieError:
            return False
        return found is not None and self._is_token(found.value)

    def _is_token(self, given: str) -> bool:
        return secrets.compare_digest(given.encode("utf-8", "replace"), self._token.encode())

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        page = self

        class Handler(http.server.BaseHTTPRequestHandler):
            timeout = PATIENCE_S

            def handle(self) -> None:
                if not page._room.acquire(blocking=False):
                    return
                try:
                    super().handle()
                except (ConnectionError, TimeoutError):
                    pass  # the visitor has gone
                finally:
                    page._room.release()

            def do_GET(self) -> None:
                try:
                    found = page.answer(
                        self.path,
                        host=self.headers.get("Host", ""),
                        cookie=self.headers.get("Cookie", ""),
                        etag=self.headers.get("If-None-Match", ""),
                    )
                except ValueError:
                    found = 400, {"Content-Type": PLAIN}, "This is no address.\n"
                self._send(*found)

            do_HEAD = do_GET

            def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
                # Of http.server: a method that is not known here, or a request that is none.
                status = 405 if code == 501 else code
                allowed = {"Allow": "GET, HEAD"} if status == 405 else {}
                self._send(status, {"Content-Type": PLAIN, **allowed}, "This page is read only.\n")

            def _send(self, status: int, headers: dict[str, str], body: str) -> None:
                content = body.encode()
                self.send_response(status)
                policy = f"{live_policy()}; frame-ancestors 'none'"
                for name, value in {**_HEADERS, "Content-Security-Policy": policy, **headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if getattr(self, "command", "") != "HEAD" and content:
                    self.wfile.write(content)

            def version_string(self) -> str:
                return "cardionets"

            def log_message(self, format: str, *arguments: Any) -> None:
                """Nothing: the token would stand in a log."""

        return Handler
