"""What ``check`` found of the way to the coordinator, as plain lines.

Comes in: the facts of ``client.doctor.connection``. Goes out: text; stations that were not reached are
left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def connection_lines(found: dict[str, Any]) -> Iterator[str]:
    """One line a station."""
    if "server" not in found:
        return
    yield f"server     {found['server']}: {', '.join(found.get('addresses', [])) or 'name not found'}" + (
        f"; reached in {found['connect_ms']:g} ms" if "connect_ms" in found else ""
    )
    yield f"           inbound: {found['inbound']}"
    if "tls" in found:
        yield f"           {found['tls']}, certificate for {_days(found['server_days_left'])}"
    if found.get("clock_ahead_s") is not None:
        ahead_s = found["clock_ahead_s"]
        yield f"           clock {abs(ahead_s):g} s {'ahead of' if ahead_s > 0 else 'behind'} the server's"
    if "versions" in found:
        here = found["versions"]["here"]
        yield f"           versions here: cardionets {here['cardionets']}, flwr {here['flwr']}"
    if "own_certificate" in found:
        yield f"own key    certificate for {_days(found['own_certificate']['days_left'])}" + (
            "; admitted" if found.get("admitted") else ""
        )


def _days(left: float) -> str:
    return f"{max(left, 0):.0f} more days"
