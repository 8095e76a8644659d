"""Pre-approvals, by which a customer approves access in advance: propose, approve, list and revoke them."""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import ColumnElement, func, text
from sqlmodel import col, select

from catalogue.service_catalogue import Service
from lockbox.admin import permissions
from lockbox.admin.permissions import ABSENT, AdminActor, AdminChange, change
from lockbox.admin.pre_approval_status import (
    MUST_SIGN,
    NO_APPROVER,
    OPEN,
    PreApprovalContext,
    PreApprovalStatus,
    PreApprovalSummary,
    approval_obstacle,
    judged_by,
    summaries,
    summary,
    todays_terms,
)
from lockbox.audit.canonical import Value, instant
from lockbox.audit.events import THE_CLOCK, AuditEvent, Origin
from lockbox.database import Database, UnitOfWork, now
from lockbox.errors import (
    Conflict,
    Invalid,
    NobodyCanApprove,
    NotFound,
    NotYours,
    PasskeyMustSign,
    TooLate,
    UnknownService,
)
from lockbox.facts.bounds import Seconds, Uses, Word
from lockbox.facts.enumerations import ApproveMeans, AuthMethod, Reason, State
from lockbox.failpoints import failpoint
from lockbox.identity import authentication, row_macs
from lockbox.identity.models import Tenant
from lockbox.identity.roles import TENANT_ROLES, Caller, Role
from lockbox.notifications import announcements
from lockbox.notifications.mail_text import duration
from lockbox.requests import decide
from lockbox.requests.decision_context import DecisionInput
from lockbox.requests.lifecycle import Action, Party
from lockbox.requests.models import AccessRequest, PreApproval, PreApprovalVote
from lockbox.requests.policy_rules import Pattern
from lockbox.requests.quorum import who_lacks
from lockbox.sql import new_id
from lockbox.text_rules import IS_TEXT, NARROW_PATTERN, Instant

LONGEST = timedelta(days=90)
MOST_LISTED = 200
MOST_OPEN = 50
ENDED_BY_NOW = text("""
WITH due AS (SELECT id FROM pre_approvals WHERE ended_at IS NULL AND ends_at <= clock_timestamp()
    ORDER BY ends_at LIMIT :most FOR UPDATE SKIP LOCKED)
UPDATE pre_approvals p SET ended_at = clock_timestamp() FROM due WHERE p.id = due.id
RETURNING p.id, p.tenant_id, p.resource, p.used, p.max_uses,
    p.revoked_at IS NOT NULL OR p.used >= p.max_uses AS was_over
""")
PROPOSED, APPROVED = "pre_approval_proposed", "pre_approval_approved"
REVOKED, ENDED = "pre_approval_revoked", "pre_approval_ended"
NO_SUCH = "There is no such pre-approval."
NO_REVOKER = "Only admins and approvers of this tenant, and those who stand in for one, can revoke a pre-approval."
CLOSED = "The pre-approval by which this access was opened was revoked."
TOO_WIDE = re.compile(r"[^:]*:\**")


