"""The page on which an engineer writes a request, previews its recipients, and submits it once."""

import asyncio
import json
import re
import secrets
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Form, Query, Request, Response
from fastapi.responses import HTMLResponse
from pydantic import ValidationError

from api import browser, case_checks
from api.browser import Visitor
from api.deps import SessionDep, SettingsDep
from api.portal import phrases
from api.portal.account import AccountContextDep
from api.portal.pages import TAG, go, origin, page, status_of
from api.routes.requests import request_input
from api.schemas.requests import NewRequest
from config.context_schema import MOST_PARAMETERS, ContextValue
from config.service_catalogue import LEVELS, MOST_SERVICES, Level, Service
from config.settings import Settings
from lockbox.admin import tenants
from lockbox.database import UnitOfWork, now
from lockbox.errors import Conflict, Invalid, KeyInUse, LockboxError, NotFound, NotYours, TooMany
from lockbox.identity import time_zones
from lockbox.identity.roles import Caller, Role
from lockbox.requests import idempotency, policy_diff, preview, queries, submit
from lockbox.requests.cases import CaseSystemDown, CaseUnchecked
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_parts import DAY, HOUR, CaseCheck, Reason
from lockbox.requests.preview import Preview
from lockbox.requests.request_input import RequestInput
from lockbox.requests.requester import Severity
from lockbox.requests.submit import SubmissionLimits

router = APIRouter(prefix="/ask", tags=[TAG], include_in_schema=False)

MOST_LISTED = 100
MINUTE = 60
WINDOWS = (5 * MINUTE, 15 * MINUTE, 30 * MINUTE, HOUR, 2 * HOUR, 4 * HOUR, 8 * HOUR, DAY, 3 * DAY, 7 * DAY)
MOST_DIGITS = 9
MOST_COLUMNS = MOST_SERVICES * MOST_PARAMETERS
WHOLE = re.compile(r"-?[0-9]{1,16}")
SWITCHES = ("true", "false")
KEY = r"[A-Za-z0-9_-]{22}"

Column = Annotated[list[str], Form(max_length=MOST_COLUMNS)]
FormFields = dict[str, list[str]]
"""Errors by field."""


@dataclass(frozen=True)
class RequestForm:
    """The form as typed, unchecked; `parameters` are those of all services, by `service:parameter`."""

    tenant: str = ""
    service: str = ""
    resources: str = ""
    actions: tuple[str, ...] = ()
    reason_code: str = Reason.SUPPORT_CASE.value
    justification: str = ""
    case_ref: str = ""
    access_window: str = str(15 * MINUTE)
    max_uses: str = ""
    case_system: str = ""
    case_url: str = ""
    duplicate_reason: str = ""
    not_before: str = ""
    break_glass: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)
    severity: str = ""

    @property
    def lines(self) -> list[str]:
        """The resources, one a line."""
        return [line.strip() for line in self.resources.splitlines() if line.strip()]


async def request_form(
    tenant: Annotated[str, Form()] = "",
    service: Annotated[str, Form()] = "",
    resources: Annotated[str, Form()] = "",
    actions: Annotated[list[str] | None, Form()] = None,
    reason_code: Annotated[str, Form()] = "",
    justification: Annotated[str, Form()] = "",
    case_ref: Annotated[str, Form()] = "",
    access_window: Annotated[str, Form()] = "",
    max_uses: Annotated[str, Form()] = "",
    break_glass: Annotated[str, Form(max_length=3)] = "",
    case_system: Annotated[str, Form()] = "",
    case_url: Annotated[str, Form()] = "",
    duplicate_reason: Annotated[str, Form()] = "",
    not_before: Annotated[str, Form(max_length=19)] = "",
    parameter: Column = [],  # noqa: B006 - FastAPI copies it
    value: Column = [],  # noqa: B006 - likewise
    severity: Annotated[str, Form()] = "",
) -> RequestForm:
    """Return the content of a form; entries of `parameter` and `value` with one index belong together."""
    return RequestForm(
        tenant.strip(),
        service,
        resources,
        tuple(actions or ()),
        reason_code,
        justification.replace("\r\n", "\n"),
        case_ref.strip(),
        access_window,
        max_uses.strip(),
        case_system,
        case_url.strip(),
        duplicate_reason.replace("\r\n", "\n").strip(),
        not_before,
        break_glass,
        dict(zip(parameter, (one.strip() for one in value), strict=False)),
        severity,
    )


