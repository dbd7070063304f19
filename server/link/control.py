"""Flower's own command line, asked as JSON: runs, nodes, keys. Its exit code alone is not trusted."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cardionets_core.config.workspace import Workspace
from cardionets_core.errors import ServiceDownError
from server.link.places import CONNECTION, flower_environment

TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A registered SuperNode.

    Attributes:
        node_id: Flower's number, as text.
        status: ``registered``, ``online``, ``offline`` or ``unregistered``.
    """

    node_id: str
    status: str


class Control:
    """The inner side of a running SuperLink.

    Args:
        workspace: whose SuperLink it is.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def submit(self, app: Path, config: Mapping[str, str | int | bool]) -> str:
        """Start a run of an app folder; returns Flower's number of the run.

        Raises:
            ServiceDownError: the SuperLink does not answer or refuses.
        """
        overrides = " ".join(f"{key}={_toml(value)}" for key, value in config.items())
        found = self._ask("run", str(app), CONNECTION, "--run-config", overrides)
        return str(found["run-id"])

    def run_status(self, run_id: str) -> str:
        """``pending``, ``starting``, ``running``, ``finished:completed``, ``finished:failed`` and the like.

        ``unknown`` where the SuperLink does not know the run.
        """
        try:
            found = self._ask("list", CONNECTION, "--run-id", run_id)
        except ServiceDownError as error:
            if "not found" in error.what.lower() or "not exist" in error.what.lower():
                return "unknown"
            raise
        runs = [run for run in found.get("runs", []) if str(run.get("run-id")) == run_id]
        return str(runs[0]["status"]) if runs else "unknown"

    def stop(self, run_id: str) -> None:
        """End a run."""
        self._ask("stop", run_id, CONNECTION)

    def register(self, public_key: Path, *, name: str) -> str:
        """Register a site's key; returns the node's number."""
        found = self._ask("supernode", "register", str(public_key), CONNECTION, "--name", name)
        return str(found["node-id"])

    def unregister(self, node_id: str) -> None:
        """Forget a site's key; its next call is refused."""
        self._ask("supernode", "unregister", node_id, CONNECTION)

    def nodes(self) -> list[Node]:
        """All nodes that were ever registered."""
        found = self._ask("supernode", "list", CONNECTION, "--verbose")
        return [
            Node(node_id=str(node["node-id"]), status=str(node["status"])) for node in found.get("nodes", [])
        ]

    def _ask(self, *arguments: str) -> dict[str, Any]:
        command: Sequence[str] = [
            str(Path(sys.executable).with_name("flwr")), *arguments, "--format", "json"
        ]  # fmt: skip
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
                env=flower_environment(self._workspace), stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise _down(arguments, f"no answer within {TIMEOUT_S:.0f} s") from None
        try:
            found = json.loads(done.stdout[done.stdout.index("{") :])
        except ValueError:
            raise _down(arguments, (done.stderr or done.stdout).strip()[-500:]) from None
        if not found.get("success", False):
            raise _down(arguments, str(found.get("error-message", found)))
        return dict(found)


def _down(arguments: Sequence[str], what: str) -> ServiceDownError:
    return ServiceDownError(
        f"the SuperLink did not do `{' '.join(arguments[:2])}`: {what}",
        where="flwr " + " ".join(arguments[:2]),
        remedy="start it with `cardionets-server start`, and look at logs/superlink.log",
    )


def _toml(value: str | int | bool) -> str:
    return json.dumps(value)
