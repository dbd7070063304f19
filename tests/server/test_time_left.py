"""How long a study will still take."""

import pytest

from cardionets_core.config.study import Study
from server.progress import left_words
from server.time_left import time_left

OPTIMISER = {"lr": 1e-3}
LEARNS = {"local_steps": 1, "batch_size": 4, "optimiser": OPTIMISER}
STUDY = Study.model_validate(
    {
        "name": "timed",
        "sites": {"minimum": 1},
        "phases": [
            {"task": "ecg_mae", "rounds": 12, **LEARNS},
            {"task": "cmr_mae", "rounds": 2, **LEARNS},
            {"task": "ecg_mae", "rounds": 3, **LEARNS},
        ],
    }
)


def entries(phase, task, seconds):
    return [
        {"phase": phase, "task": task, "round": number, "seconds": value}
        for number, value in enumerate(seconds, start=1)
    ]


def test_each_task_counts_with_its_own_latest_ten_rounds():
    first = entries(0, "ecg_mae", [1000.0, 1000.0, *[1.0] * 10])
    left = time_left(STUDY, first)
    assert left.seconds == pytest.approx(2 * 1.0 + 3 * 1.0) and left.untimed == 1
    left = time_left(STUDY, first + entries(1, "cmr_mae", [50.0]))
    assert left.seconds == pytest.approx(1 * 50.0 + 3 * 1.0) and left.untimed == 0
    left = time_left(STUDY, first[:1])
    assert left.seconds == pytest.approx((11 + 2 + 3) * 1000.0) and left.untimed == 1
    done = first + entries(1, "cmr_mae", [50.0, 50.0]) + entries(2, "ecg_mae", [2.0, 2.0, 2.0])
    assert time_left(STUDY, done).seconds == 0


def test_the_words_say_what_is_a_guess():
    assert left_words(75, 0) == "about 75 s left"
    assert left_words(312.4, 1) == "about 5 min 12 s left (1 phase to come not timed yet)"
