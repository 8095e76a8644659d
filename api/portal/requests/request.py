"""The page of a request: read, decide and resubmit."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Annotated, Any, Literal
from urllib.parse import quote
from uuid import UUID

from fastapi import Depends, Form, Query, Request, Response
from fastapi.responses import HTMLResponse

from api import browser, deps
from api.browser import Visitor
from api.call_routes import CallRouter
from api.deps import DatabaseDep, SessionDep, SettingsDep
from api.portal import navigation, phrases
from api.portal.account.profile import AccountContext, AccountContextDep
from api.portal.pages import TAG, go, origin, page, status_of
from api.portal.requests import act_banner, decision_form, signed_approvals
from api.portal.requests.decision_form import DecisionForm
from api.portal.requests.signed_approvals import NOTHING_SHOWN, Answer, ApprovalProofForm, shown_proof
from api.refusal_log import AttemptedAction, note
from config.settings import Settings
from connectors.credential_requests import ConnectionStatus, ahead_of_connections, connections_of
from gate import enforcement
from lockbox import database
from lockbox.audit import event_search
from lockbox.audit.event_search import EventRow
from lockbox.audit.report import FIRST_USED, LAST_USED
from lockbox.audit.reported_mails import MOST_NAMED, NOTIFIED, mailed
from lockbox.database import UnitOfWork
from lockbox.errors import (
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
    inbox,
    questions,
    quorum,
    request_page,
    request_reads,
    resubmission,
    transition,
)
from lockbox.requests.activity import RecordedActivity, WindowUsage
from lockbox.requests.approvals import SignedStatement
from lockbox.requests.lifecycle import OPEN_STATES, Action
from lockbox.requests.on_behalf_of import OnBehalfOf, approval_limits, on_behalf_of
from lockbox.requests.permitted_moves import AvailableMove
from lockbox.requests.policy import Terms
from lockbox.requests.policy_parts import ReasonedDecision
from lockbox.requests.request_entry import RequestEntry
from lockbox.requests.request_page import RequestOverview
from lockbox.requests.resubmission import AlreadyAskedAgain
from lockbox.requests.submit import SubmissionLimits
from lockbox.use_cases import run_alone

router = CallRouter(prefix="/requests", tags=[TAG], include_in_schema=False)
front = CallRouter(tags=[TAG], include_in_schema=False)

MINUTE, HOUR = 60, 3600
SHORTER = (5 * MINUTE, 15 * MINUTE, 30 * MINUTE, HOUR, 2 * HOUR, 4 * HOUR, 8 * HOUR, 24 * HOUR)

BESIDE = frozenset({"begin", "hold_back", "escalate", "unreached", "question", "answer", FIRST_USED, LAST_USED})
"""The events shown beside the moves of a request."""

SHOWN_REFUSALS = (EarlierStepFirst, SignInAgain, PasskeyTooNew, PolicyNotMet, PolicyUnverified, TenantSuspended)
"""Refusals that the page explains to people who would otherwise decide."""

RequestAction = Literal["endorse", "break_glass", "approve", "deny", "cancel", "revoke", "complete"]


@front.get("/")
def enter(request: Request, chosen: SettingsDep, session: SessionDep) -> Response:
    """Redirect the bare URL to the person's first page."""
    return go(request, navigation.home(browser.visitor(request, session, chosen).caller))


@router.get("/{request_id}")
def show(
    request: Request,
    request_id: str,
    chosen: SettingsDep,
    session: SessionDep,
    done: Annotated[str, Query(max_length=20)] = "",
) -> Response:
    """Show one request, what the person may do, and what they have just done."""
    one = request_id_of(request_id)
    session.foresee(ahead_of_page(one))
    visitor = browser.visitor(request, session, chosen)
    return show_request(request, session, chosen, visitor, one, done=done)


def ahead_of_page(request_id: UUID) -> list[database.Query]:
    """Return what `show_request` reads once it is known who looks."""
    return [enforcement.ahead_of_unenforced(request_id), *request_page.ahead_of_read(request_id)]


