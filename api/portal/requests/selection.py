"""Deny or cancel up to 50 requests at once."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

from fastapi import Form, Query, Request, Response
from fastapi.responses import HTMLResponse
from pydantic import Field, TypeAdapter, ValidationError

from api import browser, deps
from api.browser import Visitor
from api.call_routes import CallRouter
from api.deps import SessionDep, SettingsDep
from api.portal import phrases
from api.portal.pages import TAG, FormContext, FormContextDep, origin, page, status_of
from api.schemas.decisions import MOST_AT_ONCE
from api.schemas.requests import CommentInput
from api.separate_moves import attempt
from lockbox import mistakes
from lockbox.database import UnitOfWork, now
from lockbox.errors import Invalid, LockboxError, SignInAgain
from lockbox.identity.roles import Caller
from lockbox.requests import inbox, queries, review_queue
from lockbox.requests.decision_context import DecisionInput
from lockbox.requests.lifecycle import Action
from lockbox.requests.models import RequestEntry

router = CallRouter(tags=[TAG], include_in_schema=False)

MOST = MOST_AT_ONCE
CHOSEN = TypeAdapter(tuple[UUID, Annotated[int, Field(ge=1, le=999_999_999)]])

Cursor = Annotated[str, Query(max_length=60)]
Choice = Annotated[list[str] | None, Form(max_length=1000)]
Comment = Annotated[str, Form()]
Listing = Callable[[UnitOfWork, Caller, str | None], tuple[Sequence[RequestEntry], str | None]]


@dataclass(frozen=True)
class RequestGroup:
    engineer: str
    engineer_id: UUID
    case_ref: str | None
    members: Sequence[Any]


@dataclass(frozen=True)
class SelectionResult:
    """`entry` is the request in its present state; None if the person may not see it."""

    request_id: UUID
    entry: RequestEntry | None
    refused: LockboxError | None


@dataclass(frozen=True)
class SelectionForm:
    """`chosen` are the ids, with the versions that the page showed."""

    chosen: frozenset[str] = frozenset()
    comment: str = ""


@dataclass(frozen=True)
class SelectionPage:
    """`read` returns the requests that can be chosen, and a cursor."""

    path: str
    back: str
    action: Action
    read: Listing

    def show(
        self,
        request: Request,
        session: UnitOfWork,
        visitor: Visitor,
        said: SelectionForm | None = None,
        *,
        after: str = "",
        ticked: tuple[str, str] | None = None,
        refused: LockboxError | None = None,
    ) -> HTMLResponse:
        """`ticked` names an engineer and a case whose requests are ticked."""
        entries, beyond = self.read(session, visitor.caller, after or None)
        return page(
            request,
            "selection",
            status_of(refused) if refused else 200,
            visitor=visitor,
            at=now(session),
            path=self.path,
            back=self.back,
            action=self.action,
            groups=grouped(entries, lambda one: one),
            next_cursor=beyond,
            ticked=ticked,
            said=said or SelectionForm(),
            refused=refused,
            titles=deps.settings(request).catalogue.titles,
            most=MOST,
        )

    def act(self, work: FormContext, chosen: Sequence[str], comment: str) -> Response:
        """Act on each request in a transaction of its own."""
        try:
            ids = _chosen(chosen)
            _check_comment(self.action, comment)
        except Invalid as refused:
            with work.open() as (session, visitor):
                written = SelectionForm(frozenset(chosen), comment)
                return self.show(work.request, session, visitor, written, refused=refused)
        done = {one: do(work, one, self.action, comment, version) for one, version in ids.items()}
        with work.open() as (session, visitor):
            known = {one.request.id: one for one in queries.some(session, visitor.caller, list(ids))}
            results = [SelectionResult(one, known.get(one), refused) for one, refused in done.items()]
            return self._results(work, visitor, results)

    def _results(self, work: FormContext, visitor: Visitor, results: Sequence[SelectionResult]) -> Response:
        refused = [result.refused for result in results if result.refused]
        return page(
            work.request,
            "selection_results",
            status_of(refused[0]) if len(refused) == len(results) else 200,
            visitor=visitor,
            path=self.path,
            back=self.back,
            action=self.action,
            failed=[result for result in results if result.refused],
            done=[result for result in results if not result.refused],
            needs_sign_in=any(isinstance(one, SignInAgain) for one in refused),
            titles=work.chosen.catalogue.titles,
        )


def _pending(session: UnitOfWork, caller: Caller, after: str | None) -> tuple[Sequence[RequestEntry], str | None]:
    found = inbox.pending_requests(session, caller, cursor=after, most=MOST)
    return [one.entry for one in found.pending], found.beyond


def _in_review(session: UnitOfWork, caller: Caller, after: str | None) -> tuple[Sequence[RequestEntry], str | None]:
    found = review_queue.to_review(session, caller, cursor=after, most=MOST)
    return [one.entry for one in found.items if one.may_deny], found.next_cursor


def _own(session: UnitOfWork, caller: Caller, after: str | None) -> tuple[Sequence[RequestEntry], str | None]:
    found = review_queue.own_requests(session, caller, cursor=after, most=MOST)
    return [one.entry for one in found.items if Action.CANCEL in one.actions], found.next_cursor


PENDING = SelectionPage("/waiting/deny", "/waiting", Action.DENY, _pending)
IN_REVIEW = SelectionPage("/review/deny", "/review", Action.DENY, _in_review)
OWN = SelectionPage("/mine/cancel", "/mine", Action.CANCEL, _own)


@router.get("/waiting/deny")
def choose_pending(
    request: Request,
    chosen: SettingsDep,
    session: SessionDep,
    after: Cursor = "",
    engineer: Cursor = "",
    case: Annotated[str, Query(max_length=200)] = "",
) -> Response:
    visitor = browser.visitor(request, session, chosen)
    return PENDING.show(request, session, visitor, after=after, ticked=(engineer, case))


@router.post("/waiting/deny")
def deny_pending(work: FormContextDep, chosen: Choice = None, comment: Comment = "") -> Response:
    return PENDING.act(work, chosen or [], comment)


@router.get("/review/deny")
def choose_in_review(
    request: Request,
    chosen: SettingsDep,
    session: SessionDep,
    after: Cursor = "",
    engineer: Cursor = "",
    case: Annotated[str, Query(max_length=200)] = "",
) -> Response:
    visitor = browser.visitor(request, session, chosen)
    return IN_REVIEW.show(request, session, visitor, after=after, ticked=(engineer, case))


@router.post("/review/deny")
def deny_in_review(work: FormContextDep, chosen: Choice = None, comment: Comment = "") -> Response:
    return IN_REVIEW.act(work, chosen or [], comment)


@router.get("/mine/cancel")
def choose_own(request: Request, chosen: SettingsDep, session: SessionDep, after: Cursor = "") -> Response:
    return OWN.show(request, session, browser.visitor(request, session, chosen), after=after)


@router.post("/mine/cancel")
def cancel_own(work: FormContextDep, chosen: Choice = None, comment: Comment = "") -> Response:
    return OWN.act(work, chosen or [], comment)


def grouped(members: Iterable[Any], entry_of: Callable[[Any], RequestEntry]) -> list[RequestGroup]:
    groups = defaultdict[tuple[UUID, str | None], list[Any]](list)
    names = dict[UUID, str]()
    for member in members:
        asked = entry_of(member).request
        names[asked.requester_id] = entry_of(member).requester
        groups[asked.requester_id, asked.case_ref].append(member)
    return [RequestGroup(names[who], who, case, some) for (who, case), some in groups.items()]


def do(work: FormContext, request_id: UUID, action: Action, comment: str, version: int) -> LockboxError | None:
    try:
        decision_input = DecisionInput(action, comment_of(comment), version=version)
    except Invalid as refused:
        return refused

    def who(session: UnitOfWork) -> Caller:
        return work.visitor(session).caller

    return attempt(
        work.request, work.db, who, request_id, decision_input, origin=origin(work.request), shown=lambda *_: None
    )


def comment_of(typed: str) -> str | None:
    try:
        return CommentInput(comment=typed.replace("\r\n", "\n").strip() or None).comment
    except ValidationError as error:
        raise Invalid(phrases.NOT_ACCEPTED.format(why=mistakes.advice(error)), field="comment") from None


def _check_comment(action: Action, typed: str) -> None:
    if comment_of(typed) is None and action is Action.DENY:
        raise Invalid(phrases.NO_REASON, field="comment")


def _chosen(given: Sequence[str]) -> dict[UUID, int]:
    """Versions by request id."""
    if not given:
        raise Invalid(phrases.NOTHING_CHOSEN, field="chosen")
    if len(given) > MOST:
        raise Invalid(phrases.TOO_MANY_CHOSEN.format(most=MOST), field="chosen")
    try:
        return dict(CHOSEN.validate_python(one.split(".")) for one in given)
    except ValidationError:
        raise Invalid(phrases.NOT_FROM_THE_LIST, field="chosen") from None
