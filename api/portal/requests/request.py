"""The page of a request and its forms."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, Literal
from urllib.parse import quote
from uuid import UUID

from fastapi import Form, Query, Request, Response
from fastapi.responses import HTMLResponse
from pydantic import ValidationError

from api import browser, deps
from api.browser import Visitor
from api.call_routes import CallRouter
from api.deps import SessionDep, SettingsDep, submission_limits
from api.portal import navigation, phrases
from api.portal.pages import TAG, FormContext, FormContextDep, go, origin, page, status_of
from api.portal.requests import act_banner, decision_form, signed_approvals
from api.portal.requests.decision_form import DecisionForm, SentForm
from api.portal.requests.signed_approvals import Answer, ApprovalProofForm
from api.portal.tenant_admin import read
from api.refusal_log import AttemptedAction, note
from api.schemas.after_reviews import FindingBody
from api.schemas.submissions import ExtensionRequest
from config.settings import Settings
from connectors.credential_requests import ConnectionStatus, ahead_of_connections, connections_of
from gate import enforcement
from lockbox import database, mistakes
from lockbox.audit import event_search
from lockbox.audit.event_search import EventRow
from lockbox.audit.report import FIRST_USED, LAST_USED
from lockbox.audit.reported_mails import MOST_NAMED, NOTIFIED, mailed
from lockbox.database import UnitOfWork
from lockbox.errors import (
    CommentRequired,
    Conflict,
    EarlierStepFirst,
    Invalid,
    LockboxError,
    NotFound,
    NotYours,
    PasskeyTooNew,
    PolicyNotMet,
    PolicyUnverified,
    SignInAgain,
    TenantSuspended,
    TooMany,
)
from lockbox.facts.enumerations import State
from lockbox.identity import authentication, passkeys, roles
from lockbox.identity.roles import Caller, ProtectedField, Side
from lockbox.notifications.audience import ASKING, knows_of
from lockbox.requests import (
    activity,
    after_reviews,
    decide,
    decision_context,
    extend,
    inbox,
    queries,
    questions,
    quorum,
    request_page,
    resubmission,
    transition,
)
from lockbox.requests.activity import RecordedActivity, WindowUsage
from lockbox.requests.after_reviews import FindingInput
from lockbox.requests.approvals import SignedStatement, is_narrower, limits_of
from lockbox.requests.extend import AlreadyExtended, ExtensionInput
from lockbox.requests.lifecycle import OPEN_STATES, Action
from lockbox.requests.models import RequestEntry
from lockbox.requests.on_behalf_of import OnBehalfOf, on_behalf_of
from lockbox.requests.permitted_moves import PossibleMove
from lockbox.requests.policy import Terms
from lockbox.requests.policy_parts import ReasonedDecision
from lockbox.requests.request_page import RequestOverview
from lockbox.requests.resubmission import AlreadyAskedAgain
from lockbox.requests.submit import SubmittedRequest
from lockbox.use_cases import run_alone

router = CallRouter(prefix="/requests", tags=[TAG], include_in_schema=False)
front = CallRouter(tags=[TAG], include_in_schema=False)

MINUTE, HOUR = 60, 3600
SHORTER = (5 * MINUTE, 15 * MINUTE, 30 * MINUTE, HOUR, 2 * HOUR, 4 * HOUR, 8 * HOUR, 24 * HOUR)

BESIDE = frozenset({"begin", "hold_back", "escalate", "unreached", "question", "answer", FIRST_USED, LAST_USED})
"""Events that are shown in addition to the moves of a request."""

SHOWN_REFUSALS = (EarlierStepFirst, SignInAgain, PasskeyTooNew, PolicyNotMet, PolicyUnverified, TenantSuspended)
"""Refusals that the page explains to people who would otherwise decide."""

RequestAction = Literal["endorse", "break_glass", "approve", "deny", "cancel", "revoke", "complete"]


@front.get("/")
def enter(request: Request, chosen: SettingsDep, session: SessionDep) -> Response:
    return go(request, navigation.home(browser.visitor(request, session, chosen).caller))


@router.get("/{request_id}")
def show(
    request: Request,
    request_id: str,
    chosen: SettingsDep,
    session: SessionDep,
    done: Annotated[str, Query(max_length=20)] = "",
) -> Response:
    one = request_id_of(request_id)
    session.foresee(ahead_of_page(one))
    visitor = browser.visitor(request, session, chosen)
    return show_request(request, session, chosen, visitor, one, done=done)


def ahead_of_page(request_id: UUID) -> list[database.Query]:
    return [enforcement.ahead_of_unenforced(request_id), *request_page.ahead_of_read(request_id)]


@router.post("/{request_id}/look")
def look(work: FormContextDep, request_id: str, looking: Annotated[Literal["on", "off"], Form()] = "on") -> Response:
    """Show a reviewer's colleagues that the reviewer is looking at the request, or has stopped."""
    change = inbox.begin if looking == "on" else inbox.end
    with work.open() as (session, visitor):
        one = request_id_of(request_id)
        change(session, work.db.schedule, visitor.caller, one)
    return go(work.request, f"/requests/{one}")


