"""A pre-approval's status and approvers, as the tenant's members see them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import text
from sqlmodel import col, select

from lockbox.database import Query, UnitOfWork, now
from lockbox.errors import (
    AlreadyDecided,
    LockboxError,
    NotYours,
    OwnRequest,
    PasskeyMustSign,
    PolicyUnverified,
    SignInAgain,
    TooLate,
)
from lockbox.facts.enumerations import ApproveMeans
from lockbox.identity import authentication, row_macs
from lockbox.identity.look_alikes import look_alikes
from lockbox.identity.models import Person, Tenant
from lockbox.identity.roles import Caller
from lockbox.notifications import recipients
from lockbox.notifications.recipients import RecipientDirectory
from lockbox.requests import approvals, policy_store, pre_approvals
from lockbox.requests.lifecycle import Action
from lockbox.requests.models import PreApproval, PreApprovalVote
from lockbox.requests.permitted_moves import sign_in_obstacle
from lockbox.requests.policy import UNVERIFIED, Terms
from lockbox.requests.policy_rules import Policy
from lockbox.requests.quorum import Vote, missing

MOST_LISTED = 200
PROPOSED_AT = text("""
SELECT DISTINCT p.tenant_id FROM pre_approvals p WHERE p.tenant_id = ANY (at_tenants())
    AND p.proposed_by <> at_person() AND p.revoked_at IS NULL AND p.ends_at > clock_timestamp()
""")
FORMER = "a former member"
MUST_SIGN = (
    "The policy requires each approval to be signed with a passkey, which a pre-approval cannot be: requests that it "
    "would cover are decided one by one."
)
NO_APPROVER = "Only approvers of this tenant, and those who stand in for one, can approve a pre-approval."
OWN = "You have proposed this pre-approval. Somebody else has to approve it."
PROPOSERS_DELEGATE = "You stand in for whoever has proposed this pre-approval. Somebody else has to approve it."
OVER = "This pre-approval is over."
TWICE = "You have already approved this pre-approval. It counts once."
ALTERED = "It was changed in the database, and not by Lockbox: it opens nothing. Revoke it."


class PreApprovalStatus(StrEnum):
    """A pre-approval waits for approvals, is in force, or is over in one of three ways."""

    PENDING = "pending"
    IN_FORCE = "in_force"
    USED_UP = "used_up"
    ENDED = "ended"
    REVOKED = "revoked"


OPEN = frozenset({PreApprovalStatus.PENDING, PreApprovalStatus.IN_FORCE})


@dataclass(frozen=True)
class PreApprovalApprover:
    """`counts`: whether this person could still approve the pre-approval today."""

    person_id: UUID
    name: str
    at: datetime
    counts: bool


@dataclass(frozen=True)
class PreApprovalSummary:
    """`lacks` lists the approvals that are still missing under today's policy."""

    row: PreApproval
    status: PreApprovalStatus
    proposed_by: str
    approvers: tuple[PreApprovalApprover, ...]
    lacks: tuple[str, ...]


@dataclass(frozen=True)
class AwaitingPreApproval:
    tenant: Tenant
    summary: PreApprovalSummary


@dataclass(frozen=True)
class PreApprovalContext:
    """`policy` is None if its MAC is invalid."""

    tenant: Tenant
    policy: Policy | None
    known: RecipientDirectory
    at: datetime


def judged_by(session: UnitOfWork, tenant: Tenant, at: datetime) -> PreApprovalContext:
    policy = policy_store.verified(session, tenant)
    return PreApprovalContext(tenant, policy, recipients.look_up(session, {tenant.id}, at), at)


def todays_terms(judged: PreApprovalContext, row: PreApproval) -> Terms:
    """The strictest terms that could apply to a request that the pre-approval covers."""
    if judged.policy is None:
        raise PolicyUnverified(UNVERIFIED)
    return pre_approvals.strictest_terms(judged.policy, row)


def summaries(session: UnitOfWork, tenant: Tenant, judged: PreApprovalContext) -> list[PreApprovalSummary]:
    """Newest first."""
    query = select(PreApproval).where(col(PreApproval.tenant_id) == tenant.id)
    rows = session.orm.exec(query.order_by(col(PreApproval.id).desc()).limit(MOST_LISTED)).all()
    return _summarised(session, rows, judged)


def summary(session: UnitOfWork, row: PreApproval, judged: PreApprovalContext) -> PreApprovalSummary:
    return _summarised(session, [row], judged)[0]


