"""Pre-approvals of a customer: whether one opens a request now, and the counting of its uses."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from sqlalchemy import text

from lockbox.audit.events import Actor, AuditEvent
from lockbox.database import Query, UnitOfWork
from lockbox.facts.enumerations import ApproveMeans, AuthMethod, Reason
from lockbox.failpoints import failpoint
from lockbox.identity import row_macs
from lockbox.notifications import announcements
from lockbox.notifications.recipients import RecipientDirectory
from lockbox.requests import policy_store
from lockbox.requests.lifecycle import Action
from lockbox.requests.models import AccessRequest, PreApproval
from lockbox.requests.policy import Terms, customer_decides, stricter
from lockbox.requests.policy_parts import fits
from lockbox.requests.policy_rules import Policy, RequestFacts, strictest_for
from lockbox.requests.policy_store import EffectivePolicy
from lockbox.requests.quorum import Vote, quorum_met

USABLE = text("""
SELECT usable_pre_approvals(:tenant_id, :service, :reason) AS pre_approvals,
    was_denied(:tenant_id, :service, CAST(:resources AS text[])) AS was_denied
""")
USE = text("SELECT use_pre_approval(:id, :policy_version, :engineer_id)")
USED_UP = "pre_approval_used_up"
MOMENTS = ("ends_at", "proposed_at", "revoked_at", "decided_at")
Row = PreApproval | SimpleNamespace


@dataclass(frozen=True)
class CoveringPreApproval:
    """`uses_left` is the number of uses left after this use; None before the use.

    `approved_by` are the people whose approvals of the pre-approval count.
    """

    id: UUID
    approved_by: frozenset[UUID]
    ends_at: datetime
    uses_left: int | None = None


@dataclass(frozen=True)
class CoverageContext:
    """An approval dated after `at` does not count yet; this happens if the database's time was set back."""

    tenant_id: UUID
    ask: RequestFacts
    access_window: int
    policy: Policy
    terms: Terms
    groups: Mapping[str, Sequence[UUID]]
    known: RecipientDirectory
    at: datetime


def ahead_of_covering(request: AccessRequest) -> Query:
    asked = {"service": request.service, "reason": request.reason_code, "resources": list(request.resources)}
    return USABLE, {"tenant_id": request.tenant_id, **asked}


def covering(
    session: UnitOfWork, rows: Iterable[Mapping[str, Any]], scene: CoverageContext
) -> CoveringPreApproval | None:
    """Return the pre-approval that opens a request; of several, the one that ends last.

    The pre-approval's approvals must suffice today for all that it covers. A stricter policy, or an approver who
    leaves, suspends the pre-approval until more people approve it.
    """
    found = [one for row in rows if (one := _covering(session, _read(row), scene))]
    return max(found, key=lambda one: one.ends_at, default=None)


def use(
    session: UnitOfWork,
    which: CoveringPreApproval,
    *,
    policy_version: int | None = None,
    engineer: UUID | None = None,
) -> CoveringPreApproval | None:
    """Count a use; return None if the pre-approval can no longer be used.

    With `engineer`, the result is also None if the policy version has changed, the tenant is suspended, or the
    engineer is not active.
    """
    session.wait()
    values = {"id": which.id, "policy_version": policy_version, "engineer_id": engineer}
    left: int | None = session.execute(USE, values).scalar_one()
    failpoint("pre_approval.after_use")
    return None if left is None else replace(which, uses_left=left)


def record_last_use(session: UnitOfWork, actor: Actor, request: AccessRequest, at: datetime) -> None:
    facts = {"pre_approval_id": request.pre_approval_id}
    last = AuditEvent(at=at, action=USED_UP, actor=actor, tenant_id=request.tenant_id, facts=facts)
    announcements.announce(session, last)