@router.post("/{request_id}/finding")
def give_finding(
    work: FormContextDep,
    request_id: UUID,
    finding: Annotated[str, Form()] = "",
    comment: Annotated[str, Form()] = "",
) -> Response:
    try:
        with work.open() as (session, visitor):
            given = _finding(finding, comment)
            after_reviews.give_finding(session, visitor.caller, origin(work.request), request_id, given)
    except (Conflict, NotYours, Invalid) as refused:
        return _refused(
            work, request_id, SentForm(refused, "finding", DecisionForm(comment=comment), finding=finding)
        )
    return go(work.request, f"/requests/{request_id}", done="after_review")


def _finding(finding: str, comment: str) -> FindingInput:
    if not comment.strip():
        raise CommentRequired(after_reviews.SAY_WHY, field="comment")
    try:
        body = FindingBody.model_validate({"finding": finding, "comment": comment.replace("\r\n", "\n")})
    except ValidationError as error:
        raise Invalid(phrases.NOT_ACCEPTED.format(why=mistakes.advice(error)), field="comment") from None
    return FindingInput(body.finding, body.comment)


@router.post("/{request_id}/ask-again")
def resubmit(work: FormContextDep, request_id: str) -> Response:
    one, services = request_id_of(request_id), work.chosen.catalogue.services

    def submitted(session: UnitOfWork, visitor: Visitor) -> SubmittedRequest:
        caller, limits = visitor.caller, submission_limits(work.chosen)
        return resubmission.resubmit(session, caller, origin(work.request), one, services, limits=limits)

    return _submitted(work, one, submitted, SentForm())


@router.post("/{request_id}/extend")
def request_more_time(
    work: FormContextDep,
    request_id: str,
    more: Annotated[str, Form(max_length=9)] = "",
    why: Annotated[str, Form()] = "",
) -> Response:
    one, services = request_id_of(request_id), work.chosen.catalogue.services

    def submitted(session: UnitOfWork, visitor: Visitor) -> SubmittedRequest:
        caller, limits = visitor.caller, submission_limits(work.chosen)
        return extend.extend(
            session, caller, origin(work.request), one, _extension(more, why), services, limits=limits
        )

    return _submitted(work, one, submitted, SentForm(action="extend", form=DecisionForm(comment=why, window=more)))


def _extension(more: str, why: str) -> ExtensionInput:
    if not (more.isascii() and more.isdecimal() and int(more)):
        raise Invalid(phrases.NO_DURATION, field="more")
    return ExtensionInput(**dict(read(ExtensionRequest, access_window=int(more), justification=why.strip() or None)))


