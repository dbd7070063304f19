"""Bodies of calls in one piece, and only a few pieces of tensors at work at a time.

Comes in: an ASGI application and its calls, whose bodies arrive in hundreds of parts. Flower's application
hands each part through every layer of its own; in one piece a body passes them once. A piece of a tensor is
held several times over while it is worked on, so only some are let in at once, and memory does not grow with
the sites. Whoever is slow to send or to receive holds no place.
"""

from __future__ import annotations

import asyncio

from server.link.guard import App, Message, Receive, Scope, Send

AT_WORK = 4
TENSORS = ("/push-object", "/pull-object")


class WholeBodies:
    """An application around another.

    Args:
        app: the other.
        at_work: pieces of tensors that are worked on at once.
    """

    def __init__(self, app: App, *, at_work: int = AT_WORK) -> None:
        self._app = app
        self._places = asyncio.Semaphore(at_work)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the body, wait for a place where one is needed, pass the call on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        parts: list[bytes] = []
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return  # the caller has gone
            parts.append(message.get("body", b""))
            if not message.get("more_body", False):
                break
        whole = _Once(b"".join(parts), receive)
        parts.clear()
        if not str(scope["path"]).endswith(TENSORS):
            await self._app(scope, whole, send)
            return
        place = _Place(self._places)
        await self._places.acquire()
        try:

            async def watched(message: Message) -> None:
                if message["type"] == "http.response.body":
                    place.leave()
                await send(message)

            await self._app(scope, whole, watched)
        finally:
            place.leave()


class _Once:
    """Gives the body once, then what the caller does next."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Message:
        body, self._body = self._body, None
        if body is None:
            return await self._receive()
        return {"type": "http.request", "body": body, "more_body": False}


class _Place:
    """A place that is left once, however often it is said."""

    def __init__(self, places: asyncio.Semaphore) -> None:
        self._places: asyncio.Semaphore | None = places

    def leave(self) -> None:
        places, self._places = self._places, None
        if places is not None:
            places.release()
