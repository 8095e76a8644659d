"""Creation and rotation of API tokens, and the rules on people, lifetimes and scopes."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import text

from lockbox.audit import events
from lockbox.audit.events import Actor, AuditEvent
from lockbox.database import UnitOfWork, now, publish_after_commit
from lockbox.errors import (
    Conflict,
    Invalid,
    NotFound,
    NotYours,
    SignInAgain,
    TooManyTokens,
    UnknownService,
    UnknownTenant,
)
from lockbox.facts.enumerations import AuthMethod
from lockbox.identity import api_tokens, credential_trust
from lockbox.identity.api_tokens import MOST_TOKENS, IssuedToken, TokenTerms
from lockbox.identity.credentials import Token
from lockbox.identity.roles import BOUND_TO, Caller, Role, Scope
from lockbox.identity.sessions import ClientInfo
from lockbox.pubsub import GATES

MOST_BY_MAIL = timedelta(days=7)

HOLD = text("SELECT pg_advisory_xact_lock(hashtextextended('lockbox tokens of ' || :whose, 0))")
KNOWN = text("SELECT slug FROM tenants WHERE slug = ANY (:slugs) AND NOT is_erased(id)")
RECORDED = text(f"WITH {events.APPEND} SELECT 1")


@dataclass(frozen=True)
class TokenRules:
    """`usual` is the default lifetime, `most` is the longest. `overlap` is how long a rotated token keeps working."""

    environment: str
    usual: timedelta
    most: timedelta
    overlap: timedelta
    services: Collection[str]


@dataclass(frozen=True)
class TokenInput:
    """Scopes, services and tenants limit a service account's token."""

    name: str
    lifetime: timedelta | None = None
    scopes: frozenset[Scope] = frozenset()
    services: frozenset[str] = frozenset()
    tenants: frozenset[str] = frozenset()

    @property
    def bounds(self) -> frozenset[str]:
        return self.scopes | {f"{BOUND_TO}{slug}" for slug in self.tenants}


def make(
    session: UnitOfWork, caller: Caller, place: ClientInfo, wanted: TokenInput, rules: TokenRules
) -> IssuedToken:
    """Create a token for the caller, who just signed in; no one creates one for another person.

    Raises:
        Invalid: the token would last too long, or its scopes do not fit its services or tenants.
    """
    _signed_in_just_now(session, caller)
    _is_bound_rightly(caller, wanted, rules)
    _knows(session, wanted.tenants)
    by_mail = caller.means is AuthMethod.MAIL
    most = _most(rules, by_mail=by_mail)
    lifetime = _allowed(wanted.lifetime or min(rules.usual, most), most)
    at = _hold(session, caller)
    _has_room(_good(session, caller, at))
    terms = TokenTerms(
        environment=rules.environment,
        lifetime=lifetime,
        name=wanted.name,
        by_mail=by_mail,
        scopes=wanted.bounds,
        services=wanted.services,
        only_at=caller.only_at,
    )
    issued = api_tokens.issue(session, caller.person_id, terms)
    _record(session, caller, place, "token_made", issued.token)
    return issued


def rotate(
    session: UnitOfWork,
    caller: Caller,
    place: ClientInfo,
    token_id: UUID,
    rules: TokenRules,
    *,
    lifetime: timedelta | None = None,
    overlap: timedelta | None = None,
) -> IssuedToken:
    """Replace a token of the caller with an equivalent one; the old token keeps working during the overlap.

    A token may rotate itself once, for at most the usual lifetime, so that unattended jobs work. A token made after a
    sign-in with only a mailed code lasts at most seven days, however often it is rotated.

    Raises:
        Conflict: the token was rotated already.
    """
    itself = caller.means is AuthMethod.TOKEN and caller.key_id == token_id
    if not itself:
        _signed_in_just_now(session, caller)
    at = _hold(session, caller)
    good = _good(session, caller, at)
    old = next((token for token in good if token.id == token_id and token.means is None), None)
    if old is not None:
        # Revoking takes no lock, so it may have happened meanwhile.
        session.orm.refresh(old, with_for_update=True)
    if old is None or old.revoked_at is not None:
        raise NotFound("There is no such token.")
    if any(token.replaces == old.id for token in api_tokens.mine(session, caller)):
        raise Conflict("This token has been rotated: use the one that replaced it, or revoke that one first.")
    overlap = rules.overlap if overlap is None else overlap
    made_for = old.expires_at - old.created_at
    by_mail = old.by_mail if itself else caller.means is AuthMethod.MAIL
    most = _most(rules, by_mail=by_mail)
    most = min(rules.usual, most) if itself else most
    lifetime = _allowed(lifetime or min(made_for, most), most)
    _has_room([token for token in good if token is not old or overlap])
    issued = api_tokens.rotate(
        session,
        caller,
        token_id,
        environment=rules.environment,
        lifetime=lifetime,
        overlap=overlap,
        by_mail=by_mail,
    )
    _record(session, caller, place, "token_rotated", issued.token)
    return issued


