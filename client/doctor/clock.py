"""Is the machine's clock sane? A wrong one breaks certificates and the order of the journal.

Comes in: the site's document. Goes out: the time against what must lie in its past (this version's own files,
the newest line of the journal), and whether the system says that it is synchronised.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

import cardionets_core
from cardionets_core.config.site import SiteConfig
from cardionets_core.errors import MachineUnfitError
from cardionets_core.plain_json import parse_json
from client.doctor.findings import Findings, Notice
from client.journal import JOURNAL

SLACK_S = 86_400.0
"""Files unpacked from an archive can carry another time zone's hours."""
LATEST_YEAR = 2100
_TAIL_BYTES = 65_536
_SET_THE_CLOCK = "set the clock, and let the system keep it by NTP (timedatectl set-ntp true)"


def check_clock(
    config: SiteConfig, *, now_s: float | None = None, synchronised: str | None = None
) -> Findings:
    """Compare the clock with what is known to be past.

    Args:
        config: of the site.
        now_s: seconds since 1970; default the machine's.
        synchronised: ``yes``, ``no`` or ``unknown``; default what ``timedatectl`` says.
    """
    now = time.time() if now_s is None else now_s
    state = _synchronised() if synchronised is None else synchronised
    utc = datetime.fromtimestamp(now, tz=UTC)
    findings = Findings(facts={"utc": utc.strftime("%Y-%m-%dT%H:%M:%SZ"), "synchronised": state})
    past = {"this version's own files": _newest_file_s() - SLACK_S,
            "the newest line of the journal": _newest_line_s(config.folders.state / JOURNAL)}  # fmt: skip
    for what, moment in past.items():
        if moment is not None and now < moment:
            findings.problems.append(
                MachineUnfitError(
                    f"the clock says {findings.facts['utc']}, which is before {what}",
                    where="clock", remedy=_SET_THE_CLOCK,
                )
            )  # fmt: skip
    if utc.year >= LATEST_YEAR:
        findings.problems.append(
            MachineUnfitError(f"the clock says {utc.year}", where="clock", remedy=_SET_THE_CLOCK)
        )
    if state == "no":
        findings.notices.append(
            Notice(what="the system says that its clock is not synchronised", remedy=_SET_THE_CLOCK)
        )
    return findings


def _newest_file_s() -> float:
    folder = Path(cardionets_core.__file__).resolve().parent
    return max(path.stat().st_mtime for path in folder.rglob("*.py"))


def _newest_line_s(journal: Path) -> float | None:
    """Seconds since 1970 of the last whole line; None where there is none that can be read."""
    try:
        with journal.open("rb") as stream:
            stream.seek(max(0, journal.stat().st_size - _TAIL_BYTES))
            lines = stream.read().decode("utf-8").splitlines()
        return float(parse_json(lines[-1].partition(" ")[2])["time_s"])
    except (OSError, ValueError, IndexError, KeyError, TypeError):
        return None


def _synchronised() -> str:
    program = shutil.which("timedatectl")
    if program is None:
        return "unknown"
    try:
        done = subprocess.run(
            [program, "show", "--property=NTPSynchronized", "--value"],
            capture_output=True, text=True, timeout=5, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() if done.stdout.strip() in ("yes", "no") else "unknown"
