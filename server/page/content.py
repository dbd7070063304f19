"""Everything that the study page says, as plain values and figures.

Comes in: the facts of a run. Goes out: what the template shows. Nothing here depends on the clock: equal
files give the same page, so that a page that is followed changes only when the study does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from server.best_rounds import best_rounds
from server.page.codes import meaning
from server.page.curves import cost_figures, phase_figures
from server.page.drawn import drawings_content
from server.page.facts import ENDED, RunFacts
from server.page.privacy import privacy_content
from server.page.sites import site_names, site_rows
from server.page.timeline import last_halt, timeline_svg
from server.page.words import task_words
from server.release.card_privacy import verdict_of
from server.study_notes import AGAIN, UNDER_WAY, waited_for

MEMORISATION = "memorisation"
COUNTED = frozenset({"standardise", "prevalence"})
"""Their metric counts what was found; the best of it says nothing."""
GOES_ON = (*UNDER_WAY, "starting", AGAIN, "ending")
STATES = {
    "waiting": ("waiting for sites", "warn"),
    "running": ("running", "good"),
    "paused": ("paused", "warn"),
    "completed": ("completed", "good"),
    "failed": ("failed", "bad"),
    "stopped": ("stopped", "warn"),
    "starting": ("starting", "good"),
    AGAIN: (AGAIN, "warn"),
    "ending": ("ending", "good"),
}


def page_content(facts: RunFacts) -> dict[str, Any]:
    """What the page shows of a run."""
    study, status, state = facts.study, facts.status, facts.state
    names = site_names(facts)
    rows = site_rows(facts, names)
    done = len(facts.history)
    planned = sum(phase.rounds for phase in study.phases)
    words, kind = STATES.get(state, (state, ""))
    live = state in GOES_ON
    left_s = status.get("left_s") if state in UNDER_WAY else None
    return {
        "name": study.name,
        "state": state,
        "state_words": words,
        "state_kind": kind,
        "goes_on": live,
        "said": _said(facts, words, done, planned),
        "done": done,
        "planned": planned,
        "share": done / planned,
        "left_s": left_s,
        "left_untimed": status.get("left_untimed") or 0,
        "spent_s": sum(float(entry.get("seconds") or 0.0) for entry in facts.history),
        "started_s": status.get("started_s"),
        "updated_s": status.get("updated_s"),
        "bytes_sent": sum(int(entry.get("bytes_sent") or 0) for entry in facts.history),
        "bytes_received": sum(int(entry.get("bytes_received") or 0) for entry in facts.history),
        "last_round": _last_round(facts),
        "waits": _waits(status) if state in UNDER_WAY else "",
        "failure": _failure(facts),
        "warnings": list(status.get("warnings") or []),
        "phases": _phases(facts, names),
        "sites": rows,
        "listens": bool(facts.admitted or facts.online),
        "service": facts.service,
        "timeline": timeline_svg(facts, names),
        "halted": last_halt(facts) is not None,
        "costs": cost_figures(facts),
        "privacy": privacy_content(facts),
        "drawings": drawings_content(facts),
        "document": json.dumps(json.loads(study.to_json()), indent=1, sort_keys=True),
        "study_digest": study.digest,
        "model_digest": _model_digest(facts),
        "modules": dict(facts.result.get("modules") or {}),
        "versions": dict(facts.result.get("versions") or {}),
        "preset": study.models,
        "strategy": study.aggregation.strategy,
    }


def _said(facts: RunFacts, words: str, done: int, planned: int) -> str:
    """One sentence for those who hear the page."""
    status = facts.status
    if facts.state in UNDER_WAY and status.get("phase"):
        where = f"phase {status['phase']} of {len(facts.study.phases)}, "
        return f"Study {facts.study.name} {words}: {where}{done} of {planned} rounds are done."
    return f"Study {facts.study.name} {words}: {done} of {planned} rounds are done."


def _last_round(facts: RunFacts) -> dict[str, Any] | None:
    if not facts.history:
        return None
    rows = facts.history[-1].get("sites", ())
    served = sum(row.get("status") in ("trained", "measured") for row in rows)
    return {"served": served, "asked": len(rows)}


def _waits(status: Mapping[str, Any]) -> str:
    waiting = status.get("waiting_for")
    return waited_for(waiting) if waiting else ""


def _failure(facts: RunFacts) -> dict[str, str] | None:
    if facts.state not in ("paused", "failed"):
        return None
    told = facts.status.get("failure") if facts.status.get("state") in ENDED else None
    if not told and facts.why:  # its process was ended, and could not say so itself
        told = {"what": facts.why, "remedy": "cardionets-server resume DIR"}
    told = told or facts.result.get("paused")
    if not told:
        return None
    return {key: str(told.get(key) or "") for key in ("code", "what", "where", "remedy")} | {
        "meaning": meaning(str(told.get("code") or ""))
    }


def _phases(facts: RunFacts, names: list[str]) -> list[dict[str, Any]]:
    best = best_rounds(facts.history)
    current = int(facts.status.get("phase") or 0) - 1
    found = []
    for index, phase in enumerate(facts.study.phases):
        done = sum(entry.get("phase") == index for entry in facts.history)
        stands = index == current and facts.state in GOES_ON and facts.state != "ending"
        state = "done" if done >= phase.rounds else "now" if stands else "begun" if done else "to come"
        found.append(
            {
                "number": index + 1,
                "task": phase.title,
                "words": task_words(phase.task),
                "rounds": phase.rounds,
                "done": done,
                "share": done / phase.rounds,
                "state": state,
                "best": best.get(index) if phase.task not in COUNTED else None,
                "verdict": _verdict(facts, index) if phase.task == MEMORISATION else "",
                "figures": phase_figures(facts, index, names),
            }
        )
    return found


def _verdict(facts: RunFacts, index: int) -> str:
    """What the memorisation test says, in words: its number alone says nothing to a board."""
    tests = [entry.get("test", {}).get("pooled") for entry in facts.history if entry.get("phase") == index]
    return verdict_of(tests[-1]) if tests and tests[-1] else ""


def _model_digest(facts: RunFacts) -> str:
    if facts.history:
        return str(facts.history[-1].get("model_digest") or "")
    return str(facts.status.get("model_digest") or "")