def use_at_endorsement(
    session: UnitOfWork, request: AccessRequest, effective: EffectivePolicy, known: RecipientDirectory, at: datetime
) -> CoveringPreApproval | None:
    """Use the pre-approval that covers an endorsed request and name it in the row; None if the customer is asked.

    The customer is always asked if access begins later than its approval, or if the customer denied it before.
    """
    found = session.execute(*ahead_of_covering(request)).one()
    is_coverable = customer_decides(request.mode) and request.is_at_once and not found.was_denied
    if not found.pre_approvals or not is_coverable:
        return None
    ask, window = policy_store.facts_of(request), min(request.access_window, effective.terms.access_ceiling)
    by = effective.today, effective.terms, effective.groups, known, at
    which = covering(session, found.pre_approvals, CoverageContext(request.tenant_id, ask, window, *by))
    used = use(session, which) if which else None
    request.pre_approval_id = used.id if used else None
    return used


def strictest_terms(policy: Policy, row: Row) -> Terms:
    return strictest_for(policy, RequestFacts(row.service, row.actions, Reason(row.reason_code), (row.resource,)))


def votes_on(
    session: UnitOfWork, row: Row, votes: Iterable[Any], known: RecipientDirectory, terms: Terms
) -> tuple[Vote, ...]:
    """A seat is filled only if the person could still approve in the same way.

    A delegate's vote counts for the principals whom the delegate represented at the vote and still represents. A
    mailed code counts only if the policy accepts it, and a vote without a valid MAC does not count. Neither does the
    vote of the proposer, or of the proposer's delegate in the proposer's seat.
    """
    proposer, seats = UUID(str(row.proposed_by)), known.seats(UUID(str(row.tenant_id)))
    return tuple(
        Vote(person, Action.APPROVE, _seats(session, vote, terms) & seats.get(person, frozenset()) - {proposer})
        for vote in votes
        if (person := UUID(str(vote.person_id))) != proposer
    )


def is_enough(votes: Collection[Vote], terms: Terms, groups: Mapping[str, Sequence[UUID]]) -> bool:
    """Approvals never suffice if the policy demands passkey signatures."""
    is_signed = terms.approve_means is ApproveMeans.PASSKEY_SIGNED
    return not is_signed and quorum_met(votes, terms.quorum, terms.stages, groups)


def _covering(session: UnitOfWork, row: SimpleNamespace, scene: CoverageContext) -> CoveringPreApproval | None:
    if not _covers(row, scene) or not row_macs.is_held(session, row.mac, row_macs.pre_approval(row), row.id):
        return None
    terms = stricter(strictest_terms(scene.policy, row), scene.terms)
    votes = votes_on(session, row, (vote for vote in row.votes if vote.decided_at <= scene.at), scene.known, terms)
    if not is_enough(votes, terms, scene.groups):
        return None
    return CoveringPreApproval(UUID(row.id), frozenset(vote.person_id for vote in votes if vote.seats), row.ends_at)


def _covers(row: Row, scene: CoverageContext) -> bool:
    return (
        UUID(str(row.tenant_id)) == scene.tenant_id
        and row.service == scene.ask.service
        and row.reason_code == scene.ask.reason
        and set(scene.ask.actions) <= set(row.actions)
        and all(fits(row.resource, resource) for resource in scene.ask.resources)
        and scene.access_window <= row.access_window
    )


def _seats(session: UnitOfWork, vote: Any, terms: Terms) -> frozenset[UUID]:  # noqa: ANN401 - a row, or what it says
    in_vain = vote.means == AuthMethod.MAIL and not terms.mail_suffices
    if in_vain or not row_macs.is_believed(session, vote.mac, row_macs.pre_approval_vote(vote), vote.id):
        return frozenset()
    return frozenset(UUID(str(one)) for one in (vote.person_id, *vote.principals))


def _read(row: Mapping[str, Any]) -> SimpleNamespace:
    said = {name: datetime.fromisoformat(row[name]) for name in MOMENTS if row.get(name)}
    votes = [_read(one) for one in row.get("votes") or ()]
    return SimpleNamespace(**{**row, **said, "mac": bytes.fromhex((row["mac"] or "")[2:]), "votes": votes})
