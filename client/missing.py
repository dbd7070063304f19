"""What a site that was just started still lacks, and whether its link to the coordinator is there.

Comes in: a site's folder. Goes out: plain lines for whoever started the service. Stops nothing: what is
missing may be made while the service runs. Asks nobody: of the link tells the SuperNode's log.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from cardionets_core.config.connection import SiteFolder
from cardionets_core.config.site import read_site
from cardionets_core.logs.log import EventLog
from client.approvals.store import CODE, STUDY, ApprovalStore, Standing
from client.standing import NOT_YET, link_of

FIRST_LINK_S = 30.0
"""A SuperNode that has said nothing of its link for so long has none."""
_CONNECTED = "connected"


def missing_lines(folder: SiteFolder) -> list[str]:
    """``missing`` in plain lines."""
    return [line for _, line in missing(folder)]


def missing(folder: SiteFolder) -> list[tuple[str, str]]:
    """What orders will be refused for, each by its name in the log and in a plain line; empty for nothing.

    Raises:
        ConfigError: site.yaml is wrong.
    """
    standing = ApprovalStore(folder.approvals).standing()
    approve = f"look at it with: cardionets-client approve {folder.root}"
    lines = []
    if standing.fault:
        lines.append(("approvals", f"missing: {standing.fault}: nothing counts as approved; {approve}"))
    elif not standing.approved(CODE):
        lines.append(("code", f"missing: no code is approved{_since(standing, CODE)}; {approve}"))
    elif not standing.approved(STUDY):
        lines.append(("study", f"missing: no study is approved{_since(standing, STUDY)}; {approve}"))
    # The name of cardionets_core.data.manifest, which would bring pyarrow and numpy.
    if not (read_site(folder.site_yaml).folders.cache / "cohort" / "manifest.json").is_file():
        prepare = f"cardionets-client prepare --site {folder.site_yaml}"
        told = f"missing: there is no cache of the data yet, so no order is served; make it with: {prepare}"
        lines.append(("cache", told))
    return lines


def withdrawn_s(folder: SiteFolder) -> dict[str, float]:
    """When the last approval of a kind was taken back; without those kinds of which none was."""
    standing = ApprovalStore(folder.approvals).standing()
    return {kind: found[-1].time_s for kind in (CODE, STUDY) if (found := standing.withdrawn(kind))}


def _since(standing: Standing, kind: str) -> str:
    found = standing.withdrawn(kind)
    which = f" ({found[-1].digest[:16]} was withdrawn on {found[-1].when})" if found else " yet"
    return f"{which}, so no order runs here"


@dataclass(slots=True, kw_only=True)
class LinkWatch:
    """Tells when the link to the coordinator comes, goes, or is refused; a job of the service.

    Attributes:
        folder: of the site.
        server: host and port of the coordinator.
        tell: called with a line.
        log: gets the state of the link as an event.
        clock: seconds that only grow.
    """

    folder: SiteFolder
    server: str
    tell: Callable[[str], None]
    log: EventLog | None = None
    clock: Callable[[], float] = time.monotonic
    _begun_s: float | None = None
    _seen: str = ""
    _told: str = ""

    def __call__(self) -> None:
        """Look once; a state counts when it is seen twice, so that one lost call is no news."""
        now_s = self.clock()
        self._begun_s = now_s if self._begun_s is None else self._begun_s
        state = link_of(self.folder)
        if state == "working":
            state = _CONNECTED
        again, self._seen = state == self._seen, state
        if not again or state == self._told or (state == NOT_YET and now_s - self._begun_s < FIRST_LINK_S):
            return
        self._told = state
        self.tell(self._line(state))
        if self.log is not None:
            self.log.write("link-changed", link=state)

    def _line(self, state: str) -> str:
        if state == _CONNECTED:
            return f"link: connected to {self.server}"
        if state.startswith("not connected"):
            state = f"{self.server} does not answer; it is asked again and again"
        if "approval" in state:
            return f"link: {state}; look at it with: cardionets-client approve {self.folder.root}"
        return f"link: {state}; look at the way with: cardionets-client check --site {self.folder.site_yaml}"
