"""The health page: ``GET /health`` on loopback says as JSON how the service is, 200 if well, else 503."""

from __future__ import annotations

import http.client
import http.server
import json
import socket
import threading
from collections.abc import Callable
from typing import Any

from cardionets_core.errors import UsageError
from cardionets_core.plain_json import parse_json

LOOPBACK = "127.0.0.1"
MOST_BYTES = 1_000_000
"""Of an answer that is read."""


def require_free(host: str, port: int, *, key: str) -> None:
    """Make sure that a process can listen here, before it is started and says so among other words.

    Args:
        host: address to listen on.
        port: of it.
        key: of the document that names the port.

    Raises:
        UsageError: the port is taken, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UsageError(
                f"cannot listen on {host} port {port}: {error.strerror or error}",
                where=key,
                remedy=f"end what uses it (`ss -ltnp` shows it), or change {key}",
            ) from error


class HealthPage:
    """Serves the page from a thread.

    Args:
        port: on loopback; 0 takes any that is free.
        describe: gives what the page says; ``status`` is ``ok`` if all is well.

    Raises:
        UsageError: the port is taken.
    """

    def __init__(self, port: int, describe: Callable[[], dict[str, Any]]) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                content = describe() if self.path == "/health" else {"status": "not-found"}
                body = (json.dumps(content, sort_keys=True) + "\n").encode()
                self.send_response({"ok": 200, "not-found": 404}.get(str(content["status"]), 503))
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *arguments: Any) -> None:
                """Nothing: a look at the health is no event."""

        try:
            self._server = http.server.ThreadingHTTPServer((LOOPBACK, port), Handler)
        except OSError as error:
            raise UsageError(
                f"the health port {port} cannot be used: {error.strerror}",
                where="health_port",
                remedy="end what uses it, or choose another health_port",
            ) from error
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def port(self) -> int:
        """The port that is served."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Serve from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Serve no longer."""
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()


def ask_health(port: int, *, timeout_s: float = 3.0) -> dict[str, Any] | None:
    """What the health page on this machine says, or None where nobody answers."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=timeout_s)
    try:
        connection.request("GET", "/health")
        content = parse_json(connection.getresponse().read(MOST_BYTES), finite=False)
    except (OSError, ValueError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return content if isinstance(content, dict) else None