@router.post("/{request_id}/ask-again")
def resubmit(work: AccountContextDep, request_id: str) -> Response:
    """Resubmit the request and go to the new one, or to the open one that was resubmitted before."""
    request, chosen, one = work.request, work.chosen, request_id_of(request_id)
    try:
        with work.open() as (session, visitor):
            limits = SubmissionLimits(chosen.submissions_per_person, chosen.submissions_per_tenant)
            submitted = resubmission.resubmit(
                session, visitor.caller, origin(request), one, chosen.catalogue.services, limits=limits
            )
    except AlreadyAskedAgain as done:
        return go(request, f"/requests/{done.facts['request_id']}")
    except (Conflict, NotYours, Invalid, TooMany) as refused:
        with work.open() as (session, visitor):
            return show_request(request, session, chosen, visitor, one, refused=refused)
    return go(request, f"/requests/{submitted.request.id}", done=Action.SUBMIT.value)


@router.post("/{request_id}/{action}")
def act(
    request: Request,
    request_id: str,
    action: RequestAction,
    chosen: SettingsDep,
    db: DatabaseDep,
    version: Annotated[int, Form(ge=1, le=999_999_999)],
    csrf: Annotated[str, Form()] = "",
    comment: Annotated[str, Form()] = "",
    window: Annotated[str, Form(max_length=9)] = "",
    uses: Annotated[str, Form(max_length=9)] = "",
    start: Annotated[str, Form(max_length=19)] = "",
    narrow: Annotated[str, Form()] = "",
    resources: Annotated[list[str] | None, Form()] = None,
    actions: Annotated[list[str] | None, Form()] = None,
    proof: Annotated[ApprovalProofForm, Depends(shown_proof)] = NOTHING_SHOWN,
) -> Response:
    """Act on a request and show it as it is then; a refusal is shown there too, with the form as sent.

    With `narrow`, `resources` and `actions` are those left ticked: none if they are missing. An approver with a
    passkey is first asked to sign, on a page that returns here. Who sends a form again is shown what it did.
    """
    browser.check_same_site(request, chosen)
    resources, actions = (resources or [], actions or []) if narrow else (None, None)
    form = DecisionForm(action, comment, window, resources, actions, uses.strip(), start)
    work = AccountContext(request, chosen, db, csrf)
    sent = SentDecision(request_id_of(request_id), form, version, is_final=proof.is_final)
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
            return show_request(
                request, session, chosen, visitor, sent.request_id, refused=refused, said=form, seen=version
            )
    if sent.signed:
        browser.drop_oauth_state(answer, chosen)
    return answer


@dataclass(frozen=True)
class SentDecision:
    """A form that decides: about which request at which version, and what a passkey has signed.

    `is_final` is whether the approver was asked for a signature already.
    """

    request_id: UUID
    form: DecisionForm
    version: int
    is_final: bool
    signed: SignedStatement | None = None


def _decided(work: AccountContext, sent: SentDecision, session: UnitOfWork) -> Answer:
    """Decide, and return what makes the page from what was written; or the page on which a passkey signs first."""
    request, chosen, request_id = work.request, work.chosen, sent.request_id
    session.foresee([transition.ahead_of_lock(request_id)])
    visitor = browser.recognised(request) if sent.signed else None
    if visitor is None:
        visitor = work.visitor(session)
    else:
        authentication.enter(session, visitor.caller)
    decision_input = decision_form.read(sent.form, sent.version, visitor.time_zone)
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
    read = request_page.after_decision(session, decide.make(session, judged), rows)
    window = _window(session, read.entry, chosen) if was_open else NOT_USED_YET
    action = decision_input.action.value
    contents = _contents(request, session, visitor, read, window, is_unenforced=is_unenforced, done=action)
    return partial(
        page, request, "request", visitor=visitor, reload_path=f"/requests/{request_id}?done={action}", **contents
    )


def _is_done(work: AccountContext, sent: SentDecision) -> bool:
    """Return whether the person has decided just this with this form before, as where a browser loads it again."""
    visitor = browser.recognised(work.request)
    if visitor is None:
        return False
    with work.db.transaction() as session:
        return act_banner.is_done(session, visitor.caller, sent.request_id, sent.form.action, sent.version + 1)