def _submitted(
    work: FormContext, request_id: UUID, submit: Callable[[UnitOfWork, Visitor], SubmittedRequest], sent: SentForm
) -> Response:
    try:
        with work.open() as (session, visitor):
            submitted = submit(session, visitor)
    except (AlreadyAskedAgain, AlreadyExtended) as done:
        return go(work.request, f"/requests/{done.facts['request_id']}")
    except (Conflict, NotYours, Invalid, TooMany) as refused:
        return _refused(work, request_id, replace(sent, refused=refused))
    return go(work.request, f"/requests/{submitted.request.id}", done=Action.SUBMIT.value)


def _refused(work: FormContext, request_id: UUID, sent: SentForm) -> Response:
    with work.open() as (session, visitor):
        return show_request(work.request, session, work.chosen, visitor, request_id, sent=sent)


@router.post("/{request_id}/{action}")
def act(
    work: FormContextDep,
    request_id: str,
    action: RequestAction,
    version: Annotated[int, Form(ge=1, le=999_999_999)],
    form: Annotated[DecisionForm, Form()],
    proof: Annotated[ApprovalProofForm, Form()],
) -> Response:
    """An approver with a passkey first signs, on a page that returns to this route.

    A form that is sent again shows the result of the first time.
    """
    request, chosen, db = work.request, work.chosen, work.db
    sent = SentDecision(request_id_of(request_id), Action(action), form, version, is_final=proof.is_final)
    try:
        sent = replace(sent, signed=signed_approvals.taken(work, proof))
        answer = run_alone(db, partial(_decided, work, sent))()
    except (Conflict, NotYours, Invalid) as refused:
        if _is_done(work, sent):
            return go(request, f"/requests/{sent.request_id}", done=action)
        note(request, refused)
        with db.transaction() as session:
            session.foresee(ahead_of_page(sent.request_id))
            visitor = browser.visitor(request, session, chosen)
            shown = SentForm(refused, action, form, seen=version)
            return show_request(request, session, chosen, visitor, sent.request_id, sent=shown)
    if sent.signed:
        browser.drop_oauth_state(answer, chosen)
    return answer


@dataclass(frozen=True)
class SentDecision:
    request_id: UUID
    action: Action
    form: DecisionForm
    version: int
    is_final: bool
    signed: SignedStatement | None = None


def _decided(work: FormContext, sent: SentDecision, session: UnitOfWork) -> Answer:
    request, chosen, request_id = work.request, work.chosen, sent.request_id
    session.foresee([transition.ahead_of_lock(request_id)])
    visitor = browser.recognised(request) if sent.signed else None
    if visitor is None:
        visitor = work.visitor(session)
    else:
        authentication.enter(session, visitor.caller)
    decision_input = decision_form.read(sent.action, sent.form, sent.version, visitor.time_zone)
    caller, came = visitor.caller, origin(request)
    request.state.tried = AttemptedAction(caller, came, request_id, decision_input.action)
    may_sign = decision_input.action is Action.APPROVE and chosen.passkey_domain is not None and not sent.is_final
    ahead = [enforcement.ahead_of_unenforced(request_id), *request_page.ahead_of_rows(request_id)]
    judged = decide.judge(
        session,
        caller,
        came,
        request_id,
        replace(decision_input, signed=sent.signed),
        with_keys=may_sign,
        ahead=[] if may_sign else ahead,
    )
    asked = judged.entry.request
    if may_sign and passkeys.signers(judged.scene.keys or (), asked.tenant_id, judged.scene.at):
        return signed_approvals.ask(work, session, judged, sent.form)
    if may_sign:
        session.foresee(ahead[1:])
    was_open = asked.opened_at is not None
    is_unenforced = enforcement.is_unenforced(session, request_id)
    rows = request_page.rows_beside(session, request_id)
    overview = request_page.after_decision(session, decide.make(session, judged), rows)
    window = _window(session, overview.entry, chosen) if was_open else NOT_USED_YET
    action = decision_input.action.value
    contents = _contents(request, session, visitor, overview, window, is_unenforced=is_unenforced, done=action)
    return partial(
        page, request, "request", visitor=visitor, reload_path=f"/requests/{request_id}?done={action}", **contents
    )


