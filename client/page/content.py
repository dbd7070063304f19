"""All that the status page and ``status --format json`` say, from files of the site's folder alone.

Comes in: a site's folder, looked at once or again and again. Goes out: one JSON-ready dict; the page draws
these very numbers. What cannot be read becomes a sentence in its place, since a page that fails with the site
would be of no use. It asks nobody over the network and changes nothing.
"""

from __future__ import annotations

import shlex
import shutil
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from cardionets_core.config.connection import SiteFolder
from cardionets_core.config.site import SiteConfig, read_site
from cardionets_core.errors import CardioNetsError
from cardionets_core.logs.reading import last_lines
from cardionets_core.plain_json import parse_json, read_json
from client.approvals.store import CODE, STUDY, ApprovalStore
from client.journal import JOURNAL
from client.log import LOG
from client.page.chain import Chain, broken_steps
from client.page.left import left_of
from client.page.now import now_of
from client.standing import standing

LEDGER, MANIFEST = "ledger.db", "cohort/manifest.json"
"""The names of client.spending and cardionets_core.data, which would bring torch and pyarrow."""
QUALITY = ("recordings", "patients", "left_out", "flags", "warnings", "histograms", "splits")
"""Keys of quality.json that are shown."""


class Looking:
    """Looks at one site; keeps what need not be done again.

    Args:
        folder: of the site.

    Raises:
        ConfigError: connection.yaml cannot be read.
    """

    def __init__(self, folder: SiteFolder) -> None:
        self._folder = folder
        folder.config()
        self._chain: Chain | None = None
        self._budget: tuple[Any, dict[str, Any]] | None = None

    def look(self) -> dict[str, Any]:
        """How everything stands now; keys as in docs/operators.md."""
        folder = self._folder
        config = _config(folder)
        journal = None if config is None else config.folders.state / JOURNAL
        if journal is not None and (self._chain is None or self._chain.path != journal):
            self._chain = Chain(path=journal)
        lines = last_lines(folder.root / LOG)
        content = standing(folder, chain=self._chain, lines=lines)
        now_s = time.time()
        running = content["service"] == "running"
        return content | {
            "made_s": round(now_s, 3),
            "folder": str(folder.root),
            "since_s": _since(content),
            **now_of(lines, running=running),
            "left": None if journal is None else left_of(journal, now=datetime.now().astimezone()),
            "journal_steps": broken_steps(journal) if journal is not None else [],
            "budget": None if config is None else self._budget_of(config),
            "approvals": _approvals(folder),
            "withdrawn": _withdrawn(folder),
            "quality": None if config is None else _quality(config),
            "prepared": None if config is None else (config.folders.cache / MANIFEST).is_file(),
            "room": _room(folder.root),
            "certificate": _certificate(folder),
            "commands": _commands(folder),
        }

    def _budget_of(self, config: SiteConfig) -> dict[str, Any]:
        """The budget; reckoned anew only where the ledger or the journal's end has changed."""
        policy = config.policy.privacy
        ledger = config.folders.state / LEDGER
        files = [path for path in (ledger, ledger.with_name(f"{LEDGER}-wal")) if path.exists()]
        if not files and not (config.folders.state / JOURNAL).exists():
            # Nothing left, so nothing was spent; the reckoning would bring torch.
            return _budget(config, spent=0.0, reserved=0.0, left=policy.maximum_epsilon)
        stamps = [(path.stat().st_mtime_ns, path.stat().st_size) for path in files]
        key = (stamps, policy, _size(config.folders.state / JOURNAL))
        if self._budget is None or self._budget[0] != key:
            self._budget = (key, _reckoned(config))
        return self._budget[1]


def _budget(config: SiteConfig, **found: Any) -> dict[str, Any]:
    policy = config.policy.privacy
    limit = {"epsilon": policy.maximum_epsilon, "delta": policy.maximum_delta}
    unknown: dict[str, Any] = {"spent": None, "reserved": None, "left": None, "studies": [], "error": None}
    return {"limit": limit, "required": policy.required, "noise_was_secret": True, **unknown, **found}


