"""Bars hold every value, strips every peak, frames no corner; progress is plain where no terminal is."""

import io
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from cardionets_core.data.records import LEADS
from client.report.histograms import bars_svg, histogram
from client.report.pictures import even_frames, even_places, frame_png, raw_frames, strip_svg
from client.report.strips import BOX_PX, HEIGHT_PX, ROW_BOXES, WIDTH_PX, lay_out
from client.screen import PLAIN_EVERY_S, Screen


@given(arrays(np.float64, st.integers(0, 80), elements=st.floats(-1e4, 1e4) | st.just(np.nan)))
def test_no_value_is_lost_from_a_histogram(values):
    found = histogram(values, title="x", unit="mV")
    assert sum(bar.count for bar in found.bars) == found.known == np.isfinite(values).sum()
    assert found.known + found.unknown == len(values)
    known = values[np.isfinite(values)]
    for bar in found.bars:
        if bar.least is not None and bar.below is not None:
            assert bar.count == ((known >= bar.least) & (known < bar.below)).sum()
    assert bars_svg(found).count("<rect") == len(found.bars) <= 20


def test_rates_get_a_bar_each_and_far_values_are_gathered():
    rates = histogram(np.repeat([250.0, 500.0, 1000.0], [5, 90, 7]), title="rate", unit="Hz")
    assert [(bar.label, bar.count) for bar in rates.bars] == [("250", 5), ("500", 90), ("1000", 7)]
    spread = np.concatenate([np.linspace(0.5, 2.5, 500), [4000.0]])
    last = histogram(spread, title="amplitude", unit="mV").bars[-1]
    assert last.below is None and last.count >= 1 and last.label.startswith("≥")


def ecg(seconds=10.0, fs_hz=500.0):
    t = np.arange(int(seconds * fs_hz)) / fs_hz
    return np.outer(np.linspace(0.5, 1.5, 12), np.sin(2 * np.pi * 1.3 * t))


def heights_mv(strip, lead):
    """The drawn extent of a lead in mV."""
    line = strip.lines[LEADS.index(lead)]
    points = np.concatenate(line.pieces)
    return np.ptp(points[:, 1]) / BOX_PX * strip.box_mv


@settings(max_examples=25)
@given(st.floats(0.002, 2000))
def test_a_strip_keeps_amplitude_and_time_at_any_gain(gain):
    strip = lay_out(gain * ecg(), fs_hz=500.0)
    for place, lead in enumerate(LEADS):
        truth = 2 * gain * np.linspace(0.5, 1.5, 12)[place]
        reach = 2 * 0.95 * ROW_BOXES * strip.box_mv
        assert heights_mv(strip, lead) == pytest.approx(min(truth, reach), rel=1e-3)
        points = np.concatenate(strip.lines[place].pieces)
        assert points[:, 0].min() >= 0 and points[:, 0].max() <= WIDTH_PX
    assert np.ptp(np.concatenate(strip.lines[0].pieces)[:, 0]) == pytest.approx(4999 / 500 / 0.2 * BOX_PX)
    middle = [line.middle_px for line in strip.lines]
    assert min(middle) > 0 and max(middle) < HEIGHT_PX


def test_a_narrow_spike_survives_the_thinning():
    signal = ecg() * 0.1
    signal[3, 1234] = 1.0
    assert heights_mv(lay_out(signal, fs_hz=500.0), "aVR") > 1.0


def test_gaps_odd_leads_and_absent_ones():
    signal = ecg()
    signal[0, 100:200] = np.nan
    signal[1] = np.inf
    strip = lay_out(signal[:7], fs_hz=500.0, leads=("I", "II", "III", "aVR", "aVL", "aVF", "vx"))
    assert [len(line.pieces) for line in strip.lines] == [2, 0, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0]
    svg = strip_svg(strip, label="ECG")
    assert svg.count(">absent<") == 7 and "vx" not in svg
    assert all(name in svg for name in LEADS)


