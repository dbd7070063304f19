"""What a site can reach: health, and the calls that its SuperNode makes. All else is refused at the door.

Flower's control API has no authentication: whoever reaches it can run code at every hospital. So the outer
listener passes a list of paths, and of those who call them only the keys of admitted sites. An ASGI
application around Flower's own; it reads headers, never bodies.
"""

from __future__ import annotations

import base64
import binascii
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

HEARTBEAT = "/v1/fleet/send-node-heartbeat"
# All that a SuperNode with a registered key calls; registering itself is not among it.
FLEET = frozenset(
    {
        "/v1/fleet/activate-node",
        "/v1/fleet/deactivate-node",
        HEARTBEAT,
        "/v1/fleet/pull-messages",
        "/v1/fleet/push-messages",
        "/v1/fleet/get-run",
        "/v1/fleet/get-fab",
        "/v1/fleet/push-object",
        "/v1/fleet/pull-object",
        "/v1/fleet/confirm-message-received",
    }
)
KEY_HEADER = b"flwr-public-key"
MAXIMUM_BODY_BYTES = 64 * 1024 * 1024

Admission = Callable[[bytes], tuple[str, str]]
"""From a public key as Flower sends it to the site's name and a code; the code is empty if it may come in."""


class Guard:
    """The outer listener's application.

    Args:
        app: Flower's.
        admission: judges a public key.
        versions: what the health page names.
        seen: told (site, path, unix time) after each accepted call.
    """

    def __init__(
        self,
        app: App,
        *,
        admission: Admission,
        versions: dict[str, str],
        seen: Callable[[str, str, float], None] = lambda site, path, when_s: None,
    ) -> None:
        self._app = app
        self._admission = admission
        self._versions = versions
        self._seen = seen

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a call on, or refuse it."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
        elif scope["path"] == "/health" and scope["method"] in ("GET", "HEAD"):
            await _answer(send, 200, {"status": "ok", **self._versions})
        elif scope["path"] not in FLEET or scope["method"] != "POST":
            await _answer(send, 403, {"code": "forbidden"})
        elif _length(scope) > MAXIMUM_BODY_BYTES:
            await _answer(send, 413, {"code": "too-large"})
        else:
            await self._fleet(scope, receive, send)

    async def _fleet(self, scope: Scope, receive: Receive, send: Send) -> None:
        site, code = self._admission(_key(scope))
        if code:
            await _answer(send, 401, {"code": code})
            return

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 200:
                self._seen(site, scope["path"], time.time())
            await send(message)

        await self._app(scope, receive, watched)


def _key(scope: Scope) -> bytes:
    """The caller's public key; empty where there is none that can be read."""
    for name, value in scope["headers"]:
        if name == KEY_HEADER:
            try:
                return base64.b64decode(value, validate=True)
            except (binascii.Error, ValueError):
                return b""
    return b""


def _length(scope: Scope) -> int:
    """The announced length of the body; more than is allowed where it is not announced."""
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() else MAXIMUM_BODY_BYTES + 1
    return MAXIMUM_BODY_BYTES + 1


async def _answer(send: Send, status: int, content: dict[str, str]) -> None:
    body = (json.dumps(content, sort_keys=True) + "\n").encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _lifespan(receive: Receive, send: Send) -> None:
    """The inner listener owns the start and the end of Flower's application."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
