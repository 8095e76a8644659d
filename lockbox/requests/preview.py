"""Which terms and people would decide a request, and what a new policy would change for a pending request."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from pydantic import BaseModel
from sqlmodel import col, select

from catalogue.service_catalogue import Level, Service
from lockbox.audit.events import Actor
from lockbox.database import UnitOfWork
from lockbox.facts.enumerations import Mode, State
from lockbox.identity.models import Person, Tenant
from lockbox.identity.roles import Caller
from lockbox.notifications import event_recipients, recipients
from lockbox.notifications.mail_text import duration
from lockbox.notifications.outbox import NotifiedMove
from lockbox.notifications.recipients import RecipientDirectory
from lockbox.requests import deadlines, decision_context, policy_store, submit
from lockbox.requests.case_check import DUPLICATE
from lockbox.requests.evaluate import NOBODY, Evaluation, evaluate_request
from lockbox.requests.lifecycle import Action, Party
from lockbox.requests.models import AccessRequest
from lockbox.requests.policy import Terms, customer_decides, lacking_today, longest_window
from lockbox.requests.policy_parts import FIRST_STEP, ReasonedDecision
from lockbox.requests.policy_rules import Policy
from lockbox.requests.policy_store import EffectivePolicy
from lockbox.requests.quorum import Vote, missing, who_lacks
from lockbox.requests.request_input import RequestInput

OVER = "It times out: under the new policy, its approval deadline has passed."
UNREVIEWED = "Nobody can approve it: no manager of the vendor has reviewed it. The vendor has to submit it again."
NO_MAIL = "A code from a mail is no longer enough to approve it. Approvals already given with one no longer count."
NOT_SIGNED = "Only approvals signed with a passkey count. Other approvals already given no longer count."
LATER = "The group {group} can approve it only once the groups of the steps before step {step} have."
OTHERS = "It is escalated by the new tiers."


@dataclass(frozen=True)
class PreviewContext:
    request: AccessRequest
    before: EffectivePolicy
    after: EffectivePolicy
    votes: tuple[Vote, ...]
    votes_after: tuple[Vote, ...]
    known: RecipientDirectory
    at: datetime


def compare(  # noqa: PLR0917 - all that the comparison needs
    session: UnitOfWork,
    tenant: Tenant,
    request: AccessRequest,
    policy: Policy,
    known: RecipientDirectory,
    at: datetime,
) -> list[str]:
    """What a new policy would change for a request that waits for the customer.

    The stricter of the request's and today's policy applies, so a looser policy changes nothing.
    """
    before = policy_store.effective_policy(session, request)
    after = policy_store.effective_policy_under(session, tenant, request, policy)
    scene = PreviewContext(
        request,
        before,
        after,
        decision_context.votes_of(session, request, known, before.terms),
        decision_context.votes_of(session, request, known, after.terms),
        known,
        at,
    )
    return [*_time(scene), *_shuts(scene), *_answers(scene), *_rest(scene)]


def _time(scene: PreviewContext) -> Iterator[str]:
    was, then = scene.before.terms.approval_window, scene.after.terms.approval_window
    asked_at = scene.request.asked_at
    if asked_at is None:
        return
    lasts = _approvable(scene, scene.after.terms)
    if lasts >= _approvable(scene, scene.before.terms):
        return
    if scene.at >= asked_at + lasts:
        yield OVER
    elif then < was:
        yield f"The time to approve it becomes {duration(then)} after submission (was {duration(was)})."


def _approvable(scene: PreviewContext, terms: Terms) -> timedelta:
    """How long the request can be approved, counted from asking the customer.

    Stops of the approval clock extend this time only if the terms permit stops.
    """
    stood = deadlines.stood(scene.request.clock, scene.at) if terms.questions_stop_clock else timedelta(0)
    return timedelta(seconds=terms.approval_window) + stood


def _shuts(scene: PreviewContext) -> Iterator[str]:
    before, after = scene.before.terms, scene.after.terms
    timing = scene.request.timing
    lacked = set(lacking_today(scene.request, before, timing))
    yield from (
        f"Nobody can approve it: {sentence}"
        for field, sentence in lacking_today(scene.request, after, timing)
        if (field, sentence) not in lacked
    )
    endorsed = any(vote.decision is Action.ENDORSE for vote in scene.votes)
    if after.vendor_review and not before.vendor_review and not endorsed:
        yield UNREVIEWED


def _answers(scene: PreviewContext) -> Iterator[str]:
    was = _still_missing(scene.request, scene.before, scene.votes)
    then = _still_missing(scene.request, scene.after, scene.votes_after)
    for group, number in then.items():
        if number != was.get(group, 0):
            whose = f" from the group {group}" if group else ""
            still = f"{number} more {'approval' if number == 1 else 'approvals'}"
            yield f"Needs {still}{whose} (was {was.get(group, 0)})."
    seats = {
        person: options - {scene.request.requester_id}
        for person, options in scene.known.seats(scene.request.tenant_id).items()
        if person != scene.request.requester_id
    }
    could, can = (
        who_lacks(max(scene.request.quorum, effective.terms.quorum), effective.terms.stages, effective.groups, seats)
        for effective in (scene.before, scene.after)
    )
    yield from (f"Nobody could approve it: {reason}" for reason in can if reason not in could)


def _still_missing(
    request: AccessRequest, effective: EffectivePolicy, votes: tuple[Vote, ...]
) -> dict[str | None, int]:
    quorum = max(request.quorum, effective.terms.quorum)
    return dict(missing(votes, quorum, effective.terms.stages, effective.groups))


def _rest(scene: PreviewContext) -> Iterator[str]:
    before, after = scene.before.terms, scene.after.terms
    asked = scene.request
    was, then = (longest_window(asked.access_window, terms, asked.timing) for terms in (before, after))
    if then < was:
        yield f"Its access window becomes at most {duration(then)} (was {duration(was)})."
    was_in = {stage.group: stage.order for stage in before.stages}
    for stage in after.stages:
        if stage.order > was_in.get(stage.group, FIRST_STEP):
            yield LATER.format(group=stage.group, step=stage.order)
    if before.mail_suffices and not after.mail_suffices:
        yield NO_MAIL
    for decision in sorted(after.comment_required - before.comment_required - {ReasonedDecision.REVOKE}):
        yield f"A reason is required to {decision} it."
    if after.approve_means > before.approve_means:
        yield NOT_SIGNED
    if after.first_passkey_wait > before.first_passkey_wait:
        yield f"A person's first passkey approves it only {duration(after.first_passkey_wait)} after it was added."
    if after.sign_in_age < before.sign_in_age:
        yield f"Approvers must have signed in within the last {duration(after.sign_in_age)}."
    if _asks(before) != _asks(after) or _groups(scene.before) != _groups(scene.after):
        yield OTHERS


def _asks(terms: Terms) -> object:
    return (terms.tiers, terms.escalation if terms.tiers else ())


def _groups(effective: EffectivePolicy) -> dict[str, tuple[UUID, ...]]:
    named = {group for tier in effective.terms.tiers for group in tier}
    return {group: effective.groups.get(group, ()) for group in named}


@dataclass(frozen=True)
class PreviewGroup:
    """A stage of the policy: a group, how many approvals it must give, and in which step.

    `people` are those who could give these approvals.
    """

    group: str
    approvals: int
    people: tuple[str, ...]
    step: int = FIRST_STEP


@dataclass(frozen=True)
class PreviewRecipients:
    """`people` are the customer's people with their addresses; None means the sign-in address."""

    people: Mapping[UUID, tuple[UUID | None, ...]]
    observers: frozenset[UUID]
    endpoints: frozenset[UUID]