def revoke(session: UnitOfWork, caller: Caller, place: ClientInfo, token_id: UUID) -> None:
    """Any kind of sign-in may revoke a token. Idempotent, in force from the next call."""
    before = {token.id: token for token in api_tokens.mine(session, caller)}
    api_tokens.revoke(session, caller, token_id)
    # Gates remember tokens for some seconds.
    publish_after_commit(session, [token_id], GATES)
    if token_id in before:
        _record(session, caller, place, "token_revoked", before[token_id])


def _signed_in_just_now(session: UnitOfWork, caller: Caller) -> None:
    if caller.means is AuthMethod.SAMPLE:
        return
    if caller.means is AuthMethod.TOKEN or caller.by_device_login or caller.signed_in_at is None:
        raise SignInAgain(
            "An API token cannot create tokens. Use your account page, or a token of your identity provider."
        )
    if now(session) - caller.signed_in_at >= credential_trust.FRESH:
        minutes = credential_trust.FRESH // timedelta(minutes=1)
        seconds = int(credential_trust.FRESH.total_seconds())
        raise SignInAgain(f"Your sign-in is older than {minutes} minutes. Sign in again.", max_age=seconds)
    if caller.means is AuthMethod.MAIL:
        credential_trust.check(session, caller)


def _is_bound_rightly(caller: Caller, wanted: TokenInput, rules: TokenRules) -> None:
    if not (wanted.bounds or wanted.services):
        return
    if not caller.holds(Role.SYSTEM):
        raise NotYours("Only tokens of service accounts have scopes, services and tenants; yours has your roles.")
    if (Scope.CASE_CLOSE in wanted.scopes) != bool(wanted.tenants):
        raise Invalid("A token with the scope case:close names its tenants, and no other does.", field="tenants")
    if any(scope.dialect for scope in wanted.scopes) and (len(wanted.scopes) > 1 or not wanted.services):
        raise Invalid(
            "A gateway's token has one scope, such as gate:nginx, and names the services that it stands before.",
            field="scopes",
        )
    if Scope.GATE_AUTHZEN in wanted.scopes and len(wanted.services) > 1:
        raise Invalid(
            "A token with the scope gate:authzen names one service: make one for each service.", field="services"
        )
    if unknown := sorted(wanted.services - set(rules.services)):
        raise UnknownService(f"The catalogue has no service {', '.join(unknown)}.", field="services")


def _knows(session: UnitOfWork, slugs: frozenset[str]) -> None:
    if slugs and (unknown := slugs - set(session.execute(KNOWN, {"slugs": sorted(slugs)}).scalars())):
        raise UnknownTenant(f"There is no tenant {', '.join(sorted(unknown))}.", field="tenants")


def _most(rules: TokenRules, *, by_mail: bool) -> timedelta:
    return min(rules.most, MOST_BY_MAIL) if by_mail else rules.most


def _allowed(lifetime: timedelta, most: timedelta) -> timedelta:
    if lifetime > most:
        raise Invalid(f"A token may last at most {most.days} days here.", field="days", limit_days=most.days)
    return lifetime


def _hold(session: UnitOfWork, caller: Caller) -> datetime:
    """Wait for concurrent changes to this person's tokens, and return the time after the wait."""
    session.execute(HOLD, {"whose": str(caller.person_id)})
    return now(session)


def _good(session: UnitOfWork, caller: Caller, at: datetime) -> list[Token]:
    return [token for token in api_tokens.mine(session, caller) if token.expires_at > at]


def _has_room(good: Sequence[Token]) -> None:
    if len(good) >= MOST_TOKENS:
        raise TooManyTokens(f"You have {MOST_TOKENS} tokens; revoke one that you no longer use.")


def _record(session: UnitOfWork, caller: Caller, place: ClientInfo, action: str, token: Token) -> None:
    actor = Actor(
        caller.person_id, caller.side.value, caller.name, address=place.address, user_agent=place.user_agent
    )
    facts = {"token_id": token.id, "replaces": token.replaces, "expires_at": token.expires_at}
    at = now(session)
    places: list[UUID | None] = [*sorted(caller.tenants())] or [None]
    audit_events = [AuditEvent(at=at, action=action, actor=actor, tenant_id=one, facts=facts) for one in places]
    session.execute(RECORDED, events.append(audit_events))
