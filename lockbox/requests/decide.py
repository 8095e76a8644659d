"""Acting on a request: a person endorses, approves, denies, cancels, completes or revokes; judged under the lock."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import select
from sqlmodel import Session, col

from lockbox.audit.canonical import Value
from lockbox.audit.events import Actor
from lockbox.database import now
from lockbox.errors import (
    InvalidMove,
    NotYours,
    OwnRequest,
    PolicyNotMet,
    PolicyUnverified,
    Stale,
    TenantSuspended,
    TooLate,
)
from lockbox.failpoints import reach
from lockbox.identity import keyring, row_security, tenants
from lockbox.identity.passkeys import RelyingParty
from lockbox.identity.roles import Caller, Means, Role, Side
from lockbox.notifications import recipients
from lockbox.notifications.recipients import Directory
from lockbox.requests import approvals, decisions, policy_store, quorum, reminders, submit, tiers, timers, transition
from lockbox.requests.decisions import OPENING, Verdict, now_is
from lockbox.requests.evaluate import lacking_today
from lockbox.requests.lifecycle import DECISIONS, FINAL_STATES, Action, Move, Party, State, move
from lockbox.requests.models import AccessRequest, Decision
from lockbox.requests.on_behalf_of import names_of, personal_names
from lockbox.requests.policy import customer_decides, deadline, wake_at
from lockbox.requests.policy_store import Ruling
from lockbox.requests.queries import find, visible
from lockbox.requests.quorum import Vote, granted_window, quorum_met
from lockbox.requests.submit import Submission
from lockbox.requests.tiers import Asked
from lockbox.requests.transition import Change, Origin, actor_for, identity

NONE = timedelta(0)
UNSAID = Submission({}, {}, {})
STRICTER_SINCE = "The customer's policy has become stricter since this was asked, and it no longer meets it."
SUSPENDED = (
    "The vendor has suspended this tenant: nothing is opened until it is resumed. Until then it can be denied or "
    "withdrawn."
)
UNREVIEWED = (
    "The customer's policy asks by now that the vendor reviews what is asked, and nobody has reviewed this: the "
    "vendor cancels it and files it anew, so that it is reviewed."
)


@dataclass(frozen=True)
class Scene:
    """All that an act is judged by, read after the lock was held."""

    caller: Caller
    origin: Origin
    known: Directory
    ruling: Ruling
    at: datetime

    def stands_for(self, request: AccessRequest) -> frozenset[UUID]:
        """Return the approvers for whom the caller stands in now."""
        return self.known.deputies[request.tenant_id].get(self.caller.person_id, frozenset())

    def seats(self, request: AccessRequest) -> frozenset[UUID]:
        """Return the approvers in whose place the caller could vote now, the own one too."""
        return self.known.seats(request.tenant_id).get(self.caller.person_id, frozenset())

    def asked(self, request: AccessRequest) -> Asked:
        """Return whom of the customer to ask first, and how many tiers that makes."""
        return tiers.first(self.ruling.terms, self.ruling.groups, self.known, request.tenant_id)


def act(session: Session, caller: Caller, origin: Origin, request_id: UUID, verdict: Verdict) -> AccessRequest:
    """Let a person endorse, approve, deny, cancel, complete or revoke a request.

    The row is locked first; roles, deputies, policy and the clock are read after that, so a decision that had to
    wait past the deadline is late, and one by somebody who was removed meanwhile does not count.

    Raises:
        Unknown: there is no such request that the caller may know of.
        NotYours, OwnRequest, AlreadyEndorsed, SignInAgain: the caller is not the one to do this, or not so.
        Stale, InvalidMove, TooLate, AlreadyDecided: the request is not, or no longer, what the caller takes it for.
        CommentRequired: the policy asks for a reason.
        WindowTooLong: the window would be longer than what was asked.
        Invalid, NothingLeft: what an approver keeps of what was asked was never asked, or is nothing.
        TenantSuspended: it would be opened, or the customer asked, while the tenant is suspended.
        PolicyUnverified: likewise, while a mark of what the customer laid down does not hold.
        PolicyNotMet: what was asked no longer meets the customer's policy, or was not reviewed as it asks by now.
        PasskeyMustSign: the policy demands that a passkey signs the approval, and none has.
    """
    row_security.enter(session, caller)
    return act_on(session, caller, origin, locked(session, caller, request_id), verdict)


def act_on(
    session: Session,
    caller: Caller,
    origin: Origin,
    request: AccessRequest,
    verdict: Verdict,
    *,
    as_party: Party | None = None,
) -> AccessRequest:
    """Act on a request whose row is locked and no longer the session's, as the parties that the caller is.

    With `as_party` it is that one alone, which the caller has judged: see `ending` and the emergency stop.

    Raises:
        As `act`, but for Unknown.
    """
    reach("decide.after_lock")
    scene, taken = _judged(session, caller, origin, request, verdict, as_party=as_party)
    change, decision = _moved(session, scene, request, verdict, taken)
    reach("decide.after_judging")
    transition.update(session, request, change, scene.known, decision)
    reach("decide.after_update")
    return request


def to_sign(
    session: Session,
    caller: Caller,
    origin: Origin,
    request_id: UUID,
    verdict: Verdict,
    *,
    party: Callable[[], RelyingParty],
) -> approvals.Asked:
    """Return what to ask a passkey of the caller's, so that it signs this approval; judged as if it were given now.

    `party` is asked last: that there are no passkeys here is for those who may approve the request, if there is one.

    Raises:
        As `act`, but for PasskeyMustSign; NotYours too where they have no passkey that can sign here.
    """
    row_security.enter(session, caller)
    request = locked(session, caller, request_id)
    scene, (_, taken_as) = _judged(session, caller, origin, request, verdict)
    stands_for = scene.stands_for(request) if taken_as is Party.APPROVER else frozenset[UUID]()
    decision, _ = _decided(session, scene, request, verdict, stands_for)
    return approvals.ask(session, scene.caller, request, decision, party=party(), ruling=scene.ruling)


def _judged(
    session: Session,
    caller: Caller,
    origin: Origin,
    request: AccessRequest,
    verdict: Verdict,
    *,
    as_party: Party | None = None,
) -> tuple[Scene, tuple[Move, Party]]:
    """Return by what a verdict is judged, and the move that it makes as which party; its row is locked."""
    caller = tenants.as_of_now(session, caller)
    at = now(session)
    both = {request.requester_id, caller.person_id}
    known = recipients.look_up(session, {request.tenant_id}, at, also=both)
    scene = Scene(caller, origin, known, policy_store.ruling(session, request), at)
    if verdict.action in DECISIONS and caller.holds(Role.SYSTEM):
        raise NotYours("A system of the vendor decides nothing.")
    if verdict.action in DECISIONS and request.requester_id == caller.person_id:
        raise OwnRequest("You asked for this access; somebody else decides about it.")
    if verdict.version is not None and verdict.version != request.version:
        raise Stale("The request has changed since you saw it; look again.", **now_is(request))
    parties = {as_party} if as_party else _parties(scene, request)
    row, party = _taken(request, verdict.action, parties)
    if verdict.action is Action.REVOKE and party is not Party.OPERATOR:
        decisions.fresh_enough_to_revoke(scene.caller, scene.ruling.terms, at)
    _in_time(scene, request, verdict.action)
    if as_party is None:
        decisions.reasoned(verdict, scene.ruling.terms, by_the_vendor=party is Party.MANAGER)
    return scene, (row, party)


def _decided(
    session: Session, scene: Scene, request: AccessRequest, verdict: Verdict, stands_for: frozenset[UUID]
) -> tuple[Decision, tuple[Vote, ...]]:
    """Return the decision that a verdict makes, signed by nobody yet, and the votes before it."""
    votes = decisions.given(session, request, scene.known, scene.ruling.terms)
    if verdict.action in OPENING:
        _may_open(scene, request, verdict.action, votes)
    decision = decisions.decide(
        scene.caller, scene.origin, request, verdict, votes=votes, stands_for=stands_for, at=scene.at
    )
    return decision, votes


def _moved(
    session: Session, scene: Scene, request: AccessRequest, verdict: Verdict, taken: tuple[Move, Party]
) -> tuple[Change, Decision | None]:
    """Turn the row into what it is after the move; return the move and the decision, if it is one."""
    row, party = taken
    action, before, mode = verdict.action, request.state, request.mode
    votes: tuple[Vote, ...] = ()
    decision = None
    stands_for = scene.stands_for(request) if party is Party.APPROVER else frozenset[UUID]()
    proof: approvals.Proof = approvals.NO_PROOF
    submitted = submit.read(session, request) if action is Action.ENDORSE else UNSAID
    if action in DECISIONS:
        decision, votes = _decided(session, scene, request, verdict, stands_for)
        if action is Action.APPROVE:
            decisions.signed_where_demanded(verdict, scene.ruling.terms)
            proof = approvals.prove(
                session, scene.caller, request, decision, signed=verdict.signed, ruling=scene.ruling
            )
        decision.mac = keyring.of(session).powers.mark(*decisions.marked(decision))
        if action is Action.ENDORSE:
            request.mode, request.consent_until = scene.ruling.mode_for(request, scene.at)
        given = (verdict.access_window, scene.seats(request), decision.resources, decision.actions)
        votes = (*votes, Vote(scene.caller.person_id, action, *given))
    to = _next_state(row, request, votes, action, scene.ruling)
    _advance(request, to, votes, scene)
    opens = action in OPENING and request.state is State.ACTIVE
    signed = approvals.sign(session, request, _who_opened(votes, action), scene.at) if opens else {}
    change = Change(
        **identity(request),
        action=action,
        actor=_actor(scene, party, stands_for),
        from_state=before,
        at=scene.at,
        policy_version=scene.ruling.version,
        asked=_asked(scene, request) if request.state is State.PENDING else frozenset(),
        facts={
            **submitted.facts,
            **_facts(scene, verdict, stands_for),
            **({} if request.mode is mode else {"mode": request.mode.value}),
            **approvals.kept(decision, request),
            **signed,
            **proof.facts,
        },
        personal={
            **submitted.personal,
            "comment": verdict.comment,
            **approvals.kept_resources(decision, request),
            **proof.personal,
            **_principals(session, stands_for),
        },
        salts=submitted.salts,
    )
    return change, decision


def _who_opened(votes: Sequence[Vote], action: Action) -> set[UUID]:
    """Return whose votes count: the approvers' who still may approve, or the manager's where the vendor opens."""
    return {vote.person_id for vote in votes if vote.verdict is action and (vote.seats or action is Action.ENDORSE)}


def _asked(scene: Scene, request: AccessRequest) -> frozenset[UUID]:
    return scene.asked(request).people - {request.requester_id}


def _may_open(scene: Scene, request: AccessRequest, action: Action, votes: Sequence[Vote]) -> None:
    """Check that the sign-in is good enough, and that what was asked could be asked today."""
    terms = scene.ruling.terms
    if scene.ruling.is_suspended:
        raise TenantSuspended(SUSPENDED)
    if not scene.ruling.is_verified:
        raise PolicyUnverified(policy_store.UNVERIFIED)
    decisions.in_person(scene.caller)
    if action is Action.ENDORSE:
        decisions.strong_enough_to_endorse(scene.caller, terms, scene.at)
    else:
        decisions.strong_enough(scene.caller, terms, scene.at)
    if lacks := lacking_today(request, terms):
        errors = [{"field": field, "message": message} for field, message in lacks]
        said = " ".join(message for _, message in lacks)
        raise PolicyNotMet(f"{STRICTER_SINCE} {said} Deny it, or have it cancelled and filed anew.", errors=errors)
    endorsed = any(vote.verdict is Action.ENDORSE for vote in votes)
    if action is Action.APPROVE and terms.vendor_review and not endorsed:
        raise PolicyNotMet(UNREVIEWED)


def _facts(scene: Scene, verdict: Verdict, stands_for: frozenset[UUID]) -> Mapping[str, Value]:
    facts: dict[str, Value] = {}
    if verdict.access_window:
        facts["access_window"] = verdict.access_window
    if stands_for:
        facts["stands_for"] = row_security.ids(stands_for)
    if verdict.action in DECISIONS:
        facts["means"] = "mail-only" if scene.caller.means is Means.MAIL else scene.caller.means.value
    return facts


def _principals(session: Session, stands_for: frozenset[UUID]) -> Mapping[str, str | None]:
    people = sorted(stands_for, key=str)
    return personal_names(people, names_of(session, people))


def _actor(scene: Scene, party: Party, stands_for: frozenset[UUID]) -> Actor:
    """Name both where a deputy acts, also one who approves beside that; all whom they stand for are in the facts."""
    return actor_for(scene.caller, party, scene.origin, on_behalf_of=min(stands_for, key=str, default=None))


def _taken(request: AccessRequest, action: Action, parties: set[Party]) -> tuple[Move, Party]:
    try:
        return move(request.state, action, parties)
    except InvalidMove as refused:
        raise InvalidMove(refused.detail, **now_is(request)) from None


def _in_time(scene: Scene, request: AccessRequest, action: Action) -> None:
    late = scene.at >= request.deadline_at
    # A policy that has become stricter since leaves less time; the clock itself still runs to the first deadline.
    if action is Action.APPROVE and request.asked_at:
        stood = timers.stood(clock_of(request), scene.at) if scene.ruling.terms.questions_stop_clock else NONE
        late = late or scene.at >= request.asked_at + timedelta(seconds=scene.ruling.terms.approval_window) + stood
    if action is Action.ENDORSE:
        late = late or scene.at >= request.created_at + timedelta(seconds=scene.ruling.terms.review_window)
    if late:
        raise TooLate("The time for this has run out.", **now_is(request))


def clock_of(request: AccessRequest) -> timers.Clock:
    """Return the clock of a request as it stands or runs."""
    return timers.Clock(request.deadline_at, request.stopped_at, request.stopped_deadline, request.stopped_for)


def locked(session: Session, caller: Caller, request_id: UUID) -> AccessRequest:
    """Lock a request's row and take it out of the session; somebody of the vendor deals with its tenant from here on.

    Raises:
        Unknown: there is no such request that the caller may know of.
        NotYours: they may look at it and do nothing to it.
    """
    query = select(AccessRequest).where(col(AccessRequest.id) == request_id, visible(caller)).with_for_update()
    request: AccessRequest | None = session.execute(query).scalar_one_or_none()
    if request is None:
        find(session, caller, request_id)
        raise NotYours("You may look at this request and do nothing to it.")
    # Moves are written by one statement of our own; the session is not to flush a second one.
    session.expunge(request)
    if caller.side is Side.VENDOR:
        row_security.turn_to(session, request.tenant_id)
    return request


def _parties(scene: Scene, request: AccessRequest) -> set[Party]:
    caller = scene.caller
    capacities = {
        Party.REQUESTER: caller.person_id == request.requester_id,
        Party.MANAGER: caller.holds(Role.MANAGER),
        Party.APPROVER: caller.holds(Role.APPROVER, tenant_id=request.tenant_id) or scene.stands_for(request),
        Party.TENANT_ADMIN: caller.holds(Role.TENANT_ADMIN, tenant_id=request.tenant_id)
        and request.state is not State.REVIEWING,
    }
    return {party for party, holds in capacities.items() if holds}


def _next_state(row: Move, request: AccessRequest, votes: Sequence[Vote], action: Action, ruling: Ruling) -> State:
    if row.instead is None:
        return row.to
    if action is Action.ENDORSE:
        return row.to if customer_decides(request.mode) else row.instead
    quorum = max(request.quorum, ruling.terms.quorum)
    return row.to if quorum_met(votes, quorum, ruling.terms.stages, ruling.groups) else row.instead


def _advance(request: AccessRequest, to: State, votes: Sequence[Vote], scene: Scene) -> None:
    """Turn the row into what it is after the move; what was asked only ever gets stricter."""
    terms, at = scene.ruling.terms, scene.at
    request.version += 1
    request.quorum = max(request.quorum, terms.quorum)
    request.approve_means = max(request.approve_means, terms.approve_means)
    if to is request.state:
        return
    request.state = to
    if to in FINAL_STATES:
        request.closed_at, request.wake_at = at, None
        return
    access = granted_window(
        min(request.access_window, terms.access_ceiling), (v for v in votes if v.verdict is Action.APPROVE)
    )
    approval = min(request.approval_window, terms.approval_window)
    ends = deadline(to, at, review=0, approval=approval, access=access)
    request.deadline_at = min(ends, request.consent_until) if request.consent_until else ends
    request.stopped_at = request.stopped_deadline = None
    request.asked_at = request.asked_at or at
    request.reminders = 0
    if to is State.ACTIVE:
        request.opened_at = at
        counted = [vote for vote in votes if vote.verdict is Action.APPROVE and vote.seats]
        request.granted_resources = quorum.granted(request.resources, (v.resources for v in counted), "resources")
        request.granted_actions = quorum.granted(request.actions, (v.actions for v in counted), "actions")
    else:
        request.tiers_asked = scene.asked(request).tiers
    request.wake_at = wake_at(reminders.stretch_of(request, scene.known), terms, at)
