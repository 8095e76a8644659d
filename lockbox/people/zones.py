"""Time zones of people: which names are known, and an instant as clocks there and in UTC show it."""

import re
from datetime import UTC, datetime, tzinfo
from functools import cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

DEFAULT = "UTC"
LONGEST = 64
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
