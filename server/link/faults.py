"""A fault inside the SuperLink is one that passes: whoever called is asked to come again.

Comes in: an ASGI application. Goes out: the same, with 503 where it would answer 500. Flower's nodes and
programs call again after a 503; at a 500 they end, and a disk of the coordinator that is full for a minute
would cost every site its SuperNode.
"""

from __future__ import annotations

import logging

from server.link.guard import App, Message, Receive, Scope, Send

FAILED, COME_AGAIN = 500, 503
LOG = logging.getLogger("flwr")


class ComeAgain:
    """An application around another, whose faults it turns into 503.

    Args:
        app: the other.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a call on; a fault is told in one line of the log."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answered = False

        async def judged(message: Message) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                answered = True
                if message["status"] == FAILED:
                    message = {**message, "status": COME_AGAIN}
            await send(message)

        try:
            await self._app(scope, receive, judged)
        except Exception as error:  # whatever it is: Flower has answered it, and raises it once more
            LOG.error("%s failed: %s: %s", scope["path"], type(error).__name__, str(error).partition("\n")[0])
            LOG.debug("the fault in full", exc_info=True)
            if not answered:
                await send({"type": "http.response.start", "status": COME_AGAIN, "headers": []})
                await send({"type": "http.response.body", "body": b""})