@dataclass(frozen=True)
class RecipientMailboxes:
    """A person to notify, and at how many addresses."""

    name: str
    mailboxes: int


class PreviewedSubmission(BaseModel, frozen=True):
    """`notified_first` are the customer's people whom the submission would reach first.

    `endpoints` is the number of the customer's webhooks, and `obstacles` are reasons why no one could approve the
    request. `pre_approval_id` is the pre-approval that would open the window at submission or endorsement, without
    asking anyone.
    """

    policy_version: int
    mode: Mode
    first_state: State
    terms: Terms
    reviewers: tuple[str, ...]
    reviewers_asked_first: tuple[str, ...]
    stages: tuple[PreviewGroup, ...]
    asked_first: tuple[str, ...]
    could_approve: tuple[str, ...]
    notified_first: tuple[RecipientMailboxes, ...]
    endpoints: int
    obstacles: tuple[str, ...]
    duplicate_of: UUID | None
    level: Level | None
    pre_approval_id: UUID | None
    break_glass: bool


class Preview(PreviewedSubmission):
    tenant_name: str
    lacks: tuple[tuple[str, str], ...]


def preview(
    session: UnitOfWork, caller: Caller, submission: RequestInput, services: Mapping[str, Service]
) -> Preview:
    """Nothing is written or sent. Raises the errors of `evaluate_request`."""
    evaluation = evaluate_request(session, caller, submission, services)
    decides = _is_asked(evaluation)
    reviewing = evaluation.first_state is State.REVIEWING
    names, found = _names(session, evaluation), first_recipients(session, evaluation)
    return Preview(
        tenant_name=evaluation.tenant.name,
        policy_version=evaluation.tenant.policy_version,
        mode=evaluation.mode,
        first_state=evaluation.first_state,
        terms=evaluation.terms,
        reviewers=names(evaluation.managers) if reviewing else (),
        reviewers_asked_first=names(evaluation.first_reviewers.people) if reviewing else (),
        stages=stages(evaluation, names) if decides else (),
        asked_first=names(evaluation.prompted) if decides else (),
        could_approve=names(evaluation.able) if decides else (),
        notified_first=tuple(
            RecipientMailboxes(name, len(found.people[one])) for one, name in names.of(found.people)
        ),
        endpoints=len(found.endpoints),
        lacks=(*submit.lacks_of(submission, evaluation), *_duplicate(submission, evaluation)),
        obstacles=tuple(evaluation.obstacles()),
        duplicate_of=evaluation.duplicate,
        level=evaluation.level,
        pre_approval_id=evaluation.pre_approval.id if evaluation.pre_approval else None,
        break_glass=evaluation.break_glass is not None,
    )


