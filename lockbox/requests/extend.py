"""Extensions of open windows: linked requests that begin at the window's end, under the same policy and approvers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlmodel import col, select

from catalogue.service_catalogue import Service
from lockbox.audit.events import Origin
from lockbox.database import UnitOfWork, now
from lockbox.errors import Conflict, InvalidMove, NotYours
from lockbox.facts.bounds import HARD_ACCESS_LIMIT
from lockbox.facts.enumerations import CaseCheck, State
from lockbox.identity import authentication
from lockbox.identity.roles import Caller, Side
from lockbox.requests import policy_store, queries
from lockbox.requests.deadlines import whole_seconds
from lockbox.requests.lifecycle import Action
from lockbox.requests.models import AccessRequest, RequestEntry
from lockbox.requests.permitted_moves import now_is
from lockbox.requests.policy import Timing, longest_window
from lockbox.requests.policy_store import EffectivePolicy
from lockbox.requests.request_input import REPEATED, RequestInput, repeated
from lockbox.requests.submit import SubmissionLimits, SubmittedRequest, submit
from lockbox.sql import columns

EXTENDED = text(f"""
SELECT {REPEATED}, case_check, first_opened_at, deadline_at, opens_at, version, state, open_extension, break_glass
FROM lock_extended_request(:id)
""")  # noqa: S608 - ours
# The statement waits for an extension that is being approved at this moment, and reads its new version.
EXTENSIONS = text(
    f"SELECT {columns(AccessRequest, 'requests')} FROM requests "  # noqa: S608 - ours
    "WHERE extends = :id AND closed_at IS NULL ORDER BY id FOR UPDATE"
)
CANCELLED_WITH = dict.fromkeys((State.REVIEWING, State.PENDING), Action.CANCEL)
ENDED_EARLY: Mapping[State, Mapping[State, Action]] = {
    State.REVOKED: {State.ACTIVE: Action.REVOKE},
    State.COMPLETED: {State.ACTIVE: Action.COMPLETE, **CANCELLED_WITH},
}
"""For each early end of a window: the action that ends an extension, by the extension's state."""
NOT_OPEN = "Only an open window can be extended. Request access again."
NEVER_EXTENDED = "Access by break-glass cannot be extended. Submit a request that the customer approves."
TWICE = "An extension of this window was requested already, and that request is still open."


class AlreadyExtended(Conflict):
    """The window has an open request for an extension already; `request_id` is its id."""

    code = "already-extended"


@dataclass(frozen=True)
class ExtensionInput:
    """`access_window` is the extra time in seconds. By default, `justification` is that of the extended request."""

    access_window: int
    justification: str | None = None


def extend(  # noqa: PLR0917 - all that an extension needs
    session: UnitOfWork,
    caller: Caller,
    origin: Origin,
    request_id: UUID,
    wanted: ExtensionInput,
    services: Mapping[str, Service],
    *,
    limits: SubmissionLimits | None = None,
) -> SubmittedRequest:
    """Request more time for an open window, as its requester or as the system that submitted the request.

    The window's row is locked and stays unchanged. Today's policy, people and limits apply.

    Raises InvalidMove, AlreadyExtended and the errors of `submit`, among them WindowTooLong if the window and its
    extensions would together last too long.
    """
    authentication.enter(session, caller)
    earlier = session.execute(EXTENDED, {"id": request_id}).one_or_none()
    if earlier is None:
        queries.find(session, caller, request_id)
        raise NotYours("Only the requester can extend a window.")
    at = now(session)
    has_begun = earlier.opens_at is None or earlier.opens_at <= at
    if earlier.state != State.ACTIVE or not has_begun or at >= earlier.deadline_at:
        raise InvalidMove(NOT_OPEN, **now_is(State(earlier.state), earlier.version))
    if earlier.break_glass:
        raise InvalidMove(NEVER_EXTENDED, **now_is(State(earlier.state), earlier.version))
    if earlier.open_extension:
        raise AlreadyExtended(TWICE, request_id=str(earlier.open_extension))
    return submit(session, caller, origin, _further(earlier, request_id, wanted), services, limits=limits)


@dataclass(frozen=True)
class ExtensionOutlook:
    """`longest` is how many more seconds the reader can request now."""

    extension: AccessRequest | None
    longest: int = 0


def outlook(session: UnitOfWork, caller: Caller, entry: RequestEntry) -> ExtensionOutlook:
    extension = extension_of(session, caller, entry.request.id)
    if not _may_ask(caller, entry, extension):
        return ExtensionOutlook(extension)
    if caller.side is Side.VENDOR:
        authentication.turn_to(session, entry.request.tenant_id)
    return outlook_under(caller, entry, extension, policy_store.effective_policy(session, entry.request))


def outlook_under(
    caller: Caller, entry: RequestEntry, extension: AccessRequest | None, effective: EffectivePolicy
) -> ExtensionOutlook:
    request = entry.request
    began = request.first_opened_at or request.window_from
    if began is None or not _may_ask(caller, entry, extension):
        return ExtensionOutlook(extension)
    timing = Timing(used=whole_seconds(request.deadline_at - began))
    return ExtensionOutlook(extension, max(longest_window(HARD_ACCESS_LIMIT, effective.terms, timing), 0))


def _may_ask(caller: Caller, entry: RequestEntry, extension: AccessRequest | None) -> bool:
    is_own = entry.request.requester_id == caller.person_id and not entry.request.break_glass
    return entry.open and is_own and not (extension and extension.wake_at)


def extension_of(session: UnitOfWork, caller: Caller, request_id: UUID) -> AccessRequest | None:
    theirs = (col(AccessRequest.extends) == request_id, AccessRequest.visible_to(caller))
    query = select(AccessRequest).where(*theirs).order_by(col(AccessRequest.id).desc()).limit(1)
    return session.orm.exec(query).one_or_none()


def ended_with(session: UnitOfWork, ended: AccessRequest) -> list[tuple[AccessRequest, Action]]:
    """Lock the extensions of a window that was just ended; return each with the action that ends it."""
    ends = ENDED_EARLY.get(ended.state, {})
    rows = session.execute(EXTENSIONS, {"id": ended.id}).all() if ends else ()
    extensions = [AccessRequest.of(row) for row in rows]
    return [(extension, ends[extension.state]) for extension in extensions if extension.state in ends]


def _further(earlier: Row[Any], request_id: UUID, wanted: ExtensionInput) -> RequestInput:
    return repeated(
        earlier,
        justification=wanted.justification or earlier.justification,
        case_check=CaseCheck(earlier.case_check) if earlier.case_check else None,
        access_window=wanted.access_window,
        not_before=earlier.deadline_at,
        extends=request_id,
        first_opened_at=earlier.first_opened_at,
    )