def test_the_path_in_the_svg_is_the_line():
    strip = lay_out(ecg(), fs_hz=500.0)
    svg = strip_svg(strip, label="ECG")
    path = re.findall(r'<path d="(M[^"]*)" transform', svg)[0]
    start, moves = path[1:].split("l")
    steps = np.array([int(number) for number in re.findall(r"-?\d+", moves)]).reshape(-1, 2)
    drawn = np.array([int(number) for number in start.split()]) + np.cumsum(steps, axis=0)
    np.testing.assert_allclose(drawn / 4, strip.lines[0].pieces[0][1:], atol=0.13)


def test_of_a_raw_frame_only_the_middle_is_shown():
    pixels = np.full((9, 4, 100, 80), 50.0)
    pixels[:, 2, 50, 40] = 100.0
    pixels[:, 2, :15], pixels[:, 2, :, :12] = 1e6, 1e6  # where scanners write
    pixels[4, 2, 50, 41] = np.nan
    frames = raw_frames(pixels)
    assert [frame.shape for frame in frames] == [(60, 48)] * 3
    assert all((frame == frame.max()).sum() == 1 for frame in frames)
    flat = raw_frames(np.zeros((2, 10, 10)))
    assert len(flat) == 2 and not np.any(flat)


def test_frames_are_evenly_apart_and_carry_no_text():
    frames = even_frames(np.arange(50)[:, None, None] * np.ones((1, 96, 64), dtype=np.uint8))
    assert [int(frame[0, 0]) for frame in frames] == [0, 16, 33] == even_places(50)
    with Image.open(io.BytesIO(frame_png(frames[2].astype(np.uint8)))) as image:
        assert image.size == (85, 128) and not image.info and image.getpixel((3, 3)) == 33


def test_a_log_gets_a_line_every_so_often_with_an_estimate():
    now, stream = [0.0], io.StringIO()
    with Screen(stream, clock=lambda: now[0]) as screen:
        for done in range(101):
            screen.tell("read", done, 100)
            now[0] += 1.0
        screen.note("kept")
    lines = stream.getvalue().splitlines()
    assert lines[0] == "reading the recordings · 0 of 100"
    assert lines[1] == f"reading the recordings · {PLAIN_EVERY_S:.0f} of 100, about 90 s left".replace(
        "about 90 s", "about 2 min"
    )
    assert lines[-2:] == ["reading the recordings · 100 of 100", "kept"] and len(lines) == 12


def test_a_terminal_gets_a_bar():
    stream = io.StringIO()
    with Screen(stream, live=True) as screen:
        screen.tell("read", 1, 2)
        screen.tell("read", 2, 2)
        screen.note("[kept]")
    assert "reading the recordings" in stream.getvalue() and "2/2" in stream.getvalue()
    assert "[kept]" in stream.getvalue()


@given(st.floats(0.01, 90_000), st.floats(1e-4, 3), st.integers(1, 60))
def test_ticks_have_three_digits_and_differ(middle, spread, count):
    values = middle * (1 + spread * np.linspace(-0.5, 0.5, count))
    labels = [bar.label for bar in histogram(values, title="x", unit="s").bars]
    assert len(labels) == len(set(labels))
    for label in labels:
        digits = label.strip("<≥ -").split("e")[0].replace(".", "").lstrip("0")
        assert len(digits) <= 3 or "." not in label


def test_durations_that_nobody_can_tell_apart_share_a_bar():
    found = histogram(np.repeat([10.0, 11.948, 11.951], [9, 4, 5]), title="x", unit="s")
    assert [(bar.label, bar.count) for bar in found.bars] == [("10", 9), ("11.9", 4), ("12", 5)]
    found = histogram(np.repeat([10.0, 11.958, 11.951], [9, 4, 5]), title="x", unit="s")
    assert [(bar.label, bar.count) for bar in found.bars] == [("10", 9), ("12", 9)]
