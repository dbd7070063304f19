"""The site's SuperNode: Flower's own, which hands no code on that IT has not approved (before row 0).

    python -P -m client.supernode [--approvals DIR] [--poll SECONDS] [--starter DIR] ...of flower-supernode...

Runs from the site's installed code, in a process of its own: what is judged here is bytes, none of which is
imported or unpacked before. Flower's ``--trusted-entities`` does the refusing, with its code INVALID_FAB;
this module gives it a signature for approved bundles and none for others, which wait in ``pending``.
All names of Flower that are not public stand here and in refused.py; a test names the version they are of.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from cardionets_core.errors import CardioNetsError, CodeNotApprovedError, ConfigError, UsageError
from client.approvals import ApprovalStore
from client.approvals.signing import TRUSTED, approval_key, vouch
from client.approvals.store import CODE
from client.log import site_log
from client.pace import Pace

FLWR_MINOR = "1.41"
"""The Flower whose SuperNode this was written for."""
FOLDER_VARIABLE = "CARDIONETS_APPROVALS"
POLL_S = 3.0
LICENSED = {"valid_license": "Valid"}
"""Flower looks for signatures only where this entry stands."""
OURS = ("--trusted-entities", "--allow-runtime-dependency-installation")
LOG = logging.getLogger("flwr")
"""Flower's own, so that a refusal stands among the lines of its SuperNode."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """The command line.

    Attributes:
        approvals: the site's folder of approvals.
        poll_s: longest pause between two questions for messages.
        starter: folder of programs that come before the installed ones, or empty; see ``client.warm``.
        flower: what is left for flower-supernode.
    """

    approvals: Path
    poll_s: float
    flower: list[str]
    starter: str = ""


def read_arguments(arguments: Sequence[str]) -> Arguments:
    """Take our own options from the front; the rest is Flower's.

    Raises:
        UsageError: no folder is named, an option is wrong, or one would take the check away.
    """
    own = {"--approvals": os.environ.get(FOLDER_VARIABLE, ""), "--poll": str(POLL_S), "--starter": ""}
    rest = list(arguments)
    while rest and rest[0].partition("=")[0] in own:
        name, equals, value = rest.pop(0).partition("=")
        own[name] = value if equals else (rest.pop(0) if rest else "")
    if not own["--approvals"]:
        raise UsageError(
            "the folder of approvals is not named",
            remedy=f"give --approvals DIR first, or set {FOLDER_VARIABLE}",
        )
    # argparse takes any beginning of an option for the option.
    for argument in rest:
        name = argument.partition("=")[0]
        if len(name) > 3 and any(option.startswith(name) for option in OURS):
            raise UsageError(
                f"{name} is not for you to give",
                remedy="leave it out: approvals decide what runs, and nothing is ever installed",
            )
    try:
        poll_s = float(own["--poll"])
    except ValueError:
        poll_s = -1.0
    if not 0.05 <= poll_s <= 60:
        raise UsageError("--poll is a number of seconds from 0.05 to 60")
    return Arguments(
        approvals=Path(own["--approvals"]).absolute(), poll_s=poll_s, flower=rest, starter=own["--starter"]
    )


class Guard:
    """Judges each bundle by the approvals of the moment.

    Args:
        folder: the site's folder of approvals.

    Raises:
        PrivacyError: the site's key cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        self.store = ApprovalStore(folder)
        self._key = approval_key(folder)

    def judged(self, fab: Any, fab_hash: str) -> Any:
        """The bundle with the verifications that it deserves; those that came with it count for nothing.

        Args:
            fab: Flower's ``Fab``, as it came.
            fab_hash: the SHA-256 that the run names.
        """
        sha256 = hashlib.sha256(fab.content).hexdigest()
        fab.verifications = dict(LICENSED)
        if sha256 != fab_hash or fab.hash_str not in ("", sha256):
            LOG.error("REFUSED: the code that came is not the code that the run names")
            return fab
        standing = self.store.standing()
        if standing.allows(CODE, sha256):
            fab.verifications |= vouch(self._key, fab.content)
            return fab
        kept = self.store.pending.keep_code(fab.content)
        site_log(self.store.folder.parent).write(
            "code-refused", code=CodeNotApprovedError.code, bundle=sha256
        )
        LOG.error(
            "REFUSED: the code %s is not approved on this site%s; %s",
            sha256,
            f" ({standing.fault})" if standing.fault else "",
            "look at it with: cardionets-client approve" if kept else "it could not be kept to be looked at",
        )
        return fab