def approval_obstacle(
    session: UnitOfWork, caller: Caller, one: PreApprovalSummary, judged: PreApprovalContext
) -> LockboxError | None:
    if refused := _no_seat(caller, one, judged):
        return refused
    if one.status not in OPEN:
        return TooLate(OVER, current_state=one.status.value)
    if any(by.person_id == caller.person_id for by in one.approvers):
        return AlreadyDecided(TWICE)
    terms = todays_terms(judged, one.row)
    if refused := sign_in_obstacle(caller, Action.APPROVE, terms, judged.at):
        return refused
    if terms.approve_means is ApproveMeans.PASSKEY_SIGNED:
        return PasskeyMustSign(MUST_SIGN)
    return approvals.passkey_obstacle(session, caller, terms, judged.at)


def namesakes(session: UnitOfWork, caller: Caller, one: PreApprovalSummary) -> list[str]:
    """Return the proposer and approvers of an open pre-approval whose accounts resemble the caller's account."""
    people = {one.row.proposed_by, *(by.person_id for by in one.approvers)} - {caller.person_id}
    return look_alikes(session, caller.person_id, people) if one.status in OPEN else []


def _no_seat(caller: Caller, one: PreApprovalSummary, judged: PreApprovalContext) -> LockboxError | None:
    seats = judged.known.seats(judged.tenant.id).get(caller.person_id)
    if not seats:
        return NotYours(NO_APPROVER)
    if one.row.proposed_by == caller.person_id:
        return OwnRequest(OWN)
    return OwnRequest(PROPOSERS_DELEGATE) if seats == {one.row.proposed_by} else None


def ahead_of_awaiting() -> Query:
    return PROPOSED_AT, {}


def awaiting(session: UnitOfWork, caller: Caller) -> list[AwaitingPreApproval]:
    """Pending pre-approvals that the caller could approve, with this sign-in or a fresh one."""
    authentication.enter(session, caller)
    found: list[AwaitingPreApproval] = []
    for tenant_id in session.execute(*ahead_of_awaiting()).scalars().all():
        tenant = session.orm.exec(select(Tenant).where(col(Tenant.id) == tenant_id)).one()
        judged = judged_by(session, tenant, now(session))
        for one in summaries(session, tenant, judged):
            refused = approval_obstacle(session, caller, one, judged)
            if one.status is PreApprovalStatus.PENDING and (refused is None or isinstance(refused, SignInAgain)):
                found.append(AwaitingPreApproval(tenant, one))
    return sorted(found, key=lambda one: one.summary.row.id)


def _summarised(
    session: UnitOfWork, rows: Collection[PreApproval], judged: PreApprovalContext
) -> list[PreApprovalSummary]:
    ids = [row.id for row in rows]
    votes = session.orm.exec(
        select(PreApprovalVote).where(col(PreApprovalVote.pre_approval_id).in_(ids)).order_by(col(PreApprovalVote.id))
    ).all()
    people = {row.proposed_by for row in rows} | {vote.person_id for vote in votes}
    names = dict(session.orm.exec(select(Person.id, Person.name).where(col(Person.id).in_(people))).all())
    return [
        _with(session, row, [vote for vote in votes if vote.pre_approval_id == row.id], names, judged) for row in rows
    ]


def _with(
    session: UnitOfWork,
    row: PreApproval,
    votes: Sequence[PreApprovalVote],
    names: Mapping[UUID, str],
    judged: PreApprovalContext,
) -> PreApprovalSummary:
    counted: tuple[Vote, ...] = ()
    lacks = [UNVERIFIED]
    if judged.policy is not None:
        terms = todays_terms(judged, row)
        counted = pre_approvals.votes_on(session, row, votes, judged.known, terms)
        lacks = _lacks(counted, terms, judged.policy)
    if not row_macs.is_believed(session, row.mac, row_macs.pre_approval(row), row.id):
        lacks = [ALTERED]
    good = {vote.person_id for vote in counted if vote.seats}
    approvers = tuple(
        PreApprovalApprover(
            vote.person_id, names.get(vote.person_id, FORMER), vote.decided_at, vote.person_id in good
        )
        for vote in votes
    )
    status = _status(row, judged.at, is_enough=not lacks)
    said = tuple(lacks) if status in OPEN else ()
    return PreApprovalSummary(row, status, names.get(row.proposed_by, FORMER), approvers, said)


def _lacks(votes: Collection[Vote], terms: Terms, policy: Policy) -> list[str]:
    if terms.approve_means is ApproveMeans.PASSKEY_SIGNED:
        return [MUST_SIGN]
    return [
        f"{number} more {'approval' if number == 1 else 'approvals'}{f' of the group {group}' if group else ''}"
        for group, number in missing(votes, terms.quorum, terms.stages, policy.groups)
    ]


def _status(row: PreApproval, at: datetime, *, is_enough: bool) -> PreApprovalStatus:
    if row.revoked_at is not None:
        return PreApprovalStatus.REVOKED
    if row.used >= row.max_uses:
        return PreApprovalStatus.USED_UP
    if row.ends_at <= at:
        return PreApprovalStatus.ENDED
    return PreApprovalStatus.IN_FORCE if is_enough else PreApprovalStatus.PENDING
