"""Find a request by the beginning of its id; the id's first digits are the time of submission."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from cli.client import at, call
from cli.inputs import id_argument, is_whole, the_one

TIME_DIGITS = 12
SKEW = timedelta(minutes=10)
"""How far the clocks of the API and of Postgres may differ."""

RequestId = Annotated[str, id_argument("REQUEST", "the request's id")]
RequestIds = Annotated[list[str], id_argument("REQUEST", "the ids of at most 50 requests, each")]


def request_id(given: str) -> str:
    """Return the only request's id that begins with `given`, or exit with 1."""
    return given if is_whole(given) else the_one(given, _submitted_then(given))


def _submitted_then(beginning: str) -> Iterator[str]:
    first, last = _moment(beginning, "0", -SKEW), _moment(beginning, "f", SKEW)
    if first is None or last is None:
        return
    asked: dict[str, Any] = {"text": beginning, "created_after": first, "created_before": last, "limit": 200}
    page = call("GET", at("requests"), params=asked)
    yield from (one["id"] for one in page["items"])
    while page["next_cursor"]:
        page = call("GET", at("requests"), params=asked | {"cursor": page["next_cursor"]})
        yield from (one["id"] for one in page["items"])


def _moment(beginning: str, digit: str, shift: timedelta) -> str | None:
    digits = beginning.replace("-", "")[:TIME_DIGITS].ljust(TIME_DIGITS, digit)
    try:
        return f"{datetime.fromtimestamp(int(digits, 16) / 1000, UTC) + shift:%Y-%m-%dT%H:%M:%SZ}"
    except (OverflowError, ValueError):
        return None
