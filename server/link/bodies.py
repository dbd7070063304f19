"""Bodies of calls in one piece, and only a few pieces of tensors in memory at a time.

Comes in: an ASGI application and its calls, whose bodies arrive in hundreds of parts. Flower's application
hands each part through every layer of its own; in one piece a body passes them once. A piece of a tensor is
held several times over while it is worked on, so only some are let in at once; those that wait for it or for
their caller lie on a shelf, and memory does not grow with the sites. Whoever is slow to send or to receive
holds no place.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable

from server.link.guard import App, Message, Receive, Scope, Send
from server.link.shelf import Body, Shelf

AT_WORK = 4
SWEEP_AFTER = 4
TENSORS = ("/push-object", "/pull-object")


class WholeBodies:
    """An application around another.

    Args:
        app: the other.
        shelf: for bodies that wait.
        at_work: pieces of tensors that are worked on at once.
    """

    def __init__(self, app: App, *, shelf: Shelf, at_work: int = AT_WORK) -> None:
        self._app, self._shelf = app, shelf
        self._places = asyncio.Semaphore(at_work)
        self._leftovers = Leftovers()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the body, wait for a place where one is needed, pass the call on, and the answer back.

        Raises:
            OSError: the disk is full; nothing was answered so far.
        """
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif str(scope["path"]).endswith(TENSORS):
            await self._tensors(scope, receive, send)
        else:
            parts: list[bytes] = []
            if await _read(receive, parts.append):
                await self._app(scope, _Once(b"".join(parts), receive), send)

    async def _tensors(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._shelf.body() as asked:
            if not await _read(receive, asked.add):
                return
            async with self._places:
                with self._leftovers:
                    answer = await self._answer(scope, _Once(asked.take(), receive))
        if answer is None:
            return
        start, body = answer
        with body:
            await send(start)
            for piece in body.slices():
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b""})

    async def _answer(self, scope: Scope, whole: _Once) -> tuple[Message, Body] | None:
        """What the application answers; nothing of it has been sent."""
        starts: list[Message] = []
        body = self._shelf.body()

        async def kept(message: Message) -> None:
            if message["type"] == "http.response.start":
                starts.append(message)
            elif message["type"] == "http.response.body":
                body.add(message.get("body", b""))

        try:
            await self._app(scope, whole, kept)
        except BaseException:
            body.close()
            raise
        if not starts:
            body.close()
            return None
        return starts[0], body


class Leftovers:
    """What calls leave behind is swept up every few calls; a context around each of them.

    The layers of the application cancel tasks of their own at the end of a call. The tracebacks of that hold
    each other and the call's body, until Python next looks for such cycles; it goes by the number of objects,
    not by their size. What lives when the first calls are through lives as long as the process, and is not
    looked at again.

    Args:
        after: calls between two sweeps.
    """

    def __init__(self, after: int = SWEEP_AFTER) -> None:
        self._after, self._calls, self._inside, self._settled = after, 0, 0, False

    def __enter__(self) -> None:
        self._inside += 1

    def __exit__(self, *of: object) -> None:
        self._inside -= 1
        self._calls += 1
        if not self._settled and not self._inside:
            self._settled = True
            settle()
        elif self._calls % self._after == 0:
            gc.collect()


def settle() -> None:
    """Let Python's search for cycles pass by all that there is now."""
    gc.collect()
    gc.freeze()


async def _read(receive: Receive, take: Callable[[bytes], None]) -> bool:
    """Give the parts of a body to ``take``; False if the caller has gone."""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return False
        take(message.get("body", b""))
        if not message.get("more_body", False):
            return True


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
