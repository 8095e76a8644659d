"""Issuing tokens: who may make or rotate one, for how long, and what that of a machine is bound to."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import text
from sqlmodel import Session

from lockbox.audit import events
from lockbox.audit.events import Actor, AuditEvent
from lockbox.database import now
from lockbox.errors import Conflict, Invalid, NotFound, NotYours, SignInAgain, TooMany, UnknownService
from lockbox.identity import api_tokens, enrolment
from lockbox.identity.api_tokens import MOST_TOKENS, IssuedToken
from lockbox.identity.credentials import Token
from lockbox.identity.roles import AuthMethod, Caller, Role, Scope
from lockbox.identity.sessions import ClientInfo

MOST_BY_MAIL = timedelta(days=7)

HOLD = text("SELECT pg_advisory_xact_lock(hashtextextended('lockbox tokens of ' || :whose, 0))")
RECORDED = text(f"WITH {events.APPEND} SELECT 1")


@dataclass(frozen=True)
class TokenRules:
    """What an installation has laid down for tokens.

    `usual` is how long they last where nothing is asked for, `most` the longest that may be asked for, `overlap` how
    long a rotated one goes on; `services` are those of the catalogue.
    """

    environment: str
    usual: timedelta
    most: timedelta
    overlap: timedelta
    services: Collection[str]


@dataclass(frozen=True)
class TokenInput:
    """A token that somebody wants; scopes and services bind that of a machine."""

    name: str
    lifetime: timedelta | None = None
    scopes: frozenset[Scope] = frozenset()
    services: frozenset[str] = frozenset()


def make(session: Session, caller: Caller, place: ClientInfo, wanted: TokenInput, rules: TokenRules) -> IssuedToken:
    """Make a token for the caller, who has just signed in; nobody makes one for somebody else.

    A machine is a person with the role *system*, who comes by an invitation like everybody: whoever sets it up
    accepts that, and makes its first token in the session that follows. Its tokens alone are bound to scopes and
    services; those of people are bound by their roles.

    Raises:
        SignInAgain: a token was shown, or the sign-in is too old, or too weak for somebody who has a stronger one.
        NotYours: scopes or services are named, and the caller is no machine.
        UnknownService: the catalogue has no such service.
        Invalid: the token would last longer than the installation allows.
        TooMany: the caller has twenty that are good.
    """
    _signed_in_just_now(session, caller)
    _is_bound_rightly(caller, wanted, rules)
    by_mail = caller.means is AuthMethod.MAIL
    most = _most(rules, by_mail=by_mail)
    lifetime = _allowed(wanted.lifetime or min(rules.usual, most), most)
    at = _hold(session, caller)
    _has_room(_good(session, caller, at))
    issued = api_tokens.issue(
        session,
        caller.person_id,
        environment=rules.environment,
        lifetime=lifetime,
        name=wanted.name,
        by_mail=by_mail,
        scopes=wanted.scopes,
        services=wanted.services,
        only_at=caller.only_at,
    )
    _record(session, caller, place, "token_made", issued.token)
    return issued


def rotate(
    session: Session,
    caller: Caller,
    place: ClientInfo,
    token_id: UUID,
    rules: TokenRules,
    *,
    lifetime: timedelta | None = None,
    overlap: timedelta | None = None,
) -> IssuedToken:
    """Replace a token of the caller's by one of the same name and limits; the old one goes on for the overlap.

    It lasts as long as the old one was made for, unless something else is asked for. A token that is shown may rotate
    itself, or nothing that runs unattended could: once, and for no longer than is usual here. Whoever has stolen
    one can thus go on; its person sees it, for theirs ends. One that a mailed code alone has made lasts seven days at
    most, however often it is rotated.

    Raises:
        SignInAgain: another token was shown, or the sign-in is too old or too weak.
        NotFound: the caller has no such token that is good.
        Conflict: it has been rotated.
        Invalid: it would last longer than is allowed.
        TooMany: the caller would have more than twenty that are good.
    """
    itself = caller.means is AuthMethod.TOKEN and caller.key_id == token_id
    if not itself:
        _signed_in_just_now(session, caller)
    at = _hold(session, caller)
    good = _good(session, caller, at)
    old = next((token for token in good if token.id == token_id and token.means is None), None)
    if old is not None:
        # Revoking waits for nobody: it may come between.
        session.refresh(old, with_for_update=True)
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


def revoke(session: Session, caller: Caller, place: ClientInfo, token_id: UUID) -> None:
    """Make a token of the caller's worthless from the next call on, however they are signed in; once more is no harm.

    Raises:
        NotFound: the caller has no such token.
    """
    before = {token.id: token for token in api_tokens.mine(session, caller)}
    api_tokens.revoke(session, caller, token_id)
    if token_id in before:
        _record(session, caller, place, "token_revoked", before[token_id])


def _signed_in_just_now(session: Session, caller: Caller) -> None:
    if caller.means is AuthMethod.SAMPLE:
        return
    if caller.means is AuthMethod.TOKEN or caller.by_terminal or caller.signed_in_at is None:
        raise SignInAgain("A token makes no other: sign in with a browser, or send one of your sign-in service.")
    if now(session) - caller.signed_in_at >= enrolment.FRESH:
        minutes = enrolment.FRESH // timedelta(minutes=1)
        seconds = int(enrolment.FRESH.total_seconds())
        raise SignInAgain(f"Your sign-in is older than {minutes} minutes: sign in again.", max_age=seconds)
    if caller.means is AuthMethod.MAIL:
        enrolment.check(session, caller)


def _is_bound_rightly(caller: Caller, wanted: TokenInput, rules: TokenRules) -> None:
    if not (wanted.scopes or wanted.services):
        return
    if not caller.holds(Role.SYSTEM):
        raise NotYours("Only the token of a system is bound to scopes and services; yours is bound by your roles.")
    if unknown := sorted(wanted.services - set(rules.services)):
        raise UnknownService(f"The catalogue has no service {', '.join(unknown)}.", field="services")


def _most(rules: TokenRules, *, by_mail: bool) -> timedelta:
    return min(rules.most, MOST_BY_MAIL) if by_mail else rules.most


def _allowed(lifetime: timedelta, most: timedelta) -> timedelta:
    if lifetime > most:
        raise Invalid(f"A token may last at most {most.days} days here.", field="days", limit_days=most.days)
    return lifetime


def _hold(session: Session, caller: Caller) -> datetime:
    """Wait for whoever changes the tokens of this person at this moment; return what time it is after that."""
    session.connection().execute(HOLD, {"whose": str(caller.person_id)})
    return now(session)


def _good(session: Session, caller: Caller, at: datetime) -> list[Token]:
    return [token for token in api_tokens.mine(session, caller) if token.expires_at > at]


def _has_room(good: Sequence[Token]) -> None:
    if len(good) >= MOST_TOKENS:
        raise TooMany(f"You have {MOST_TOKENS} tokens; revoke one that you no longer use.")


def _record(session: Session, caller: Caller, place: ClientInfo, action: str, token: Token) -> None:
    actor = Actor(
        caller.person_id, caller.side.value, caller.name, address=place.address, user_agent=place.user_agent
    )
    facts = {"token_id": token.id, "replaces": token.replaces, "expires_at": token.expires_at}
    at = now(session)
    places: list[UUID | None] = [*sorted(caller.tenants())] or [None]
    happenings = [AuditEvent(at=at, action=action, actor=actor, tenant_id=one, facts=facts) for one in places]
    session.connection().execute(RECORDED, events.append(happenings))
