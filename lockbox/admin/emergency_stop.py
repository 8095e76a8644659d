"""Immediate end of access: by a mode switch, an emergency stop, a suspension, or the removal of an engineer.

Functions that end requests wait for concurrent moves, and return the ended requests sorted by id.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, func, or_, text, true
from sqlmodel import col, select

from catalogue.service_catalogue import Plan
from lockbox.admin import permissions, pre_approvals
from lockbox.admin.permissions import AdminActor, AdminChange, change
from lockbox.audit.events import Origin
from lockbox.database import UnitOfWork, now
from lockbox.errors import NotFound, TooLate
from lockbox.facts.enumerations import Mode, State
from lockbox.identity import authentication, tenants
from lockbox.identity.models import EmergencyStop, Tenant
from lockbox.identity.roles import Caller, Role
from lockbox.requests import decide, policy_store
from lockbox.requests.break_glass import IN_TURN
from lockbox.requests.decision_context import DecisionInput
from lockbox.requests.lifecycle import Action, Party
from lockbox.requests.models import IS_OPEN, AccessRequest
from lockbox.requests.permitted_moves import strong_enough
from lockbox.requests.policy_rules import changes as policy_changes
from lockbox.requests.policy_rules import strictest

LEFT = "The requester is no longer an engineer of the vendor."
SUSPENDED = "The vendor has suspended the customer. Its open windows ended."
WAYS_TO_LEAVE = {
    State.REVIEWING: Action.CANCEL,
    State.PENDING: Action.CANCEL,
    State.ACTIVE: Action.REVOKE,
}
ADMINS = (Role.TENANT_ADMIN,)
STOPPED, STOP_ENDED = "emergency_stop", "emergency_stop_ended"
NOT_STOPPED = "There is no emergency stop to end: break-glass is as the policy says."
OPENED_MEANWHILE = text("""
SELECT id FROM requests WHERE tenant_id = :tenant AND state = 'active' AND break_glass ORDER BY id FOR UPDATE
""")
VENDOR_OPENED = "The tenant decides again. Windows that the vendor opened alone were revoked."
STOP_ACTIONS = {State.ACTIVE: Action.REVOKE, State.PENDING: Action.DENY, State.REVIEWING: Action.DENY}


def every(_: datetime) -> ColumnElement[bool]:
    return true()


def end_all_of(session: UnitOfWork, operator: Caller, origin: Origin, requester_id: UUID) -> list[AccessRequest]:
    """Cancel a person's open requests and revoke the person's windows, as an operator.

    The calling function has checked the operator, removed the role or disabled the person, and locked the vendor's
    people. A request that is being submitted may be missed; it times out, because the requester is no longer an
    engineer.
    """
    authentication.enter(session, operator)
    authentication.see_off(session, requester_id)
    query = (
        select(AccessRequest)
        .where(col(AccessRequest.requester_id) == requester_id, IS_OPEN)
        .order_by(col(AccessRequest.id))
        .with_for_update()
    )
    requests = session.orm.exec(query).all()
    return _end(session, operator, origin, requests, LEFT)


def end_windows_at(session: UnitOfWork, operator: Caller, origin: Origin, tenant_id: UUID) -> list[AccessRequest]:
    """Revoke all open windows of a tenant that the operator has just suspended."""
    authentication.enter(session, operator)
    authentication.suspend(session, tenant_id)
    return _end(session, operator, origin, _settled(session, tenant_id, {State.ACTIVE}), SUSPENDED)


def _end(
    session: UnitOfWork, operator: Caller, origin: Origin, requests: Sequence[AccessRequest], why: str
) -> list[AccessRequest]:
    ended = []
    for request in requests:
        # Statements of our own write every move, so the ORM must not write this row.
        session.orm.expunge(request)
        decision_input = DecisionInput(WAYS_TO_LEAVE[request.state], why)
        try:
            ended.append(decide.act_on(session, operator, origin, request, decision_input, as_party=Party.OPERATOR))
        except TooLate:
            # The request's deadline has passed, and the clock will end it.
            continue
    return ended


@dataclass(frozen=True)
class ModeChangeResult:
    """`closed` lists the windows that ended.

    `in_review` counts requests in the vendor's review, which go to the customer once endorsed.
    """

    mode: Mode
    closed: Sequence[AccessRequest] = ()
    in_review: int = 0


@dataclass(frozen=True)
class EmergencyStopResult:
    """Of the requests denied in review, the customer learns only the number."""

    revoked: Sequence[AccessRequest]
    denied: Sequence[AccessRequest]
    denied_in_review: int


def switch_mode(
    session: UnitOfWork, caller: Caller, origin: Origin, slug: str, mode: Mode, *, plans: Mapping[str, Plan]
) -> ModeChangeResult:
    """Switch a tenant's mode, as its admin.

    `enforce` also withdraws temporary consent and revokes every window that the vendor opened without the customer.
    """
    tenant = permissions.known(session, caller, slug)
    actor = permissions.acting_as(session, caller, origin, ADMINS, tenant)
    tenant = permissions.locked(session, tenant)
    policy = policy_store.current(session, tenant)
    ends_consent = mode is Mode.ENFORCE and policy.consent is not None
    if mode is tenant.mode and not ends_consent:
        return ModeChangeResult(mode)
    if mode is not Mode.ENFORCE:
        _firmly_loosened(session, actor, tenant)
    elif mode is not tenant.mode:
        permissions.entitled(tenant.plan, plans)
    changes = {"mode": change(tenant.mode, mode)} if mode is not tenant.mode else {}
    tenant.mode = mode
    if ends_consent:
        without = policy.model_copy(update={"consent": None})
        permissions.revise_policy(session, actor, tenant, without, now(session))
        changes |= policy_changes(policy, without)
    else:
        tenants.mark(session, tenant)
    closed: list[AccessRequest] = []
    waiting = 0
    if mode is Mode.ENFORCE:
        closed = close_vendor_opened_windows(session, actor, tenant)
        waiting = in_review(session, tenant, now(session))
    facts = {"closed": [str(request.id) for request in closed]}
    permissions.record_change(session, actor, AdminChange("mode_switched", now(session), changes, facts=facts))
    return ModeChangeResult(mode, closed, waiting)


def stop_all(
    session: UnitOfWork, caller: Caller, origin: Origin, slug: str, comment: str | None = None
) -> EmergencyStopResult:
    """As the tenant's admin, revoke all windows and pre-approvals, and deny requests that are pending or in review.

    Break-glass is barred until an admin ends the stop.
    """
    tenant = permissions.known(session, caller, slug)
    actor = permissions.acting_as(session, caller, origin, ADMINS, tenant)
    done = _close(session, actor, tenant, comment, STOP_ACTIONS)
    done += _opened_meanwhile(session, actor, tenant, comment)
    # Open requests are locked before this point, to avoid a deadlock. Windows that were opened meanwhile are revoked
    # with their pre-approval.
    withdrawn = pre_approvals.revoke_all(session, actor, tenant, comment)
    ended = EmergencyStopResult(
        [request for request in done if request.state is State.REVOKED],
        [request for request in done if request.state is State.DENIED and request.asked_at],
        sum(request.state is State.DENIED and not request.asked_at for request in done),
    )
    changes = {
        "open windows": change(len(ended.revoked), 0),
        "requests that waited for an answer": change(len(ended.denied), 0),
        "requests in the vendor's review": change(ended.denied_in_review, 0),
        **({"pre-approvals": change(withdrawn, 0)} if withdrawn else {}),
        "break-glass": change("as the policy says", "barred"),
    }
    stopped = AdminChange(STOPPED, now(session), changes, {"comment": comment}, {"bars_break_glass": True})
    permissions.record_change(session, actor, stopped)
    return ended


def end_stop(session: UnitOfWork, caller: Caller, origin: Origin, slug: str) -> None:
    """Allow break-glass again; this reopens nothing."""
    tenant = permissions.known(session, caller, slug)
    actor = permissions.acting_as(session, caller, origin, ADMINS, tenant)
    permissions.require_fresh_admin(session, actor, tenant)
    query = select(EmergencyStop).where(
        col(EmergencyStop.tenant_id) == tenant.id, col(EmergencyStop.ended_at).is_(None)
    )
    stop = session.orm.exec(query.with_for_update()).one_or_none()
    if stop is None:
        raise NotFound(NOT_STOPPED)
    at = max(now(session), stop.stopped_at)
    said = AdminChange(STOP_ENDED, at, {"break-glass": change("barred", "as the policy says")})
    stop.ended_event = permissions.record_change(session, actor, said)
    stop.ended_by, stop.ended_at = actor.caller.person_id, at
    session.orm.add(stop)
    session.orm.flush()


def _opened_meanwhile(
    session: UnitOfWork, actor: AdminActor, tenant: Tenant, comment: str | None
) -> list[AccessRequest]:
    """Revoke windows that break-glass has opened since the other requests were locked.

    Break-glass locks its request and then the tenant; here the tenant is locked first. To avoid a deadlock, only
    active requests are locked: the request of a waiting break-glass is not active yet.
    """
    session.execute(IN_TURN, {"tenant_id": tenant.id})
    ids = session.execute(OPENED_MEANWHILE, {"tenant": tenant.id}).scalars().all()
    query = select(AccessRequest).where(col(AccessRequest.id).in_(ids)).order_by(col(AccessRequest.id))
    return _end_each(session, actor, comment, session.orm.exec(query).all()) if ids else []


def in_review(session: UnitOfWork, tenant: Tenant, at: datetime) -> int:
    query = select(func.count()).where(
        col(AccessRequest.tenant_id) == tenant.id,
        IS_OPEN,
        col(AccessRequest.state) == State.REVIEWING,
        col(AccessRequest.deadline_at) > at,
    )
    return session.orm.exec(query).one()


def close_vendor_opened_windows(session: UnitOfWork, actor: AdminActor, tenant: Tenant) -> list[AccessRequest]:
    """Revoke windows opened without asking the customer, and their extensions. The actor is the tenant's admin.

    If the original window has already run to its end, an extension approved by the customer stays open.
    """

    def which(at: datetime) -> ColumnElement[bool]:
        alone, is_open = col(AccessRequest.mode) != Mode.ENFORCE, col(AccessRequest.state) == State.ACTIVE
        runs = col(AccessRequest.tenant_id) == tenant.id, alone, is_open, col(AccessRequest.deadline_at) > at
        return or_(alone, col(AccessRequest.extends).in_(select(AccessRequest.id).where(*runs)))

    return _close(session, actor, tenant, VENDOR_OPENED, {State.ACTIVE}, which=which)


def _firmly_loosened(session: UnitOfWork, actor: AdminActor, tenant: Tenant) -> None:
    """Require the sign-in that an approval needs, even while no one could approve yet."""
    strong_enough(actor.caller, strictest(policy_store.current(session, tenant)), now(session))


def _close(
    session: UnitOfWork,
    actor: AdminActor,
    tenant: Tenant,
    comment: str | None,
    states: Collection[State],
    *,
    which: Callable[[datetime], ColumnElement[bool]] = every,
) -> list[AccessRequest]:
    return _end_each(session, actor, comment, _settled(session, tenant.id, states, which))


def _end_each(
    session: UnitOfWork, actor: AdminActor, comment: str | None, requests: Sequence[AccessRequest]
) -> list[AccessRequest]:
    done = []
    for request in requests:
        session.orm.expunge(request)
        decision_input = DecisionInput(STOP_ACTIONS[request.state], comment)
        try:
            done.append(
                decide.act_on(
                    session, actor.caller, actor.origin, request, decision_input, as_party=Party.TENANT_ADMIN
                )
            )
        except TooLate:
            # The request's deadline has passed, and the clock will end it.
            continue
    return done


def _settled(
    session: UnitOfWork,
    tenant_id: UUID,
    states: Collection[State],
    which: Callable[[datetime], ColumnElement[bool]] = every,
) -> Sequence[AccessRequest]:
    """Lock and return the requests in these states.

    A filter on the state would miss a request that an open transaction is moving into one of these states. So all
    open requests are locked first, and then read again.
    """
    theirs = col(AccessRequest.tenant_id) == tenant_id, IS_OPEN
    ids = select(AccessRequest.id).where(*theirs)
    session.orm.exec(ids.order_by(col(AccessRequest.id)).with_for_update()).all()
    settled = select(AccessRequest).where(*theirs, col(AccessRequest.state).in_(states), which(now(session)))
    return session.orm.exec(settled.order_by(col(AccessRequest.id)).with_for_update()).all()
