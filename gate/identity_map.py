"""The identity map: which engineer makes a gated call."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from uuid import UUID

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import col, select

from gate.call import in_time
from lockbox.admin import memberships, permissions
from lockbox.admin.memberships import Member
from lockbox.admin.permissions import AdminActor, AdminChange, change
from lockbox.audit.events import Origin
from lockbox.database import Database, UnitOfWork, now, publish_after_commit
from lockbox.errors import Busy, Conflict, Invalid, NotFound, OwnRoles, TooManyIdentities, UnknownEngineer
from lockbox.identity import authentication, identities, keyring, row_macs
from lockbox.identity.credentials import GateIdentity
from lockbox.identity.models import Person
from lockbox.identity.roles import Caller, Role
from lockbox.notifications import announcements
from lockbox.pubsub import GATES
from lockbox.sql import new_id
from lockbox.text_rules import UUID_FORM

log = structlog.get_logger(__name__)
KEPT_SECONDS = 5.0
"""The greatest age of an engineer in memory, counted from the beginning of the read."""
MOST_KEPT = 50_000
MOST_READ_TOGETHER = 128
READ_SECONDS = 1.0
THREADS = 2
MOST_A_PERSON = 50
MOST_A_PAGE = 200
ADDED, REMOVED = "gate_identity_added", "gate_identity_removed"
OPERATORS = (Role.OPERATOR,)
READERS = (Role.OPERATOR, Role.VENDOR_AUDITOR)
OVERLOADED = "Too many callers are being looked up; try again in a moment."

MTLS, HEADER = "mtls:", "header:"
"""Prefixes of issuers at the gate: `mtls:` with a service, `header:` with the id of a gateway's account."""

IdentityKey = tuple[str, str, str | None]
"""Issuer, subject, and the mail address if the issuer vouches for it."""


class MapUnreadable(Exception):  # noqa: N818 - it is an outcome that the gate plans for
    """Postgres does not answer in time."""


class IdentityMap:
    """Looks up engineers in threads for one event loop, and remembers them for at most `seconds`."""

    def __init__(
        self,
        database: Database,
        *,
        clock: Callable[[], float] = time.monotonic,
        seconds: float = KEPT_SECONDS,
        read_seconds: float = READ_SECONDS,
        most: int = MOST_KEPT,
    ) -> None:
        self._database = database
        self._clock = clock
        self._seconds = seconds
        self._read_seconds = read_seconds
        self._most = most
        self._kept = OrderedDict[IdentityKey, tuple[UUID | None, float]]()
        self._reads = dict[IdentityKey, asyncio.Task[UUID | None]]()
        self._threads = ThreadPoolExecutor(THREADS, "gate-identities")

    async def engineer(self, key: IdentityKey, *, anew: bool = False, ends: float | None = None) -> UUID | None:
        """Return the engineer in good standing, or None. `anew` ignores the cache.

        Raises MapUnreadable, also at the deadline `ends`, and Busy if too many callers are being looked up.
        """
        at, kept = self._clock(), None if anew else self._kept.get(key)
        if kept is not None and at < kept[1]:
            is_due = kept[0] is not None and at > kept[1] - self._seconds / 2
            if is_due and key not in self._reads and len(self._reads) < MOST_READ_TOGETHER:
                self._begin(key)
            return kept[0]
        reading = None if anew else self._reads.get(key)
        if reading is None:
            if len(self._reads) >= MOST_READ_TOGETHER:
                raise Busy(OVERLOADED)
            reading = self._begin(key)
        try:
            return await in_time(asyncio.shield(reading), ends)
        except TimeoutError:
            raise MapUnreadable from None

    def _begin(self, key: IdentityKey) -> asyncio.Task[UUID | None]:
        reading = self._reads[key] = asyncio.create_task(self._read(key))
        reading.add_done_callback(lambda ended: self._end(key, ended))
        return reading

    def forget(self) -> None:
        """Forget everything, including reads under way."""
        self._kept.clear()
        self._reads.clear()

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _read(self, key: IdentityKey) -> UUID | None:
        begun, loop = self._clock(), asyncio.get_running_loop()
        reading = asyncio.current_task()
        try:
            answer = loop.run_in_executor(self._threads, self._look_up, key)
            found = await asyncio.wait_for(answer, self._read_seconds)
        except (SQLAlchemyError, TimeoutError) as error:
            log.warning("gate.identity_map_unreadable", error=type(error).__name__)
            raise MapUnreadable from None
        if self._reads.get(key) is reading:
            self._kept[key] = found, begun + self._seconds
            self._kept.move_to_end(key)
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return found

    def _look_up(self, key: IdentityKey) -> UUID | None:
        with self._database.transaction() as session:
            return identities.engineer_of(session, *key)

    def _end(self, key: IdentityKey, ended: asyncio.Task[UUID | None]) -> None:
        if self._reads.get(key) is ended:
            del self._reads[key]
        if not ended.cancelled():
            # Retrieve the error: if the waiting call is gone, asyncio would log the error as never retrieved.
            ended.exception()


