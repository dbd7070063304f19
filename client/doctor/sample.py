"""A few recordings through the whole path: listed, read, checked, packed; nothing is kept (steps 2 to 4).

Comes in: a source and its listing. Goes out: outcomes counted by reason, and the packed arrays for a picture.
The choice is the same at every call, so two runs can be compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cardionets_core.config.site import SiteConfig
from cardionets_core.data.pack import Packed, pack_recording
from cardionets_core.data.records import Recording
from cardionets_core.data.sources import Source
from cardionets_core.errors import REFUSAL_REASONS, CardioNetsError, DataError
from client.doctor.findings import Findings, Notice

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """One recording of the sample; holds no identifier.

    Attributes:
        kind: ``ecg`` or ``cine``.
        packed: what the path made of it.
    """

    kind: Literal["ecg", "cine"]
    packed: Packed


def choose_sample(recordings: list[Recording], count: int) -> list[Recording]:
    """``count`` recordings at even distances over the listing, and at least one of each kind that is there.

    Args:
        recordings: in any order.
        count: at least 0; fewer come where fewer are listed.
    """
    by_kind = {
        kind: sorted((r for r in recordings if r.kind == kind), key=lambda r: r.path.as_posix())
        for kind in ("ecg", "cine")
    }
    ecgs, cines = len(by_kind["ecg"]), len(by_kind["cine"])
    count = min(count, ecgs + cines)
    wanted = round(count * ecgs / (ecgs + cines)) if count else 0
    if count >= 2 and ecgs and cines:
        wanted = min(max(wanted, 1), count - 1)
    shares = {"ecg": min(wanted, ecgs), "cine": min(count - wanted, cines)}
    chosen: list[Recording] = []
    for kind, listed in by_kind.items():
        places = np.linspace(0, len(listed) - 1, num=shares[kind]).round().astype(int)
        chosen += [listed[place] for place in places]
    return chosen


def check_sample(
    config: SiteConfig, source: Source, recordings: list[Recording], *, count: int, tell: Progress
) -> tuple[Findings, list[Sampled]]:
    """Send a sample through the path.

    Args:
        config: of the site.
        source: lists and reads.
        recordings: everything that the source lists.
        count: size of the sample.
        tell: told the progress.

    Returns:
        The findings, and the outcome of each recording.
    """
    chosen = choose_sample(recordings, count)
    sampled: list[Sampled] = []
    findings = Findings()
    for place, recording in enumerate(chosen, start=1):
        packed = pack_recording(source, recording, views=config.prepare.views)
        sampled.append(Sampled(kind=recording.kind, packed=packed))
        tell("sample", place, len(chosen))
    findings.problems += _tables(source, chosen)
    reasons = Counter(item.packed.reason for item in sampled if item.packed.reason)
    flags = Counter(flag for item in sampled for flag in item.packed.flags)
    accepted = len(sampled) - reasons.total()
    findings.facts = {"read": len(sampled), "accepted": accepted, "refused": dict(sorted(reasons.items())),
                      "flags": dict(sorted(flags.items()))}  # fmt: skip
    for reason, number in sorted(reasons.items()):
        told = (
            f"{number} of {len(sampled)} sampled recordings left out as {reason}: {REFUSAL_REASONS[reason]}"
        )
        if not accepted:
            findings.problems.append(DataError(told, where="sample", remedy=_REMEDY))
        else:
            findings.notices.append(Notice(what=told, remedy=_REMEDY))
    return findings, sampled


_REMEDY = "look at such a file with `cardionets-client inspect`; docs/formats.md lists what is needed"


def _tables(source: Source, chosen: list[Recording]) -> list[CardioNetsError]:
    """What is wrong with the tables; one look-up loads each of them."""
    try:
        for recording in chosen:
            source.person(recording.patient, recording.visit)
    except CardioNetsError as error:
        return [error]
    return []
