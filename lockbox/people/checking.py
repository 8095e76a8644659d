"""Checking the marks of all rows that give power, a page of people after the other: the API alone has the key."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlmodel import Session

from lockbox.people import keyring, powers
from lockbox.people.keyring import Part
from lockbox.people.powers import Power

NOBODY = UUID(int=0)
PAGE = 200
MOST_FRESH = 200
MOST_DOUBTED = 200
LATELY = timedelta(minutes=3)

NEXT = text("SELECT * FROM people_to_check(:after, :page) AS id ORDER BY id")
FRESH = text("SELECT * FROM people_with_new_powers(:lately, :most) AS id")
REPORT = text("SELECT report_unverified(:process, :number, :first)")
MARKED: Mapping[Power, tuple[str, Callable[[Any], Sequence[Part]]]] = {
    Power.MEMBERSHIP: ("memberships", lambda row: powers.membership(row.id, row.person_id, row.tenant_id, row.role)),
    Power.PASSKEY: ("passkeys", powers.passkey),
    Power.IDENTITY: ("identities", powers.identity),
    Power.SESSION: ("sessions", powers.of_session),
    Power.TOKEN: ("tokens", powers.of_token),
}
"""Of each kind the table, and what the mark of a row covers."""


@dataclass(frozen=True, order=True)
class Unverified:
    """A row that gives power, or decides, and that no key of ours has marked as it stands: it counts for nothing."""

    person_id: UUID
    kind: Power

    def __str__(self) -> str:
        return f"a {self.kind} of person {self.person_id}"


class Rounds:
    """Goes round all people, a page at each look; whom it doubts and who has a new power it looks at each time."""

    def __init__(self) -> None:
        self._after = NOBODY
        self._doubted: Sequence[UUID] = ()

    def look(self, session: Session) -> list[Unverified]:
        """Return what is known not to hold, as of now."""
        connection = session.connection()
        page = connection.execute(NEXT, {"after": self._after, "page": PAGE}).scalars().all()
        fresh = connection.execute(FRESH, {"lately": LATELY, "most": MOST_FRESH}).scalars()
        found = unverified(session, {*page, *fresh, *self._doubted})
        self._after = page[-1] if len(page) == PAGE else NOBODY
        self._doubted = sorted({one.person_id for one in found})[:MOST_DOUBTED]
        return found


def unverified(session: Session, people: Iterable[UUID]) -> list[Unverified]:
    """Return which rows of these people no key of ours has marked as they stand."""
    is_mark, values = keyring.of(session).powers.is_mark, {"people": list(people)}
    found = []
    for kind, (table, parts) in MARKED.items():
        rows = session.connection().execute(text(f"SELECT * FROM marked_{table}(:people)"), values)  # noqa: S608 - ours
        found += [Unverified(row.person_id, kind) for row in rows if not is_mark(row.mac, *parts(row))]
    return sorted(found)


def report(session: Session, process_id: UUID, found: Sequence[Unverified]) -> None:
    """Say beside the heartbeat of an API's process how many rows do not hold, and which is the first."""
    values = {"process": process_id, "number": len(found), "first": str(found[0]) if found else None}
    session.connection().execute(REPORT, values)