def guard_flower(guard: Guard, *, poll_s: float) -> None:
    """Put the guard into Flower's SuperNode of this process.

    Args:
        guard: judges.
        poll_s: longest pause between two questions for messages.
    """
    import flwr.supernode.start_client_internal

    from client.refused import tell_refusals

    tell_refusals()
    flower: Any = flwr.supernode.start_client_internal

    connect, pull = flower.http_request_response, flower._pull_and_store_message

    @contextlib.contextmanager
    def connected(*positional: Any, **named: Any) -> Iterator[tuple[Any, ...]]:
        with connect(*positional, **named) as connection:
            node_id, receive, send, get_run, get_fab, *rest = connection

            def judged_fab(fab_hash: str, run_id: int) -> Any:
                return guard.judged(get_fab(fab_hash, run_id), fab_hash)

            yield (node_id, receive, send, get_run, judged_fab, *rest)

    def pulled(*, state: Any, trusted_entities: Any, **named: Any) -> Any:
        if not trusted_entities:  # Flower would take any code
            raise CodeNotApprovedError("the SuperNode was started without the site's key", where="supernode")
        return pull(state=_Forgetting(state, guard.store), trusted_entities=trusted_entities, **named)

    flower.http_request_response = connected
    flower._pull_and_store_message = pulled
    flower.time = SimpleNamespace(sleep=Pace(longest_s=poll_s))


class _Forgetting:
    """Flower's state as the pull of a message sees it, without the runs whose code is not approved.

    Flower judges a bundle at its run's first message only; so a run whose code was withdrawn is judged anew.
    """

    def __init__(self, state: Any, store: ApprovalStore) -> None:
        self._state = state
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._state, name)

    def get_run(self, run_id: int) -> Any:
        run = self._state.get_run(run_id)
        return run if run is None or self._store.is_code_approved(run.fab_hash) else None


def clean_environment(starter: str = "") -> None:
    """What the processes of the SuperNode inherit: this installation's programs, and no paths to other code.

    Args:
        starter: folder of programs that come before the installed ones.

    Raises:
        ConfigError: this module itself was unpacked from a bundle.
    """
    home = Path(os.environ.get("FLWR_HOME") or Path.home() / ".flwr").absolute()
    if Path(__file__).absolute().is_relative_to(home / "apps"):
        raise ConfigError(
            "the check of the code was itself taken from code that the coordinator sent",
            where=__file__,
            remedy="start the site from its installed CardioNets, in its own folder",
        )
    for name in ("PYTHONPATH", "PYTHONSTARTUP", "PYTHONHOME", FOLDER_VARIABLE):
        os.environ.pop(name, None)
    # Neither the folder that the site is started in nor a script's folder is looked into for modules.
    os.environ["PYTHONSAFEPATH"] = "1"
    programs = [starter, str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    os.environ["PATH"] = os.pathsep.join(part for part in programs if part)
    os.environ.update(
        FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION="1",
        FLWR_TELEMETRY_ENABLED="0",
        FLWR_DISABLE_UPDATE_CHECK="1",
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the SuperNode until it is stopped.

    Raises:
        SystemExit: with the code of docs/exit-codes.md, or Flower's own.
    """
    try:
        given = read_arguments(sys.argv[1:] if arguments is None else arguments)
        clean_environment(given.starter)
        guard_flower(Guard(given.approvals), poll_s=given.poll_s)
    except CardioNetsError as error:
        sys.stderr.write(f"error [{error.code}]: {error}\n")
        raise SystemExit(error.exit_code) from None
    from flwr.supernode.cli import flower_supernode

    sys.argv = [
        "flower-supernode",
        "--trusted-entities",
        str(given.approvals / TRUSTED),
        *given.flower,
    ]
    flower_supernode()
    # The loop has ended by a fault that Flower has logged; its HTTP server would keep the process alive, cut
    # off from the coordinator. The service starts it again.
    LOG.error("the SuperNode has ended its work by itself")
    logging.shutdown()
    os._exit(1)


if __name__ == "__main__":
    main()