class PreApprovalInput(BaseModel):
    """`access_window` is in seconds; `resource` is a pattern."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    service: Word
    resource: Annotated[Pattern, Field(json_schema_extra={"pattern": NARROW_PATTERN})]
    actions: list[Word] = Field(min_length=1, max_length=20)
    reason_code: Reason
    access_window: Seconds
    max_uses: Uses
    ends_at: Instant
    comment: Annotated[str, Field(max_length=2000), IS_TEXT] | None = None


def propose(  # noqa: PLR0917 - who proposes what, where
    session: UnitOfWork,
    caller: Caller,
    origin: Origin,
    slug: str,
    wanted: PreApprovalInput,
    services: Mapping[str, Service],
) -> PreApprovalSummary:
    """Propose a pre-approval, as the tenant's admin; it opens nothing until approvers have approved it."""
    tenant = permissions.known(session, caller, slug)
    actor = permissions.acting_as(session, caller, origin, (Role.TENANT_ADMIN,), tenant)
    permissions.require_fresh_admin(session, actor, tenant)
    at = now(session)
    _in_catalogue(wanted, services)
    if TOO_WIDE.fullmatch(wanted.resource):
        raise Invalid("Name at least a part of the id, such as mailbox:*@contoso.example.", field="resource")
    if not at < wanted.ends_at <= at + LONGEST:
        raise Invalid(f"The end must be in the future, and at most {LONGEST.days} days ahead.", field="ends_at")
    asked = dict(wanted) | {"actions": sorted(set(wanted.actions))}
    del asked["comment"]
    row = PreApproval(id=new_id(), tenant_id=tenant.id, proposed_by=caller.person_id, proposed_at=at, **asked)
    judged = judged_by(session, tenant, at)
    _could_be_approved(row, judged)
    if sum(one.status in OPEN for one in summaries(session, tenant, judged)) >= MOST_OPEN:
        raise Conflict(f"At most {MOST_OPEN} pre-approvals can be open. Revoke one first.")
    row.mac = row_macs.mark(session, row_macs.pre_approval(row))
    session.orm.add(row)
    session.orm.flush()
    changes = {name: change(ABSENT, said) for name, said in _said(row).items()}
    # Delegates of approvers are asked too. All admins and approvers are notified of any change.
    able = judged.known.able(tenant.id)
    told = AdminChange(PROPOSED, at, changes, {"comment": wanted.comment}, _facts(row), able)
    _record(session, actor, row, told)
    return summary(session, row, judged)


def approve(  # noqa: PLR0917 - who approves what, where
    session: UnitOfWork, caller: Caller, origin: Origin, slug: str, which: UUID, comment: str | None = None
) -> PreApprovalSummary:
    """Approve as an approver or a delegate; this needs the same sign-in as an approval of a request."""
    caller, row, judged = _scene(session, caller, slug, which, others=NO_APPROVER)
    tenant, at = judged.tenant, judged.at
    principals = judged.known.delegates[tenant.id].get(caller.person_id, frozenset())
    before = summary(session, row, judged)
    if refused := approval_obstacle(session, caller, before, judged):
        raise refused
    vote = PreApprovalVote(
        id=new_id(),
        pre_approval_id=row.id,
        person_id=caller.person_id,
        principals=sorted(principals),
        means=caller.means,
        decided_at=at,
    )
    vote.mac = row_macs.mark(session, row_macs.pre_approval_vote(vote))
    session.orm.add(vote)
    session.orm.flush()
    after = summary(session, row, judged)
    facts: dict[str, Value] = {
        "pre_approval_id": row.id,
        "means": "mail-only" if caller.means is AuthMethod.MAIL else caller.means.value,
        "in_force": after.status is PreApprovalStatus.IN_FORCE,
        **({"principals": sorted(map(str, principals))} if principals else {}),
    }
    actor = AdminActor(caller, Role.APPROVER, origin, tenant.id)
    changes = {"pre-approval": change(before.status.value, after.status.value)}
    _record(session, actor, row, AdminChange(APPROVED, at, changes, {"comment": comment}, facts))
    return after


def revoke(  # noqa: PLR0917 - who revokes what, where
    session: UnitOfWork, caller: Caller, origin: Origin, slug: str, which: UUID, comment: str | None = None
) -> PreApprovalSummary:
    """Revoke a pre-approval and its open windows, as an admin or as someone who could approve it; idempotent."""
    caller, row, judged = _scene(session, caller, slug, which, others=NO_REVOKER)
    tenant = judged.tenant
    is_admin = caller.holds(Role.TENANT_ADMIN, tenant_id=tenant.id)
    if not is_admin and not judged.known.seats(tenant.id).get(caller.person_id):
        raise NotYours(NO_REVOKER)
    if row.revoked_at is None and row.ends_at > judged.at:
        actor = AdminActor(caller, Role.TENANT_ADMIN if is_admin else Role.APPROVER, origin, tenant.id)
        _revoke(session, actor, [row], comment)
    return summary(session, row, judged_by(session, tenant, now(session)))


