"""How long the SuperNode pauses: short while a study is at work, long while nothing comes.

Flower asks the coordinator for work every 3 s and looks for a reply of its own ClientApp every .5 s, whatever
happens. Here a pause grows with the time since the last message, so a round waits for a site at most about a
tenth of the time that the coordinator took, and an idle site asks as seldom as Flower's.
"""

from __future__ import annotations

import time
from collections.abc import Callable

FLOWER_IDLE_S = 3
"""What Flower sleeps after it was told that there is no message."""
SHORTEST_S = 0.2
SHARE = 0.1
REPLY_S = 0.05


class Pace:
    """Takes the place of ``time.sleep`` in Flower's loop.

    Args:
        longest_s: between two questions of an idle site.
        sleep: of the machine.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        *,
        longest_s: float = float(FLOWER_IDLE_S),
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._longest_s, self._sleep, self._clock = longest_s, sleep, clock
        self._busy_s = clock()

    def __call__(self, seconds: float) -> None:
        """Sleep, as long as it fits; ``seconds`` is what Flower asks for."""
        if seconds != FLOWER_IDLE_S:
            self._busy_s = self._clock()  # a message is being answered
            self._sleep(min(seconds, REPLY_S))
            return
        idle_s = self._clock() - self._busy_s
        self._sleep(min(self._longest_s, max(SHORTEST_S, SHARE * idle_s)))
