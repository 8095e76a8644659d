"""A submission: evaluated, checked against the limits, and written with its first event."""

import json
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from math import ceil
from uuid import UUID

from sqlalchemy import text

from catalogue.service_catalogue import Service
from lockbox.audit.canonical import Plain, Value
from lockbox.audit.events import Actor, Origin
from lockbox.audit.verifier.approval_checks import SUBMISSION
from lockbox.database import Query, UnitOfWork
from lockbox.errors import (
    NobodyCanApprove,
    PolicyNotMet,
    SignInAgain,
    TooMany,
    WindowTooLong,
)
from lockbox.facts.ask import Ask, SubmittedAsk
from lockbox.facts.enumerations import ApproveMeans, AuthMethod, State
from lockbox.facts.fact import committed, in_clear, values_of
from lockbox.facts.requester import Requester
from lockbox.failpoints import failpoint
from lockbox.identity import keyring
from lockbox.identity.roles import Caller
from lockbox.requests import approvals, break_glass, idempotency, pre_approvals, transition
from lockbox.requests.break_glass import BreakGlassAsk, obstacles
from lockbox.requests.case_check import DUPLICATE, CaseQuestion, CaseUnchecked, DuplicateRequest
from lockbox.requests.deadlines import deadline, wake_at
from lockbox.requests.evaluate import Evaluation, ahead_of_evaluation, evaluate_request
from lockbox.requests.lifecycle import Action, Party
from lockbox.requests.models import AccessRequest
from lockbox.requests.policy import SIGN_IN, fewest, longest_window
from lockbox.requests.policy_parts import UnconfirmedCase
from lockbox.requests.prompt_tiers import PromptedApprovers
from lockbox.requests.request_input import RequestInput
from lockbox.requests.transition import Move
from lockbox.sql import new_id

# These events are in the vendor's log; both sides can compare them later by their hashes. Events about mails are left
# out.
EARLIER = text("""
SELECT e.id, e.seq, e.actor_id, encode(sha256('\\x00'::bytea || e.body), 'hex') AS leaf,
    CASE WHEN e.seq = 1 THEN (SELECT d.fields FROM event_details d WHERE d.event_id = e.id) END AS fields,
    (SELECT p.name FROM people p WHERE p.id = :requester_id) AS engineer
FROM events e WHERE e.request_id = :id AND e.internal AND e.action <> 'notified'
ORDER BY e.at, e.id
""")
MINUTE = timedelta(minutes=1)
NTH_SUBMISSION = text("SELECT tenant_at, person_at FROM nth_submission(at_tenant(), :most_tenant, :most_person)")
MOST_UNSEEN = 24
"""How many submissions a count may miss because they are not committed yet.

`api.incoming_request` admits this many submissions of known callers at once. Six submissions of unknown callers and
four resubmissions can run at the same time, and may still exceed a limit.
"""
COUNT_ALONE = text("""
SELECT pg_advisory_xact_lock(hashtextextended('submissions by ' || at_person(), 0)),
    pg_advisory_xact_lock(hashtextextended('submissions to ' || at_tenant(), 0))
""")


@dataclass(frozen=True)
class SubmissionFacts:
    """`salts` are the salts of personal values in the first event."""

    facts: Mapping[str, Value]
    personal: Mapping[str, str | None]
    salts: Mapping[str, bytes]


def facts(request: AccessRequest) -> dict[str, Plain]:
    """Empty values are left out."""
    return request.given(in_clear(AccessRequest))


def personal(request: AccessRequest) -> dict[str, str | None]:
    """Empty fields of `Ask` are included as None."""
    return {
        **{name: getattr(request, name) for name in committed(Ask)},
        "resources": json.dumps(request.resources, ensure_ascii=False),
        **({"context": request.context_text} if request.context else {}),
        **request.given(committed(Requester)),
    }


def read(session: UnitOfWork, request: AccessRequest) -> SubmissionFacts:
    """Return the submission of a request in review, and the hashes of the request's events in the vendor's log.

    Both go into the event that begins the customer's log of the request.
    """
    earlier = session.execute(*ahead_of_read(request)).all()
    first = next(row for row in earlier if row.seq == 1)
    said = facts(request) | {
        "event": first.id,
        "at": request.created_at,
        "engineer": request.requester_id,
        "submitted_by": first.actor_id,
        "policy_version": request.policy_version,
    }
    values_now = personal(request)
    salts = {name: b64decode(salt) for name, (salt, _) in (first.fields or {}).items() if name in values_now}
    return SubmissionFacts(
        facts={SUBMISSION: said, "earlier": {str(row.id): row.leaf for row in earlier}},
        personal=values_now | {"engineer": first.engineer},
        salts=salts,
    )


def ahead_of_read(request: AccessRequest) -> Query:
    return EARLIER, {"id": request.id, "requester_id": request.requester_id}


