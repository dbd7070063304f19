"""Which node is which site, what it holds, and what it told of itself."""

from __future__ import annotations

import json
from typing import Any

from cardionets_core.errors import ReplyRefusedError
from cardionets_core.exchange.messages import Order
from server.rounds import Answer

COUNTED = ("patients", "recordings", "refusals")


class Members:
    """The sites of a running study."""

    def __init__(self) -> None:
        self._site_of: dict[int, str] = {}
        self._holds: dict[int, set[str]] = {}
        self.facts: dict[str, dict[str, Any]] = {}

    def enrol(self, answer: Answer, order: Order, *, task: str) -> tuple[str, str]:
        """Take a census answer.

        A node is bound to the first name that it gives; a name that another node holds, or a changed one, is
        refused.

        Args:
            answer: what came back.
            order: the census order.
            task: of the phase that the census asks about.

        Returns:
            The site's name and the code for which it sits out; empty if it takes part.
        """
        site, code, facts = self._read(answer, order)
        known = self.facts.setdefault(site, {"site": site, "phases": {}})
        known.update({key: facts[key] for key in COUNTED if isinstance(facts.get(key), dict)})
        known["phases"][task] = code or "serves"
        known["role"] = "external" if facts.get("role") == "external" else "member"
        if not code:
            self._holds[answer.node] = {str(digest) for digest in facts.get("holds", [])}
        return site, code

    def site(self, node: int) -> str:
        """The site's name, or a made-up one for a node that never gave any."""
        return self._site_of.get(node, f"node-{node}")

    def is_external(self, node: int) -> bool:
        """Whether the site measures models and trains none, by its own word."""
        return self.facts.get(self.site(node), {}).get("role") == "external"

    def holds(self, node: int) -> set[str]:
        """Digests of the frozen modules that lie on the site; may be changed by the caller."""
        return self._holds.setdefault(node, set())

    def _read(self, answer: Answer, order: Order) -> tuple[str, str, dict[str, Any]]:
        if answer.reply is None:
            return self.site(answer.node), answer.code, {}
        site = answer.reply.site
        taken = any(name == site for node, name in self._site_of.items() if node != answer.node)
        renamed = self._site_of.get(answer.node, site) != site
        foreign = not answer.reply.code and answer.reply.name != order.name
        if taken or renamed or foreign or not _is_site_name(site):
            return self.site(answer.node), ReplyRefusedError.code, {}
        self._site_of[answer.node] = site
        try:
            facts = json.loads(answer.reply.facts or "{}")
        except ValueError:
            return site, ReplyRefusedError.code, {}
        return site, answer.reply.code, facts if isinstance(facts, dict) else {}


def _is_site_name(name: str) -> bool:
    return 0 < len(name) <= 63 and name.isascii() and name.replace("-", "").isalnum() and name == name.lower()
