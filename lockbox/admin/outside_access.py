"""Declarations to a customer of access that bypassed Lockbox; they are never edited."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import Row, text

from lockbox.admin import permissions
from lockbox.admin.permissions import AdminChange
from lockbox.audit.canonical import Value
from lockbox.audit.events import Origin
from lockbox.audit.report import ENGINEER
from lockbox.database import UnitOfWork, array, now
from lockbox.errors import Conflict, UnknownEngineer, UnknownService
from lockbox.identity.roles import Caller
from lockbox.notifications.account_mail import OUTSIDE_ACCESS
from lockbox.requests import policy_store
from lockbox.requests.policy_rules import strictest

PEOPLE = text("""
SELECT p.id, p.name FROM people p WHERE p.id = ANY (CAST(:ids AS uuid[])) AND p.side = 'vendor'
    AND NOT EXISTS (SELECT FROM memberships m WHERE m.person_id = p.id AND m.role = 'system')
""")
NEWEST = text("""
SELECT e.id, e.at, e.body, (SELECT jsonb_object_agg(f.key, f.value ->> 1) FROM event_details d, jsonb_each(d.fields) f
    WHERE d.event_id = e.id) AS details
FROM events e WHERE e.tenant_id = :tenant AND e.action = 'outside_access' ORDER BY e.id DESC LIMIT :most
""")
BETWEEN = ", "
"""The separator of resources: no resource contains a space."""
MOST_SHOWN = 50
LONGEST_AGO = timedelta(days=366)
"""Older access is refused: such a date is a mistake, and a declaration cannot be corrected."""
NOT_OVER = "Declare access once it has ended: began_at and seconds lead into the future, by Lockbox's clock."
LONG_AGO = "Look at the date again: access that began more than 366 days ago cannot be declared."


@dataclass(frozen=True)
class OutsideAccess:
    engineers: Sequence[UUID]
    service: str
    resources: Sequence[str]
    began_at: datetime
    seconds: int
    reason: str

    @property
    def ended_at(self) -> datetime:
        return self.began_at + timedelta(seconds=self.seconds)


class DeclaredAccess(BaseModel, frozen=True):
    """Erased names are left out of `engineers`; other erased values are None or empty."""

    id: UUID
    declared_at: datetime
    declared_by: str | None
    engineers: Sequence[str]
    service: str
    resources: Sequence[str]
    began_at: datetime
    ended_at: datetime
    reason: str | None


def declare(
    session: UnitOfWork, caller: Caller, origin: Origin, slug: str, taken: OutsideAccess, *, services: Collection[str]
) -> UUID:
    """Write the access to the tenant's log, as an operator; notify approvers, admins and webhooks; return its id."""
    actor, tenant = permissions.operate(session, caller, origin, slug)
    if taken.service not in services:
        raise UnknownService(f"Choose one of the services {', '.join(sorted(services))}.", field="service")
    at = now(session)
    if taken.began_at < at - LONGEST_AGO:
        raise Conflict(LONG_AGO)
    if taken.ended_at > at:
        raise Conflict(NOT_OVER)
    names = _names(session, taken.engineers)
    policy = policy_store.verified(session, tenant)
    facts: dict[str, Value] = {
        "engineers": [str(one) for one in names],
        "service": taken.service,
        "began_at": taken.began_at,
        "ended_at": taken.ended_at,
        "reason_in_mails": policy is not None and strictest(policy).mail_justification,
    }
    personal = {f"{ENGINEER}{number}": name for number, name in enumerate(names.values(), 1)}
    personal |= {"resource": BETWEEN.join(taken.resources), "justification": taken.reason}
    return permissions.record_change(session, actor, AdminChange(OUTSIDE_ACCESS, at, {}, personal, facts))


def _names(session: UnitOfWork, engineers: Sequence[UUID]) -> dict[UUID, str]:
    names = {row.id: row.name for row in session.execute(PEOPLE, {"ids": array(engineers)})}
    if missing := [engineer for engineer in engineers if engineer not in names]:
        said = f"There is nobody at the vendor with the id {missing[0]}. See `lockbox vendor list`."
        raise UnknownEngineer(said, field="engineers")
    return {engineer: names[engineer] for engineer in engineers}


def of_tenant(session: UnitOfWork, caller: Caller, slug: str) -> list[DeclaredAccess]:
    """Return the newest fifty. For the tenant's members."""
    return newest(session, permissions.readable(session, caller, slug).id)


def newest(session: UnitOfWork, tenant_id: UUID, most: int = MOST_SHOWN) -> list[DeclaredAccess]:
    """Newest first. For readers of the tenant's log."""
    return [_declared(row) for row in session.execute(NEWEST, {"tenant": tenant_id, "most": most})]


def _declared(row: Row[Any]) -> DeclaredAccess:
    said, personal = json.loads(row.body), row.details or {}
    resources = personal.get("resource")
    return DeclaredAccess(
        id=row.id,
        declared_at=row.at,
        declared_by=personal.get("name"),
        engineers=_engineers(said, personal),
        service=said["service"],
        resources=resources.split(BETWEEN) if resources else [],
        began_at=datetime.fromisoformat(said["began_at"]),
        ended_at=datetime.fromisoformat(said["ended_at"]),
        reason=personal.get("justification"),
    )


def _engineers(said: Mapping[str, Any], personal: Mapping[str, str]) -> list[str]:
    named = (personal.get(f"{ENGINEER}{number}") for number, _ in enumerate(said["engineers"], 1))
    return [name for name in named if name]