def _is_done(work: FormContext, sent: SentDecision) -> bool:
    visitor = browser.recognised(work.request)
    if visitor is None:
        return False
    with work.db.transaction() as session:
        return act_banner.is_done(session, visitor.caller, sent.request_id, sent.action, sent.version + 1)


def show_request(
    request: Request,
    session: UnitOfWork,
    settings: Settings,
    visitor: Visitor,
    request_id: UUID,
    *,
    sent: SentForm | None = None,
    done: str = "",
) -> HTMLResponse:
    is_unenforced = enforcement.is_unenforced(session, request_id)
    overview = request_page.read(session, visitor.caller, request_id)
    window = _window(session, overview.entry, settings) if overview.entry.request.opened_at else NOT_USED_YET
    contents = _contents(request, session, visitor, overview, window, is_unenforced=is_unenforced, done=done)
    if sent is None or sent.refused is None:
        return page(request, "request", visitor=visitor, **contents)
    later = [move for move in contents["happened"] if sent.seen is not None and (move["seq"] or 0) > sent.seen]
    contents |= {"refused": sent.refused, "needs_sign_in": isinstance(sent.refused, SignInAgain)}
    contents |= {"said": sent, "since": later}
    return page(request, "request", status_of(sent.refused), visitor=visitor, **contents)


@dataclass(frozen=True)
class WindowContents:
    """Reported activity, connections opened at targets, and uses counted by the gate."""

    inside: Sequence[RecordedActivity] = ()
    connected: Sequence[ConnectionStatus] = ()
    usage: WindowUsage | None = None


NOT_USED_YET = WindowContents(usage=WindowUsage(times=0, refused=0, first=None, last=None))


def _window(session: UnitOfWork, entry: RequestEntry, settings: Settings) -> WindowContents:
    request_id = entry.request.id
    session.foresee([ahead_of_connections(request_id), activity.ahead_of_usage(request_id)])
    inside = activity.inside(session, request_id)
    connected = connections_of(session, entry, settings.catalogue)
    return WindowContents(inside, connected, activity.usage(session, request_id))


