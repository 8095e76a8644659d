"""Writing of audit events: one SQL statement writes any number of them."""

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from sqlalchemy import text

from lockbox.audit.canonical import Value, canonical, commitment, new_salt
from lockbox.audit.models import Event, EventDetail
from lockbox.database import UnitOfWork, array, now
from lockbox.sql import insert_list, insert_rows, new_id

FORMAT = 1
CLOCK = "clock"
OWNER = "owner"
VENDOR, CUSTOMER = "vendor", "customer"
VENDORS_LOG = UUID(int=0)
REVIEWING = "reviewing"
SHOWN = frozenset({"pending", "active"})
NOBODYS = frozenset({CLOCK, OWNER})
CUSTOMERS = frozenset({CUSTOMER, "tenant_admin", "approver", "auditor"})
APPEND = f"""
new_events AS (
    {insert_rows(Event, prefix="e_")}
), new_details AS (
    INSERT INTO {insert_list(EventDetail)}
    SELECT d.event_id, CAST(convert_from(d.fields, 'UTF8') AS jsonb)
    FROM unnest(CAST(:d_event_id AS uuid[]), CAST(:d_fields AS bytea[])) AS d (event_id, fields)
)"""  # noqa: S608 - ours
AUDIT_LOG_READ = "audit_log_read"
AUDIT_LOG_EXPORTED = "audit_log_exported"
RECORD = text(f"WITH {APPEND} SELECT 1")


@dataclass(frozen=True)
class Actor:
    """A person in one role and channel, or the system (`THE_CLOCK` or `THE_OWNER`).

    `address` is the network address. `on_behalf_of` is the person for whom a service account or a delegate acted.
    """

    person_id: UUID | None
    role: str
    name: str | None = None
    channel: str = "api"
    address: str | None = None
    user_agent: str | None = None
    on_behalf_of: UUID | None = None

    @property
    def side(self) -> str | None:
        """None for `THE_CLOCK` and `THE_OWNER`, which are not users."""
        if self.role in NOBODYS:
            return None
        return CUSTOMER if self.role in CUSTOMERS else VENDOR


class ActingPerson(Protocol):
    @property
    def person_id(self) -> UUID: ...
    @property
    def name(self) -> str: ...


@dataclass(frozen=True)
class Origin:
    channel: str
    address: str | None = None
    user_agent: str | None = None

    def actor(self, who: ActingPerson, role: str, on_behalf_of: UUID | None = None) -> Actor:
        return Actor(who.person_id, role, who.name, self.channel, self.address, self.user_agent, on_behalf_of)


THE_CLOCK = Actor(person_id=None, role=CLOCK, channel=CLOCK)


THE_OWNER = Actor(person_id=None, role=OWNER, channel="operate")
"""The owner of the database, who runs the installation."""


def is_internal(from_state: str | None, to_state: str | None) -> bool:
    """Return whether a move is sealed in the vendor's log, because the customer was not asked yet."""
    return to_state == REVIEWING or (from_state == REVIEWING and to_state not in SHOWN)


@dataclass(frozen=True)
class AuditEvent:
    """`facts` hold nothing personal.

    `personal` values enter the event as salted commitments; the values are stored apart, where they can be erased.
    `salts` repeat the salts of earlier commitments to the same values, so that readers can see that the values are
    equal. `seq` numbers the moves of a request. `stays_inside` puts the event in the vendor's log whatever its states
    are.
    """

    at: datetime
    action: str
    actor: Actor
    tenant_id: UUID | None = None
    request_id: UUID | None = None
    seq: int | None = None
    from_state: str | None = None
    to_state: str | None = None
    deadline_at: datetime | None = None
    policy_version: int | None = None
    facts: Mapping[str, Value] = field(default_factory=dict)
    personal: Mapping[str, str | None] = field(default_factory=dict)
    salts: Mapping[str, bytes] = field(default_factory=dict)
    stays_inside: bool = False
    id: UUID = field(default_factory=new_id)

    @property
    def internal(self) -> bool:
        """Whether the event is sealed in the vendor's log."""
        return self.stays_inside or is_internal(self.from_state, self.to_state)

    @property
    def log_id(self) -> UUID:
        return VENDORS_LOG if self.internal or self.tenant_id is None else self.tenant_id


