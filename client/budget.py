"""What privacy the site's patients have spent: by study and phase, and what is left (hospital IT's view).

Comes in: the site's document and its ledger. Goes out: JSON-ready facts, lines, and a drawing. Reserves and
changes nothing. Epsilons do not add up: those of parts are together more than that of the whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from html import escape
from typing import Any

from cardionets_core.config.site import SiteConfig
from cardionets_core.privacy.accountant import epsilon_of
from cardionets_core.privacy.ledger_lines import Charge, Entry
from client.spending import check_ledger, ledger_path, open_ledger

POINTS = 24
"""Of the curve; each is a whole reckoning."""
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 300, 56, 16, 28, 40


def budget(config: SiteConfig) -> dict[str, Any]:
    """What was spent and is left, at the site's delta.

    Raises:
        DataError: the ledger is not whole, or not the one that the journal names.
    """
    check_ledger(config)
    policy, delta = config.policy.privacy, config.policy.privacy.maximum_delta
    entries: list[Entry] = []
    lines, head = 0, ""
    if ledger_path(config).exists():
        ledger = open_ledger(config)
        entries, (lines, head) = ledger.entries(), ledger.head()
    whole = _epsilon(entries, delta)
    spent = _epsilon([entry for entry in entries if entry.committed], delta)
    return {
        "site": config.site,
        "limit": {"epsilon": policy.maximum_epsilon, "delta": delta},
        "spent": spent,
        "reserved": whole - spent,
        "left": max(0.0, policy.maximum_epsilon - whole),
        "whole_by_rdp": epsilon_of([e.charge.mechanism for e in entries], delta=delta, accountant="rdp"),
        "noise_was_secret": all(entry.charge.is_secret for entry in entries),
        "ledger": {"lines": lines, "head": head},
        "studies": [_study(list(group), delta) for group in _groups(entries, lambda each: each.study)],
        "curve": _curve(entries, delta),
    }


def budget_lines(content: dict[str, Any]) -> Iterator[str]:
    """The budget for people."""
    limit = content["limit"]
    yield (
        f"{content['site']} · epsilon at delta {limit['delta']:g}: spent {content['spent']:.3f} · "
        f"reserved {content['reserved']:.3f} · left {content['left']:.3f} of {limit['epsilon']:g}"
    )
    if not content["studies"]:
        yield "no private study has trained here yet"
        return
    if not content["noise_was_secret"]:
        yield "NOT PRIVATE: some noise followed from a study's public seed, as in tests; it hides nothing"
    for study in content["studies"]:
        yield f"  {study['name']:24} {study['epsilon']:8.3f}   study {study['study'][:16]}"
        for phase in study["phases"]:
            rounds, still = phase["answers"], phase["open"]
            yield (
                f"    {phase['phase'] + 1:2} {phase['task']:19} {phase['epsilon']:8.3f}   "
                f"{rounds} answer{'s' * (rounds != 1)}" + (f", {still} still open" if still else "")
            )
    if len(content["studies"]) > 1 or any(len(study["phases"]) > 1 for study in content["studies"]):
        yield "epsilons of parts do not add up: together they would be more than the whole"
    yield f"ledger of {content['ledger']['lines']} lines, head {content['ledger']['head'][:16]}"


def budget_svg(content: dict[str, Any]) -> str:
    """A drawing of epsilon over the answers, under the site's limit."""
    curve, limit = content["curve"], content["limit"]["epsilon"]
    most = 1.1 * max(limit, *(point["epsilon"] for point in curve), 1e-9)
    last = max((point["answers"] for point in curve), default=1)
    inside_x, inside_y = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def x(answers: float) -> float:
        return LEFT + inside_x * answers / max(last, 1)

    def y(epsilon: float) -> float:
        return TOP + inside_y * (1.0 - epsilon / most)

    path = f"M{x(0):.1f} {y(0):.1f}"
    for point in curve:
        path += f" L{x(point['answers']):.1f} {y(point['epsilon']):.1f}"
    title = escape(
        f"{content['site']}: epsilon {content['spent'] + content['reserved']:.3f} of {limit:g} "
        f"at delta {content['limit']['delta']:g}"
    )
    marks = [limit * share for share in (0.0, 0.25, 0.5, 0.75, 1.0)]
    ticks = "".join(
        f'<text x="{LEFT - 6}" y="{y(mark) + 4:.1f}" text-anchor="end">{mark:.3g}</text>' for mark in marks
    )
    when = f"{_day(curve[0])} to {_day(curve[-1])}, {last} answers" if curve else "no answers yet"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'height="{HEIGHT}" role="img" font-family="sans-serif" font-size="12"><title>{title}</title>'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>'
        f'<text x="{LEFT}" y="18" font-size="13">{title}</text>{ticks}'
        f'<path d="M{LEFT} {TOP} V{HEIGHT - BOTTOM} H{WIDTH - RIGHT}" fill="none" stroke="#555555"/>'
        f'<path d="M{LEFT} {y(limit):.1f} H{WIDTH - RIGHT}" stroke="#b00020" stroke-dasharray="6 4"/>'
        f'<text x="{WIDTH - RIGHT}" y="{y(limit) - 5:.1f}" text-anchor="end" fill="#b00020">limit</text>'
        f'<path d="{path}" fill="none" stroke="#1f5fa8" stroke-width="2"/>'
        f'<text x="{LEFT}" y="{HEIGHT - 14}">{escape(when)}</text></svg>\n'
    )


def _study(entries: list[Entry], delta: float) -> dict[str, Any]:
    first = entries[0].charge
    return {
        "study": first.study,
        "name": first.name,
        "epsilon": _epsilon(entries, delta),
        "phases": [
            {
                "phase": group[0].charge.phase,
                "task": group[0].charge.task,
                "answers": len(group),
                "open": sum(not entry.committed for entry in group),
                "epsilon": _epsilon(group, delta),
            }
            for group in _groups(entries, lambda each: str(each.phase))
        ],
    }


def _groups(entries: Sequence[Entry], key: Any) -> Iterator[list[Entry]]:
    """Entries of one key each, in the order in which the keys first come."""
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        charge: Charge = entry.charge
        found.setdefault(key(charge), []).append(entry)
    yield from found.values()


def _curve(entries: Sequence[Entry], delta: float) -> list[dict[str, float]]:
    count = len(entries)
    places = sorted({max(1, round(count * step / POINTS)) for step in range(1, POINTS + 1)}) if count else []
    return [
        {
            "answers": place,
            "time_s": entries[place - 1].time_s,
            "epsilon": _epsilon(entries[:place], delta),
        }
        for place in places
    ]


def _epsilon(entries: Sequence[Entry], delta: float) -> float:
    return epsilon_of([entry.charge.mechanism for entry in entries], delta=delta)


def _day(point: dict[str, float]) -> str:
    return datetime.fromtimestamp(point["time_s"]).astimezone().date().isoformat()
