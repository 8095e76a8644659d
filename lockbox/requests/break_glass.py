"""Break-glass: two people of the vendor open a window in an emergency, as far as the customer's policy lets them."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self
from uuid import UUID

from sqlalchemy import text

from lockbox.database import UnitOfWork
from lockbox.errors import NotYours, SignInAgain
from lockbox.facts.enumerations import AuthMethod, Mode, State
from lockbox.identity.roles import Caller, Role, Side
from lockbox.notifications.mail_text import duration
from lockbox.requests.lifecycle import Action
from lockbox.requests.models import AccessRequest, AfterReview
from lockbox.requests.permitted_moves import sign_in_obstacle
from lockbox.requests.policy import Terms, customer_decides
from lockbox.requests.policy_parts import OverdueFinding
from lockbox.requests.policy_store import EffectivePolicy
from lockbox.sql import insert

FIELD = "break_glass"
DUE_AFTER = timedelta(days=1)
"""How long after the opening the customer's finding is due; also the interval of the reminders after that."""
REMINDERS = (50, 83)
"""When to remind before the finding is due, in percent of `DUE_AFTER`."""
BEGIN = text(insert(AfterReview, but={"reminders", "finding", "found_by", "found_at", "found_event"}))
NOT_BY_MACHINES = "A service account cannot request break-glass. An engineer has to, after signing in."
NOT_BY_API_ACCESS = "An API token cannot submit it. Sign in with a browser or use a token of your identity provider."
NOT_BY_A_DEVICE = "A device login cannot submit it. Use the browser or a token of your identity provider."
FRESH_AND_STRONG = "Break-glass needs a recent and strong sign-in of both people. {why}"
# Concurrent break-glass at a tenant is judged in turn: the next statement sees what was committed meanwhile.
IN_TURN = text("SELECT pg_advisory_xact_lock(hashtextextended('break-glass at ' || CAST(:tenant_id AS uuid), 0))")
RECORD = text("""
SELECT lately, overdue, stopped_since(:tenant_id) IS NOT NULL AS is_stopped,
    was_denied(:tenant_id, :service, CAST(:resources AS text[])) AS denied
FROM break_glass_record(:tenant_id)
""")


@dataclass(frozen=True)
class BreakGlassRecord:
    """`lately` counts windows within 30 days, and `overdue` counts overdue findings.

    `is_denied` is whether the customer's last decision about one of the resources was a denial. `is_stopped` is
    whether an emergency stop is in force.
    """

    lately: int
    overdue: int
    is_denied: bool
    is_stopped: bool

    @classmethod
    def read(cls, session: UnitOfWork, request: AccessRequest, *, in_turn: bool = False) -> Self:
        """`in_turn` waits for other transactions that open a window by break-glass at the tenant."""
        if in_turn:
            session.execute(IN_TURN, {"tenant_id": request.tenant_id})
        values = {"tenant_id": request.tenant_id, "service": request.service, "resources": request.resources}
        row = session.execute(RECORD, values).one()
        return cls(row.lately, row.overdue, row.denied, row.is_stopped)


def record_of_review(session: UnitOfWork, request: AccessRequest, caller: Caller) -> BreakGlassRecord | None:
    reviewed = request.break_glass and request.state is State.REVIEWING and caller.side is Side.VENDOR
    return BreakGlassRecord.read(session, request) if reviewed else None


def begin_after_review(session: UnitOfWork, request: AccessRequest, opened_at: datetime) -> None:
    due_at = opened_at + DUE_AFTER
    remind_at = next_reminder(opened_at, due_at, opened_at)
    values = {"request_id": request.id, "tenant_id": request.tenant_id, "opened_at": opened_at}
    session.write(BEGIN, values | {"due_at": due_at, "remind_at": remind_at})


def next_reminder(opened_at: datetime, due_at: datetime, at: datetime) -> datetime:
    """Reminders are sent before the due date, at it, and daily after it."""
    moments = [opened_at + (due_at - opened_at) * percent / 100 for percent in REMINDERS]
    if at < due_at:
        return min((moment for moment in moments if moment > at), default=due_at)
    return due_at + DUE_AFTER * ((at - due_at) // DUE_AFTER + 1)


def check_submitter(caller: Caller, terms: Terms, at: datetime) -> None:
    """Check that the caller is a person whose sign-in is as fresh and strong as the policy requires.

    Raises NotYours, SignInAgain.
    """
    if caller.holds(Role.SYSTEM):
        raise NotYours(NOT_BY_MACHINES)
    refused = sign_in_obstacle(caller, Action.BREAK_GLASS, terms, at)
    if refused:
        why = NOT_BY_A_DEVICE if caller.by_device_login else refused.detail
        why = NOT_BY_API_ACCESS if caller.means is AuthMethod.TOKEN else why
        raise SignInAgain(FRESH_AND_STRONG.format(why=why), **refused.facts)


def obstacles_to(
    request: AccessRequest, effective: EffectivePolicy, record: BreakGlassRecord, opener: UUID, at: datetime
) -> list[tuple[str, str]]:
    people = {request.requester_id, opener}
    mode, _ = effective.mode_for(request, at)
    window = min(request.access_window, effective.terms.break_glass_ceiling)
    return list(obstacles(effective.terms, mode, record, BreakGlassAsk(request.service, people, window)))


@dataclass(frozen=True)
class BreakGlassAsk:
    """`people` are the participants known so far; `window` is in seconds."""

    service: str
    people: Collection[UUID]
    window: int


def obstacles(terms: Terms, mode: Mode, record: BreakGlassRecord, ask: BreakGlassAsk) -> Iterator[tuple[str, str]]:
    if not customer_decides(mode):
        yield FIELD, "This customer lets the vendor's managers open access. Submit a request without break-glass."
        return
    if ask.service not in terms.break_glass_services:
        yield FIELD, "This customer does not allow break-glass for this. Submit a request without it."
        return
    if terms.break_glass_people is not None and not set(ask.people) <= set(terms.break_glass_people):
        yield FIELD, "This customer allows break-glass to named people only, and not to both of you."
    if ask.window > terms.break_glass_ceiling:
        yield "access_window", f"By break-glass access may last at most {duration(terms.break_glass_ceiling)}."
    if record.is_stopped:
        yield FIELD, "The customer's emergency stop bars break-glass until one of its admins ends it."
    if record.is_denied:
        yield (
            FIELD,
            "The customer's last answer about one of these resources was no: break-glass cannot overrule it.",
        )
    if record.overdue and terms.overdue_finding is OverdueFinding.BLOCK:
        yield (
            FIELD,
            "The customer's finding about an earlier break-glass is overdue: there is none before it is given.",
        )
    if record.lately >= terms.break_glass_monthly:
        often = "once" if record.lately == 1 else f"{record.lately} times"
        yield FIELD, f"Break-glass was used {often} within 30 days, as often as this customer allows."
