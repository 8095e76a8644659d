"""Checking all rows that are marked, a page of people and of tenants after the other: the API alone has the key."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from operator import attrgetter
from typing import Any
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlmodel import Session

from lockbox.identity import keyring, row_marks
from lockbox.identity.keyring import Part
from lockbox.identity.row_marks import Power

NOBODY = UUID(int=0)
PAGE = 200
MOST_FRESH = 200
MOST_DOUBTED = 200
LATELY = timedelta(minutes=3)

REPORT = text("SELECT report_unverified(:process, :number, :first)")


@dataclass(frozen=True, order=True)
class Unverified:
    """A row that gives power, decides or binds, and that no key of ours has marked as it stands: it does not count.

    `whose` is the person, or the tenant for what a tenant has laid down.
    """

    whose: UUID
    kind: Power

    def __str__(self) -> str:
        return f"a {self.kind} of {'tenant' if self.kind in OF_TENANTS.marked else 'person'} {self.whose}"


@dataclass(frozen=True)
class Owners:
    """Those whose rows are marked: how to read the next of them, who has new rows, and of each kind the rows.

    `marked` has for each kind the table, whose a row is, and what its mark covers.
    """

    next: TextClause
    fresh: TextClause
    marked: Mapping[Power, tuple[str, Callable[[Any], UUID], Callable[[Any], Sequence[Part]]]]

    def unverified(self, session: Session, ids: Iterable[UUID]) -> list[Unverified]:
        """Return which of their rows no key of ours has marked as they stand."""
        is_mark, values = keyring.of(session).powers.is_mark, {"ids": list(ids)}
        found = []
        for kind, (table, whose, parts) in self.marked.items():
            rows = session.connection().execute(text(f"SELECT * FROM marked_{table}(:ids)"), values)  # noqa: S608 - ours
            found += [Unverified(whose(row), kind) for row in rows if not is_mark(row.mac, *parts(row))]
        return sorted(found)


PERSON_ID, TENANT_ID = attrgetter("person_id"), attrgetter("tenant_id")
OF_PEOPLE = Owners(
    text("SELECT * FROM people_to_check(:after, :page) AS id ORDER BY id"),
    text("SELECT * FROM people_with_new_powers(:lately, :most) AS id"),
    {
        Power.MEMBERSHIP: (
            "memberships",
            PERSON_ID,
            lambda row: row_marks.membership(row.id, row.person_id, row.tenant_id, row.role),
        ),
        Power.PASSKEY: ("passkeys", PERSON_ID, row_marks.passkey),
        Power.IDENTITY: ("identities", PERSON_ID, row_marks.identity),
        Power.SESSION: ("sessions", PERSON_ID, row_marks.of_session),
        Power.TOKEN: ("tokens", PERSON_ID, row_marks.of_token),
    },
)
OF_TENANTS = Owners(
    text("SELECT * FROM tenants_to_check(:after, :page) AS id ORDER BY id"),
    text("SELECT * FROM tenants_with_new_powers(:lately, :most) AS id"),
    {
        Power.TENANT: ("tenants", attrgetter("id"), row_marks.tenant),
        Power.POLICY: ("policies", TENANT_ID, lambda row: row_marks.policy(row.tenant_id, row.version, row.body)),
        Power.DELEGATION: ("delegations", TENANT_ID, row_marks.delegation),
        Power.ELIGIBLE_DEPUTY: ("eligible_deputies", TENANT_ID, row_marks.eligible_deputy),
    },
)


class Round:
    """Goes round some owners, a page at each look; whom it doubts and who has a new row it looks at each time."""

    def __init__(self, owners: Owners) -> None:
        self._owners = owners
        self._after = NOBODY
        self._doubted: Sequence[UUID] = ()

    def look(self, session: Session) -> list[Unverified]:
        """Return what is known not to hold, as of now."""
        connection = session.connection()
        page = connection.execute(self._owners.next, {"after": self._after, "page": PAGE}).scalars().all()
        fresh = connection.execute(self._owners.fresh, {"lately": LATELY, "most": MOST_FRESH}).scalars()
        found = self._owners.unverified(session, {*page, *fresh, *self._doubted})
        self._after = page[-1] if len(page) == PAGE else NOBODY
        self._doubted = sorted({one.whose for one in found})[:MOST_DOUBTED]
        return found


class Rounds:
    """Goes round all people and all tenants."""

    def __init__(self) -> None:
        self._rounds = (Round(OF_PEOPLE), Round(OF_TENANTS))

    def look(self, session: Session) -> list[Unverified]:
        """Return what is known not to hold, as of now."""
        return [one for round_ in self._rounds for one in round_.look(session)]


def report(session: Session, process_id: UUID, found: Sequence[Unverified]) -> None:
    """Say beside the heartbeat of an API's process how many rows do not hold, and which is the first."""
    values = {"process": process_id, "number": len(found), "first": str(found[0]) if found else None}
    session.connection().execute(REPORT, values)
