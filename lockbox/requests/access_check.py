"""Whether a window is open, and which window admits an engineer."""

from collections.abc import Collection, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple, Self
from uuid import UUID

from sqlalchemy import Row, text

from lockbox.audit import events
from lockbox.audit.events import RECORD, Actor, AuditEvent
from lockbox.audit.log.checkpoint_folder import WitnessCheck
from lockbox.database import CLOCK_TIME, Query, UnitOfWork, now, publish_after_commit
from lockbox.errors import AuditLogRolledBack, NoOpenWindow, NotYours, WindowUsedUp
from lockbox.failpoints import failpoint
from lockbox.identity import authentication
from lockbox.identity.roles import Caller, Role, Scope
from lockbox.requests import approvals, policy_store
from lockbox.requests.lifecycle import HeldBack
from lockbox.requests.models import IS_OUTLIVED, AccessRequest, RequestEntry
from lockbox.sql import columns

CLOSED, OUTLIVED = "closed", "outlived"
# The state alone proves nothing: the decisions must be there, and the engineer and the tenant in good standing.
OBSTACLE = f"""
CASE WHEN requests.state <> 'active' AND {IS_OUTLIVED} THEN 'outlived' WHEN requests.state <> 'active' THEN 'closed'
    WHEN tenants.suspended IS NOT FALSE THEN 'tenant_suspended'
    WHEN people.disabled_at IS NOT NULL OR NOT EXISTS (SELECT FROM memberships m
        WHERE m.person_id = requests.requester_id AND m.tenant_id IS NULL AND m.role = 'engineer')
        THEN 'engineer_inactive'
    WHEN requests.extends IS NOT NULL AND NOT ran_to_its_end(requests.extends) THEN 'extended_window_ended'
    WHEN is_decided(requests) IS NOT TRUE THEN 'approval_unverified' END
"""
# The state is repeated here, because a plan for any state cannot use the index of open windows.
GRANTED = f"(requests.state = 'active' AND {OBSTACLE} IS NULL)"
# While a window is open, the event that opened it is the event of the request's last move.
OPENING = """
(SELECT e.body FROM events e
    WHERE requests.state = 'active' AND e.request_id = requests.id AND e.seq = requests.version)
"""
WITH_PROOF = f"""
SELECT {columns(AccessRequest, "requests")}, tenants.slug AS tenant, people.name AS requester,
    tenants.name AS tenant_name, {OBSTACLE} AS obstacle, {OPENING} AS opening
FROM requests JOIN tenants ON tenants.id = requests.tenant_id JOIN people ON people.id = requests.requester_id
"""  # noqa: S608 - ours
WINDOWS = text(f"""{WITH_PROOF}
WHERE requests.requester_id = :engineer AND requests.state = 'active' AND requests.service = :service
    AND (requests.granted_resources @> CAST(:resource AS text[])
        OR requests.granted_resources IS NULL AND requests.resources @> CAST(:resource AS text[]))
    AND (requests.granted_actions @> CAST(:action AS text[])
        OR requests.granted_actions IS NULL AND requests.actions @> CAST(:action AS text[]))
    AND tenants.slug = :tenant
""")
WINDOWS_BY_ID = text(f"{WITH_PROOF} WHERE requests.id = ANY(:ids) AND requests.state = 'active'")
WINDOWS_AFTER = text(f"""{WITH_PROOF}
WHERE requests.id > :after AND requests.state = 'active' ORDER BY requests.id LIMIT :most
""")
REFUSAL = text("""
SELECT tenants.suspended, EXISTS (SELECT FROM requests r WHERE r.requester_id = :engineer AND r.state = 'active'
    AND r.service = :service AND r.tenant_id = tenants.id
    AND r.resources @> CAST(:resource AS text[]) AND r.actions @> CAST(:action AS text[])
    AND NOT (coalesce(r.granted_resources, r.resources) @> CAST(:resource AS text[])
        AND coalesce(r.granted_actions, r.actions) @> CAST(:action AS text[]))) AS narrowed
FROM tenants WHERE tenants.slug = :tenant
""")
USE = text("SELECT uses_left, is_new, name FROM use_window(:of_request, :by_call)")
USED_BY = text("SELECT windows_used_by(:by_call)")
USED_UP_EVENT = "used_up"
USED_UP = "This access was approved for a number of uses, and all of them are used. Request access again."
RESTORED = (
    "The database was restored from a back-up and is behind its own audit log: no access is granted until the "
    "operator of this installation has run `lockbox operate after-restore`."
)


