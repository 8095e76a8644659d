"""Identities of people at identity providers, and which provider may sign in which person."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from uuid import UUID

from sqlalchemy import text
from sqlmodel import col, select

from catalogue.issuers import IdentityProvider
from lockbox.audit.events import Actor
from lockbox.database import UnitOfWork, now
from lockbox.errors import Conflict, NotFound, NotSignedIn, NotYours
from lockbox.facts.enumerations import AuthMethod
from lockbox.identity import authentication, credential_trust, directory, keyring, row_macs, sessions, tenants
from lockbox.identity.authentication import CredentialKind, CredentialLookup
from lockbox.identity.credentials import GateIdentity, Identity
from lockbox.identity.oidc import VerifiedIdentity
from lockbox.identity.roles import Caller, Role, RoleGrant, Side
from lockbox.identity.sessions import ClientInfo
from lockbox.sql import insert

NOBODY = "This sign-in is not linked to an account. Sign in another way, then add it in your account."

BOUND = text(f"{insert(Identity)} ON CONFLICT DO NOTHING RETURNING person_id")


def caller_of(session: UnitOfWork, issuer: IdentityProvider, proven: VerifiedIdentity) -> Caller:
    """Return the person that an identity provider just authenticated; the transaction then acts as this person.

    A tenant's provider vouches for people at that tenant only, because no other tenant has chosen this provider.
    """
    found = authentication.look_up_credential(session, CredentialKind.IDENTITY, f"{proven.issuer}\n{proven.subject}")
    if found is None:
        raise NotSignedIn(NOBODY)
    refusal = NotSignedIn(NOBODY, person_id=found.person_id)
    if found.disabled:
        raise refusal
    caller = found.caller(AuthMethod.OIDC, proven.authenticated_at)
    if proven.issuer != issuer.issuer or not speaks_for(session, issuer, caller):
        raise refusal
    caller = caller.within(_tenant_of(session, issuer))
    authentication.reenter(session, caller)
    identity = _find(session, caller, proven.issuer, proven.subject)
    if identity is None or not row_macs.holds(session, identity.mac, row_macs.identity(identity), identity.person_id):
        raise refusal
    at = now(session)
    if at < identity.trusted_at:
        return replace(caller, means=AuthMethod.MAIL)
    if proven.directory is not None and proven.issued_at is not None:
        as_of = min(proven.issued_at, at)
        directory.keep(
            session, _signing_in(caller), caller.person_id, proven.directory, source=proven.issuer, as_of=as_of
        )
    return caller


def _signing_in(caller: Caller) -> Actor:
    return Actor(caller.person_id, caller.side.value, caller.name)


def engineer_of(session: UnitOfWork, issuer: str, subject: str, email: str | None = None) -> UUID | None:
    """Return the engineer in good standing for a caller at the gate, or None.

    Two sources count: an operator's mapping, and a trusted identity that the person has bound for signing in. If they
    name two people, neither counts. Without either source, `email` counts: an address verified by a provider that
    vouches for addresses. The transaction must serve this call only, because it then acts as the engineer.
    """
    if "\n" in issuer + subject:
        return None
    found = dict[UUID | None, CredentialLookup]()
    for kind in (CredentialKind.GATE_IDENTITY, CredentialKind.IDENTITY):
        one = authentication.look_up_credential(session, kind, f"{issuer}\n{subject}")
        if one is None:
            continue
        row = _marked_row(session, kind, issuer, subject)
        if row is None:
            return None
        if isinstance(row, GateIdentity) or now(session) >= row.trusted_at:
            found[one.person_id] = one
    if not found and email is not None:
        one = authentication.look_up_credential(session, CredentialKind.MAILBOX, email)
        found = {one.person_id: one} if one is not None else {}
    good = [who for who, one in found.items() if not one.disabled and RoleGrant(Role.ENGINEER) in one.standings]
    return good[0] if good and len(found) == 1 else None


def _marked_row(
    session: UnitOfWork, kind: CredentialKind, issuer: str, subject: str
) -> GateIdentity | Identity | None:
    if kind is CredentialKind.GATE_IDENTITY:
        query = select(GateIdentity).where(col(GateIdentity.issuer) == issuer, col(GateIdentity.subject) == subject)
        row = session.orm.exec(query).one_or_none()
        is_marked = row is not None and row_macs.holds(session, row.mac, row_macs.gate_identity(row), row.id)
        return row if is_marked else None
    same = (col(Identity.issuer) == issuer, col(Identity.subject) == subject)
    bound = session.orm.exec(select(Identity).where(*same)).one_or_none()
    if bound is None or not row_macs.holds(session, bound.mac, row_macs.identity(bound), bound.person_id):
        return None
    return bound


def speaks_for(session: UnitOfWork, issuer: IdentityProvider, caller: Caller) -> bool:
    """A provider of the vendor may vouch for the vendor's people, a tenant's provider for members of the tenant."""
    if issuer.tenant is None:
        return caller.side is Side.VENDOR
    return caller.side is Side.CUSTOMER and _tenant_of(session, issuer) in caller.tenants()


def is_bound(session: UnitOfWork, caller: Caller, issuers: Iterable[IdentityProvider]) -> bool:
    """Return whether the person can sign in with one of our identity providers at any of their tenants.

    An identity that was bound after a sign-in with only a mailed code does not count until it is trusted. Otherwise,
    it could lock out the mailbox's owner.
    """
    at = now(session)
    bound = {identity.issuer for identity in mine(session, caller) if at >= identity.trusted_at}
    return any(issuer.issuer in bound and speaks_for(session, issuer, caller) for issuer in issuers)


def mine(session: UnitOfWork, caller: Caller) -> Sequence[Identity]:
    query = select(Identity).where(col(Identity.person_id) == caller.person_id)
    return session.orm.exec(query.order_by(col(Identity.issuer), col(Identity.subject))).all()


def bind(
    session: UnitOfWork, caller: Caller, issuer: IdentityProvider, proven: VerifiedIdentity, place: ClientInfo
) -> None:
    """Bind an identity to the caller; a provider has just authenticated it in a login that this session began.

    Raises:
        Conflict: the identity belongs to another person.
    """
    credential_trust.check(session, caller)
    if not speaks_for(session, issuer, caller):
        raise NotYours("You cannot use this identity provider here.")
    row = Identity(
        issuer=proven.issuer,
        subject=proven.subject,
        person_id=caller.person_id,
        created_at=now(session),
        trusted_at=credential_trust.trusted_from(session, caller),
    )
    row.mac = keyring.of(session).powers.mark(*row_macs.identity(row))
    if session.execute(BOUND, row.model_dump()).one_or_none() is None:
        if _find(session, caller, proven.issuer, proven.subject) is None:
            raise Conflict("That sign-in belongs to another account.")
        return
    sessions.record(session, caller, place, "identity_bound", issuer=proven.issuer)


def remove(
    session: UnitOfWork,
    caller: Caller,
    issuer: str,
    subject: str,
    place: ClientInfo,
    *,
    issuers: Iterable[IdentityProvider],
) -> None:
    """A sign-in for one tenant may remove only identities of that tenant's provider."""
    credential_trust.check(session, caller)
    named = [one for one in issuers if one.issuer == issuer]
    is_reached = caller.only_at is None or any(speaks_for(session, one, caller) for one in named)
    identity = _find(session, caller, issuer, subject) if is_reached else None
    if identity is None:
        raise NotFound("There is no such identity.")
    session.orm.delete(identity)
    session.orm.flush()
    sessions.record(session, caller, place, "identity_removed", issuer=issuer)


def _tenant_of(session: UnitOfWork, issuer: IdentityProvider) -> UUID | None:
    tenant = tenants.find(session, issuer.tenant) if issuer.tenant else None
    return tenant.id if tenant else None


def _find(session: UnitOfWork, caller: Caller, issuer: str, subject: str) -> Identity | None:
    return next((one for one in mine(session, caller) if (one.issuer, one.subject) == (issuer, subject)), None)