def revoke_all(session: UnitOfWork, actor: AdminActor, tenant: Tenant, comment: str | None) -> int:
    theirs = col(PreApproval.tenant_id) == tenant.id, col(PreApproval.revoked_at).is_(None)
    query = select(PreApproval).where(*theirs, col(PreApproval.ended_at).is_(None)).order_by(col(PreApproval.id))
    locked, at = session.orm.exec(query.with_for_update()).all(), now(session)
    rows = [row for row in locked if row.ends_at > at]
    _revoke(session, actor, rows, comment)
    return len(rows)


def record_ended(database: Database) -> Iterator[int]:
    """Record the end of each expired pre-approval and notify its tenant; yield the number per step."""
    while True:
        with database.transaction() as session:
            rows = session.execute(ENDED_BY_NOW, {"most": MOST_LISTED}).all()
            for row in rows:
                facts: dict[str, Value] = {"pre_approval_id": row.id, "used": row.used, "max_uses": row.max_uses}
                changes = {"pre-approval": change("open", "ended")}
                ended = AuditEvent(
                    at=now(session),
                    action=ENDED,
                    actor=THE_CLOCK,
                    tenant_id=row.tenant_id,
                    facts={**facts, "changes": changes},
                    personal={"resource": row.resource},
                )
                if not row.was_over:
                    announcements.announce(session, ended)
        if rows:
            yield len(rows)
        if len(rows) < MOST_LISTED:
            return


def listed(session: UnitOfWork, caller: Caller, slug: str) -> list[PreApprovalSummary]:
    """Newest first. For the tenant's members."""
    tenant = permissions.readable(session, caller, slug)
    return summaries(session, tenant, judged_by(session, tenant, now(session)))


def find(session: UnitOfWork, caller: Caller, slug: str, which: UUID) -> PreApprovalSummary:
    tenant = permissions.readable(session, caller, slug)
    query = select(PreApproval).where(col(PreApproval.id) == which, col(PreApproval.tenant_id) == tenant.id)
    row = session.orm.exec(query).one_or_none()
    if row is None:
        raise NotFound(NO_SUCH)
    return summary(session, row, judged_by(session, tenant, now(session)))


def _in_catalogue(wanted: PreApprovalInput, services: Mapping[str, Service]) -> None:
    service = services.get(wanted.service)
    if service is None:
        raise UnknownService(f"Choose one of the services {', '.join(sorted(services))}.", field="service")
    if unknown := sorted(set(wanted.actions) - set(service.actions)):
        known = ", ".join(service.actions)
        raise UnknownService(
            f"{wanted.service} has no action {', '.join(unknown)}; choose from {known}.", field="actions"
        )


def _could_be_approved(row: PreApproval, judged: PreApprovalContext) -> None:
    terms = todays_terms(judged, row)
    if terms.approve_means is ApproveMeans.PASSKEY_SIGNED:
        raise PasskeyMustSign(MUST_SIGN)
    if row.access_window > terms.access_ceiling:
        most = duration(terms.access_ceiling)
        raise Invalid(f"The access window may be at most {most}, as the policy has it.", field="access_window")
    seats = {
        person: options - {row.proposed_by}
        for person, options in judged.known.seats(judged.tenant.id).items()
        if person != row.proposed_by
    }
    assert judged.policy is not None  # noqa: S101 - there were terms
    if lacks := who_lacks(terms.quorum, terms.stages, judged.policy.groups, seats):
        raise NobodyCanApprove(f"{' '.join(lacks)} Whoever proposes it cannot approve it.", reasons=lacks)


def _scene(
    session: UnitOfWork, caller: Caller, slug: str, which: UUID, *, others: str
) -> tuple[Caller, PreApproval, PreApprovalContext]:
    """Return the caller, a pre-approval and its context; the tenant's people and the pre-approval are locked.

    `others` is the error message for members who may only see the pre-approval.
    """
    tenant = permissions.known(session, caller, slug)
    permissions.refuse_erased(session, tenant)
    permissions.capacity(caller, tuple(TENANT_ROLES), tenant.id)
    permissions.lock_members(session, tenant.id)
    mine = col(PreApproval.id) == which, col(PreApproval.tenant_id) == tenant.id
    row = session.orm.exec(select(PreApproval).where(*mine).with_for_update(key_share=True)).one_or_none()
    if row is None:
        if session.orm.exec(select(PreApproval.id).where(*mine)).one_or_none():
            raise NotYours(others)
        raise NotFound(NO_SUCH)
    return authentication.as_of_now(session, caller), row, judged_by(session, tenant, now(session))


