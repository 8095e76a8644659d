"""Routes for requests."""

import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import cache, partial
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Header, Query, Request, Response

from api import case_checks
from api.call_routes import CallRouter
from api.deps import (
    CallGroupsDep,
    CurrentUser,
    DatabaseDep,
    GroupedRoute,
    RequestOrigin,
    SessionDep,
    SettingsDep,
    caller,
    etag,
    if_match,
    relying_party,
    submission_limits,
)
from api.refusal_log import AttemptedAction
from api.routes.timeline import ERASED, on_behalf_of_fields
from api.schemas.after_reviews import AfterReviewView
from api.schemas.parts import MAY_MATCH, PersonView, Words, problems
from api.schemas.previews import MissingField, PreviewView
from api.schemas.requests import (
    ApprovalInput,
    ApprovalTallyView,
    AvailableMoveView,
    CommentInput,
    DecisionView,
    DeliveryReachView,
    NewRequestView,
    NotificationCount,
    RequestDetail,
    RequestPage,
    RequestView,
    RequestWithMoves,
    SignedApproval,
    WindowUsageView,
)
from api.schemas.submissions import NewRequest, request_input
from catalogue.service_catalogue import Level
from config.settings import Settings
from lockbox import text_rules
from lockbox.audit.event_search import EventRow
from lockbox.audit.events import Origin
from lockbox.database import Database, UnitOfWork
from lockbox.errors import Invalid, NotSignedIn
from lockbox.facts.ask import Ask
from lockbox.facts.bounds import Word
from lockbox.facts.enumerations import AuthMethod, CaseCheck, State
from lockbox.facts.fact import why
from lockbox.identity import sessions
from lockbox.identity.roles import Caller, ProtectedField, may_read, reader_roles
from lockbox.identity.sessions import LoginStub, SignInPurpose
from lockbox.notifications import delivery_status
from lockbox.requests import (
    activity,
    after_reviews,
    decide,
    idempotency,
    preview,
    queries,
    request_list,
    request_page,
    submit,
    transition,
)
from lockbox.requests.approvals import SignedStatement, limits_of
from lockbox.requests.case_check import CaseUnchecked
from lockbox.requests.decision_context import DecisionInput
from lockbox.requests.lifecycle import DECISIONS, Action
from lockbox.requests.models import RequestEntry
from lockbox.requests.on_behalf_of import OnBehalfOf, on_behalf_of
from lockbox.requests.quorum import ApprovalLimits
from lockbox.requests.request_list import RequestFilter
from lockbox.requests.request_page import RequestOverview
from lockbox.requests.submit import SubmittedRequest
from lockbox.text_rules import Instant

grouped = CallRouter(prefix="/v1/requests", tags=["requests"], route_class=GroupedRoute)
router = CallRouter(prefix="/v1/requests", tags=["requests"])

OVER = "This challenge was used, has expired, or belongs to someone else. Request a new one and sign that."
SAID_IN = frozenset({State.REVIEWING, State.PENDING, State.TIMED_OUT})
"""The states in which readers need to know that someone could not be reached."""

Key = Annotated[
    str | None,
    Header(alias="Idempotency-Key", min_length=1, max_length=255, pattern=r"^[\x21-\x7e]+$"),
]


@grouped.post("", status_code=201, response_model=NewRequestView, responses=problems(400, 409))
async def submit_request(
    request: Request,
    body: NewRequest,
    origin: RequestOrigin,
    groups: CallGroupsDep,
    chosen: SettingsDep,
    key: Key = None,
) -> Response:
    """Submit a request for access; with an Idempotency-Key it can be repeated safely for 24 hours."""
    limits = submission_limits(chosen)
    named = request_input(body, chosen.catalogue.case_systems)

    async def submitted(case_check: CaseCheck | None) -> Response:
        submission = named.checked(case_check)

        def judge(session: UnitOfWork) -> Response:
            session.foresee(submit.ahead_of_submit(submission, limits, key))
            who = caller(request, session)
            file = partial(submit.submit, session, who, origin, submission, chosen.catalogue.services, limits=limits)
            return submission_answer(session, who, key, body.model_dump_json().encode(), file)

        return await groups.run(judge, key=key)

    try:
        return await submitted(None)
    except CaseUnchecked as refused:
        unchecked = refused
    return await submitted(await case_checks.confirmed(groups, chosen, unchecked))


@router.get("", responses=problems())
def list_requests(
    who: CurrentUser,
    session: SessionDep,
    state: State | None = None,
    service: Word | None = None,
    requester: UUID | None = None,
    created_after: Instant | None = None,
    created_before: Instant | None = None,
    engineer: Words | None = None,
    text: Words | None = None,
    level: Level | None = None,
    cursor: Annotated[str | None, Query(max_length=100)] = None,
    limit: Annotated[int, Query(ge=1, le=request_list.MOST_A_PAGE)] = 50,
) -> RequestPage:
    """List the requests that the caller may see, the newest first.

    `engineer` is part of the requester's name. `text` is searched case-insensitively in references and URLs of cases,
    names of resources, ids and the justifications that the caller may read. Filters other than an open state and
    `requester` look through the newest 1,000 requests at a time: a page may hold few or no matches, and still have a
    cursor to older requests.
    """
    wanted = RequestFilter(state, service, requester, created_after, created_before, engineer, text, level)
    page = request_list.page(session, who, wanted, cursor=cursor, most=limit)
    items = [view(entry, who) for entry in page.entries]
    return RequestPage(items=items, next_cursor=page.next_cursor)