@dataclass(frozen=True)
class MappingInput:
    issuer: str
    subject: str
    person_id: UUID


@dataclass(frozen=True)
class MappedIdentity:
    row: GateIdentity
    person: str


@dataclass(frozen=True)
class MappingPage:
    identities: tuple[MappedIdentity, ...]
    next_cursor: UUID | None


def page(session: UnitOfWork, caller: Caller, *, cursor: UUID | None, most: int) -> MappingPage:
    authentication.enter(session, caller)
    permissions.capacity(caller, READERS)
    query = select(GateIdentity, Person.name).join(Person, col(Person.id) == col(GateIdentity.person_id))
    if cursor is not None:
        query = query.where(col(GateIdentity.id) > cursor)
    rows = session.orm.exec(query.order_by(col(GateIdentity.id)).limit(most + 1)).all()
    found = tuple(MappedIdentity(row, name) for row, name in rows[:most])
    return MappingPage(found, found[-1].row.id if len(rows) > most else None)


def add(
    session: UnitOfWork, caller: Caller, origin: Origin, wanted: MappingInput, known: Collection[str]
) -> MappedIdentity:
    """`known` are the issuers of the catalogue, and `mtls:` with the name of each service that accepts certificates.

    Raises:
        OwnRoles: the caller would map an identity to themselves.
        Invalid: there is no such issuer or gateway.
        UnknownEngineer: the person is not an engineer in good standing.
    """
    actor = permissions.acting_as(session, caller, origin, OPERATORS)
    permissions.require_fresh_operator(session, actor)
    if wanted.person_id == caller.person_id:
        raise OwnRoles("You cannot map an identity to yourself. Ask another operator.")
    _check_issuer(session, wanted.issuer, known)
    member = memberships.find(session, None, wanted.person_id)
    if member is None or member.is_disabled or Role.ENGINEER not in member.roles:
        raise UnknownEngineer("This person is not an engineer in good standing. Name one who is.", field="person_id")
    theirs = session.orm.exec(select(GateIdentity.id).where(col(GateIdentity.person_id) == wanted.person_id)).all()
    if len(theirs) >= MOST_A_PERSON:
        raise TooManyIdentities(f"{member.name} has {MOST_A_PERSON} identities; remove one that is no longer used.")
    same = (col(GateIdentity.issuer) == wanted.issuer, col(GateIdentity.subject) == wanted.subject)
    if (other := session.orm.exec(select(GateIdentity).where(*same)).one_or_none()) is not None:
        whom = member.name if other.person_id == member.person_id else "another engineer"
        raise Conflict(f"This identity is mapped to {whom} already. Remove it first (identity {other.id}).")
    row = GateIdentity(
        id=new_id(),
        issuer=wanted.issuer,
        subject=wanted.subject,
        person_id=wanted.person_id,
        added_by=caller.person_id,
        created_at=now(session),
    )
    row.mac = keyring.of(session).powers.mark(*row_macs.gate_identity(row))
    session.orm.add(row)
    session.orm.flush()
    _record(session, actor, row, ADDED, member=member, issuer=change(permissions.ABSENT, row.issuer))
    return MappedIdentity(row, member.name)


def _check_issuer(session: UnitOfWork, issuer: str, known: Collection[str]) -> None:
    if not issuer.startswith(HEADER):
        if issuer not in known:
            named = ", ".join(sorted(known)) or "there is none yet"
            raise Invalid(f"Choose one of the issuers that the catalogue names: {named}.", field="issuer")
        return
    gateway = issuer.removeprefix(HEADER)
    member = memberships.find(session, None, UUID(gateway)) if UUID_FORM.fullmatch(gateway) else None
    if member is None or Role.SYSTEM not in member.roles:
        raise Invalid(
            f"Write {HEADER} and the id of the gateway's service account, as `lockbox vendor list` shows it.",
            field="issuer",
        )


def remove(session: UnitOfWork, caller: Caller, origin: Origin, identity_id: UUID) -> None:
    actor = permissions.acting_as(session, caller, origin, OPERATORS)
    permissions.require_fresh_operator(session, actor)
    row = session.orm.get(GateIdentity, identity_id)
    if row is None:
        raise NotFound("There is no such identity at the gate.")
    member = memberships.find(session, None, row.person_id)
    session.orm.delete(row)
    session.orm.flush()
    _record(session, actor, row, REMOVED, member=member, issuer=change(row.issuer, permissions.ABSENT))


def _record(
    session: UnitOfWork, actor: AdminActor, row: GateIdentity, action: str, *, member: Member | None, issuer: str
) -> None:
    facts = {"person_id": row.person_id, "identity_id": row.id}
    named = permissions.person(member.name, member.address) if member is not None else None
    personal = {"member": named, "subject": row.subject}
    changed = AdminChange(action, now(session), {"issuer": issuer}, personal, facts)
    audit_event = permissions.audit_event_of(actor, changed)
    announcements.notify_operators(session, audit_event)
    if member is not None and not member.is_disabled and Role.OPERATOR not in member.roles:
        announcements.notify_person(session, audit_event, member.person_id)
    publish_after_commit(session, [row.id], GATES)
