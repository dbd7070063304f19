"""Sites over time: when each was online, trained, was measured, came too late or was refused.

Comes in: what the journal and the heartbeats tell. Goes out: one SVG, a row a site. However long a study
runs, a row has no more marks than can be told apart; the table below it has the counts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence

from markupsafe import Markup

from cardionets_core.pages.marks import mark_svg
from server.page.codes import SITS_OUT, meaning
from server.page.facts import RunFacts, Told
from server.rounds import LATE

WIDTH, LEFT, RIGHT, TOP, ROW, BOTTOM = 960.0, 150.0, 10.0, 26.0, 26.0, 24.0
BIN = 3.0
"""Marks of one kind that lie nearer to each other than this are one."""
STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800,
           604800, 1209600, 2592000)  # fmt: skip
TICKS = 7
SIGN = 7.0
"""Width of a sign of the axis, and a little."""
LONGEST_NAME = 20


def timeline_svg(facts: RunFacts, sites: Sequence[str]) -> Markup:
    """The picture; empty where nothing has happened yet.

    Args:
        facts: of the run.
        sites: from top to bottom.
    """
    begin, end = span_of(facts)
    if not sites or end <= begin:
        return Markup("")
    scale = _Scale(begin, end)
    bottom = TOP + ROW * len(sites)
    by_site: dict[str, list[Told]] = {}
    for told in facts.replies:
        by_site.setdefault(told.site, []).append(told)
    phases = phase_spans(facts)
    parts = [_times(scale, bottom)]
    if (halt := last_halt(facts)) is not None:
        parts.append(_halt(halt, scale, bottom))
    parts += [_phase(facts, index, spans, scale, bottom) for index, spans in phases.items()]
    sitting = sitting_out(facts)
    for place, site in enumerate(sites):
        y = TOP + ROW * place
        parts.append(_head(site, y))
        for index, code in sitting.get(site, {}).items():
            if index in phases:
                parts.append(_sits(site, code, phases[index], scale, y))
        parts += [_online(stretch, scale, y) for stretch in facts.online.get(site, ())]
        parts.append(_replies(by_site.get(site, ()), scale, y))
    heard = f"{len(sites)} sites from {_words(begin, end - begin)} to {_words(end, end - begin)}."
    return Markup(
        '<svg class="chart timeline" viewBox="0 0 {:g} {:g}" role="img" aria-labelledby="tl-t tl-d">'
        '<title id="tl-t">Sites over time</title><desc id="tl-d">{} The table below has the counts.</desc>'
        '<defs><pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" '
        'patternTransform="rotate(45)"><line class="grid" x1="0" x2="0" y1="0" y2="6" stroke-width="3"/>'
        "</pattern></defs>{}</svg>"
    ).format(WIDTH, bottom + BOTTOM, heard, Markup("").join(parts))


def span_of(facts: RunFacts) -> tuple[float, float]:
    """First and last Unix time of which anything is known."""
    moments = [told.time_s for told in facts.replies[:1] + facts.replies[-1:]]
    # Where nobody listens to heartbeats, nothing is known of the time before the first reply.
    keys = ("started_s", "updated_s") if facts.online or not moments else ("updated_s",)
    moments += [float(facts.status[key]) for key in keys if key in facts.status]
    if not moments:
        return 0.0, 0.0
    begin, end = min(moments), max(moments)
    return begin, end


def phase_spans(facts: RunFacts) -> dict[int, tuple[float, float]]:
    """Phase to the time of its first and last reply; each begins where the one before it ends."""
    found: dict[int, tuple[float, float]] = {}
    for told in facts.replies:
        first, last = found.get(told.phase, (told.time_s, told.time_s))
        found[told.phase] = (min(first, told.time_s), max(last, told.time_s))
    before = None
    for index in sorted(found):
        if before is not None:
            found[index] = (max(before, min(found[index][0], before)), found[index][1])
        before = found[index][1]
    now = int(facts.status.get("phase") or 0) - 1
    if 0 <= now < len(facts.study.phases) and now not in found and now >= max(found, default=0):
        # It has begun, and no site has answered in it yet.
        begin, end = span_of(facts)
        found[now] = (begin if before is None else before, end)
    return dict(sorted(found.items()))


def last_halt(facts: RunFacts) -> tuple[float, float] | None:
    """When nothing of the study ran before the process that runs now, from the last reply on; else None.

    Earlier interruptions leave no time of their own in the files.
    """
    started = float(facts.status.get("started_s") or 0.0)
    before = [told.time_s for told in facts.replies if told.time_s < started]
    return (max(before), started) if before else None


def sitting_out(facts: RunFacts) -> dict[str, dict[int, str]]:
    """Site to the phases that it sits out, with its code; nothing is wrong with it."""
    found: dict[str, dict[int, str]] = {}
    for row in facts.status.get("sites", ()):
        for index, phase in enumerate(facts.study.phases):
            code = str(row.get("phases", {}).get(phase.title, "serves"))
            if code in SITS_OUT:
                found.setdefault(str(row["site"]), {})[index] = code
    return found


class _Scale:
    def __init__(self, begin: float, end: float) -> None:
        self.begin, self.end = begin, end

    def at(self, moment_s: float) -> float:
        share = (min(max(moment_s, self.begin), self.end) - self.begin) / (self.end - self.begin)
        return LEFT + share * (WIDTH - LEFT - RIGHT)


def _times(scale: _Scale, bottom: float) -> Markup:
    length = scale.end - scale.begin
    step = next((each for each in STEPS_S if each >= length / TICKS), STEPS_S[-1])
    # Round times of the day here, not of the epoch.
    shift = time.localtime(scale.begin).tm_gmtoff
    first = math.ceil((scale.begin + shift) / step) * step - shift
    drawn = []
    for number in range(int((scale.end - first) // step) + 1):
        moment = first + number * step
        x, words = scale.at(moment), _words(moment, length)
        cut = x + SIGN * len(words) / 2 > WIDTH
        drawn.append(
            Markup('<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{}" y2="{}"/>').format(TOP, bottom, x=x)
            + Markup('<text class="{}" x="{:.1f}" y="{:.1f}">{}</text>').format(
                "end" if cut else "mid", WIDTH - 1 if cut else x, bottom + 16, words
            )
        )
    return Markup("").join(drawn)


def _phase(facts: RunFacts, index: int, span: tuple[float, float], scale: _Scale, bottom: float) -> Markup:
    x, end = scale.at(span[0]), scale.at(span[1])
    task = facts.study.phases[index].title if index < len(facts.study.phases) else ""
    room = end - x
    name = f"{index + 1} {task}" if room > 7.0 * (len(task) + 3) else f"{index + 1}" if room > 12 else ""
    line = Markup(
        '<line class="phase" x1="{x:.1f}" x2="{x:.1f}" y1="{}" y2="{}"><title>phase {} {}</title></line>'
    ).format(TOP - 14, bottom, index + 1, task, x=x)
    return line + Markup('<text x="{:.1f}" y="{:.1f}">{}</text>').format(x + 4, TOP - 9, name)


def _halt(span: tuple[float, float], scale: _Scale, bottom: float) -> Markup:
    x, end = scale.at(span[0]), scale.at(span[1])
    length = scale.end - scale.begin
    return Markup(
        '<rect class="halt" x="{:.1f}" y="{}" width="{:.1f}" height="{:.1f}">'
        "<title>interrupted: last reply {}, went on {}</title></rect>"
    ).format(x, TOP, max(2.0, end - x), bottom - TOP, _words(span[0], length), _words(span[1], length))


def _head(site: str, y: float) -> Markup:
    name = site if len(site) <= LONGEST_NAME else site[: LONGEST_NAME - 1] + "…"
    return Markup(
        '<text class="name" x="0" y="{:.1f}">{}</text>'
        '<line class="grid" x1="0" x2="{}" y1="{y:.1f}" y2="{y:.1f}"/>'
    ).format(y + 0.62 * ROW, name, WIDTH - RIGHT, y=y + ROW)


def _sits(site: str, code: str, span: tuple[float, float], scale: _Scale, y: float) -> Markup:
    x, end = scale.at(span[0]), scale.at(span[1])
    return Markup(
        '<rect class="sits" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}">'
        "<title>{} sits this phase out: {}</title></rect>"
    ).format(x, y + 3, max(2.0, end - x), ROW - 7, site, meaning(code))


def _online(stretch: Sequence[float], scale: _Scale, y: float) -> Markup:
    if stretch[1] < scale.begin or stretch[0] > scale.end:
        return Markup("")
    x, end = scale.at(stretch[0]), scale.at(stretch[1])
    return Markup('<rect class="online" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="3"/>').format(
        x, y + ROW - 5, max(1.5, end - x)
    )


def _replies(replies: Iterable[Told], scale: _Scale, y: float) -> Markup:
    ticks: dict[str, set[int]] = {"trained": set(), "measured": set()}
    failed: dict[tuple[str, int], Told] = {}
    for told in replies:
        place = int(scale.at(told.time_s) / BIN)
        if not told.code:
            ticks["measured" if told.kind == "evaluate" else "trained"].add(place)
        elif told.code not in SITS_OUT:
            failed.setdefault(("late" if told.code == LATE else "refused", int(place * BIN / 9)), told)
    drawn = []
    for kind, top, high in (("measured", 10.0, 7.0), ("trained", 4.0, 13.0)):
        path = "".join(f"M{BIN * (place + 0.5):.1f} {y + top:.1f}v{high:g}" for place in sorted(ticks[kind]))
        if path:
            drawn.append(Markup('<path class="tick {}" d="{}"/>').format(kind, path))
    for (kind, _), told in failed.items():
        mark = mark_svg(
            "triangle" if kind == "late" else "cross", scale.at(told.time_s), y + 11, kind, size=5
        )
        text = (
            f"{told.site}: {told.code}, phase {told.phase + 1} round {told.round}, {_words(told.time_s, 0)}"
        )
        drawn.append(Markup("<g><title>{}: {}</title>{}</g>").format(text, meaning(told.code), mark))
    return Markup("").join(drawn)


def _words(moment_s: float, length_s: float) -> str:
    form = "%H:%M:%S" if length_s < 900 else "%H:%M" if length_s < 86_400 else "%d %b %H:%M"
    if length_s >= 6 * 86_400:
        form = "%d %b"
    return time.strftime(form, time.localtime(moment_s))