@router.post("/preview", responses=problems(400))
def preview_request(body: NewRequest, who: CurrentUser, session: SessionDep, chosen: SettingsDep) -> PreviewView:
    """Show which policy, stages, windows and people would apply to this request; nothing is written or sent."""
    submission = request_input(body, chosen.catalogue.case_systems)
    found = preview.preview(session, who, submission, chosen.catalogue.services)
    lacks = [MissingField(field=field, message=message) for field, message in found.lacks]
    can_be_submitted = not (found.lacks or found.obstacles)
    return PreviewView.model_validate({**dict(found), "lacks": lacks, "can_be_submitted": can_be_submitted})


async def foreseen(request: Request, session: SessionDep) -> None:
    """Send the queries about the request along with the look-up of the caller."""
    with suppress(ValueError):
        session.foresee(request_page.ahead_of_read(UUID(request.path_params["request_id"])))


@router.get("/{request_id}", responses=problems(404), dependencies=[Depends(foreseen)])
def get_request(
    request_id: UUID, who: CurrentUser, origin: RequestOrigin, session: SessionDep, response: Response
) -> RequestWithMoves:
    """Show one request, whether it is open now, the state of its notifications, and what the reader may do.

    A vendor user's read is recorded, once for each person and hour.
    """
    read = request_page.read(session, who, request_id)
    entry = read.entry
    response.headers.update(etag(entry.request.version))
    detail = _detail(session, read, who)
    moves = [
        AvailableMoveView(
            action=move.action, allowed=move.allowed, reason=move.refusal.detail if move.refusal else None
        )
        for move in read.moves
    ]
    approvals = [ApprovalTallyView.model_validate(tally, from_attributes=True) for tally in read.tallies]
    queries.record_read(session, who, origin, entry.request)
    used = activity.usage(session, request_id) if entry.request.opened_at else None
    usage = WindowUsageView.model_validate(used, from_attributes=True) if used else None
    found = after_reviews.read(session, who, entry.request)
    return RequestWithMoves.model_construct(
        None,
        **vars(detail),
        available_moves=moves,
        approvals=approvals,
        look_alikes=list(read.namesakes),
        usage=usage,
        after_review=AfterReviewView.model_validate(found, from_attributes=True) if found else None,
    )


@grouped.post(
    "/{request_id}/approve",
    response_model=RequestView,
    responses=problems(400, 404, 409, 412),
    openapi_extra=MAY_MATCH,
)
async def approve_request(
    request: Request,
    request_id: UUID,
    origin: RequestOrigin,
    groups: CallGroupsDep,
    chosen: SettingsDep,
    db: DatabaseDep,
    body: ApprovalInput | None = None,
) -> Response:
    """Approve, for the customer, all or part of what was asked, for the requested time or less.

    If the policy requires a passkey's signature and there is none, the answer is `passkey-must-sign`.
    """
    said = body or ApprovalInput()
    signed_by = cache(partial(_signed, said.signed, chosen, db))

    def judge(session: UnitOfWork) -> Response:
        if said.signed:
            # A separate transaction uses up the challenge, only once, even if the request is judged several times.
            session.wait()
        session.foresee([transition.ahead_of_lock(request_id)])
        who, seen = caller(request, session), if_match(request)
        decision_input = approval(said, seen, signed_by(who.key_id))
        return _acted(request, session, who, origin, request_id, decision_input)

    return await groups.run(judge, key=str(request_id))


def _commented(action: Action) -> Callable[..., Awaitable[Response]]:
    async def act(
        request: Request,
        request_id: UUID,
        origin: RequestOrigin,
        groups: CallGroupsDep,
        body: CommentInput | None = None,
    ) -> Response:
        def judge(session: UnitOfWork) -> Response:
            session.foresee([transition.ahead_of_lock(request_id)])
            who, seen = caller(request, session), if_match(request)
            decision_input = DecisionInput(action, body.comment if body else None, seen)
            return _acted(request, session, who, origin, request_id, decision_input)

        return await groups.run(judge, key=str(request_id))

    act.__name__, act.__doc__ = f"{action.value}_request", ACTIONS[action]
    return act


ACTIONS = {
    Action.ENDORSE: "Endorse a request, as a manager: the customer is asked next.",
    Action.BREAK_GLASS: (
        "Open a request by break-glass, as a manager, where the customer's policy allows it: the customer is "
        "notified at once. The comment, which says why it could not wait, is required."
    ),
    Action.DENY: "Deny a request; one denial ends it, even if others approved.",
    Action.CANCEL: "Cancel a request of one's own that is not decided yet.",
    Action.REVOKE: "Revoke an open window: the access ends at once.",
    Action.COMPLETE: "Complete a request of one's own: give the open window back.",
}
"""The description of each action; the table of moves says who may take it."""