def body_of(row: AuditEvent) -> bytes:
    """Return the event's body for its actor to see; its commitments have other salts than in the sealed body."""
    hidden = {name: commitment(new_salt(), value) for name, value in _personal(row) if value is not None}
    return _body(row, hidden)


def append(audit_events: Iterable[AuditEvent]) -> dict[str, Any]:
    rows = tuple(audit_events)
    details: list[tuple[UUID, bytes]] = []
    bodies = []
    for row in rows:
        salted = {
            name: (row.salts.get(name) or new_salt(), value) for name, value in _personal(row) if value is not None
        }
        if salted:
            details.append((row.id, _fields(salted)))
        bodies.append(_body(row, {name: commitment(salt, value) for name, (salt, value) in salted.items()}))
    return {
        "e_id": array(row.id for row in rows),
        "e_tenant_id": array(row.tenant_id for row in rows),
        "e_request_id": array(row.request_id for row in rows),
        "e_seq": array(row.seq for row in rows),
        "e_at": array(row.at for row in rows),
        "e_action": array(str(row.action) for row in rows),
        "e_actor_id": array(row.actor.person_id for row in rows),
        "e_actor_role": array(str(row.actor.role) for row in rows),
        "e_from_state": array(row.from_state and str(row.from_state) for row in rows),
        "e_to_state": array(row.to_state and str(row.to_state) for row in rows),
        "e_deadline_at": array(row.deadline_at for row in rows),
        "e_internal": array(str(row.internal).lower() for row in rows),
        "e_body": array(bodies),
        "d_event_id": array(detail[0] for detail in details),
        "d_fields": array(detail[1] for detail in details),
    }


def _personal(row: AuditEvent) -> Iterable[tuple[str, str | None]]:
    return (
        ("name", row.actor.name),
        ("address", row.actor.address),
        ("user_agent", row.actor.user_agent),
        *row.personal.items(),
    )


def _fields(salted: Mapping[str, tuple[bytes, str]]) -> bytes:
    fields = {name: (base64.b64encode(salt).decode(), value) for name, (salt, value) in salted.items()}
    return json.dumps(fields, ensure_ascii=False).encode()


def _body(row: AuditEvent, commitments: Mapping[str, str]) -> bytes:
    """Return the bytes to seal; the members common to all events override facts of the same name."""
    return canonical(
        {
            **row.facts,
            "format": FORMAT,
            "id": row.id,
            "log": row.log_id,
            "tenant_id": row.tenant_id,
            "request_id": row.request_id,
            "seq": row.seq,
            "at": row.at,
            "action": row.action,
            "actor_id": row.actor.person_id,
            "actor_role": row.actor.role,
            "side": row.actor.side,
            "on_behalf_of": row.actor.on_behalf_of,
            "channel": row.actor.channel,
            "from_state": row.from_state,
            "to_state": row.to_state,
            "deadline_at": row.deadline_at,
            "policy_version": row.policy_version,
            "personal": commitments,
        }
    )


def record(
    session: UnitOfWork,
    actor: Actor,
    action: str,
    *,
    logs: Iterable[UUID | None],
    wanted: Mapping[str, str],
    count: int,
) -> None:
    """Record a read of the audit log, with one event in each log that was read.

    `logs` are tenant ids, None for the vendor's own log. `wanted` is the reader's query, which may contain names.
    """
    at = now(session)
    sought = json.dumps(dict(wanted), ensure_ascii=False, sort_keys=True) if wanted else None
    audit_events = [
        AuditEvent(
            at=at, action=action, actor=actor, tenant_id=log, facts={"count": count}, personal={"wanted": sought}
        )
        for log in logs
    ]
    session.execute(RECORD, append(audit_events))
