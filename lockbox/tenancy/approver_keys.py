"""The public keys of a tenant's approvers, which its admin takes out to check signed approvals by."""

from sqlalchemy import text
from sqlmodel import Session

from lockbox.audit.approver_keys import ApproverKey, ApproverKeys
from lockbox.audit.canonical import instant
from lockbox.database import now
from lockbox.people import passkeys, powers
from lockbox.people.keys import Passkey
from lockbox.people.passkeys import RelyingParty
from lockbox.people.roles import Caller, Role
from lockbox.tenancy import authority

KEYS = text("SELECT * FROM approver_keys(:tenant_id)")


def export(session: Session, caller: Caller, slug: str, party: RelyingParty) -> ApproverKeys:
    """Return the keys with which approvers of a tenant and their possible deputies sign, to one of its admins.

    Raises:
        Unknown, NotYours: there is no such tenant, or the caller is no admin of it.
    """
    tenant = authority.readable(session, caller, slug, (Role.TENANT_ADMIN,))
    found = []
    for row in session.connection().execute(KEYS, {"tenant_id": tenant.id}):
        covered = {name: getattr(row, name) for name in ("person_id", "credential_id", "public_key", "created_at")}
        key = Passkey(id=row.passkey_id, trusted_at=row.trusted_at, only_at=row.only_at, **covered)
        if powers.is_held(session, row.mac, powers.passkey(key), key.id):
            public = passkeys.public_key(row.public_key)
            found.append(ApproverKey(str(row.person_id), row.name, public, instant(row.created_at)))
    return ApproverKeys(str(tenant.id), party.domain, party.origin, instant(now(session)), tuple(found))
