"""Typed values, such as durations (15m), and beginnings of ids. Parsers raise BadParameter."""

import json
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import typer

from cli.client import stop

DURATION = re.compile(r"(?:([0-9]{1,6})d)?(?:([0-9]{1,6})h)?(?:([0-9]{1,6})m)?(?:([0-9]{1,9})s)?")
SIZES = (86400, 3600, 60, 1)
UNIT_NAMES = {86400: "days, such as 90d", 3600: "hours, such as 24h"}
EXAMPLES = "write a duration such as 90s, 15m, 8h, 1h30m or 2d"
DIGITS = re.compile(r"[0-9a-f]{8,32}")
GROUPS = ((0, 8), (8, 12), (12, 16), (16, 20), (20, 32))
WHOLE = 36
MOST_LISTED = 5
ID_HELP = "or its beginning, 8 characters or more"


def seconds(given: str | int, *, least: int = 0, most: int | None = None, unit: int = 1) -> int:
    """Return a duration in units of `unit` seconds; an integer is a default and already in that unit."""
    if isinstance(given, int):
        return given
    found = DURATION.fullmatch(given)
    if not given or found is None:
        raise typer.BadParameter(EXAMPLES)
    total = sum(int(number) * size for number, size in zip(found.groups("0"), SIZES, strict=True))
    if total % unit:
        raise typer.BadParameter(f"write a whole number of {UNIT_NAMES[unit]}")
    if total // unit < least or (most is not None and total // unit > most):
        upper = "" if most is None else f" and at most {written(most * unit)}"
        raise typer.BadParameter(f"write at least {written(least * unit)}{upper}")
    return total // unit


hours = partial(seconds, unit=3600)
days = partial(seconds, unit=86400)


def written(number: int) -> str:
    exact = (f"{number // size}{unit}" for unit, size in zip("dhms", SIZES, strict=True) if number % size == 0)
    return next(exact) if number else "0s"


def parameters(given: Iterable[str]) -> dict[str, str | int | bool]:
    """`true`, `false` and whole numbers get their types; the rest is text, quoted or not."""
    found: dict[str, str | int | bool] = {}
    for one in given:
        name, equals, typed = one.partition("=")
        if not equals or not name or name in found:
            raise typer.BadParameter("write NAME=VALUE, each name once", param_hint="--context")
        found[name] = _scalar(typed)
    return found


def _scalar(typed: str) -> str | int | bool:
    try:
        value = json.loads(typed)
    except ValueError:
        return typed
    return value if isinstance(value, str | int | bool) else typed


def duration_option(flag: str, help_: str, parser: Any = seconds, **more: Any) -> Any:  # noqa: ANN401 - as Typer declares it
    return typer.Option(flag, parser=parser, metavar="DURATION", help=help_, **more)


def instant(given: str) -> str:
    """Parse a moment; without a zone, it is in this machine's zone."""
    try:
        return datetime.fromisoformat(given).astimezone(UTC).isoformat()
    except (ValueError, OverflowError):
        raise typer.BadParameter("write a moment such as 2026-12-01T08:00, or 2026-12-01T08:00Z") from None


def identifier(given: str) -> str:
    digits = given.strip().lower().replace("-", "")
    if not DIGITS.fullmatch(digits):
        raise typer.BadParameter("write an id, or at least 8 characters of its beginning")
    return "-".join(filter(None, (digits[start:end] for start, end in GROUPS)))


def id_argument(metavar: str, help_: str) -> Any:  # noqa: ANN401 - as Typer declares it
    return typer.Argument(parser=identifier, metavar=metavar, help=f"{help_}, {ID_HELP}", show_default=False)


def is_whole(given: str) -> bool:
    return len(given) == WHOLE


def the_one(given: str, ids: Iterable[str]) -> str:
    """Return the only id that begins with `given`, or exit with 1."""
    if is_whole(given):
        return given
    found = sorted({one for one in ids if one.startswith(given)})
    if not found:
        raise stop(f"nothing that you may see has an id that begins with {given}")
    if len(found) > 1:
        rest = [f"and {len(found) - MOST_LISTED} more"] if len(found) > MOST_LISTED else []
        raise stop("\n  ".join([f"{given} is the beginning of {len(found)} ids:", *found[:MOST_LISTED], *rest]))
    return found[0]
