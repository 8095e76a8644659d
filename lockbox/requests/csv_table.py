"""Requests as a table for spreadsheets: a row each, with what the reader may read, harmless in every cell."""

from collections.abc import Iterable, Iterator

from lockbox.audit.canonical import instant
from lockbox.audit.export import row
from lockbox.identity.roles import Caller
from lockbox.notifications.mail_text import SAYINGS
from lockbox.requests.queries import RequestEntry
from lockbox.requests.visibility import ProtectedField, may_read, reader_roles

COLUMNS = (
    *("Request", "Customer", "State", "Engineer", "Service", "Resources", "Actions", "Reason", "Case"),
    *("Justification", "Seconds asked", "Asked", "Opened", "Closed", "Deadline"),
)


def head() -> bytes:
    """Return the row with the names of the columns."""
    return row(COLUMNS)


def rows(caller: Caller, entries: Iterable[RequestEntry]) -> Iterator[bytes]:
    """Yield a row for each request; instants are in UTC, and what is not for the caller is left empty."""
    return (row(_cells(caller, entry)) for entry in entries)


def _cells(caller: Caller, entry: RequestEntry) -> Iterator[object]:
    asked = entry.request
    held = reader_roles(caller, asked.requester_id, asked.tenant_id)
    yield asked.id
    yield entry.tenant
    yield SAYINGS[asked.state].to(caller.side)
    yield entry.requester
    yield asked.service
    yield "\n".join(asked.resources)
    yield ", ".join(asked.actions)
    yield asked.reason_code
    yield asked.case_ref
    yield asked.justification if may_read(ProtectedField.JUSTIFICATION, held) else None
    yield asked.access_window
    for moment in (asked.created_at, asked.opened_at, asked.closed_at, asked.deadline_at):
        yield instant(moment) if moment else None
