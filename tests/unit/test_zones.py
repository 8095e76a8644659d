"""An instant as clocks in a person's zone and in UTC show it, over changes of the clock too."""

from datetime import UTC, datetime

import pytest

from lockbox.identity import time_zones
from lockbox.identity.time_zones import clock_time, deadline, page_time
from tests.each import each


@each(
    ("moment", "zone", "words"),
    [
        ("2026-11-24T21:00:00", "Europe/Berlin", "Tuesday 24 November 2026, 22:00 CET (21:00 UTC)"),
        ("2026-07-01T21:00:00", "Europe/Berlin", "Wednesday 1 July 2026, 23:00 CEST (21:00 UTC)"),
        ("2026-11-24T21:00:00", "UTC", "Tuesday 24 November 2026, 21:00 UTC"),
        ("2026-11-24T21:00:05", "Etc/UTC", "Tuesday 24 November 2026, 21:00:05 UTC"),
        ("2026-11-24T21:00:05", "Europe/London", "Tuesday 24 November 2026, 21:00:05 GMT (21:00:05 UTC)"),
        (
            "2026-11-24T23:30:00",
            "Europe/Berlin",
            "Wednesday 25 November 2026, 00:30 CET (Tuesday 24 November 2026, 23:30 UTC)",
        ),
        ("2026-11-24T21:00:00", "America/Sao_Paulo", "Tuesday 24 November 2026, 18:00 UTC-03 (21:00 UTC)"),
        ("2026-11-24T12:00:00", "Asia/Kathmandu", "Tuesday 24 November 2026, 17:45 UTC+0545 (12:00 UTC)"),
    ],
)
def test_a_time_is_given_in_the_readers_zone_and_in_utc(moment: str, zone: str, words: str) -> None:
    assert clock_time(datetime.fromisoformat(moment).replace(tzinfo=UTC), zone) == words


@each(
    ("moment", "zone", "words"),
    [
        ("2026-11-24T21:00:00", "Europe/Berlin", "Tue 24 Nov 2026, 22:00"),
        ("2026-11-24T21:00:05", "UTC", "Tue 24 Nov 2026, 21:00:05"),
        ("2026-10-25T00:30:00", "Europe/Berlin", "Sun 25 Oct 2026, 02:30 CEST"),
        ("2026-10-25T01:30:00", "Europe/Berlin", "Sun 25 Oct 2026, 02:30 CET"),
        ("2026-10-25T02:30:00", "Europe/Berlin", "Sun 25 Oct 2026, 03:30"),
    ],
)
def test_a_page_repeats_the_time_zone_only_for_an_ambiguous_hour(moment: str, zone: str, words: str) -> None:
    assert page_time(datetime.fromisoformat(moment).replace(tzinfo=UTC), zone) == words


@each(
    ("moment", "zone", "words"),
    [
        ("2026-11-24T21:00:00", "Europe/Berlin", "22:00 CET"),
        ("2026-11-24T21:00:59", "Europe/Berlin", "22:00 CET"),
        ("2026-11-24T23:00:00", "Europe/Berlin", "Wed 25 Nov 00:00 CET"),
        ("2026-11-24T23:00:00", "UTC", "23:00 UTC"),
        ("2026-11-24T16:00:00", "Asia/Tokyo", "Wed 25 Nov 01:00 JST"),
        ("2026-11-24T12:00:00", "America/Sao_Paulo", "09:00 UTC-03"),
    ],
)
def test_a_deadline_names_the_day_if_it_falls_on_another_day_in_the_readers_zone(
    moment: str, zone: str, words: str
) -> None:
    noon = datetime(2026, 11, 24, 12, tzinfo=UTC)

    assert deadline(datetime.fromisoformat(moment).replace(tzinfo=UTC), noon, zone) == words


def test_an_hour_made_ambiguous_by_daylight_saving_is_distinguished() -> None:
    first, second = (datetime(2026, 10, 25, hour, 30, tzinfo=UTC) for hour in (0, 1))

    assert clock_time(first, "Europe/Berlin") == "Sunday 25 October 2026, 02:30 CEST (00:30 UTC)"
    assert clock_time(second, "Europe/Berlin") == "Sunday 25 October 2026, 02:30 CET (01:30 UTC)"


def test_an_hour_skipped_by_daylight_saving_is_never_shown() -> None:
    last, first = datetime(2026, 3, 29, 0, 59, tzinfo=UTC), datetime(2026, 3, 29, 1, 0, tzinfo=UTC)

    assert clock_time(last, "Europe/Berlin") == "Sunday 29 March 2026, 01:59 CET (00:59 UTC)"
    assert clock_time(first, "Europe/Berlin") == "Sunday 29 March 2026, 03:00 CEST (01:00 UTC)"


@pytest.mark.parametrize("zone", ["Nowhere/Land", "../../etc/passwd", "", "America", "\x00", "é"])
def test_an_unknown_time_zone_is_read_as_utc(zone: str) -> None:
    assert clock_time(datetime(2026, 11, 24, 21, tzinfo=UTC), zone) == "Tuesday 24 November 2026, 21:00 UTC"


def test_the_accepted_time_zone_names_are_the_names_in_the_time_zone_database() -> None:
    assert {"UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT+1"} <= time_zones.names()
    assert not time_zones.names() & {"localtime", "posixrules", "America", "posix/UTC", "right/UTC", "zone.tab"}


@pytest.mark.parametrize(
    ("written", "zone", "moment"),
    [
        ("2026-11-24T22:00", "Europe/Berlin", "2026-11-24T21:00:00"),
        ("2026-07-01T23:00:05", "Europe/Berlin", "2026-07-01T21:00:05"),
        ("2026-11-24T21:00", "UTC", "2026-11-24T21:00:00"),
        ("2026-10-25T02:30", "Europe/Berlin", "2026-10-25T00:30:00"),
        ("2026-03-29T02:30", "Europe/Berlin", "2026-03-29T01:30:00"),
        ("2026-11-24T21:00", "Nowhere/Else", "2026-11-24T21:00:00"),
    ],
)
def test_the_value_of_a_local_time_field_is_converted_to_an_instant(written: str, zone: str, moment: str) -> None:
    assert time_zones.instant(written, zone) == datetime.fromisoformat(moment).replace(tzinfo=UTC)


@each(
    "written",
    [
        *(
            "",
            "soon",
            "2026-02-30T10:00",
            "2026-01-01",
            "2026-01-01T24:30",
            "2026-01-01T10:00Z",
            "2026-01-01T10:00+01:00",
        ),
        *("0001-01-01T00:00", "9999-12-31T23:59", "٢026-01-01T10:00"),
    ],
)
def test_an_invalid_local_time_is_refused(written: str) -> None:
    zone = "America/New_York" if written.startswith("9999") else "Asia/Tokyo"

    with pytest.raises(ValueError, match="write a date and a time"):
        time_zones.instant(written, zone)