def _revoke(session: UnitOfWork, actor: AdminActor, rows: Sequence[PreApproval], comment: str | None) -> None:
    """Revoke locked pre-approvals, and then their open windows: by then no request can use these pre-approvals."""
    at = _after_their_windows(session, rows)
    for row in rows:
        row.revoked_at, row.revoked_by = at, actor.caller.person_id
        row.mac = row_macs.mark(session, row_macs.pre_approval(row))
        session.orm.add(row)
    session.orm.flush()
    for row in rows:
        closed = _close(session, actor, col(AccessRequest.pre_approval_id) == row.id, comment)
        facts: dict[str, Value] = {"pre_approval_id": row.id, "closed": [str(one) for one in closed]}
        changes = {"pre-approval": change("open", "revoked"), "open windows": change(len(closed), 0)}
        _record(session, actor, row, AdminChange(REVOKED, at, changes, {"comment": comment}, facts))


def _after_their_windows(session: UnitOfWork, rows: Sequence[PreApproval]) -> datetime:
    """Now, or the opening time of the last window of `rows` if that is later because a clock was set back."""
    ids = [row.id for row in rows]
    opened = session.orm.exec(
        select(func.max(col(AccessRequest.opened_at))).where(col(AccessRequest.pre_approval_id).in_(ids))
    ).one()
    return max(now(session), opened) if opened else now(session)


def _close(session: UnitOfWork, actor: AdminActor, theirs: ColumnElement[bool], comment: str | None) -> list[UUID]:
    """Revoke the open windows of the requests that match `theirs`, and the windows' approved extensions.

    Extensions of a window that ran to its end stay open. Requests that could become active are locked first and then
    read again, so that concurrent approvals are included.
    """
    party = Party.TENANT_ADMIN if actor.role == Role.TENANT_ADMIN else Party.APPROVER
    closed = []
    state, in_turn = col(AccessRequest.state), col(AccessRequest.id)
    coming = select(AccessRequest.id).where(theirs, state.in_((State.PENDING, State.ACTIVE)))
    session.orm.exec(coming.order_by(in_turn).with_for_update()).all()
    query = select(AccessRequest).where(theirs, state == State.ACTIVE)
    for request in session.orm.exec(query.order_by(in_turn).with_for_update()).all():
        session.orm.expunge(request)
        why = DecisionInput(Action.REVOKE, comment or CLOSED)
        try:
            decide.act_on(session, actor.caller, actor.origin, request, why, as_party=party)
        except TooLate:
            # The request's deadline has passed, and the clock will end it.
            continue
        failpoint("pre_approval.after_end")
        closed += [request.id, *_close(session, actor, col(AccessRequest.extends) == request.id, comment)]
    return closed


def _facts(row: PreApproval) -> dict[str, Value]:
    """Omits the pattern of resources, because it is personal data."""
    return {
        "pre_approval_id": row.id,
        "service": row.service,
        "actions": list(row.actions),
        "reason_code": str(row.reason_code),
        "access_window": row.access_window,
        "max_uses": row.max_uses,
        "ends_at": row.ends_at,
    }


def _said(row: PreApproval) -> dict[str, str]:
    return {
        "service": row.service,
        "actions": ", ".join(row.actions),
        "reason": row.reason_code.replace("_", " "),
        "access window": duration(row.access_window),
        "uses": str(row.max_uses),
        "ends": instant(row.ends_at),
    }


def _record(session: UnitOfWork, actor: AdminActor, row: PreApproval, said: AdminChange) -> None:
    personal = {**said.personal, "resource": row.resource}
    permissions.record_change(
        session, actor, AdminChange(said.action, said.at, said.changes, personal, said.facts, said.also)
    )
