"""The SuperNode's pauses: short after a message, as long as Flower's on an idle site."""

import pytest

from client.pace import REPLY_S, SHORTEST_S, Pace


class Clock:
    def __init__(self):
        self.now, self.slept = 100.0, []

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


def test_an_idle_site_asks_ever_more_seldom_up_to_flowers_pause():
    clock = Clock()
    pace = Pace(sleep=clock.sleep, clock=clock)
    while clock.now < 100.0 + 120.0:
        pace(3)
    assert clock.slept[0] == SHORTEST_S
    assert clock.slept == sorted(clock.slept)
    assert clock.slept[-1] == 3.0


def test_a_message_makes_it_short_again():
    clock = Clock()
    pace = Pace(sleep=clock.sleep, clock=clock)
    clock.now += 1000.0
    pace(3)
    pace(0.5)
    pace(3)
    assert clock.slept == [3.0, REPLY_S, SHORTEST_S]


@pytest.mark.parametrize("longest", [0.05, 1.0, 10.0])
def test_never_longer_than_asked_for(longest):
    clock = Clock()
    pace = Pace(longest_s=longest, sleep=clock.sleep, clock=clock)
    clock.now += 1000.0
    pace(3)
    assert clock.slept == [longest]


def test_a_message_that_waits_is_answered_within_a_tenth_of_its_wait():
    for wait in (0.5, 2.0, 9.0, 25.0):
        clock = Clock()
        pace = Pace(sleep=clock.sleep, clock=clock)
        while clock.now - 100.0 < wait:
            pace(3)
        assert clock.now - 100.0 - wait <= max(SHORTEST_S, 0.11 * wait)
