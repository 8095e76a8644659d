"""Lists of requests by their deadlines, the soonest first, a page at a time: the order, and where a page goes on."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, literal, tuple_
from sqlmodel import Session, col, select

from lockbox.errors import Invalid
from lockbox.requests.models import AccessRequest

FORM = re.compile(r"([0-9]{1,16})-([0-9a-f]{32})")
NO_PAGE = "This page is not one of ours; begin again with the first."
EPOCH, MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
ORDER: Final = col(AccessRequest.deadline_at), col(AccessRequest.id)


def some(
    session: Session, conditions: Sequence[ColumnElement[bool]], *, cursor: str | None, most: int
) -> tuple[list[UUID], str | None]:
    """Return the ids of requests that match, at most `most`, from the cursor on, and the cursor of those that follow.

    Raises:
        Invalid: the cursor is not one that this call gave out.
    """
    wanted = [*conditions, *([_later(cursor)] if cursor else [])]
    rows = session.exec(select(*ORDER).where(*wanted).order_by(*ORDER).limit(most + 1)).all()
    at, last = rows[most - 1] if len(rows) > most else (None, None)
    beyond = f"{(at - EPOCH) // MICROSECOND}-{last.hex}" if at and last else None
    return [one for _, one in rows[:most]], beyond


def _later(cursor: str) -> ColumnElement[Any]:
    read = FORM.fullmatch(cursor)
    if read is None:
        raise Invalid(NO_PAGE, field="after")
    return tuple_(*ORDER) > tuple_(literal(EPOCH + int(read[1]) * MICROSECOND), literal(UUID(hex=read[2])))
