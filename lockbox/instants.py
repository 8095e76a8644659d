"""Parse timestamps of requests and policies: RFC 3339 with a time zone, converted to UTC; pure."""

import re
from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field

FORM = re.compile(r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(?:\.\d+)?(?:[Zz]|[+-]\d{2}:\d{2})")
EXAMPLE = "2026-11-24T09:00:00Z"


def _written_out(value: object) -> object:
    """Refuse numbers, which pydantic would read as seconds since 1970, and dates without a time."""
    if isinstance(value, datetime) or (isinstance(value, str) and FORM.fullmatch(value)):
        return value
    raise ValueError(f"write a moment with its time zone, such as {EXAMPLE}")


def _to_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("choose a moment that a calendar holds") from None


Instant = Annotated[
    AwareDatetime,
    BeforeValidator(_written_out, json_schema_input_type=AwareDatetime),
    AfterValidator(_to_utc),
    Field(examples=[EXAMPLE]),
]
"""A timestamp in a body or a query."""
