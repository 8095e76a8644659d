"""Times in people's IANA time zones."""

import re
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

DEFAULT = "UTC"
LONGEST = 64
LOCAL = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(?::[0-9]{2})?")
NAME = re.compile(r"[A-Z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9_+-]+){0,2}")


@cache
def names() -> frozenset[str]:
    return frozenset(name for name in available_timezones() if NAME.fullmatch(name) and len(name) <= LONGEST)


def clock_time(moment: datetime, zone: str = DEFAULT) -> str:
    """Such as `Tuesday 24 November 2026, 22:00 CET (21:00 UTC)`.

    An unknown zone, which an update of the IANA database can cause, is read as UTC.
    """
    there, utc = moment.astimezone(_zone(zone)), moment.astimezone(UTC)
    said = f"{_day(there)}, {_clock(there)} {_abbreviation(there)}"
    if there.tzname() == DEFAULT:
        return said
    day = "" if there.date() == utc.date() else f"{_day(utc)}, "
    return f"{said} ({day}{_clock(utc)} UTC)"


def page_time(moment: datetime, zone: str = DEFAULT) -> str:
    """Such as `Tue 24 Nov 2026, 22:00`, for a page that names the zone once."""
    there = moment.astimezone(_zone(zone))
    return f"{there:%a} {there.day} {there:%b} {there.year}, {wall_clock(there)}"


def short_time(moment: datetime, zone: str = DEFAULT) -> str:
    """Such as `24 Nov 22:00`."""
    there = moment.astimezone(_zone(zone))
    return f"{there.day} {there:%b} {wall_clock(there)}"


def deadline(moment: datetime, at: datetime, zone: str = DEFAULT) -> str:
    """Format a deadline, rounded down to minutes: `22:00 CET`, or `Wed 25 Nov 09:00 CET` on another day than `at`."""
    there = moment.astimezone(_zone(zone))
    is_today = there.date() == at.astimezone(_zone(zone)).date()
    day = "" if is_today else f"{there:%a} {there.day} {there:%b} "
    return f"{day}{there:%H:%M} {_abbreviation(there)}"


def local(moment: datetime, zone: str = DEFAULT) -> datetime:
    """An unknown zone is read as UTC."""
    return moment.astimezone(_zone(zone))


def wall_clock(there: datetime) -> str:
    """Format a local time of day; the zone's abbreviation is added only to times that occur twice."""
    comes_twice = there.replace(fold=0).utcoffset() != there.replace(fold=1).utcoffset()
    return f"{_clock(there)} {_abbreviation(there)}" if comes_twice else _clock(there)


def days(first: date | None, last: date | None, zone: str = DEFAULT) -> tuple[datetime | None, datetime | None]:
    """Return the instants of midnight before the first day and after the last day.

    Raises OverflowError if there is no such instant.
    """
    there = _zone(zone)
    since = datetime.combine(first, time.min, there).astimezone(UTC) if first else None
    until = datetime.combine(last + timedelta(days=1), time.min, there).astimezone(UTC) if last else None
    return since, until


def instant(written: str, zone: str = DEFAULT) -> datetime:
    """Return the instant of a browser's local time field in a zone.

    For an hour that occurs twice, it is the first; a skipped hour is read as if it existed.

    Raises:
        ValueError: the text is not a date and time of the form 2026-01-31T10:00.
    """
    if not LOCAL.fullmatch(written):
        raise ValueError("write a date and a time, such as 2026-01-31T10:00")
    try:
        return datetime.fromisoformat(written).replace(tzinfo=_zone(zone)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("write a date and a time that a calendar holds") from None


def _zone(name: str) -> tzinfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return UTC


def _day(moment: datetime) -> str:
    return f"{moment:%A} {moment.day} {moment:%B} {moment.year}"


def _clock(moment: datetime) -> str:
    return f"{moment:%H:%M:%S}" if moment.second else f"{moment:%H:%M}"


def _abbreviation(moment: datetime) -> str:
    """Such as CET; a zone without letters is named by its offset, as in UTC-03."""
    name = moment.tzname() or DEFAULT
    return f"UTC{name}" if name[0] in "+-" else name
