"""The public keys of a tenant's approvers, which its admin takes out to check signed approvals by."""

from collections.abc import Callable
from contextlib import suppress
from uuid import UUID

from sqlalchemy import text
from sqlmodel import Session, col, select

from lockbox.admin import permissions
from lockbox.audit.canonical import instant
from lockbox.audit.verifier.approver_key_file import ApproverKey, ApproverKeys
from lockbox.database import now
from lockbox.identity import passkeys, row_marks
from lockbox.identity.credentials import Passkey
from lockbox.identity.models import EligibleDeputy, Membership
from lockbox.identity.passkeys import RelyingParty
from lockbox.identity.roles import Caller, Role

KEYS = text("SELECT * FROM approver_keys(:tenant_id)")


def export(session: Session, caller: Caller, slug: str, party: Callable[[], RelyingParty]) -> ApproverKeys:
    """Return the keys with which approvers of a tenant and their possible deputies sign, to one of its admins.

    Neither somebody nor a key is among them by a row that no key of this installation has marked. `party` is asked
    once the caller is known to be an admin: strangers hear that there is no such tenant, whatever the house can sign.

    Raises:
        Unknown, NotYours: there is no such tenant, or the caller is no admin of it.
    """
    tenant = permissions.readable(session, caller, slug, (Role.TENANT_ADMIN,))
    ours = party()
    found, people = [], _could_approve(session, tenant.id)
    for row in session.connection().execute(KEYS, {"tenant_id": tenant.id}):
        covered = {name: getattr(row, name) for name in ("person_id", "credential_id", "public_key", "created_at")}
        key = Passkey(id=row.passkey_id, trusted_at=row.trusted_at, only_at=row.only_at, **covered)
        if row.person_id in people and row_marks.is_held(session, row.mac, row_marks.passkey(key), key.id):
            with suppress(ValueError):  # a key that cannot be read signs nothing
                public = passkeys.public_key(row.public_key)
                found.append(ApproverKey(str(row.person_id), row.name, public, instant(row.created_at)))
    return ApproverKeys(str(tenant.id), ours.domain, ours.origin, instant(now(session)), tuple(found))


def _could_approve(session: Session, tenant_id: UUID) -> frozenset[UUID]:
    """Return who is an approver, or a member whom approvers may name as deputy, by a membership that is marked."""
    eligible = {
        one.person_id
        for one in session.exec(select(EligibleDeputy).where(col(EligibleDeputy.tenant_id) == tenant_id))
        if row_marks.is_held(session, one.mac, row_marks.eligible_deputy(one), one.person_id)
    }
    return frozenset(
        one.person_id
        for one in session.exec(select(Membership).where(col(Membership.tenant_id) == tenant_id))
        if (one.role is Role.APPROVER or one.person_id in eligible)
        and row_marks.is_held(
            session, one.mac, row_marks.membership(one.id, one.person_id, tenant_id, one.role), one.id
        )
    )
