"""Tell all logs, and people, of rows about gates: in their order, each log once, whatever breaks off on the way."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Row, TextClause, text
from sqlalchemy.exc import InterfaceError, OperationalError

from lockbox.database import Database, UnitOfWork

log = structlog.get_logger(__name__)

NOBODY = UUID(int=0)
SETTLED = timedelta(minutes=1)
"""A tenant's log is looked for once the tenant is so old: ids are in the order of commits then."""
AT_ONCE = 20
HOLD = text("SELECT pg_advisory_xact_lock(hashtextextended('lockbox enforcement of gates', 0))")
"""What a catalogue says of gates is recorded by one process at a time."""


@dataclass(frozen=True)
class GateNews:
    """Rows that say themselves how far they were told: `announced_to` is the last tenant, null before the vendor.

    `waiting` finds the first of a service that is `failed` for none, and locks it: of two workers the second waits,
    since a row that it skipped would be told behind the next one. `tenants` finds those that come next, by the
    columns of that row; `told` writes how far it is. `tell` writes to one tenant, or to the vendor for None.
    """

    waiting: TextClause
    tenants: TextClause
    told: TextClause
    tell: Callable[[UnitOfWork, Row[Any], Row[Any] | None], None]


def announce(database: Database, news: GateNews, *, settled: timedelta = SETTLED) -> Iterator[int]:
    """Write each row into the vendor's log and those of tenants, and tell people; yield how many after each step.

    It may run anywhere and any number of times. Rows of a gate are told one after the other, also those that others
    have overtaken.

    Raises:
        sqlalchemy.exc.OperationalError: Postgres is away.
    """
    failed: list[str] = []
    while True:
        found: Row[Any] | None = None
        try:
            with database.transaction() as session:
                found = session.execute(news.waiting, {"failed": failed, "settled": settled}).one_or_none()
                if found is None:
                    return
                count = _announce_some(session, news, found, settled)
        except (OperationalError, InterfaceError):
            raise
        except Exception:
            if found is None:
                raise
            log.exception("gate.not_announced", service=found.service)
            failed.append(found.service)
        else:
            yield count


def _announce_some(session: UnitOfWork, news: GateNews, row: Row[Any], settled: timedelta) -> int:
    if row.announced_to is None:
        news.tell(session, row, None)
        session.execute(news.told, {"id": row.id, "to": NOBODY})
        return 1
    tenants = session.execute(news.tenants, {**row._asdict(), "settled": settled, "most": AT_ONCE}).all()
    for one in tenants:
        news.tell(session, row, one)
    session.execute(news.told, {"id": row.id, "to": tenants[-1].id if tenants else row.announced_to})
    return len(tenants)
