"""Which node is which site, what it holds, and what it told of itself."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from cardionets_core.config.workspace import SITE_NAME
from cardionets_core.errors import DisclosureRefusedError, ReplyRefusedError
from cardionets_core.exchange.messages import Order, Reply
from cardionets_core.plain_json import parse_json
from cardionets_core.privacy.census import COUNTED, told_census
from server.rounds import Answer

Check = Callable[[Reply, Order, str], None]
TOLD = (*COUNTED, "role", "versions")


class Members:
    """The sites of a running study.

    A node whose registration names it is that site, and may speak under no other name. In simulation nodes
    have no names: there a node is bound to the first name that it gives.
    """

    def __init__(self) -> None:
        self._site_of: dict[int, str] = {}
        self._node_of: dict[str, int] = {}
        self._registered: dict[int, str] = {}
        self._holds: dict[int, set[str]] = {}
        self.facts: dict[str, dict[str, Any]] = {}

    def connect(self, nodes: Mapping[int, str]) -> None:
        """Take notice of the nodes that are connected now.

        A registered name goes over to a new node once its old node is gone.

        Args:
            nodes: number to registered name, or ``""``.
        """
        for node, name in sorted(nodes.items()):
            if not name:
                continue
            self._registered[node] = name
            holder = self._node_of.get(name)
            if is_site_name(name) and (holder is None or holder == node or holder not in nodes):
                self._site_of[node] = name
                self._node_of[name] = node

    def enrol(
        self, answer: Answer, order: Order, *, task: str, check: Check = lambda reply, order, site: None
    ) -> tuple[str, str, str]:
        """Take a census answer.

        Args:
            answer: what came back.
            order: the census order.
            task: of the phase that the census asks about.
            check: of a reply under its site's name; raises ``ReplyRefusedError``.

        Returns:
            The site's name, the code for which it sits out (empty if it takes part), and a reason if the
            reply was refused.
        """
        site, code, reason, facts = self._read(answer, order, check)
        known = self.facts.setdefault(site, {"site": site, "phases": {}, "role": "member"})
        known.update({key: facts[key] for key in TOLD if key in facts})
        known["phases"][task] = code or "serves"
        if not code:
            self._holds[answer.node] = set(facts.get("holds", []))
        return site, code, reason

    def site(self, node: int) -> str:
        """The site's name, or a made-up one for a node that has none yet."""
        return self._site_of.get(node, f"node-{node}")

    def node(self, site: str) -> int | None:
        """The node that is a site now, or None."""
        return self._node_of.get(site)

    def is_external(self, node: int) -> bool:
        """Whether the site measures models and trains none, by its own word."""
        return self.facts.get(self.site(node), {}).get("role") == "external"

    def holds(self, node: int) -> set[str]:
        """Digests of the modules that lie on the site; may be changed by the caller."""
        return self._holds.setdefault(node, set())

    def _read(self, answer: Answer, order: Order, check: Check) -> tuple[str, str, str, dict[str, Any]]:
        if answer.reply is None:
            return self.site(answer.node), answer.code, "", {}
        reason = self._fault(answer, order)
        if reason:
            return self.site(answer.node), ReplyRefusedError.code, reason, {}
        site = answer.reply.site
        try:
            check(answer.reply, order, site)
        except ReplyRefusedError as error:
            return self.site(answer.node), error.code, error.what, {}
        self._site_of[answer.node] = site
        self._node_of[site] = answer.node
        try:
            # What a site may tell of itself by its own gate's rules; anything else would enter our reports.
            parse_json(answer.reply.facts or "{}")
            facts = json.loads(told_census(answer.reply.facts or "{}", sizes=True, multiple=1))
        except (ValueError, DisclosureRefusedError):
            return site, ReplyRefusedError.code, "its facts are none that a site tells", {}
        return site, answer.reply.code, "", facts

    def _fault(self, answer: Answer, order: Order) -> str:
        """Why a census reply is refused, or an empty text."""
        reply, node = answer.reply, answer.node
        if reply is None or not is_site_name(reply.site):
            return "it gave no name that a site can have"
        registered = self._registered.get(node, "")
        if registered and self._site_of.get(node) != registered:
            return f"another node is connected as {registered}, or that is no name for a site"
        if self._site_of.get(node, reply.site) != reply.site:
            return "it spoke under another name than the one it is known by"
        if self._node_of.get(reply.site, node) != node:
            return "it spoke under another site's name"
        if not reply.code and reply.name != order.name:
            return "it answered another round or study"
        return ""


def is_site_name(name: str) -> bool:
    """Whether a text can be the name of a site; ``pooled`` stands beside sites in reports and is none."""
    return name != "pooled" and re.fullmatch(SITE_NAME, name) is not None
