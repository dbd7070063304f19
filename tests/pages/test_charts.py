"""Charts of pages: where a value lies, what is drawn, and that text from elsewhere stays text."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardionets_core.pages.axes import count_axis, value_axis
from cardionets_core.pages.bars import bar_chart
from cardionets_core.pages.charts import Series, line_chart
from cardionets_core.pages.figures import MOST_POINTS, MOST_ROWS, thinned
from cardionets_core.pages.intervals import Interval, interval_chart
from cardionets_core.pages.marks import MARKS, looks_of
from cardionets_core.pages.page import byte_words, second_words, short_number

FINITE = st.integers(-99_000_000, 99_000_000).map(lambda number: number / 1000)


def tree(figure):
    return ElementTree.fromstring(str(figure).replace("&nbsp;", " "))


def line_points(figure):
    found = tree(figure).findall(".//polyline")
    return [[tuple(map(float, point.split(","))) for point in each.get("points").split()] for each in found]


@given(st.lists(FINITE, min_size=1, max_size=20))
def test_an_axis_holds_every_value_between_round_ticks(values):
    axis = value_axis(values, begin=200.0, end=10.0)
    room = 1e-6 * (axis.high - axis.low)
    assert axis.low <= min(values) + room and axis.high >= max(values) - room
    assert 2 <= len(axis.ticks) <= 9
    assert axis.at(axis.low) == 200.0 and axis.at(axis.high) == pytest.approx(10.0)
    assert all(10.0 - 1e-6 <= axis.at(value) <= 200.0 + 1e-6 for value in values)
    assert len({axis.words(tick) for tick in axis.ticks}) == len(axis.ticks)


def test_ticks_are_those_of_a_ruler():
    assert value_axis([0.0, 1.0], begin=0, end=1).ticks == pytest.approx((0, 0.25, 0.5, 0.75, 1.0))
    assert [value_axis([0.0, 1.0], begin=0, end=1).words(t) for t in (0.25, -0.5, 0.0)] == [
        "0.25",
        "−0.50",
        "0",
    ]
    assert value_axis([3.0, 9.0], begin=0, end=1, from_zero=True).low == 0
    assert count_axis(1, 300, begin=0, end=1).ticks == (1, 50, 100, 150, 200, 250, 300)
    assert count_axis(1, 5, begin=0, end=1).ticks == (1, 2, 3, 4, 5)


def test_a_line_goes_through_its_values_and_breaks_where_there_is_none():
    series = Series(name="a", x=(1, 2, 3, 4, 5), y=(0.0, 1.0, None, 1.0, 0.0))
    first, second = line_points(line_chart("k", [series], title="t"))
    assert [y for _, y in first] == [y for _, y in reversed(second)]
    steps = [b[0] - a[0] for a, b in ((first[0], first[1]), (second[0], second[1]))]
    assert steps[0] == pytest.approx(steps[1], abs=0.11)


def test_a_band_lies_around_its_line():
    series = Series(name="a", x=(1, 2), y=(0.5, 0.6), low=(0.4, 0.5), high=(0.7, 0.8), whole=True)
    band = tree(line_chart("k", [series], title="t")).find(".//polygon[@class='band ink']")
    ys = [float(point.split(",")[1]) for point in band.get("points").split()]
    ((_, begin), (_, end)) = line_points(line_chart("k", [series], title="t"))[0]
    assert ys[0] > begin > ys[3] and ys[1] > end > ys[2]


def test_lines_differ_by_more_than_colour_and_fifty_are_told_as_many():
    eight = looks_of([(False, number) for number in range(8)])
    assert len({look.mark for look in eight}) == len({look.colour for look in eight}) == 8 == len(MARKS)
    many = looks_of([*((False, number) for number in range(50)), (True, None)])
    assert {look.colour for look in many} == {"many", "ink"}
    text = str(
        line_chart("k", [Series(name=f"s{n}", x=(1,), y=(1.0,), number=n) for n in range(50)], title="t")
    )
    assert "each of 50 sites" in text


def test_a_site_keeps_its_colour_from_chart_to_chart():
    alone = str(line_chart("k", [Series(name="c", x=(1, 2), y=(1.0, 2.0), number=2)], title="t"))
    assert 'class="line s2' in alone and 'class="line s0' not in alone


def test_names_from_elsewhere_stay_text():
    bad = "<script>alert(1)</script>&\"'"
    for figure in (
        line_chart("k", [Series(name=bad, x=(1, 2), y=(1.0, 2.0))], title=bad, caption=bad),
        bar_chart("k", [bad], [(bad, [1.0])], title=bad, divisions=[(1, bad)]),
        interval_chart("k", [Interval(name=bad, value=1.0, note=bad)], title=bad),
    ):
        assert "<script" not in str(figure)
        tree(figure)


def test_a_long_study_is_thinned_and_its_ends_stay():
    assert thinned(list(range(7)), most=40) == list(range(7))
    assert thinned(list(range(300)))[0] == 0 and thinned(list(range(300)))[-1] == 299
    assert len(thinned(list(range(300)))) == MOST_ROWS
    series = Series(name="a", x=tuple(range(1, 1001)), y=tuple(map(float, range(1000))))
    figure = line_chart("k", [series], title="t")
    assert len(line_points(figure)[0]) == MOST_POINTS
    assert len(tree(figure).findall(".//tbody/tr")) == MOST_ROWS and "rows at even distances" in str(figure)


def test_bars_begin_at_zero_and_stack():
    figure = tree(bar_chart("k", ["1", "2"], [("in", [1.0, 2.0]), ("out", [3.0, 0.0])], title="t"))
    first, second, third, _ = (
        {name: float(bar.get(name)) for name in ("y", "height")} for bar in figure.findall(".//rect")
    )
    assert second["height"] == pytest.approx(2 * first["height"], abs=0.2)
    assert third["y"] + third["height"] == pytest.approx(first["y"], abs=0.2)
    keys = figure.findall(".//ul[@class='legend']/li/svg")
    assert len(keys) == 2 and all(key.findall(".//polygon") and not key.findall(".//line") for key in keys)


def test_parts_of_a_bar_have_colours_of_their_own():
    parts = [(name, [1.0]) for name in "abcdef"]
    figure = tree(bar_chart("k", ["1"], parts, title="t"))
    assert len({bar.get("class") for bar in figure.findall(".//rect")}) == len(parts)


def test_charts_of_nothing_are_still_charts():
    assert "No values yet" in str(line_chart("k", [Series(name="a", x=(1,), y=(math.nan,))], title="t"))
    tree(bar_chart("k", [], [("in", [])], title="t"))
    tree(interval_chart("k", [], title="t"))


def test_places_with_names_bear_them_on_the_axis_in_their_order():
    days = [f"{day} Nov" for day in range(1, 8)]
    figure = tree(bar_chart("k", days, [("in", [1.0] * 7)], title="t", x_name="day", named=True))
    told = [
        (float(each.get("x")), each.text) for each in figure.iter() if each.text in days and each.get("x")
    ]
    assert [text for _, text in sorted(told)] == days


def test_what_is_seen_can_be_heard():
    figure = line_chart("k", [Series(name="alpha", x=(1, 2), y=(2.0, 1.5))], title="Loss")
    svg = tree(figure).find("svg")
    assert svg.get("role") == "img" and svg.get("aria-labelledby") == "k-t k-d"
    assert svg.find("desc").text == "Lines over round: alpha 1.5 at 2, from 2 at 1."
    assert [cell.text for cell in tree(figure).findall(".//tbody//td")] == ["2", "1.500"]


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.12345, "0.123"), (12.3456, "12.35"), (20.0, "20"), (0.00012, "0.00012"), (None, "–"), (math.nan, "–"),
     (-0.5, "-0.500"), (1234567.0, "1,234,567"), (12345.6, "12,346")],
)  # fmt: skip
def test_numbers_are_short(value, words):
    assert short_number(value) == words


def test_durations_and_sizes_are_as_people_say_them():
    assert [second_words(s) for s in (None, 0.4, 59.6, 150, 7260, 260_000)] == [
        "–", "0.4 s", "60 s", "2 min 30 s", "2 h 01 min", "3 d 0 h"]  # fmt: skip
    assert [byte_words(n) for n in (None, 0, 999, 1500, 2.5e6, 1.25e9)] == [
        "–", "0 bytes", "999 bytes", "1.5 kB", "2.5 MB", "1.25 GB"]  # fmt: skip


def test_every_class_that_a_chart_uses_is_in_the_style_sheet():
    from cardionets_core.pages.own_files import own_folder

    style = (own_folder("cardionets_core.pages", "templates") / "look.css").read_text()
    lines = [Series(name=f"s{n}", x=(1, 2), y=(1.0, 2.0), number=n) for n in range(8)]
    used = set(re.findall(r"\b(s\d|dash[123]|thick|band|mark)\b", str(line_chart("k", lines, title="t"))))
    assert {"s0", "s7", "dash3", "mark"} <= used
    assert not [name for name in used if f".{name}" not in style]