RequestFormDep = Annotated[RequestForm, Depends(request_form)]


class FormRejected(Invalid):
    """A form has invalid fields; `errors` says which."""


@router.get("")
def show(
    request: Request,
    chosen: SettingsDep,
    session: SessionDep,
    earlier: Annotated[UUID | None, Query(alias="from")] = None,
    tenant: Annotated[str, Query(max_length=63)] = "",
    service: Annotated[str, Query(max_length=63)] = "",
    resource: Annotated[str, Query(max_length=256)] = "",
    action: Annotated[str, Query(max_length=63)] = "",
) -> Response:
    """Show the form to an engineer, filled with an earlier request or with what is named, as by the gate."""
    visitor = browser.visitor(request, session, chosen)
    _check_engineer(visitor.caller)
    named = RequestForm(tenant, service, resource, (action,) if action else _least(chosen, service))
    written = _earlier(session, visitor, earlier) if earlier else named
    return _shown(request, session, chosen, visitor, written)


@router.post("/preview")
def look(work: AccountContextDep, written: RequestFormDep) -> Response:
    """Preview what such a request would meet and whom it would reach; nothing is submitted or sent."""
    with work.open() as (session, visitor):
        _check_engineer(visitor.caller)
        try:
            services = work.chosen.catalogue.services
            asked = request_input(_read(written, visitor.time_zone, services), work.chosen)
            found = preview.preview(session, visitor.caller, asked, work.chosen.catalogue.services)
        except Invalid as refused:
            return _shown(work.request, session, work.chosen, visitor, written, refused=refused)
        return _shown(work.request, session, work.chosen, visitor, written, found=found, asked=asked)


@router.post("")
def send(
    work: AccountContextDep, written: RequestFormDep, key: Annotated[str, Form(pattern=rf"^{KEY}$")]
) -> Response:
    """Submit the form and go to the request; the same form sent twice is submitted once."""
    try:
        one = _filed(work, written, key)
    except (Invalid, NotYours, Conflict, TooMany, KeyInUse, CaseSystemDown) as refused:
        with work.open() as (session, visitor):
            _check_engineer(visitor.caller)
            return _shown(work.request, session, work.chosen, visitor, written, refused=refused)
    return go(work.request, f"/requests/{one}", done=Action.SUBMIT.value)


def _filed(work: AccountContextDep, written: RequestForm, key: str) -> str:
    """Submit; where the policy demands that the case is confirmed, have that done and submit again."""
    try:
        with work.open() as (session, visitor):
            return _file(
                work, session, visitor, _read(written, visitor.time_zone, work.chosen.catalogue.services), key
            )
    except CaseUnchecked as refused:
        unchecked = refused
    said = asyncio.run(case_checks.confirmed(work.chosen, unchecked))
    with work.open() as (session, visitor):
        return _file(
            work, session, visitor, _read(written, visitor.time_zone, work.chosen.catalogue.services), key, said
        )


def _file(
    work: AccountContextDep,
    session: UnitOfWork,
    visitor: Visitor,
    body: NewRequest,
    key: str,
    case_check: CaseCheck | None = None,
) -> str:
    """Submit under the form's key; return the request's id, the first one if it is repeated."""
    _check_engineer(visitor.caller)
    person, plain = visitor.caller.person_id, b"ask " + body.model_dump_json().encode()
    answer = idempotency.earlier_answer(session, f"ask-{key}", plain)
    if answer is not None:
        return str(UUID(answer["id"]))
    limits = SubmissionLimits(work.chosen.submissions_per_person, work.chosen.submissions_per_tenant)
    submitted = submit.submit(
        session,
        visitor.caller,
        origin(work.request),
        replace(request_input(body, work.chosen), case_check=case_check),
        work.chosen.catalogue.services,
        limits=limits,
    )
    one = str(submitted.request.id)
    idempotency.keep(session, person, f"ask-{key}", plain, json.dumps({"id": one}))
    return one