class AccessCheck(NamedTuple):
    tenant: str
    service: str
    resource: str
    action: str
    engineer: UUID

    @property
    def values(self) -> Mapping[str, object]:
        return {**self._asdict(), "resource": [self.resource], "action": [self.action]}


class UsingCaller(NamedTuple):
    account_id: UUID
    call: str | None = None


def ahead_of_check(question: AccessCheck, call: str | None = None) -> list[Query]:
    used_by: list[Query] = [(USED_BY, {"by_call": call})] if call else []
    return [(WINDOWS, question.values), (CLOCK_TIME, {}), *used_by]


def ahead_of_refusal(question: AccessCheck) -> list[Query]:
    return [*ahead_of_check(question), (REFUSAL, question.values)]


def check(session: UnitOfWork, caller: Caller, question: AccessCheck, call: str | None = None) -> RequestEntry:
    """Return the open window that admits the engineer; of several, the longest.

    Names are compared exactly. If a service account asks and the window's uses are limited, one use is counted.
    `call` is the id that the service account gives the call.

    Raises:
        AuditLogRolledBack: a window would be open, but the database is behind the shipped part of its audit log.
        Also NoOpenWindow, WindowUsedUp.
    """
    authentication.enter(session, caller)
    _may_ask(caller, question)
    if not caller.holds(Role.SYSTEM):
        return open_window(session, question)
    return use(session, question, UsingCaller(caller.person_id, call))


def open_window(session: UnitOfWork, question: AccessCheck, *, whatever_is_left: bool = False) -> RequestEntry:
    """Return the open window that admits the engineer; check no caller and count no use.

    Windows with unlimited uses come first. A window without uses left is returned only with `whatever_is_left`.
    """
    found = judged(session, [RequestRow.of(row) for row in session.execute(WINDOWS, question.values)])
    windows = [entry for entry in found if entry.open]
    if any(entry.held_back is HeldBack.DATABASE_RESTORED for entry in found):
        raise AuditLogRolledBack(RESTORED, reason="restored")
    if not windows:
        raise NoOpenWindow("No window is open for this engineer, tenant, service, resource and action.")
    best = max(windows, key=lambda one: (one.uses_left is None, one.uses_left != 0, one.request.deadline_at))
    if best.uses_left == 0 and not whatever_is_left:
        raise WindowUsedUp(USED_UP)
    return best


def use(session: UnitOfWork, question: AccessCheck, caller: UsingCaller) -> RequestEntry:
    """Return the open window that admits the engineer.

    If its uses are limited, one use is counted in this transaction. A repeated call within five seconds counts as the
    same use.
    """
    entry = open_window(session, question, whatever_is_left=True)
    if entry.uses_left is None:
        return entry
    by_call = {"by_call": caller.call}
    if not entry.uses_left and entry.request.id not in session.execute(USED_BY, by_call).scalars().all():
        raise WindowUsedUp(USED_UP)
    session.wait()
    row = session.execute(USE, {"of_request": entry.request.id, **by_call}).one_or_none()
    if row is None:
        raise WindowUsedUp(USED_UP)
    failpoint("window.after_use")
    if row.is_new and not row.uses_left:
        _record_last_use(session, entry.request, Actor(caller.account_id, Role.SYSTEM, row.name))
    if row.is_new:
        publish_after_commit(session, [entry.request.id])
    return replace(entry, uses_left=row.uses_left, is_same_use=not row.is_new)


def _record_last_use(session: UnitOfWork, request: AccessRequest, actor: Actor) -> None:
    authentication.turn_to(session, request.tenant_id)
    actor = replace(actor, on_behalf_of=request.requester_id)
    last = AuditEvent(
        at=now(session),
        action=USED_UP_EVENT,
        actor=actor,
        tenant_id=request.tenant_id,
        request_id=request.id,
        facts={"max_uses": request.max_uses},
    )
    session.execute(RECORD, events.append([last]))


def refusal(session: UnitOfWork, question: AccessCheck) -> str | None:
    """Return `suspended` if the tenant is suspended, `narrowed` if the approval left out this requested access."""
    row = session.execute(REFUSAL, question.values).one_or_none()
    if row is None:
        return None
    return "suspended" if row.suspended else "narrowed" if row.narrowed else None


def windows(session: UnitOfWork, ids: Collection[UUID]) -> list[RequestEntry]:
    rows = session.execute(WINDOWS_BY_ID, {"ids": list(ids)}) if ids else ()
    return judged(session, [RequestRow.of(row) for row in rows])


