"""The page of a new request."""

import json
import secrets
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated
from uuid import UUID

from fastapi import Form, Query, Request, Response
from fastapi.responses import HTMLResponse

from api import browser, case_checks
from api.browser import Visitor
from api.call_routes import CallRouter
from api.deps import CallGroupsDep, SessionDep, SettingsDep, submission_limits
from api.portal import form_errors, phrases
from api.portal.form_errors import FormRejected
from api.portal.pages import TAG, FormContext, FormContextDep, go, origin, page, status_of
from api.portal.requests import request_form
from api.portal.requests.request_form import FACT_FIELDS, MINUTE, RequestForm, RequestFormDep
from api.schemas.submissions import request_input
from catalogue.service_catalogue import LEVELS, Level
from config.settings import Settings
from lockbox.admin import tenants
from lockbox.call_groups.groups import CallGroups
from lockbox.database import UnitOfWork, now
from lockbox.errors import Conflict, Invalid, InvalidContext, KeyInUse, LockboxError, NotFound, NotYours, TooMany
from lockbox.facts.enumerations import CaseCheck
from lockbox.identity.roles import Caller, Role
from lockbox.requests import idempotency, preview, submit
from lockbox.requests.case_check import CaseSystemDown, CaseUnchecked
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_parts import DAY, HOUR
from lockbox.requests.preview import Preview
from lockbox.requests.request_input import RequestInput

router = CallRouter(prefix="/ask", tags=[TAG], include_in_schema=False)

MOST_LISTED = 100
WINDOWS = (5 * MINUTE, 15 * MINUTE, 30 * MINUTE, HOUR, 2 * HOUR, 4 * HOUR, 8 * HOUR, DAY, 3 * DAY, 7 * DAY)
KEY = r"[A-Za-z0-9_-]{22}"


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
    """The form is filled in from an earlier request, or from the query with which the gate links to this page."""
    visitor = browser.visitor(request, session, chosen)
    _check_engineer(visitor.caller)
    if earlier:
        return _shown(request, session, chosen, visitor, request_form.earlier(session, visitor, earlier))
    actions, window = [action] if action else _least(chosen, service), str(15 * MINUTE)
    named = RequestForm(tenant=tenant, service=service, resources=resource, actions=actions, access_window=window)
    return _shown(request, session, chosen, visitor, named)


@router.post("/preview")
def look(work: FormContextDep, written: RequestFormDep) -> Response:
    with work.open() as (session, visitor):
        _check_engineer(visitor.caller)
        try:
            services, systems = work.chosen.catalogue.services, work.chosen.catalogue.case_systems
            asked = request_input(request_form.read(written, visitor.time_zone, services), systems)
            found = preview.preview(session, visitor.caller, asked, work.chosen.catalogue.services)
        except Invalid as refused:
            return _shown(work.request, session, work.chosen, visitor, written, refused=refused)
        return _shown(work.request, session, work.chosen, visitor, written, found=found, asked=asked)


@router.post("")
async def send(
    work: FormContextDep,
    written: RequestFormDep,
    groups: CallGroupsDep,
    key: Annotated[str, Form(pattern=rf"^{KEY}$")],
) -> Response:
    """If the same form is sent twice, the request is submitted once."""
    try:
        one = await _filed(work, written, groups, key)
    except (Invalid, NotYours, Conflict, TooMany, KeyInUse, CaseSystemDown) as refused:
        return await groups.run(partial(_refused, work, written, refused))
    return go(work.request, f"/requests/{one}", done=Action.SUBMIT.value)


async def _filed(work: FormContext, written: RequestForm, groups: CallGroups, key: str) -> str:
    file = partial(_file, work, written, key)
    try:
        return await groups.run(file)
    except CaseUnchecked as refused:
        unchecked = refused
    said = await case_checks.confirmed(groups, work.chosen, unchecked)
    return await groups.run(partial(file, case_check=said))


def _refused(work: FormContext, written: RequestForm, refused: LockboxError, session: UnitOfWork) -> Response:
    # Leave the group of calls: the other calls would wait too long while the page is made.
    session.wait()
    visitor = work.visitor(session)
    _check_engineer(visitor.caller)
    return _shown(work.request, session, work.chosen, visitor, written, refused=refused)


