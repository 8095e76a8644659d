"""Roles of people at a tenant or at the vendor. `tenant_id` is None for the vendor."""

import hashlib
import json
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from lockbox.database import UnitOfWork
from lockbox.errors import StaleVersion
from lockbox.identity import keyring, row_macs
from lockbox.identity.models import EligibleDelegate, Membership
from lockbox.identity.roles import Role
from lockbox.sql import insert_rows, new_id

MOST_A_PAGE = 200

LIST = text("""
SELECT p.id, p.name, p.email, p.disabled_at IS NOT NULL AS is_disabled,
    array_remove(array_agg(m.role), NULL) AS roles, min(uuid_extract_timestamp(m.id)) AS since,
    min(m.review_tier) FILTER (WHERE m.role = 'manager') AS review_tier,
    (SELECT l.id FROM eligible_delegates l WHERE l.tenant_id = :tenant_id AND l.person_id = p.id) AS eligible_id,
    (SELECT l.mac FROM eligible_delegates l WHERE l.tenant_id = :tenant_id AND l.person_id = p.id) AS eligible_mac,
    p.wants_prompts
FROM people p LEFT JOIN memberships m ON m.person_id = p.id
    AND m.tenant_id IS NOT DISTINCT FROM CAST(:tenant_id AS uuid)
WHERE (CAST(:person_id AS uuid) IS NULL OR p.id = :person_id)
AND (CAST(:after AS uuid) IS NULL OR p.id > :after)
AND CASE WHEN CAST(:tenant_id AS uuid) IS NULL THEN p.side = 'vendor' ELSE m.id IS NOT NULL END
GROUP BY p.id ORDER BY p.id LIMIT :most
""")
GIVE = text(f"{insert_rows(Membership, but={'review_tier'})} ON CONFLICT DO NOTHING")
TAKE = text("""
DELETE FROM memberships WHERE person_id = :person_id
AND tenant_id IS NOT DISTINCT FROM CAST(:tenant_id AS uuid) AND role = ANY(:roles)
""")
PUT_INTO_TIER = text("""
UPDATE memberships SET review_tier = :tier WHERE person_id = :person_id AND tenant_id IS NULL AND role = 'manager'
""")
OTHER_ADMINS = text("""
SELECT count(*) FROM memberships m JOIN people p ON p.id = m.person_id AND p.disabled_at IS NULL
WHERE m.tenant_id = :tenant_id AND m.role = 'tenant_admin' AND m.person_id <> :person_id
""")


@dataclass(frozen=True)
class Member:
    """`since` is when the oldest role was granted, None for a person of the vendor without roles.

    `is_eligible`: approvers may name the member as delegate. `wants_prompts`: the member gets prompts by mail even if
    there are enough other approvers.
    """

    person_id: UUID
    name: str
    address: str
    roles: frozenset[Role]
    is_eligible: bool
    is_disabled: bool
    since: datetime | None
    review_tier: int | None = None
    wants_prompts: bool = True

    @property
    def version(self) -> str:
        """16 hex digits of a hash of roles and settings."""
        parts = (words(self.roles), self.is_eligible, self.review_tier, self.is_disabled)
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def check_seen(self, seen: str | None) -> None:
        if seen is not None and seen != self.version:
            sentence = f"The roles of {self.name} have changed since you read them. Read them again."
            raise StaleVersion(sentence, current_version=self.version)


@dataclass(frozen=True)
class MemberListing:
    members: tuple[Member, ...]
    next_cursor: UUID | None


def page(session: UnitOfWork, tenant_id: UUID | None, *, cursor: UUID | None, most: int) -> MemberListing:
    values = {"tenant_id": tenant_id, "person_id": None, "after": cursor, "most": most + 1}
    found = [_member(session, tenant_id, row) for row in session.execute(LIST, values)]
    more = len(found) > most
    return MemberListing(tuple(found[:most]), found[most - 1].person_id if more else None)


def find(session: UnitOfWork, tenant_id: UUID | None, person_id: UUID) -> Member | None:
    values = {"tenant_id": tenant_id, "person_id": person_id, "after": None, "most": 1}
    row = session.execute(LIST, values).one_or_none()
    return _member(session, tenant_id, row) if row else None


def give(session: UnitOfWork, person_id: UUID, tenant_id: UUID | None, roles: AbstractSet[Role]) -> None:
    """Add roles to the existing ones."""
    if roles:
        count, key = len(roles), keyring.of(session).powers
        given = [(new_id(), role) for role in sorted(roles)]
        values = {
            "id": [row_id for row_id, _ in given],
            "person_id": [person_id] * count,
            "tenant_id": [tenant_id] * count,
            "role": [role.value for _, role in given],
            "mac": [key.mark(*row_macs.membership(row_id, person_id, tenant_id, role)) for row_id, role in given],
        }
        session.execute(GIVE, values)


def take_away(session: UnitOfWork, person_id: UUID, tenant_id: UUID | None, roles: AbstractSet[Role]) -> None:
    if roles:
        values = {"person_id": person_id, "tenant_id": tenant_id, "roles": [role.value for role in sorted(roles)]}
        session.execute(TAKE, values)


def put_into_tier(session: UnitOfWork, person_id: UUID, tier: int) -> None:
    session.execute(PUT_INTO_TIER, {"person_id": person_id, "tier": tier})


def other_admins(session: UnitOfWork, tenant_id: UUID, person_id: UUID) -> int:
    """Count other admins who are not disabled."""
    count: int = session.execute(OTHER_ADMINS, {"tenant_id": tenant_id, "person_id": person_id}).scalar_one()
    return count


def words(roles: Iterable[Role]) -> list[str]:
    return sorted(role.value for role in roles)


def _is_eligible(session: UnitOfWork, tenant_id: UUID | None, row: Row[Any]) -> bool:
    if tenant_id is None or row.eligible_id is None:
        return False
    leave = EligibleDelegate(tenant_id=tenant_id, person_id=row.id, id=row.eligible_id)
    return row_macs.is_held(session, row.eligible_mac, row_macs.eligible_delegate(leave), row.id)


def _member(session: UnitOfWork, tenant_id: UUID | None, row: Row[Any]) -> Member:
    return Member(
        person_id=row.id,
        name=row.name,
        address=row.email,
        roles=frozenset(Role(role) for role in row.roles),
        is_eligible=_is_eligible(session, tenant_id, row),
        is_disabled=row.is_disabled,
        since=row.since,
        review_tier=row.review_tier,
        wants_prompts=row.wants_prompts,
    )