def _contents(
    request: Request,
    session: UnitOfWork,
    visitor: Visitor,
    read: RequestOverview,
    window: WindowContents,
    *,
    is_unenforced: bool,
    done: str,
) -> dict[str, Any]:
    """Return the template's values, and record that the request was read."""
    chosen, entry, at, tallies = deps.settings(request), read.entry, read.at, read.tallies
    held = roles.reader_roles(visitor.caller, entry.request.requester_id, entry.request.tenant_id)
    moves, schedule = event_search.moves(read.events), deps.database(request).schedule
    timeline = list(_timeline(read.events, visitor.caller.side))
    is_open = entry.request.state in OPEN_STATES and at < entry.request.deadline_at
    offered = _offered(read.moves if is_open else ())
    service = chosen.catalogue.services.get(entry.request.service)
    title = service.title if service else entry.request.service
    contents = {
        "entry": entry,
        "asked": entry.request,
        "title": title,
        "schema": service.context if service else None,
        "done": act_banner.banner_of(done, read.events, visitor.caller, entry, title, tallies),
        "menu": navigation.section_of(
            visitor.caller, entry.request.state, is_own=entry.request.requester_id == visitor.caller.person_id
        ),
        "case_link": entry.request.case_url or case_link(chosen.case_url, entry.request.case_ref),
        "case_system": case_system(chosen, entry.request.case_system),
        "is_unenforced": is_unenforced,
        "reads_why": roles.may_read(ProtectedField.JUSTIFICATION, held),
        "reads_comments": roles.may_read(ProtectedField.COMMENT, held),
        "happened": timeline,
        "endorsed": next((move for move in moves if move.action == Action.ENDORSE), None),
        "is_narrowed": any(is_narrower(event["kept"], entry.request) for event in timeline if event["kept"]),
        "inside": window.inside,
        "connected": window.connected,
        "usage": window.usage,
        "voices": on_behalf_of(session, moves),
        "unheard": OnBehalfOf(),
        "reach": read.reach.sentence() if entry.request.state in {*ASKING, State.TIMED_OUT} else "",
        "nobody_notified": entry.request.state == State.TIMED_OUT and not read.reach.reached,
        "is_own": entry.request.requester_id == visitor.caller.person_id,
        "follower": read.follower,
        "before": read.earlier,
        "tallies": tallies,
        "steps": quorum.steps_of(tallies),
        "talk": questions.conversation(read.exchanges, visitor.caller, entry.request, read.known, at),
        "after_review": after_reviews.read(session, visitor.caller, entry.request),
        "since": [],
        "offered": offered,
        "obstacle": next((refusal for refusal in offered.values() if refusal), None),
        "required": _required(visitor.caller, read.effective.terms) if offered else frozenset(),
        "is_vendors": visitor.caller.side is Side.VENDOR,
        "is_over": at >= entry.request.deadline_at,
        "open_until": entry.request.would_end(at),
        "is_to_come": entry.request.state == State.ACTIVE and (entry.request.opens_at or at) > at,
        "extension": read.outlook.extension,
        "namesakes": read.namesakes if is_open else [],
        "further": (further := [*(some for some in SHORTER if some < read.outlook.longest), read.outlook.longest]),
        "may_extend": bool(read.outlook.longest and further),
        "shorter": [seconds for seconds in SHORTER if seconds < entry.request.access_window],
        "refused": None,
        "needs_sign_in": False,
        "said": SentForm(),
        "around": inbox.viewers(session, schedule, visitor.caller, entry.request, read.known, at),
        "at": at,
    }
    queries.record_read(session, visitor.caller, origin(request), entry.request)
    return contents


def _timeline(happened: Iterable[EventRow], side: Side) -> Iterator[dict[str, Any]]:
    for event in happened:
        said = json.loads(event.body) if event.body else {}
        is_undelivered = said.get("nobody_notified") or (event.action == "escalate" and "unreached" in said)
        why = "_undelivered" if is_undelivered else "_step" if "step" in said else ""
        beside = event.action in BESIDE and knows_of(side, event.to_state, None)
        mails = None
        if event.action == NOTIFIED:
            beside = event.internal is (side is Side.VENDOR)
            mails = mailed(said, event.recipients or {}, MOST_NAMED)
        if event.seq is not None or beside:
            further = {"kept": limits_of(event), "mails": mails}
            further |= {"step": said.get("step"), "held_back": said.get("held_back")}
            further["action"] = f"{event.action}{why}"
            yield {**event._mapping, **further}  # noqa: SLF001 - its public name


def _offered(moves: Iterable[PossibleMove]) -> dict[Action, LockboxError | None]:
    """Actions to show: with None if the person may take them now, else with the refusal that the page explains."""
    return {move.action: move.refusal for move in moves if move.allowed or isinstance(move.refusal, SHOWN_REFUSALS)}


def _required(caller: Caller, terms: Terms) -> frozenset[ReasonedDecision]:
    """The decisions that need a comment; for vendor users, only decisions whose comment no policy can waive."""
    is_vendors = caller.side is Side.VENDOR
    return decision_context.needing_reasons(Terms() if is_vendors else terms, by_the_vendor=is_vendors)


def case_link(template: str | None, case: str | None) -> str:
    return template.replace("{case}", quote(case, safe="")) if template and case else ""


def case_system(settings: Settings, name: str | None) -> str:
    system = settings.catalogue.case_systems.get(name) if name else None
    return system.title if system else name or ""


def request_id_of(shown: str) -> UUID:
    try:
        return UUID(shown)
    except ValueError:
        raise NotFound(phrases.NO_REQUEST) from None