@dataclass(frozen=True)
class SubmissionLimits:
    """The most submissions in a minute; `by_person` counts a person's submissions with any credential."""

    by_person: int
    for_tenant: int


@dataclass(frozen=True)
class SubmittedRequest:
    request: AccessRequest
    tenant: str
    requester: str
    asked: int


def ahead_of_submit(submission: RequestInput, limits: SubmissionLimits, key: str | None) -> list[Query]:
    answer = idempotency.ahead_of_answer(key) if key else ()
    return [*answer, *ahead_of_evaluation(submission), _nth_submission(limits, MOST_UNSEEN)]


def submit(
    session: UnitOfWork,
    caller: Caller,
    origin: Origin,
    submission: RequestInput,
    services: Mapping[str, Service],
    *,
    limits: SubmissionLimits | None = None,
) -> SubmittedRequest:
    """Raises PolicyNotMet, WindowTooLong, SignInAgain, NobodyCanApprove, CaseUnchecked, DuplicateRequest, TooMany.

    Also raises the errors of `evaluate_request`.
    """
    evaluation = evaluate_request(session, caller, submission, services)
    if evaluation.break_glass:
        break_glass.check_submitter(caller, evaluation.terms, evaluation.at)
    _meets(submission, evaluation)
    if obstacles := list(evaluation.obstacles()):
        raise NobodyCanApprove(" ".join(obstacles))
    if evaluation.duplicate and not submission.duplicate_reason:
        raise DuplicateRequest(DUPLICATE, field="duplicate_reason", request_id=str(evaluation.duplicate))
    if limits:
        _within(session, limits, evaluation)
    _require_case_check(caller, submission, evaluation)
    failpoint("intake.after_evaluation")
    evaluation = _used(session, evaluation)
    request = _new(caller, submission, evaluation)
    on_behalf_of = evaluation.requester_id if evaluation.party is Party.SYSTEM else None
    actor = origin.actor(caller, evaluation.party, on_behalf_of=on_behalf_of)
    asked = _asked(evaluation)
    signed, listed = dict[str, Value](), None
    if evaluation.pre_approval and request.state is State.ACTIVE:
        signed |= approvals.sign(session, request, evaluation.pre_approval.approved_by)
        listed = keyring.approval_keys(session).listed
    transition.insert(session, request, _submitted(request, actor, asked.people, signed), listed)
    failpoint("intake.after_insert")
    if evaluation.pre_approval and evaluation.pre_approval.uses_left == 0:
        pre_approvals.record_last_use(session, actor, request, request.created_at)
    number = 0 if request.state is State.ACTIVE else len(asked.people)
    return SubmittedRequest(request, evaluation.tenant.slug, evaluation.requester, number)


def _used(session: UnitOfWork, evaluation: Evaluation) -> Evaluation:
    """If the pre-approval can no longer be used, the customer is asked."""
    which = evaluation.pre_approval
    if which is None or evaluation.first_state is not State.ACTIVE:
        return evaluation
    version, engineer = evaluation.tenant.policy_version, evaluation.requester_id
    used = pre_approvals.use(session, which, policy_version=version, engineer=engineer)
    return replace(evaluation, pre_approval=used)


def _asked(evaluation: Evaluation) -> PromptedApprovers:
    if evaluation.first_state is State.REVIEWING:
        return evaluation.first_reviewers
    return PromptedApprovers(evaluation.first_asked.tiers, evaluation.prompted)


def lacks_of(submission: RequestInput, evaluation: Evaluation) -> list[tuple[str, str]]:
    lacks = evaluation.lacks(submission)
    if evaluation.break_glass:
        if submission.not_before or submission.extends:
            lacks.append(("not_before", "By break-glass access begins at once, and extends no other."))
        ask = BreakGlassAsk(evaluation.service, {evaluation.requester_id}, submission.access_window)
        lacks += obstacles(evaluation.terms, evaluation.mode, evaluation.break_glass, ask)
    return lacks


def _meets(submission: RequestInput, evaluation: Evaluation) -> None:
    timing = evaluation.timing(submission)
    lacks = lacks_of(submission, evaluation)
    if not lacks:
        return
    sentence = " ".join(said for _, said in lacks)
    if {field for field, _ in lacks} == {SIGN_IN} and evaluation.party is Party.ENGINEER:
        raise SignInAgain(sentence, max_age=evaluation.terms.requester_sign_in_age)
    if [field for field, _ in lacks] == ["access_window"]:
        limit = max(longest_window(submission.access_window, evaluation.terms, timing), 0)
        raise WindowTooLong(sentence, field="access_window", limit_seconds=limit)
    errors = [{"field": field, "message": said} for field, said in lacks]
    raise PolicyNotMet(sentence, field=lacks[0][0], errors=errors)


