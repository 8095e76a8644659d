"""Scan rows that grant rights for those without a valid mark, page by page, and report how many there are."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from sqlalchemy import text

from lockbox.database import UnitOfWork
from lockbox.identity.row_macs import OF_PEOPLE, OF_TENANTS, RowOwners, UnverifiedRow

NOBODY = UUID(int=0)
PAGE = 200
MOST_FRESH = 200
MOST_DOUBTED = 200
LATELY = timedelta(minutes=3)
REPORT = text("SELECT report_unverified(:process, :number, :first)")


class MarkScan:
    """Scan owners page by page; doubted owners and those with new rows are checked every time."""

    def __init__(self, owners: RowOwners) -> None:
        self._owners = owners
        self._after = NOBODY
        self._doubted: Sequence[UUID] = ()

    def look(self, session: UnitOfWork) -> list[UnverifiedRow]:
        """Return the rows known to be invalid now."""
        connection = session.connection()
        page = connection.execute(self._owners.next, {"after": self._after, "page": PAGE}).scalars().all()
        fresh = connection.execute(self._owners.fresh, {"lately": LATELY, "most": MOST_FRESH}).scalars()
        found = self._owners.unverified(session, {*page, *fresh, *self._doubted})
        self._after = page[-1] if len(page) == PAGE else NOBODY
        self._doubted = sorted({one.whose for one in found})[:MOST_DOUBTED]
        return found


class MarkScans:
    """Scan all people and all tenants."""

    def __init__(self) -> None:
        self._rounds = (MarkScan(OF_PEOPLE), MarkScan(OF_TENANTS))

    def look(self, session: UnitOfWork) -> list[UnverifiedRow]:
        """Return the rows known to be invalid now."""
        return [one for round_ in self._rounds for one in round_.look(session)]


def report(session: UnitOfWork, process_id: UUID, found: Sequence[UnverifiedRow]) -> None:
    """Report beside the API process' heartbeat how many rows are invalid, and the first of them."""
    values = {"process": process_id, "number": len(found), "first": str(found[0]) if found else None}
    session.execute(REPORT, values)