def _reckoned(config: SiteConfig) -> dict[str, Any]:
    from client.budget import budget

    try:
        found = budget(config)
    except CardioNetsError as error:
        return _budget(config, error={"code": error.code, "what": error.what, "remedy": error.remedy})
    names = ("spent", "reserved", "left", "studies", "noise_was_secret")
    return _budget(config, **{name: found[name] for name in names})


def _config(folder: SiteFolder) -> SiteConfig | None:
    try:
        return read_site(folder.site_yaml)
    except CardioNetsError:
        return None  # ``standing`` says why


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _since(content: dict[str, Any]) -> float | None:
    """When the service was started."""
    begun = content.get("supervisor", {}).get("started_s")
    return float(begun) if begun else None


def _approvals(folder: SiteFolder) -> dict[str, Any]:
    store = ApprovalStore(folder.approvals)
    found = store.standing()
    return {
        "fault": found.fault,
        "code": [{"digest": said.digest, "time_s": said.time_s} for said in found.approved(CODE)],
        "studies": [
            {"digest": said.digest, "time_s": said.time_s, **_study(store, said.digest)}
            for said in found.approved(STUDY)
        ],
        "waiting": {"code": len(store.pending.codes()), "studies": len(store.pending.studies())},
    }


def _withdrawn(folder: SiteFolder) -> dict[str, list[dict[str, Any]]]:
    store = ApprovalStore(folder.approvals)
    found = store.standing()
    return {
        "code": [{"digest": said.digest, "time_s": said.time_s} for said in found.withdrawn(CODE)],
        "studies": [
            {"digest": said.digest, "time_s": said.time_s, "name": _study(store, said.digest)["name"]}
            for said in found.withdrawn(STUDY)
        ],
    }


def _study(store: ApprovalStore, digest: str) -> dict[str, Any]:
    """Name of an approved study, and the rounds of its phases."""
    try:
        content = parse_json(store.approved_study(digest) or "")
        phases = [{"task": str(phase["task"]), "rounds": int(phase["rounds"])} for phase in content["phases"]]
        return {"name": str(content["name"]), "phases": phases}
    except (ValueError, KeyError, TypeError):
        return {"name": "", "phases": []}


def _quality(config: SiteConfig) -> dict[str, Any] | None:
    """The quality report's numbers, and where its page lies; None before the first ``prepare``."""
    report = config.folders.cache / "report"
    try:
        content = read_json(report / "quality.json")
        told = {name: content[name] for name in QUALITY} | {"page": str(report / "quality.html")}
        # The least and the largest value of a histogram are one person's each.
        return told | {"histograms": {name: _bars(found) for name, found in content["histograms"].items()}}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _bars(histogram: dict[str, Any]) -> dict[str, Any]:
    return {name: histogram[name] for name in ("unit", "known", "unknown", "bars")}


def _room(root: Path) -> dict[str, int] | None:
    try:
        usage = shutil.disk_usage(root)
    except OSError:
        return None
    return {"free_bytes": usage.free, "total_bytes": usage.total}


def _certificate(folder: SiteFolder) -> dict[str, Any] | None:
    from cardionets_core.trust.certificates import read_certificate
    from cardionets_core.trust.validity import days_left

    path = folder.trust / "site.crt"
    try:
        certificate = read_certificate(path.read_bytes(), where=str(path))
    except (OSError, CardioNetsError):
        return None
    return {"days_left": round(days_left(certificate), 1)}


def _commands(folder: SiteFolder) -> dict[str, str]:
    """What to type; the page itself can change nothing."""
    root, site = shlex.quote(str(folder.root)), shlex.quote(str(folder.site_yaml))
    return {
        "start": f"cardionets-client start {root} --background",
        "stop": f"cardionets-client stop {root}",
        "withdraw": f"cardionets-client approve {root} --withdraw",
        "approve": f"cardionets-client approve {root}",
        "check": f"cardionets-client check --site {site}",
        "prepare": f"cardionets-client prepare --site {site}",
        "journal": f"cardionets-client journal verify --site {site}",
        "budget": f"cardionets-client budget --site {site}",
        "page": f"cardionets-client status {root} --web",
        "logs": f"cardionets-client logs {root} --level warning",
    }