def _shown(
    request: Request,
    session: UnitOfWork,
    chosen: Settings,
    visitor: Visitor,
    written: RequestForm,
    *,
    refused: LockboxError | None = None,
    found: Preview | None = None,
    asked: RequestInput | None = None,
) -> HTMLResponse:
    customers = tenants.page(session, visitor.caller, cursor=None, most=MOST_LISTED)
    longest = {one.tenant.slug: one.longest_window or max(WINDOWS) for one in customers.overviews}
    ceiling = found.terms.access_ceiling if found else _ceiling(session, visitor, written.tenant, longest)
    windows = _windows(written.access_window, ceiling)
    wrong = _wrong(refused, found)
    return page(
        request,
        "new_request",
        status_of(refused) if refused else 200,
        visitor=visitor,
        at=now(session),
        written=written,
        customers=[one.tenant for one in customers.overviews],
        has_more=customers.next_cursor is not None,
        services=chosen.catalogue.services,
        actions=_actions(chosen),
        levels=_levels(chosen),
        reasons=list(Reason),
        severities=list(Severity),
        longest=longest,
        windows=windows,
        window=_closest(windows, written.access_window),
        all_windows=_windows(written.access_window, max([ceiling, *longest.values()])),
        case_systems=chosen.catalogue.case_systems,
        duplicate=_duplicate(refused, found),
        refused=refused,
        wrong=wrong,
        found=found,
        asked=asked,
        key=secrets.token_urlsafe(16),
    )


def _ceiling(session: UnitOfWork, visitor: Visitor, slug: str, longest: Mapping[str, int]) -> int:
    """Return the longest window that a customer allows, in seconds; without a customer, the longest of all."""
    if slug in longest:
        return longest[slug]
    try:
        known = tenants.show(session, visitor.caller, slug).longest_window
    except NotFound:
        known = None
    return known or max([*longest.values()], default=max(WINDOWS))


def _closest(windows: Sequence[int], typed: str) -> int:
    """Return the initial window: the chosen one, or the longest offered below it."""
    wanted = int(typed) if _is_seconds(typed) else min(windows)
    return max((one for one in windows if one <= wanted), default=min(windows))


def _windows(typed: str, ceiling: int) -> list[int]:
    """Return the windows to choose from, in seconds, up to the ceiling."""
    offered = {*WINDOWS, *([int(typed)] if _is_seconds(typed) else [])}
    return sorted({one for one in offered if one <= ceiling} | {min(ceiling, max(WINDOWS))})


def _earlier(session: UnitOfWork, visitor: Visitor, request_id: UUID) -> RequestForm:
    """Return one of the person's own requests as form content."""
    entry = queries.find(session, visitor.caller, request_id)
    asked = entry.request
    if asked.requester_id != visitor.caller.person_id:
        raise NotFound(phrases.NO_OWN_REQUEST)
    return RequestForm(
        entry.tenant,
        asked.service,
        "\n".join(asked.resources),
        tuple(asked.actions),
        asked.reason_code,
        asked.justification,
        asked.case_ref or "",
        str(asked.access_window),
        str(asked.max_uses or ""),
        asked.case_system or "",
        asked.case_url or "",
        severity=asked.severity or "",
        parameters={f"{asked.service}:{name}": _typed(value) for name, value in (asked.context or {}).items()},
    )


def _typed(value: ContextValue) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _context(written: RequestForm, services: Mapping[str, Service]) -> dict[str, ContextValue]:
    """Return the parameters of the chosen service that were filled in, as their types have them where they can be."""
    service = services.get(written.service)
    found: dict[str, ContextValue] = {}
    for name, parameter in (service.context.properties if service and service.context else {}).items():
        typed = written.parameters.get(f"{written.service}:{name}", "")
        if not typed:
            continue
        found[name] = typed
        if parameter.type == "boolean" and typed in SWITCHES:
            found[name] = typed == "true"
        if parameter.type == "integer" and WHOLE.fullmatch(typed):
            found[name] = int(typed)
    return found


