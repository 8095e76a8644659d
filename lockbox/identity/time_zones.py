"""Time zones of people: which names are known, and an instant as clocks there and in UTC show it."""

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
    """Return the names of the IANA database that this machine knows, such as `Europe/Berlin`."""
    return frozenset(name for name in available_timezones() if NAME.fullmatch(name) and len(name) <= LONGEST)


def clock_time(moment: datetime, zone: str = DEFAULT) -> str:
    """Return an instant as people read it, such as `Tuesday 24 November 2026, 22:00 CET (21:00 UTC)`.

    Seconds are said where there are some, and the day in UTC where it is another one. A zone that this machine does
    not know, as may be after a change of the database, is read as UTC.
    """
    there, utc = moment.astimezone(_zone(zone)), moment.astimezone(UTC)
    said = f"{_day(there)}, {_clock(there)} {_abbreviation(there)}"
    if there.tzname() == DEFAULT:
        return said
    day = "" if there.date() == utc.date() else f"{_day(utc)}, "
    return f"{said} ({day}{_clock(utc)} UTC)"


def short_time(moment: datetime, zone: str = DEFAULT) -> str:
    """Return an instant in a few words, such as `24 Nov 22:00 CET`; UTC stands beside it wherever it matters."""
    there = moment.astimezone(_zone(zone))
    return f"{there.day} {there:%b} {_clock(there)} {_abbreviation(there)}"


def days(first: date | None, last: date | None, zone: str = DEFAULT) -> tuple[datetime | None, datetime | None]:
    """Return the instants between which days lie there: the midnight before the first, and that after the last.

    Raises:
        OverflowError: there is no such instant.
    """
    there = _zone(zone)
    since = datetime.combine(first, time.min, there).astimezone(UTC) if first else None
    until = datetime.combine(last + timedelta(days=1), time.min, there).astimezone(UTC) if last else None
    return since, until


def instant(written: str, zone: str = DEFAULT) -> datetime:
    """Return the instant at which clocks in a zone show what a browser's field for a local time holds.

    Of an hour that a clock shows twice it is the first; one that it leaves out is taken as if it had not.

    Raises:
        ValueError: it is no date and time of the form 2026-01-31T10:00, or none that a calendar holds.
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
    """Return CET and the like; zones without letters are named by their distance, as in UTC-03."""
    name = moment.tzname() or DEFAULT
    return f"UTC{name}" if name[0] in "+-" else name
