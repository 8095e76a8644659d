"""Exports of a log as a table for people, with the columns that auditors know, checked as it is read."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from uuid import UUID

from sqlmodel import Session

from lockbox.audit import event_search
from lockbox.audit.canonical import instant
from lockbox.audit.event_search import Recorded
from lockbox.audit.export import NUMBERS_A_PAGE, Export, Pages

COLUMNS = (
    *("Date", "IP address", "User", "Activity", "Item", "ApprovalDecision"),
    *("Role", "Request", "Event", "Number", "Altered"),
)
DECISIONS = {"approve": "Approved", "deny": "Denied", "revoke": "Revoked", "time_out": "Timed out"}
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def table(pages: Pages, export: Export) -> Iterator[bytes]:
    """Yield the rows of an export as CSV, with the columns that auditors know; cells are harmless to spreadsheets."""
    yield row(COLUMNS)
    for start in range(0, export.log.size, NUMBERS_A_PAGE):
        with pages() as session:
            events = _span(session, export, start, min(start + NUMBERS_A_PAGE, export.log.size))
            items = event_search.items(session, export.log.id, events)
        for event in events:
            yield row(_cells(event, items))


def _span(session: Session, export: Export, start: int, end: int) -> list[Recorded]:
    log = export.log
    return event_search.checked_span(session, log.id, export.sight, export.wanted, start=start, end=end)


def _cells(event: Recorded, items: Mapping[UUID, str]) -> Iterator[object]:
    yield instant(event.at)
    yield event.value("address")
    yield event.value("name") or event.actor_id or event.actor_role
    yield event.action
    yield items.get(event.request_id) if event.request_id else None
    yield DECISIONS.get(event.action)
    yield event.actor_role
    yield event.request_id
    yield event.id
    yield event.number
    yield ", ".join(event.altered)


def row(cells: Iterable[object]) -> bytes:
    """Return a row of CSV, whose cells no spreadsheet takes for formulas."""
    written = io.StringIO()
    csv.writer(written).writerow([_harmless(cell) for cell in cells])
    return written.getvalue().encode()


def _harmless(cell: object) -> str:
    """Return a cell that no spreadsheet takes for a formula."""
    shown = "" if cell is None else str(cell)
    return f"'{shown}" if shown.startswith(FORMULA) else shown
