"""The page of a request: read, decide and resubmit."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Annotated, Any, Literal
from urllib.parse import quote
from uuid import UUID

from fastapi import Depends, Form, Query, Request, Response
from fastapi.responses import HTMLResponse
from sqlalchemy import Row

from api import browser, deps
from api.browser import Visitor
from api.call_routes import CallRouter
from api.deps import DatabaseDep, SessionDep, SettingsDep
from api.portal import act_banner, decision_form, navigation, phrases, signed_approvals
from api.portal.account import AccountContext, AccountContextDep
from api.portal.decision_form import DecisionForm
from api.portal.pages import TAG, go, origin, page, status_of
from api.portal.signed_approvals import NOTHING_SHOWN, ApprovalProofForm, shown_proof
from api.refusal_log import AttemptedAction, note
from config.settings import Settings
from connectors.credential_requests import connections_of
from gate import report_consents
from lockbox import database
from lockbox.audit import event_search
from lockbox.audit.report import FIRST_USED, LAST_USED
from lockbox.audit.reported_mails import MOST_NAMED, NOTIFIED, mailed
from lockbox.database import Database, UnitOfWork
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
from lockbox.identity import roles, time_zones
from lockbox.identity.roles import Caller, ProtectedField, Side
from lockbox.notifications.audience import ASKING, knows_of
from lockbox.requests import (
    activity,
    after_reviews,
    decide,
    decisions,
    inbox,
    questions,
    quorum,
    request_page,
    request_reads,
    resubmission,
)
from lockbox.requests.available_moves import AvailableMove
from lockbox.requests.decisions import DecisionInput
from lockbox.requests.lifecycle import OPEN_STATES, Action
from lockbox.requests.on_behalf_of import OnBehalfOf, approval_limits, on_behalf_of
from lockbox.requests.policy import Terms
from lockbox.requests.policy_parts import ReasonedDecision
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
    return [report_consents.ahead_of_unenforced(request_id), *request_page.ahead_of_read(request_id)]


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
    """Act on a request; a refusal is shown on its page, with the form as sent.

    With `narrow`, `resources` and `actions` are those left ticked: none if they are missing. An approver with a
    passkey is first asked to sign, on a page that returns here.
    """
    browser.check_same_site(request, chosen)
    resources, actions = (resources or [], actions or []) if narrow else (None, None)
    one, said = (
        request_id_of(request_id),
        DecisionForm(action, comment, window, resources, actions, uses.strip(), start),
    )
    try:
        zone = _zone(request, chosen, db) if start else time_zones.DEFAULT
        decision_input = decision_form.read(said, version, zone)
        if decision_input.action is Action.APPROVE:
            desk = signed_approvals.SigningContext(request, chosen, db, csrf)
            if not proof.is_final and (asked := desk.ask(one, decision_input, said)):
                return asked
            decision_input = replace(decision_input, signed=desk.taken(proof))
        run_alone(db, partial(_acted, AccountContext(request, chosen, db, csrf), one, decision_input))
    except (Conflict, NotYours, Invalid) as refused:
        note(request, refused)
        with db.transaction() as session:
            visitor = browser.visitor(request, session, chosen)
            return show_request(request, session, chosen, visitor, one, refused=refused, said=said, seen=version)
    answer = go(request, f"/requests/{one}", done=action)
    if decision_input.signed:
        browser.drop_oauth_state(answer, chosen)
    return answer


def _acted(work: AccountContext, one: UUID, decision_input: DecisionInput, session: UnitOfWork) -> None:
    caller, came = work.visitor(session).caller, origin(work.request)
    work.request.state.tried = AttemptedAction(caller, came, one, decision_input.action)
    decide.act(session, caller, came, one, decision_input)


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
    is_unenforced = report_consents.is_unenforced(session, request_id)
    read = request_page.read(session, visitor.caller, request_id)
    entry, at, tallies, reach = read.entry, read.at, read.tallies, read.reach
    held = roles.reader_roles(visitor.caller, entry.request.requester_id, entry.request.tenant_id)
    moves = event_search.moves(read.events)
    timeline = list(_timeline(read.events, visitor.caller.side))
    is_open = entry.request.state in OPEN_STATES and at < entry.request.deadline_at
    offered = _offered(read.moves if is_open else ())
    service = chosen.catalogue.services.get(entry.request.service)
    title = service.title if service else entry.request.service
    shown = page(
        request,
        "request",
        status_of(refused) if refused else 200,
        visitor=visitor,
        entry=entry,
        asked=entry.request,
        title=title,
        schema=service.context if service else None,
        done=act_banner.banner_of(done, read.events, visitor.caller, entry, title, tallies),
        menu=navigation.section_of(
            visitor.caller, entry.request.state, is_own=entry.request.requester_id == visitor.caller.person_id
        ),
        case_link=entry.request.case_url or case_link(chosen.case_url, entry.request.case_ref),
        case_system=case_system(chosen, entry.request.case_system),
        is_unenforced=is_unenforced,
        reads_why=roles.may_read(ProtectedField.JUSTIFICATION, held),
        reads_comments=roles.may_read(ProtectedField.COMMENT, held),
        happened=timeline,
        endorsed=next((move for move in moves if move.action == Action.ENDORSE), None),
        is_narrowed=any(one["kept"].is_less_than(entry.request) for one in timeline if one["kept"]),
        inside=activity.read(session, visitor.caller, request_id) if entry.request.opened_at else [],
        connected=connections_of(session, entry, chosen.catalogue) if entry.request.opened_at else [],
        usage=activity.usage(session, request_id) if entry.request.opened_at else None,
        voices=on_behalf_of(session, moves),
        unheard=OnBehalfOf(),
        reach=reach.sentence() if entry.request.state in {*ASKING, State.TIMED_OUT} else "",
        nobody_notified=entry.request.state == State.TIMED_OUT and not reach.reached,
        is_own=entry.request.requester_id == visitor.caller.person_id,
        follower=read.follower,
        before=read.earlier,
        tallies=tallies,
        steps=quorum.steps_of(tallies),
        talk=questions.conversation(read.exchanges, visitor.caller, entry.request, read.known, at),
        after_review=after_reviews.read(session, visitor.caller, entry.request),
        since=[one for one in timeline if seen is not None and (one["seq"] or 0) > seen] if refused else [],
        offered=offered,
        obstacle=next((one for one in offered.values() if one), None),
        required=_required(visitor.caller, read.effective.terms) if offered else frozenset(),
        is_vendors=visitor.caller.side is Side.VENDOR,
        is_over=at >= entry.request.deadline_at,
        open_until=max(at, entry.request.not_before or at) + timedelta(seconds=entry.request.access_window),
        is_to_come=entry.request.state == State.ACTIVE and (entry.request.opens_at or at) > at,
        extension=read.outlook.extension,
        namesakes=read.namesakes if is_open else [],
        further=(further := [*(one for one in SHORTER if one < read.outlook.longest), read.outlook.longest]),
        may_extend=bool(read.outlook.longest and further),
        shorter=[seconds for seconds in SHORTER if seconds < entry.request.access_window],
        refused=refused,
        needs_sign_in=isinstance(refused, SignInAgain),
        said=said or DecisionForm(),
        around=inbox.viewers(session, deps.database(request).schedule, visitor.caller, entry.request, read.known, at),
        at=at,
    )
    request_reads.record_read(session, visitor.caller, origin(request), entry.request)
    return shown


def _timeline(happened: Iterable[Row[Any]], side: Side) -> Iterator[dict[str, Any]]:
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
    return decisions.needing_reasons(Terms() if is_vendors else terms, by_the_vendor=is_vendors)


def _zone(request: Request, chosen: Settings, db: Database) -> str:
    with db.transaction() as session:
        return browser.visitor(request, session, chosen).time_zone


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