def show_request(
    request: Request,
    session: UnitOfWork,
    chosen: Settings,
    visitor: Visitor,
    request_id: UUID,
    *,
    refused: LockboxError | None = None,
    said: DecisionForm | None = None,
    seen: int | None = None,
    done: str = "",
) -> HTMLResponse:
    """Show a request's page, with what was refused there."""
    is_unenforced = enforcement.is_unenforced(session, request_id)
    read = request_page.read(session, visitor.caller, request_id)
    window = _window(session, read.entry, chosen) if read.entry.request.opened_at else NOT_USED_YET
    contents = _contents(request, session, visitor, read, window, is_unenforced=is_unenforced, done=done)
    if refused:
        timeline = contents["happened"]
        contents |= {"refused": refused, "needs_sign_in": isinstance(refused, SignInAgain)}
        contents["since"] = [move for move in timeline if seen is not None and (move["seq"] or 0) > seen]
    if said:
        contents["said"] = said
    return page(request, "request", status_of(refused) if refused else 200, visitor=visitor, **contents)


@dataclass(frozen=True)
class WindowContents:
    """What has happened inside a request's window: what was reported, opened at targets, and counted by the gate."""

    inside: Sequence[RecordedActivity] = ()
    connected: Sequence[ConnectionStatus] = ()
    usage: WindowUsage | None = None


NOT_USED_YET = WindowContents(usage=WindowUsage(times=0, refused=0, first=None, last=None))


def _window(session: UnitOfWork, entry: RequestEntry, chosen: Settings) -> WindowContents:
    request_id = entry.request.id
    session.foresee([ahead_of_connections(request_id), activity.ahead_of_usage(request_id)])
    inside = activity.inside(session, request_id)
    connected = connections_of(session, entry, chosen.catalogue)
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
    """Return what a request's page is made from, and record that it was read."""
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
        "is_narrowed": any(event["kept"].is_less_than(entry.request) for event in timeline if event["kept"]),
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
        "open_until": max(at, entry.request.not_before or at) + timedelta(seconds=entry.request.access_window),
        "is_to_come": entry.request.state == State.ACTIVE and (entry.request.opens_at or at) > at,
        "extension": read.outlook.extension,
        "namesakes": read.namesakes if is_open else [],
        "further": (further := [*(some for some in SHORTER if some < read.outlook.longest), read.outlook.longest]),
        "may_extend": bool(read.outlook.longest and further),
        "shorter": [seconds for seconds in SHORTER if seconds < entry.request.access_window],
        "refused": None,
        "needs_sign_in": False,
        "said": DecisionForm(),
        "around": inbox.viewers(session, schedule, visitor.caller, entry.request, read.known, at),
        "at": at,
    }
    request_reads.record_read(session, visitor.caller, origin(request), entry.request)
    return contents


def _timeline(happened: Iterable[EventRow], side: Side) -> Iterator[dict[str, Any]]:
    """Yield the events of the page: the moves, escalations with their reason, and who of that side was notified."""
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
            further = {"kept": approval_limits(event), "mails": mails}
            further |= {"step": said.get("step"), "held_back": said.get("held_back")}
            further["action"] = f"{event.action}{why}"
            yield {**event._mapping, **further}  # noqa: SLF001 - its public name


def _offered(moves: Iterable[AvailableMove]) -> dict[Action, LockboxError | None]:
    """Return the actions that the page offers, with the reason if another sign-in is needed.

    Actions refused because of the customer's policy or a suspension are shown with the reason too.
    """
    return {one.action: one.refusal for one in moves if one.allowed or isinstance(one.refusal, SHOWN_REFUSALS)}


def _required(caller: Caller, terms: Terms) -> frozenset[ReasonedDecision]:
    """Return the decisions that need a comment; for vendor users only those that no customer's policy can relax."""
    is_vendors = caller.side is Side.VENDOR
    return decision_context.needing_reasons(Terms() if is_vendors else terms, by_the_vendor=is_vendors)


def case_link(template: str | None, case: str | None) -> str:
    """Return the address of a case's page, if the vendor has named one."""
    return template.replace("{case}", quote(case, safe="")) if template and case else ""


def case_system(chosen: Settings, name: str | None) -> str:
    """Return the title of a ticket system, its name if the catalogue has it no more, nothing without one."""
    system = chosen.catalogue.case_systems.get(name) if name else None
    return system.title if system else name or ""


def request_id_of(shown: str) -> UUID:
    """Return the id in an address; what is none leads to no request."""
    try:
        return UUID(shown)
    except ValueError:
        raise NotFound(phrases.NO_REQUEST) from None
