"""What is typed for ``compare`` and ``sweep``, as values: processes, seeds, strategies, arms.

Comes in: text of an option. Goes out: values, or an error that names the option. Loads nothing large: a
slip of the finger is told at once.
"""

from __future__ import annotations

from typing import Any

from cardionets_core.errors import UsageError


def typed_jobs(typed: str) -> int | None:
    """``--jobs``: a number of processes, or None for ``auto``.

    Raises:
        UsageError: it is neither.
    """
    if typed == "auto":
        return None
    if not typed.isdigit() or int(typed) < 1:
        raise UsageError(
            f"{typed!r} is no number of processes", where="--jobs", remedy="give 1, 2, … or auto"
        )
    return int(typed)


def typed_seeds(typed: str) -> tuple[int, ...]:
    """``--seeds``: whole numbers, in any of the forms of a sweep's values; empty where nothing was typed.

    Raises:
        UsageError: something else stands there.
    """
    from simulation.sweep.values import parse_values

    if not typed:
        return ()
    try:
        found = parse_values(typed)
    except ValueError as error:
        raise UsageError(str(error), where="--seeds", remedy="as 7,8,9 or 1..5") from None
    seeds = [
        each for each in found if isinstance(each, int) and not isinstance(each, bool) and 0 <= each < 2**31
    ]
    if len(seeds) != len(found):
        raise UsageError(
            f"{typed!r} are no seeds", where="--seeds", remedy="whole numbers from 0, as 7,8,9 or 1..5"
        )
    return tuple(seeds)


def typed_strategies(typed: str) -> dict[str, dict[str, Any]]:
    """``--strategies``: ``a,b:key=value`` as label (what was typed) to options; a name may come with several.

    Raises:
        UsageError: a part is no strategy with its options, or stands twice.
    """
    from simulation.sweep.values import parse_scalar

    found: dict[str, dict[str, Any]] = {}
    settings: list[tuple[str, dict[str, Any]]] = []
    for part in filter(None, (part.strip() for part in typed.split(","))):
        name, *options = (word.strip() for word in part.split(":"))
        pairs = [option.partition("=") for option in options]
        remedy = "as fedavg,fedprox:mu=0.1,fedadam:rate=0.01:tau=0.001; see docs/strategies.md"
        if not name or any(not equals or not key or not value for key, equals, value in pairs):
            raise UsageError(f"{part!r} is no strategy with its options", where="--strategies", remedy=remedy)
        setting = (name, {key: parse_scalar(value) for key, _, value in pairs})
        if len(setting[1]) != len(pairs):
            raise UsageError(f"{part!r} sets an option twice", where="--strategies", remedy=remedy)
        if setting in settings:
            raise UsageError(f"{part!r} stands twice", where="--strategies", remedy="name it once")
        settings.append(setting)
        found[":".join((name, *options))] = setting[1]
    return found


def typed_arms(typed: str) -> tuple[str, ...]:
    """``--arms``: names of arms, with commas between.

    Raises:
        UsageError: there is no such arm, or none at all.
    """
    from cardionets_core.config.faults import did_you_mean
    from simulation.arm_names import ARMS

    arms = tuple(part.strip() for part in typed.split(",") if part.strip())
    unknown = [arm for arm in arms if arm not in ARMS]
    if unknown or not arms:
        guess = did_you_mean(unknown[0], ARMS) if unknown else ""
        raise UsageError(
            f"there is no arm {', '.join(unknown) or 'at all'}{guess}",
            where="--arms",
            remedy=f"use some of: {','.join(ARMS)}",
        )
    return arms
