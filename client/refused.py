"""Says in the SuperNode's log why the coordinator sends it away.

Flower's SuperNode ends "gracefully", and with code 0, as soon as a call is answered with 401: without this,
hospital IT would read nothing of the cause. Stands among the interceptors of Flower's own HTTP client.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import flwr.supernode.fleet_http_connection as connection

UNAUTHORISED = 401
WRONG_CLOCK = "signature-refused"
"""The listener admits the key, and Flower does not take the signature: in practice a clock that is wrong."""
LOG = logging.getLogger("flwr")


class TellRefusal:
    """An interceptor of Flower's client: logs the code of an answer that ends the SuperNode."""

    def intercept(self, context: Any, call_next: Callable[[Any], Any]) -> Any:
        """Pass a call on, and look at the status of its answer."""
        response = call_next(context)
        if response.status_code == UNAUTHORISED:
            LOG.error(
                "REFUSED: the coordinator answers 401 %s; what to do: cardionets-client check",
                refusal_code(response.content),
            )
        return response


def refusal_code(content: bytes) -> str:
    """The code that our listener gives; where it gives none, Flower itself refused the signature."""
    for code in ("not-admitted", "certificate-invalid"):
        if f'"{code}"'.encode() in content:
            return code
    return WRONG_CLOCK


def tell_refusals() -> None:
    """Let the SuperNode of this process tell why it is refused."""
    flower: Any = connection

    class Telling(flower.FleetHttpClient):  # type: ignore[misc, name-defined]
        """Flower's client of the fleet's calls, with one more interceptor, outside of the others."""

        def __init__(self, *positional: Any, interceptors: Any = (), **named: Any) -> None:
            super().__init__(*positional, interceptors=(TellRefusal(), *interceptors), **named)

    flower.FleetHttpClient = Telling