def windows_after(session: UnitOfWork, after: UUID, most: int) -> list[RequestEntry]:
    rows = session.execute(WINDOWS_AFTER, {"after": after, "most": most})
    return judged(session, [RequestRow.of(row) for row in rows])


def _may_ask(caller: Caller, question: AccessCheck) -> None:
    if caller.holds(Role.SYSTEM):
        if Scope.ACCESS_CHECK not in caller.scopes:
            raise NotYours(f"This token needs the scope {Scope.ACCESS_CHECK}: create a token that has it.")
        if question.service not in caller.services:
            raise NotYours(f"This token is not bound to the service {question.service}: create a token that is.")
    elif not caller.holds(Role.ENGINEER):
        raise NotYours("Only a service account of the vendor, or an engineer, can check access.")
    elif caller.person_id != question.engineer:
        raise NotYours("Engineers can only check their own access.")


@dataclass(frozen=True)
class RequestRow:
    """`opening` is the body of the event that opened the window.

    `obstacle` is why the request's rows admit no one. For an active request, it is a value of `HeldBack`. Otherwise
    it is `outlived` if the request waits for an answer that can no longer be used, else `closed`.
    """

    request: AccessRequest
    tenant: str
    requester: str
    tenant_name: str
    obstacle: str | None
    opening: bytes | None

    @classmethod
    def of(cls, row: Row[Any]) -> Self:
        return cls(AccessRequest.of(row), row.tenant, row.requester, row.tenant_name, row.obstacle, row.opening)


def judged(session: UnitOfWork, rows: Sequence[RequestRow], at: datetime | None = None) -> list[RequestEntry]:
    """Return for each request whether its window is open and, if not, what holds the window back.

    `at` is the database's time when the rows were read; the default is the current time.
    """
    signed = [row for row in rows if approvals.is_signed(session, row.request, row.opening)]
    proven = approvals.hold_by_signatures(session, [(row.request, row.opening) for row in signed])
    later = [row.request for row in signed if row.request.opens_at]
    by_policy = policy_store.held_back(session, later) if later else {}
    # The time is read after the checks above, so that they do not make it outdated.
    at = now(session) if at is None else at
    return unless_restored(session, [_entry(row, at, proven, by_policy) for row in rows])


def unless_restored(session: UnitOfWork, entries: Sequence[RequestEntry]) -> list[RequestEntry]:
    """Hold back a tenant's open windows if the database is behind the shipped log of the tenant or the vendor."""
    rolled_back = _rolled_back(session, {entry.request.tenant_id for entry in entries if entry.open})
    return [
        replace(entry, open=False, held_back=HeldBack.DATABASE_RESTORED)
        if entry.open and entry.request.tenant_id in rolled_back
        else entry
        for entry in entries
    ]


def _entry(
    row: RequestRow, at: datetime, proven: Container[UUID], by_policy: Mapping[UUID, HeldBack]
) -> RequestEntry:
    request, is_active = row.request, row.obstacle not in {CLOSED, OUTLIVED}
    why = _obstacle(row, proven, by_policy) if is_active else None
    return RequestEntry(
        request,
        row.tenant,
        row.requester,
        open=is_active and why is None and request.runs_at(at),
        held_back=why if at < request.deadline_at else None,
        tenant_name=row.tenant_name,
        uses_left=request.uses_left,
        is_outlived=row.obstacle == OUTLIVED,
    )


def _obstacle(row: RequestRow, proven: Container[UUID], by_policy: Mapping[UUID, HeldBack]) -> HeldBack | None:
    if row.obstacle is not None:
        return HeldBack(row.obstacle)
    if row.request.id not in proven:
        return HeldBack.APPROVAL_UNVERIFIED
    return by_policy.get(row.request.id)


def held_back(session: UnitOfWork, ids: Collection[UUID]) -> dict[UUID, HeldBack]:
    """Return what holds back each of these windows; windows that nothing holds back are left out.

    For the timers, which have no key to verify approvals: only rows and policy are checked.
    """
    rows = [RequestRow.of(row) for row in session.execute(WINDOWS_BY_ID, {"ids": list(ids)})] if ids else []
    by_policy = policy_store.held_back(session, [row.request for row in rows])
    found = {row.request.id: _obstacle(row, {row.request.id}, by_policy) for row in rows}
    return {one: why for one, why in found.items() if why}


def _rolled_back(session: UnitOfWork, tenants: Collection[UUID]) -> Collection[UUID]:
    shipped = session.keys.get(WitnessCheck)
    return shipped.rolled_back(session, tenants) if shipped else ()