for each in ACTIONS:
    grouped.post(
        f"/{{request_id}}/{each.value.replace('_', '-')}",
        response_model=RequestView,
        responses=problems(404, 409, 412),
        openapi_extra=MAY_MATCH,
    )(_commented(each))


def _signed(
    said: SignedApproval | None, settings: Settings, db: Database, key_id: UUID | None
) -> SignedStatement | None:
    if said is None:
        return None
    one, _, secret = said.ticket.partition(".")
    try:
        with db.transaction() as session:
            stub = LoginStub(UUID(one), secret)
            row = sessions.use(session, stub, AuthMethod.PASSKEY, SignInPurpose.APPROVE, tied_to=key_id)
            used = row.challenge or b""
    except (NotSignedIn, ValueError):
        raise Invalid(OVER, field="signed") from None
    return SignedStatement(said.statement, said.content, json.dumps(said.credential), used, relying_party(settings))


def _acted(
    request: Request,
    session: UnitOfWork,
    who: Caller,
    origin: Origin,
    request_id: UUID,
    decision_input: DecisionInput,
) -> Response:
    """Store the attempted action first, so that its refusal can be recorded."""
    request.state.tried = AttemptedAction(who, origin, request_id, decision_input.action)
    entry = decide.act_and_show(session, who, origin, request_id, decision_input)
    text = view(entry, who).model_dump_json()
    return Response(text, headers=etag(entry.request.version), media_type="application/json")


def view(entry: RequestEntry, who: Caller) -> RequestView:
    return RequestView.model_construct(None, **_facts(entry, who))


def _facts(entry: RequestEntry, who: Caller, justification: str | None = None) -> dict[str, Any]:
    request = entry.request
    held = reader_roles(who, request.requester_id, request.tenant_id)
    if may_read(ProtectedField.JUSTIFICATION, held):
        justification = request.justification
    named = PersonView(id=request.requester_id, name=entry.requester)
    own = {"tenant": entry.tenant, "requester": named, "open": entry.open, "justification": justification}
    own |= {"held_back": entry.held_back, "is_outlived": entry.is_outlived}
    if justification is None:
        own |= dict.fromkeys(why(Ask))
    own |= {"uses_left": request.uses_left, "context": request.context or {}}
    own["mixed_alphabets"] = [] if "".join(request.resources).isascii() else text_rules.mixed(request.resources)
    if request.opened_at is not None:
        own |= {"granted_resources": request.open_resources, "granted_actions": request.open_actions}
    return request.model_dump() | own


def _detail(session: UnitOfWork, read: RequestOverview, who: Caller) -> RequestDetail:
    asked, found = read.entry.request, read.reach
    numbers = {name: value for name, value in vars(found).items() if name in DeliveryReachView.model_fields}
    decided = [row for row in read.events if row.seq and row.action in DECISIONS]
    said = on_behalf_of(session, decided)
    return RequestDetail.model_construct(
        None,
        **_facts(read.entry, who),
        decisions=[_decision(row, said[row.seq]) for row in decided],
        notifications=NotificationCount(**delivery_status.count(session, asked.id)),
        reach=DeliveryReachView(**numbers, sentence=found.sentence() if asked.state in SAID_IN else ""),
        followed_by=read.follower,
        extended_by=read.outlook.extension.id if read.outlook.extension else None,
    )


def _decision(row: EventRow, voice: OnBehalfOf) -> DecisionView:
    by = PersonView(id=row.actor_id, name=row.actor_name or ERASED)
    kept = limits_of(row)
    return DecisionView(
        decision=row.action, by=by, role=row.actor_role, at=row.at, **on_behalf_of_fields(voice), **vars(kept)
    )


def approval(said: ApprovalInput, seen: int | None, signed: SignedStatement | None = None) -> DecisionInput:
    return DecisionInput(Action.APPROVE, said.comment, seen, ApprovalLimits.of(said), signed)


def submission_answer(
    session: UnitOfWork, who: Caller, key: str | None, plain: bytes, file: Callable[[], SubmittedRequest]
) -> Response:
    """Repeat the earlier answer if `key` was used before."""
    answer = idempotency.earlier_answer(session, key, plain) if key else None
    if answer is None:
        submitted = file()
        is_open = submitted.request.state is State.ACTIVE
        entry = RequestEntry(submitted.request, submitted.tenant, submitted.requester, open=is_open)
        view = NewRequestView.model_construct(
            None, **_facts(entry, who, submitted.request.justification), asked=submitted.asked
        )
        text = view.model_dump_json()
        if key:
            idempotency.keep(session, who.person_id, key, plain, text)
    else:
        text = NewRequestView.model_validate(answer).model_dump_json()
        view = NewRequestView.model_validate_json(text)
    headers = {"location": f"/v1/requests/{view.id}", **etag(view.version)}
    return Response(text, 201, headers, "application/json")
