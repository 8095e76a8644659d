"""Charts: positions of bars, the same numbers in words and in a table, and unknown values."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from api.portal.charts import BOTTOM, HEIGHT, LEAST, LEFT, MONTHS, RIGHT, TOP, WIDTH, Chart, Series, count
from lockbox.monitoring.metrics import HOUR, HourlyCounts
from lockbox.monitoring.status import lag

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
HOURS = tuple(NOON + timedelta(hours=number) for number in range(24))


def chart(*values: Mapping[int, float | None]) -> Chart:
    """Return a chart of series, each given by its hours that are not zero."""
    series = [
        Series(f"Series {number}", f"kind-{number}", [one.get(hour, 0.0) for hour in range(24)])
        for number, one in enumerate(values)
    ]
    return Chart("requests", "Requests", HOURS, series, count)


def test_the_highest_bar_of_a_chart_reaches_the_top_and_others_are_proportional() -> None:
    low, high = chart({3: 5.0, 20: 10.0}).bars

    room = HEIGHT - TOP - BOTTOM
    assert (high.height, high.y) == (room, TOP)
    assert (low.height, low.y + low.height) == (room / 2, HEIGHT - BOTTOM)
    assert low.x < high.x


def test_no_bar_of_a_chart_leaves_the_drawing_or_touches_another_bar() -> None:
    drawn = list(chart(*[dict.fromkeys(range(24), 7.0)] * 3).bars)

    drawn.sort(key=lambda bar: bar.x)
    assert len(drawn) == 72
    assert drawn[0].x >= LEFT
    assert drawn[-1].x + drawn[-1].width <= WIDTH - RIGHT
    assert all(one.x + one.width <= other.x + 0.02 for one, other in pairwise(drawn))
    assert [bar.kind for bar in drawn[:3]] == ["kind-0", "kind-1", "kind-2"]


def test_a_chart_labels_each_month_and_says_which_months_had_no_answer() -> None:
    months = [datetime(2026, number, 1, tzinfo=UTC) for number in range(1, 13)]
    drawn = Chart("a", "A", months, [Series("A", "a", [None] * 11 + [60.0])], lag, MONTHS)

    assert [tick.words for tick in drawn.ticks][:3] == ["Jan", "Feb", "Mar"]
    assert len(list(drawn.ticks)) == 12
    assert drawn.words == "A: at most 1 min, in December 2026."
    assert list(drawn.rows)[:2] == [(months[11], ["1 min"]), (months[10], ["no answer"])]
    assert Chart("a", "A", months, [Series("A", "a", [None] * 12)], lag, MONTHS).nothing == "no answer yet"


def test_a_value_of_one_next_to_a_million_is_visible_in_a_chart() -> None:
    bars = list(chart({0: 1_000_000.0}, {0: 1.0}).bars)

    assert min(bar.height for bar in bars) == LEAST


def test_an_empty_chart_says_whether_its_values_are_zero_or_unknown() -> None:
    unknown = chart(dict.fromkeys(range(24)))

    assert (list(chart({}).bars), chart({}).nothing) == ([], "0 throughout")
    assert (list(unknown.bars), unknown.nothing) == ([], "not known yet")
    assert chart({1: 1.0}).nothing == ""
    assert unknown.words == "Series 0: not known."
    assert chart({}).words == "Series 0: 0 throughout."


def test_the_caption_of_a_chart_names_the_maximum_and_its_time() -> None:
    assert chart({2: 1500.0, 3: 4.0}, {5: 1.0}).words == (
        "Series 0: at most 1,500, in the hour from 14:00 UTC. Series 1: at most 1, in the hour from 17:00 UTC."
    )


def test_the_table_below_a_chart_has_all_numbers_newest_hour_first() -> None:
    rows = list(chart({0: 3.0, 23: 4.0}, {0: None}).rows)

    assert len(rows) == 24
    assert rows[0] == (HOURS[23], ["4", "0"])
    assert rows[-1] == (HOURS[0], ["3", "not known"])


def test_every_sixth_hour_of_a_chart_is_labelled() -> None:
    assert [tick.words for tick in chart({}).ticks] == ["12:00", "18:00", "00:00", "06:00"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (0.0124, "12 ms"),
        (1, "1.0 s"),
        (59.94, "59.9 s"),
        (60, "1 min"),
        (3599, "60 min"),
        (5400, "1.5 h"),
    ],
)
def test_lags_in_a_chart_are_written_in_a_fitting_unit(seconds: float, words: str) -> None:
    assert lag(seconds) == words


def test_a_chart_shows_hours_before_counting_began_as_unknown() -> None:
    day = HourlyCounts(HOURS, {("submitted", HOURS[5]): 2.0, ("sent", HOURS[0]): 1.0}, moves_from=HOURS[5] + HOUR / 2)

    assert day.counts("submitted")[:7] == (None, None, None, None, None, 2.0, 0.0)
    assert day.counts("sent")[:2] == (1.0, 0.0)
    assert day.worst("seal_lag") == (None,) * 24
