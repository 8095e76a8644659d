"""A person's move on a request (endorse, approve, deny, cancel, complete, revoke), made under the row's lock."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from lockbox.audit.canonical import Value
from lockbox.audit.events import Actor, Origin
from lockbox.database import Query, UnitOfWork, now
from lockbox.facts.enumerations import AuthMethod, State
from lockbox.failpoints import failpoint
from lockbox.identity import authentication, keyring, passkeys, row_macs
from lockbox.identity.passkeys import RelyingParty
from lockbox.identity.roles import Caller
from lockbox.notifications.audience import Reminder
from lockbox.requests import approvals, decision_context, extend, pre_approvals, quorum, submit, transition
from lockbox.requests.break_glass import BreakGlassRecord, begin_after_review
from lockbox.requests.deadlines import deadline, wake_at
from lockbox.requests.decision_context import DecisionContext, DecisionInput
from lockbox.requests.lifecycle import DECISIONS, FINAL_STATES, Action, MoveRule, Party
from lockbox.requests.models import AccessRequest, Decision, RequestEntry
from lockbox.requests.on_behalf_of import names_of, personal_names
from lockbox.requests.permitted_moves import OPENING, REVIEWERS_OPENING, permitted
from lockbox.requests.policy import customer_decides, fewest, longest_window
from lockbox.requests.policy_store import EffectivePolicy
from lockbox.requests.quorum import ApprovalLimits, Vote, granted_start, granted_window, quorum_met
from lockbox.requests.submit import SubmissionFacts
from lockbox.requests.transition import Move
from lockbox.sql import new_id

UNSAID = SubmissionFacts({}, {}, {})
OPENED_FACTS = ("max_uses", "pre_approval_id", "opens_at", "break_glass")


@dataclass(frozen=True)
class JudgedDecision:
    entry: RequestEntry
    decision_input: DecisionInput
    scene: DecisionContext
    taken: tuple[MoveRule, Party]


@dataclass(frozen=True)
class MadeDecision:
    entry: RequestEntry
    scene: DecisionContext
    moves: Sequence[Move]


def act(
    session: UnitOfWork, caller: Caller, origin: Origin, request_id: UUID, decision_input: DecisionInput
) -> AccessRequest:
    return act_and_show(session, caller, origin, request_id, decision_input).request


def act_and_show(
    session: UnitOfWork, caller: Caller, origin: Origin, request_id: UUID, decision_input: DecisionInput
) -> RequestEntry:
    """Raises the errors of `judge` and `make`."""
    return make(session, judge(session, caller, origin, request_id, decision_input)).entry


def judge(
    session: UnitOfWork,
    caller: Caller,
    origin: Origin,
    request_id: UUID,
    decision_input: DecisionInput,
    *,
    with_keys: bool = False,
    ahead: Sequence[Query] = (),
) -> JudgedDecision:
    """Lock the request and check whether the person may make this move; nothing is written.

    Roles, delegates, policy and time are read after the lock: a decision that waited for the lock past the deadline
    is too late. `with_keys` also reads the person's passkeys.

    Raises CommentRequired, and the errors of `permitted`.
    """
    authentication.enter(session, caller)
    entry = transition.locked_entry(session, caller, request_id)
    scene, taken = _evaluated(
        session, caller, origin, entry.request, decision_input, with_keys=with_keys, ahead=ahead
    )
    return JudgedDecision(entry, decision_input, scene, taken)


def make(session: UnitOfWork, judged: JudgedDecision) -> MadeDecision:
    """Write a move that `judge` has checked in this transaction.

    Raises WindowTooLong, Invalid, NothingLeft, PasskeyMustSign.
    """
    request = judged.entry.request
    scene, moves = _made(session, judged.scene, request, judged.decision_input, judged.taken)
    is_open = request.state is State.ACTIVE and request.opens_at is None
    return MadeDecision(replace(judged.entry, open=is_open, uses_left=request.uses_left), scene, moves)


def act_on(
    session: UnitOfWork,
    caller: Caller,
    origin: Origin,
    request: AccessRequest,
    decision_input: DecisionInput,
    *,
    as_party: Party | None = None,
) -> AccessRequest:
    """Act on a request whose row is locked and detached from the session.

    With `as_party`, the caller acts only in that capacity, which the calling code has checked. Raises the errors of
    `judge` and `make`.
    """
    scene, taken = _evaluated(session, caller, origin, request, decision_input, as_party=as_party)
    _made(session, scene, request, decision_input, taken, with_extensions=as_party is None)
    return request


def _made(
    session: UnitOfWork,
    scene: DecisionContext,
    request: AccessRequest,
    decision_input: DecisionInput,
    taken: tuple[MoveRule, Party],
    *,
    with_extensions: bool = True,
) -> tuple[DecisionContext, Sequence[Move]]:
    moved, decision, votes = _moved(session, scene, request, decision_input, taken)
    failpoint("decide.after_evaluation")
    listed = keyring.approval_keys(session).listed if decision else None
    beside = _next_step(scene, request, moved)
    transition.update(session, request, moved, decision, listed, beside=beside)
    if decision_input.action is Action.BREAK_GLASS:
        begin_after_review(session, request, moved.at)
    failpoint("decide.after_update")
    if scene.is_extended and with_extensions:
        for extension, ends_by in extend.ended_with(session, request):
            act_on(session, scene.caller, scene.origin, extension, DecisionInput(ends_by, decision_input.comment))
            failpoint("extension.after_end")
    return replace(scene, votes=votes), (moved, *beside)


def to_sign(
    session: UnitOfWork,
    caller: Caller,
    origin: Origin,
    request_id: UUID,
    decision_input: DecisionInput,
    *,
    party: Callable[[], RelyingParty],
) -> approvals.ApprovalChallenge:
    """Return the challenge by which the caller's passkey signs this approval.

    The approval is checked as if it were made now. `party` raises NotYours if passkeys are not set up here. It is
    called last, so that only someone who may approve the request learns this. Also raises the errors of `judge`, and
    NotYours if the caller has no passkey that can sign here.
    """
    return challenge(judge(session, caller, origin, request_id, decision_input, with_keys=True), party=party)


def challenge(judged: JudgedDecision, *, party: Callable[[], RelyingParty]) -> approvals.ApprovalChallenge:
    """Like `to_sign`, for an approval that `judge` has checked `with_keys`."""
    request, scene = judged.entry.request, judged.scene
    principals = scene.principals(request) if judged.taken[1] is Party.APPROVER else frozenset[UUID]()
    decision = _decided(scene, request, judged.decision_input, principals)
    return approvals.issue_challenge(scene.keys or (), request, decision, party=party(), effective=scene.effective)


def _evaluated(
    session: UnitOfWork,
    caller: Caller,
    origin: Origin,
    request: AccessRequest,
    decision_input: DecisionInput,
    *,
    as_party: Party | None = None,
    with_keys: bool = False,
    ahead: Sequence[Query] = (),
) -> tuple[DecisionContext, tuple[MoveRule, Party]]:
    failpoint("decide.after_lock")
    with_votes, is_signed = decision_input.action in DECISIONS, decision_input.signed is not None
    keys_of = passkeys.ahead_of_held(caller.person_id, locked=is_signed) if with_keys or is_signed else None
    then = [*([keys_of] if keys_of else ()), *ahead]
    if decision_input.action in REVIEWERS_OPENING:
        then.append(submit.ahead_of_read(request))
    if decision_input.action is Action.ENDORSE:
        then.append(pre_approvals.ahead_of_covering(request))
    scene = decision_context.after_lock(session, caller, origin, request, with_votes=with_votes, ahead=then)
    if keys_of:
        scene = replace(scene, keys=passkeys.held_by(session, caller.person_id, locked=is_signed))
    if decision_input.action is Action.BREAK_GLASS:
        record = BreakGlassRecord.read(session, request, in_turn=True)
        # This move may have waited long for its turn, so its time is read again: it comes after what was committed
        # meanwhile.
        scene = replace(scene, break_glass=record, at=now(session))
    if decision_input.action is Action.APPROVE:
        terms = scene.effective.terms
        too_new = approvals.passkey_obstacle(
            session, scene.caller, terms, scene.at, is_signed=is_signed, keys=scene.keys
        )
        scene = replace(scene, too_new=too_new)
    parties = None if as_party is None else {as_party}
    taken = permitted(scene.situation(request), decision_input.action, parties=parties, seen=decision_input.version)
    if as_party is None and not (request.break_glass and request.opened_at):
        decision_context.reasoned(decision_input, scene.effective.terms, by_the_vendor=taken[1] is Party.MANAGER)
    return scene, taken


def _decided(
    scene: DecisionContext, request: AccessRequest, decision_input: DecisionInput, principals: frozenset[UUID]
) -> Decision:
    of_request, terms = (scene.caller, scene.origin, request, decision_input), scene.effective.terms
    return decision_context.decide(*of_request, votes=scene.votes, principals=principals, terms=terms, at=scene.at)


def _signed_decision(
    session: UnitOfWork,
    scene: DecisionContext,
    request: AccessRequest,
    decision_input: DecisionInput,
    principals: frozenset[UUID],
) -> tuple[Decision, approvals.Proof]:
    decision, proof = _decided(scene, request, decision_input, principals), approvals.NO_PROOF
    if decision_input.action is Action.APPROVE:
        decision_context.signed_where_demanded(decision_input, scene.effective.terms)
        signed, keys = decision_input.signed, scene.keys or ()
        proof = approvals.check_signature(session, keys, request, decision, signed=signed, effective=scene.effective)
    decision.mac = keyring.of(session).powers.mark(*row_macs.decision(decision))
    return decision, proof


def _moved(
    session: UnitOfWork,
    scene: DecisionContext,
    request: AccessRequest,
    decision_input: DecisionInput,
    taken: tuple[MoveRule, Party],
) -> tuple[Move, Decision | None, tuple[Vote, ...]]:
    row, party = taken
    action, before, mode = decision_input.action, request.state, request.mode
    votes: tuple[Vote, ...] = ()
    decision: Decision | None = None
    principals = scene.principals(request) if party is Party.APPROVER else frozenset[UUID]()
    proof: approvals.Proof = approvals.NO_PROOF
    covered = None
    submitted = submit.read(session, request) if action in REVIEWERS_OPENING else UNSAID
    if action in DECISIONS:
        decision, proof = _signed_decision(session, scene, request, decision_input, principals)
        if action is Action.ENDORSE:
            begins = request.begins(scene.at)
            request.mode, request.consent_until = scene.effective.mode_for(request, begins)
            covered = pre_approvals.use_at_endorsement(session, request, scene.effective, scene.known, scene.at)
        vote = Vote(scene.caller.person_id, action, scene.seats(request), ApprovalLimits.of(decision))
        votes = (*scene.votes, vote)
    to = _next_state(row, request, votes, action, scene.effective)
    request.break_glass = request.break_glass and action is not Action.ENDORSE
    _advance(request, to, votes, scene, until=covered.ends_at if covered else None)
    opens = action in OPENING and request.state is State.ACTIVE
    by = covered.approved_by if covered else _who_opened(votes, action)
    signed = approvals.sign(session, request, by) if opens else {}
    actor = _actor(scene, party, principals)
    if covered and covered.uses_left == 0:
        pre_approvals.record_last_use(session, actor, request, scene.at)
    moved = Move.of(
        request,
        action=action,
        actor=actor,
        from_state=before,
        at=scene.at,
        policy_version=scene.effective.version,
        asked=_asked(scene, request) if covered or request.state is State.PENDING else frozenset(),
        facts={
            **submitted.facts,
            **_facts(scene, decision_input, principals),
            **({} if request.mode is mode else {"mode": request.mode.value}),
            **approvals.kept(decision, request),
            **(request.given(OPENED_FACTS) if opens else {}),
            **signed,
            **proof.facts,
        },
        personal={
            **submitted.personal,
            "comment": decision_input.comment,
            **approvals.kept_resources(decision, request),
            **proof.personal,
            **_principals(session, principals),
        },
        salts=submitted.salts,
    )
    return moved, decision, votes


def _next_step(scene: DecisionContext, request: AccessRequest, moved: Move) -> Sequence[Move]:
    if moved.action != Action.APPROVE or moved.to_state is not State.PENDING:
        return ()
    before = scene.step(request)
    vote = Vote(scene.caller.person_id, Action.APPROVE, scene.seats(request))
    after = replace(scene, votes=(*scene.votes, vote)).step(request)
    if after == before:
        return ()
    voters = {one.person_id for one in (*scene.votes, vote)}
    asked = scene.asked_by(request, after) - scene.asked_by(request, before) - voters - {request.requester_id}
    asks = Reminder.ESCALATE
    facts = {"step": after, "tiers_asked": request.tiers_asked}
    return [
        replace(moved, event_id=new_id(), action=asks, reminder=asks, asked=asked, facts=facts, personal={}, salts={})
    ]


def _who_opened(votes: Sequence[Vote], action: Action) -> set[UUID]:
    """Return the approvers whose approvals still count, or the manager if the vendor opens the window."""
    return {
        vote.person_id for vote in votes if vote.decision is action and (vote.seats or action in REVIEWERS_OPENING)
    }


def _asked(scene: DecisionContext, request: AccessRequest) -> frozenset[UUID]:
    return scene.asked(request).people - {request.requester_id}


def _facts(scene: DecisionContext, decision_input: DecisionInput, principals: frozenset[UUID]) -> Mapping[str, Value]:
    facts: dict[str, Value] = {}
    if window := decision_input.limits.access_window:
        facts["access_window"] = window
    if decision_input.reason:
        facts["reason"] = decision_input.reason
    if principals:
        facts["principals"] = sorted(map(str, principals))
    if decision_input.action is Action.BREAK_GLASS and scene.break_glass and scene.break_glass.overdue:
        facts["overdue_findings"] = scene.break_glass.overdue
    if decision_input.action in DECISIONS:
        facts["means"] = "mail-only" if scene.caller.means is AuthMethod.MAIL else scene.caller.means.value
    return facts


def _principals(session: UnitOfWork, principals: frozenset[UUID]) -> Mapping[str, str | None]:
    if not principals:
        return {}
    people = sorted(principals, key=str)
    return personal_names(people, names_of(session, people))


def _actor(scene: DecisionContext, party: Party, principals: frozenset[UUID]) -> Actor:
    """A delegate is recorded as acting for one principal, even if the delegate is an approver.

    The facts of the event name all principals.
    """
    return scene.origin.actor(scene.caller, party, on_behalf_of=min(principals, key=str, default=None))


def _next_state(
    row: MoveRule, request: AccessRequest, votes: Sequence[Vote], action: Action, effective: EffectivePolicy
) -> State:
    if row.instead is None:
        return row.to
    if request.pre_approval_id and row.pre_approved:
        return row.pre_approved
    if action is Action.ENDORSE:
        return row.to if customer_decides(request.mode) else row.instead
    quorum = max(request.quorum, effective.terms.quorum)
    return row.to if quorum_met(votes, quorum, effective.terms.stages, effective.groups) else row.instead


def _advance(
    request: AccessRequest, to: State, votes: Sequence[Vote], scene: DecisionContext, *, until: datetime | None = None
) -> None:
    """Update the request for its new state; its own terms can only become stricter."""
    terms, at = scene.effective.terms, scene.at
    request.version += 1
    request.quorum = max(request.quorum, terms.quorum)
    request.approve_means = max(request.approve_means, terms.approve_means)
    if request.opened_at is None:
        request.max_uses = fewest(request.max_uses, terms.max_uses)
    if to is request.state:
        return
    request.state = to
    if to in FINAL_STATES:
        request.closed_at, request.wake_at = at, None
        return
    approvals_ = [vote for vote in votes if vote.decision is Action.APPROVE]
    longest = longest_window(request.access_window, terms, request.timing, break_glass=request.break_glass)
    access = granted_window(longest, approvals_)
    approval = min(request.approval_window, terms.approval_window)
    start = granted_start(approvals_) or request.not_before
    ends = deadline(to, at, review=0, approval=approval, access=access, start=start)
    request.deadline_at = min([ends, *filter(None, (request.consent_until, until))])
    request.stopped_at = request.stopped_deadline = None
    request.asked_at = request.asked_at or at
    request.reminders = 0
    if to is State.ACTIVE:
        request.opened_at, request.opens_at = at, start if start and start > at else None
        counted = [vote for vote in approvals_ if vote.seats]
        request.max_uses = fewest(request.max_uses, *(vote.limits.max_uses for vote in counted))
        request.granted_resources = quorum.granted(
            request.resources, (v.limits.resources for v in counted), "resources"
        )
        request.granted_actions = quorum.granted(request.actions, (v.limits.actions for v in counted), "actions")
    else:
        request.tiers_asked = scene.asked(request).tiers
    request.wake_at = wake_at(transition.phase_of(request, scene.known), terms, at)