def _read(written: RequestForm, zone: str, services: Mapping[str, Service]) -> NewRequest:
    """Validate a form with the API's own body; a start is in that time zone."""
    try:
        start = time_zones.instant(written.not_before, zone) if written.not_before else None
    except ValueError:
        errors = [{"field": "not_before", "message": phrases.REQUEST_ADVICE["not_before"]}]
        raise FormRejected(phrases.LOOK_AGAIN, errors=errors) from None
    try:
        return NewRequest.model_validate(
            {
                "tenant": written.tenant,
                "service": written.service,
                "resources": written.lines,
                "actions": list(written.actions),
                "reason_code": written.reason_code,
                "justification": written.justification,
                "case_ref": written.case_ref or None,
                "case_system": (written.case_ref and written.case_system) or None,
                "case_url": written.case_url or None,
                "duplicate_reason": written.duplicate_reason or None,
                "access_window": int(written.access_window) if _is_seconds(written.access_window) else None,
                "not_before": start,
                "break_glass": bool(written.break_glass),
                "context": _context(written, services),
                "severity": written.severity or None,
                "max_uses": int(written.max_uses) if _is_seconds(written.max_uses) else written.max_uses or None,
            }
        )
    except ValidationError as error:
        errors = [{"field": _field(where), "message": _message(where, said)} for where, said in policy_diff.of(error)]
        raise FormRejected(phrases.LOOK_AGAIN, errors=errors) from None


def _field(where: Sequence[int | str]) -> str:
    """Return where it is wrong: a parameter by its name, another list as a whole."""
    return f"context.{where[1]}" if where[0] == "context" and len(where) > 1 else str(where[0])


def _message(where: Sequence[int | str], said: str) -> str:
    field, *rest = where
    plain = phrases.REQUEST_ADVICE.get(str(field)) or said
    line = phrases.LINE.format(number=int(rest[0]) + 1) if field == "resources" and rest else ""
    text = f"{line}{said}" if line else plain
    return f"{text[0].upper()}{text[1:].rstrip('.')}."


def _is_seconds(written: str) -> bool:
    return written.isascii() and written.isdecimal() and len(written) <= MOST_DIGITS and int(written) > 0


def _wrong(refused: LockboxError | None, found: Preview | None) -> FormFields:
    """Return the errors by field: validation errors, or what the customer's policy requires."""
    said = defaultdict[str, list[str]](list)
    facts = refused.facts if refused else {}
    mistakes = [(one["field"], one["message"]) for one in facts.get("errors", ())]
    if refused and not mistakes and "field" in facts:
        mistakes = [(facts["field"], refused.detail)]
    for place, message in (*mistakes, *(found.lacks if found else ())):
        said[place].append(message)
    return dict(said)


def _duplicate(refused: LockboxError | None, found: Preview | None) -> UUID | str | None:
    """Return the open request for the same case and resource, if there is one."""
    return found.duplicate_of if found else refused.facts.get("request_id") if refused else None


def _least(chosen: Settings, named: str) -> tuple[str, ...]:
    """Return what is offered first: the first action that only reads, of the service or of any, if there is one."""
    services = chosen.catalogue.services
    some = [services[named]] if named in services else services.values()
    return tuple(
        next(([one] for service in some for one in service.actions if service.levels[one] is Level.READ), [])
    )


def _actions(chosen: Settings) -> dict[str, list[str]]:
    """Return every action, with the names of the services that have it."""
    known = defaultdict[str, list[str]](list)
    for service in chosen.catalogue.services.values():
        for action in service.actions:
            known[action].append(service.title)
    return dict(known)


def _check_engineer(caller: Caller) -> None:
    """Check that somebody asks for access themselves, as a page has them do.

    Raises:
        NotYours: they are no engineer.
    """
    if not caller.holds(Role.ENGINEER):
        raise NotYours(phrases.ENGINEERS_ONLY)


def _levels(chosen: Settings) -> dict[str, str]:
    """Return for each action its level, the highest where services differ."""
    of = list(chosen.catalogue.services.values())
    return {
        action: max((one.levels[action] for one in of if action in one.actions), key=LEVELS.index).value
        for action in _actions(chosen)
    }