def _require_case_check(caller: Caller, submission: RequestInput, evaluation: Evaluation) -> None:
    demand = evaluation.terms.unconfirmed_case
    if demand is UnconfirmedCase.ACCEPT or submission.case_ref is None or submission.case_check is not None:
        return
    asked_for = (evaluation.tenant.id, submission.case_system, submission.case_ref, evaluation.requester_id)
    raise CaseUnchecked(CaseQuestion(*asked_for, caller), demand)


def _within(session: UnitOfWork, limits: SubmissionLimits, evaluation: Evaluation) -> None:
    """Near a limit, where uncommitted submissions could exceed it, locks are taken for an exact count.

    Raises TooMany.
    """
    row = session.execute(*_nth_submission(limits, MOST_UNSEEN)).one()
    seen = [at for at in (row.tenant_at, row.person_at) if at is not None and at + MINUTE > evaluation.at]
    if not seen and min(limits.by_person, limits.for_tenant) > MOST_UNSEEN:
        return
    session.wait()
    session.execute(COUNT_ALONE)
    row = session.execute(*_nth_submission(limits)).one()
    for submitted_at, most, whose in (
        (row.person_at, limits.by_person, "by you"),
        (row.tenant_at, limits.for_tenant, "for this tenant"),
    ):
        wait = submitted_at + MINUTE - evaluation.at if submitted_at else timedelta(0)
        if wait > timedelta(0):
            seconds = ceil(wait.total_seconds())
            said = f"At most {most} requests a minute can be submitted {whose}. Wait and try again."
            raise TooMany(said, retry_after=seconds)


def _nth_submission(limits: SubmissionLimits, less: int = 0) -> Query:
    most = {"most_tenant": max(1, limits.for_tenant - less), "most_person": max(1, limits.by_person - less)}
    return NTH_SUBMISSION, most


def _new(caller: Caller, submission: RequestInput, evaluation: Evaluation) -> AccessRequest:
    terms, state, at = evaluation.terms, evaluation.first_state, evaluation.at
    until = _consent_until(evaluation)
    windows = {"review": terms.review_window, "approval": terms.approval_window, "access": submission.access_window}
    ends = deadline(state, at, **windows, start=submission.not_before)
    ends = min(ends, until) if until else ends
    covered = evaluation.pre_approval if state is State.ACTIVE else None
    asked = values_of(SubmittedAsk, submission) | {
        "resources": list(dict.fromkeys(submission.resources)),
        "actions": list(dict.fromkeys(submission.actions)),
        "duplicate_reason": submission.duplicate_reason if evaluation.duplicate else None,
    }
    request = AccessRequest(
        id=new_id(),
        tenant_id=evaluation.tenant.id,
        requester_id=evaluation.requester_id,
        **asked,
        case_check=submission.case_check,
        duplicate_of=evaluation.duplicate,
        level=evaluation.level,
        context=dict(submission.context) or None,
        mode=evaluation.mode,
        policy_version=evaluation.tenant.policy_version,
        token_id=_token(caller),
        submitted_by=caller.person_id,
        consent_until=until,
        quorum=terms.quorum,
        approve_means=terms.approve_means if covered else ApproveMeans.ATTESTED,
        approval_window=terms.approval_window,
        max_uses=fewest(submission.max_uses, terms.max_uses),
        state=state,
        version=1,
        deadline_at=min(ends, covered.ends_at) if covered else ends,
        created_at=at,
        asked_at=None if state is State.REVIEWING else at,
        opened_at=at if covered else None,
        pre_approval_id=covered.id if covered else None,
        tiers_asked=0 if covered else _asked(evaluation).tiers,
        follows=submission.follows,
        extends=submission.extends,
        first_opened_at=submission.first_opened_at,
        break_glass=submission.break_glass,
        **dict(evaluation.requester_facts),
    )
    request.wake_at = wake_at(transition.phase_of(request, evaluation.known), terms, at)
    return request


def _consent_until(evaluation: Evaluation) -> datetime | None:
    consent = evaluation.policy.consent
    return consent.until if consent and evaluation.mode is not evaluation.tenant.mode else None


def _token(caller: Caller) -> UUID | None:
    # A browser that plays a sample person has signed in at some time; a sample token has not.
    is_sample = caller.means is AuthMethod.SAMPLE and caller.signed_in_at is None
    return caller.key_id if caller.means is AuthMethod.TOKEN or is_sample or caller.by_device_login else None


def _submitted(request: AccessRequest, actor: Actor, asked: frozenset[UUID], signed: Mapping[str, Value]) -> Move:
    return Move.of(
        request,
        action=Action.SUBMIT,
        actor=actor,
        from_state=None,
        at=request.created_at,
        policy_version=request.policy_version,
        asked=asked,
        facts={**facts(request), **signed},
        personal=personal(request),
    )
