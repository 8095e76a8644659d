"""Record refused decisions and sign-ins in the audit log. A failure to record never changes the answer."""

from dataclasses import dataclass
from uuid import UUID

import structlog
from fastapi import Request
from sqlalchemy.exc import SQLAlchemyError

from api import deps
from lockbox.audit import refusals_log
from lockbox.audit.events import Origin
from lockbox.audit.refusals_log import DECISION_REFUSED, SIGN_IN_REFUSED, RefusalEntry
from lockbox.database import Database
from lockbox.errors import Conflict, ForeignForm, LockboxError, NotSignedIn, NotYours, PolicyNotMet
from lockbox.facts.enumerations import AuthMethod
from lockbox.identity import attempt_limits
from lockbox.identity.roles import Caller
from lockbox.identity.sessions import LoginStub
from lockbox.notifications import mailed_codes
from lockbox.requests.lifecycle import DECISIONS, Action

log = structlog.get_logger(__name__)

NOTED = frozenset({*DECISIONS, Action.REVOKE})
UNREADABLE = "unknown"


@dataclass(frozen=True)
class AttemptedAction:
    """Routes store it in `request.state.tried`, for the error handler."""

    caller: Caller
    origin: Origin
    request_id: UUID
    action: Action


def is_noted(request: Request, refusal: LockboxError) -> bool:
    """Whether a refusal may be recorded: the call decided about a request, or used a token of a known person.

    A token that never existed is not recorded, because anyone could invent any number of tokens.
    """
    if isinstance(refusal, NotSignedIn):
        return refusal.person_id is not None
    return hasattr(request.state, "tried")


def note(request: Request, refusal: LockboxError) -> None:
    if not is_noted(request, refusal):
        return
    if isinstance(refusal, NotSignedIn):
        sign_in(request, deps.database(request), AuthMethod.TOKEN, refusal)
    else:
        decision(deps.database(request), request.state.tried, refusal)


def decision(db: Database, tried: AttemptedAction, refusal: LockboxError) -> None:
    """Invalid input and unknown requests are not recorded."""
    is_one = isinstance(refusal, NotYours | Conflict | PolicyNotMet) and not isinstance(refusal, ForeignForm)
    if tried.action not in NOTED or not is_one:
        return
    facts = {"refused": tried.action.value, "code": refusal.code, "channel": tried.origin.channel}
    # The network address is left out: each side reads the other's refusals, but not the other's addresses.
    personal = {"name": tried.caller.name}
    _count(
        db,
        RefusalEntry(DECISION_REFUSED, facts, tried.caller.person_id, tried.request_id, personal=personal),
    )


def sign_in(
    request: Request,
    db: Database,
    means: str,
    refusal: LockboxError,
    *,
    account: str | None = None,
    stub: LoginStub | None = None,
) -> None:
    """Record a refused sign-in by its person, account or network: one event a minute for each.

    `account` is the typed address. `stub` is the pending login, which knows the address to which its code was sent.
    """
    address = deps.address(request)
    person_id = refusal.person_id if isinstance(refusal, NotSignedIn) else None
    try:
        account = account or (mailed_codes.address_of(db, stub) if stub else None)
    except SQLAlchemyError as error:
        log.warning("refusal.account_unknown", error=type(error).__name__)
    personal = {"account": account, "from_address": address}
    first = {"means": means, "code": refusal.code}
    network = attempt_limits.network(address) if address else UNREADABLE
    of = f"account {account.lower()}" if account else f"address {network}"
    what = RefusalEntry(SIGN_IN_REFUSED, {}, person_id, of="" if person_id else of, first=first, personal=personal)
    _count(db, what)


def _count(db: Database, what: RefusalEntry) -> None:
    try:
        with db.transaction() as session:
            refusals_log.count(session, what)
    except SQLAlchemyError as error:
        log.warning("refusal.not_recorded", kind=what.kind, error=type(error).__name__)