def _is_asked(evaluation: Evaluation) -> bool:
    return customer_decides(evaluation.mode) and not (evaluation.break_glass or evaluation.pre_approval)


def _duplicate(submission: RequestInput, evaluation: Evaluation) -> Iterator[tuple[str, str]]:
    if evaluation.duplicate and not submission.duplicate_reason:
        yield "duplicate_reason", DUPLICATE


def first_recipients(session: UnitOfWork, evaluation: Evaluation) -> PreviewRecipients:
    asks = _is_asked(evaluation)
    is_first = asks or evaluation.first_state is State.ACTIVE
    opens = Action.BREAK_GLASS if evaluation.break_glass else Action.ENDORSE
    move = NotifiedMove(
        request_id=NOBODY,
        tenant_id=evaluation.tenant.id,
        requester_id=evaluation.requester_id,
        actor=Actor(None, Party.ENGINEER if is_first else Party.MANAGER),
        action=Action.SUBMIT if is_first else opens,
        mode=evaluation.mode,
        service=evaluation.service,
        from_state=None if is_first else State.REVIEWING,
        to_state=State.PENDING if asks else State.ACTIVE,
        asked_at=evaluation.at,
        at=evaluation.at,
        deadline_at=evaluation.at,
        asked=evaluation.prompted,
    )
    known = recipients.with_places(session, evaluation.known, {evaluation.tenant.id}, also=frozenset())
    notified = event_recipients.preview_recipients(known, move)
    people: dict[UUID, tuple[UUID | None, ...]] = {}
    for one in notified:
        if one.person_id and one.person_id != evaluation.requester_id:
            people[one.person_id] = (*people.get(one.person_id, ()), one.address_id)
    own = {receiver.id for receiver in evaluation.known.receivers[evaluation.tenant.id]}
    return PreviewRecipients(
        people,
        frozenset(one.observer_id for one in notified if one.observer_id),
        frozenset(one.endpoint_id for one in notified if one.endpoint_id in own),
    )


class PreviewNames:
    def __init__(self, known: Mapping[UUID, str]) -> None:
        self._known = known

    def __call__(self, people: Iterable[UUID]) -> tuple[str, ...]:
        return tuple(name for _, name in self.of(people))

    def of(self, people: Iterable[UUID]) -> list[tuple[UUID, str]]:
        """Ordered by name."""
        named = [(person, self._known[person]) for person in people if person in self._known]
        return sorted(named, key=lambda pair: (pair[1], pair[0]))


def _names(session: UnitOfWork, evaluation: Evaluation) -> PreviewNames:
    everybody = evaluation.managers | evaluation.able | evaluation.known.admins[evaluation.tenant.id]
    rows = session.orm.exec(select(Person.id, Person.name).where(col(Person.id).in_(everybody)))
    return PreviewNames(dict(rows.all()))


def stages(evaluation: Evaluation, names: PreviewNames) -> tuple[PreviewGroup, ...]:
    standing_in = evaluation.known.delegates[evaluation.tenant.id]
    groups = []
    for stage in sorted(evaluation.terms.stages, key=lambda stage: (stage.order, stage.group)):
        members = frozenset(evaluation.policy.groups.get(stage.group, ()))
        delegates = {delegate for delegate, principals in standing_in.items() if principals & members}
        could = names(evaluation.able & (members | delegates))
        groups.append(PreviewGroup(stage.group, stage.quorum, could, stage.order))
    return tuple(groups)
