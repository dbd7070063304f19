"""Which sites train in a round: all that can serve, or some of them, drawn by the study's seed.

The draw is a full order of names, made once a round: the first ``per_round`` of it that can serve are asked.
So the same names give the same draw, whatever the order in which the sites came, and a site that is gone is
replaced by the next in the order.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from cardionets_core.training.seeds import derive_seed


def draw_order(names: Collection[str], *, seed: int, phase: int, round_number: int) -> list[str]:
    """All names in the order in which the round takes them.

    Args:
        names: of the sites that can serve.
        seed: of the study.
        phase: index of the phase.
        round_number: of the round, from 1.
    """
    ordered = sorted(names)
    generator = np.random.Generator(np.random.PCG64(derive_seed(seed, "sample", phase, round_number)))
    return [ordered[place] for place in generator.permutation(len(ordered))]


def chosen(
    order: Sequence[str], *, able: Collection[str], answered: Collection[str], per_round: int | None
) -> set[str]:
    """The sites of a round.

    Args:
        order: as it was drawn.
        able: sites that can serve now.
        answered: sites whose reply is stored; they stay in the round.
        per_round: how many take part; None for all.

    Returns:
        Names; those of ``answered`` are always among them.
    """
    if per_round is None:
        return {*able, *answered}
    late_comers = sorted({*able, *answered} - set(order))
    taken = set(answered)
    for name in [*order, *late_comers]:
        if len(taken) >= per_round:
            break
        if name in able:
            taken.add(name)
    return taken