def _file(
    work: FormContext,
    written: RequestForm,
    key: str,
    session: UnitOfWork,
    *,
    case_check: CaseCheck | None = None,
) -> str:
    visitor = work.visitor(session)
    _check_engineer(visitor.caller)
    body = request_form.read(written, visitor.time_zone, work.chosen.catalogue.services)
    person, plain = visitor.caller.person_id, b"ask " + body.model_dump_json().encode()
    answer = idempotency.earlier_answer(session, f"ask-{key}", plain)
    if answer is not None:
        return str(UUID(answer["id"]))
    submitted = submit.submit(
        session,
        visitor.caller,
        origin(work.request),
        request_input(body, work.chosen.catalogue.case_systems).checked(case_check),
        work.chosen.catalogue.services,
        limits=submission_limits(work.chosen),
    )
    one = str(submitted.request.id)
    idempotency.keep(session, person, f"ask-{key}", plain, json.dumps({"id": one}))
    return one


def _shown(
    request: Request,
    session: UnitOfWork,
    settings: Settings,
    visitor: Visitor,
    written: RequestForm,
    *,
    refused: LockboxError | None = None,
    found: Preview | None = None,
    asked: RequestInput | None = None,
) -> HTMLResponse:
    if isinstance(refused, InvalidContext):
        # The page shows the error of each parameter at its field.
        refused = FormRejected(phrases.LOOK_AGAIN, errors=refused.facts["errors"])
    customers = tenants.page(session, visitor.caller, cursor=None, most=MOST_LISTED)
    longest = {one.tenant.slug: one.longest_window or max(WINDOWS) for one in customers.overviews}
    ceiling = found.terms.access_ceiling if found else _ceiling(session, visitor, written.tenant, longest)
    windows = _windows(written.access_window, ceiling)
    # Mistakes in the form, and what the request lacks under the customer's policy.
    wrong = form_errors.by_field([*form_errors.mistakes_of(refused), *(found.lacks if found else ())])
    return page(
        request,
        "new_request",
        status_of(refused) if refused else 200,
        visitor=visitor,
        at=now(session),
        written=written,
        customers=[one.tenant for one in customers.overviews],
        has_more=customers.next_cursor is not None,
        services=settings.catalogue.services,
        actions=_actions(settings),
        levels=_levels(settings),
        fact_fields=FACT_FIELDS,
        longest=longest,
        windows=windows,
        window=_closest(windows, written.access_window),
        all_windows=_windows(written.access_window, max([ceiling, *longest.values()])),
        case_systems=settings.catalogue.case_systems,
        duplicate=_duplicate(refused, found),
        refused=refused,
        wrong=wrong,
        found=found,
        asked=asked,
        key=secrets.token_urlsafe(16),
    )


def _ceiling(session: UnitOfWork, visitor: Visitor, slug: str, longest: Mapping[str, int]) -> int:
    """In seconds. Without a chosen customer, the longest window of all customers."""
    if slug in longest:
        return longest[slug]
    try:
        known = tenants.show(session, visitor.caller, slug).longest_window
    except NotFound:
        known = None
    return known or max([*longest.values()], default=max(WINDOWS))


def _closest(windows: Sequence[int], typed: str) -> int:
    wanted = int(typed) if request_form.is_seconds(typed) else min(windows)
    return max((window for window in windows if window <= wanted), default=min(windows))


def _windows(typed: str, ceiling: int) -> list[int]:
    """The windows to offer, in seconds; none is longer than `ceiling`."""
    offered = {*WINDOWS, *([int(typed)] if request_form.is_seconds(typed) else [])}
    return sorted({one for one in offered if one <= ceiling} | {min(ceiling, max(WINDOWS))})


def _duplicate(refused: LockboxError | None, found: Preview | None) -> UUID | str | None:
    return found.duplicate_of if found else refused.facts.get("request_id") if refused else None


def _least(settings: Settings, named: str) -> list[str]:
    services = settings.catalogue.services
    some = [services[named]] if named in services else services.values()
    return next(
        ([action] for service in some for action in service.actions if service.levels[action] is Level.READ), []
    )


def _actions(settings: Settings) -> dict[str, list[str]]:
    """Titles of services by action."""
    known = defaultdict[str, list[str]](list)
    for service in settings.catalogue.services.values():
        for action in service.actions:
            known[action].append(service.title)
    return dict(known)


def _check_engineer(caller: Caller) -> None:
    if not caller.holds(Role.ENGINEER):
        raise NotYours(phrases.ENGINEERS_ONLY)


def _levels(settings: Settings) -> dict[str, str]:
    """Levels by action; the highest if services differ."""
    of = list(settings.catalogue.services.values())
    return {
        action: max((one.levels[action] for one in of if action in one.actions), key=LEVELS.index).value
        for action in _actions(settings)
    }
