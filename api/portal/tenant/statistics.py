"""The statistics page of twelve months."""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated
from uuid import UUID

from fastapi import Query, Request, Response
from pydantic import TypeAdapter, ValidationError

from api import browser
from api.browser import Visitor
from api.call_routes import CallRouter
from api.csv_answers import statistics_csv
from api.deps import SessionDep, SettingsDep
from api.portal import charts, phrases
from api.portal.charts import MONTHS, Chart, Series
from api.portal.pages import NO_PAGE, TAG, page, protect
from api.schemas.parts import Slug
from lockbox.admin import statistics, tenants
from lockbox.admin.statistics import READERS, RequestFigures, Statistics
from lockbox.database import UnitOfWork
from lockbox.errors import NotFound
from lockbox.identity.models import Tenant
from lockbox.identity.roles import Role
from lockbox.monitoring import status

router = CallRouter(prefix="/statistics", tags=[TAG], include_in_schema=False)

MOST_TENANTS = 200
SLUG = TypeAdapter[str](Slug)

TenantField = Annotated[str, Query(max_length=200)]


@router.get("")
def show_statistics(request: Request, chosen: SettingsDep, session: SessionDep, tenant: TenantField = "") -> Response:
    visitor = browser.visitor(request, session, chosen)
    readable = _readable(session, visitor)
    found = statistics.read(session, visitor.caller, _slug(visitor, readable, tenant))
    return page(
        request,
        "statistics",
        visitor=visitor,
        found=found,
        readable=readable,
        is_vendors=visitor.caller.holds(Role.VENDOR_AUDITOR),
        charts=_charts(found),
        titles=chosen.catalogue.titles,
        most=statistics.MOST_COUNTED,
        hours=hours,
        lag=status.lag,
    )


@router.get("/export", tags=[NO_PAGE])
def export_statistics(
    request: Request, chosen: SettingsDep, session: SessionDep, tenant: TenantField = ""
) -> Response:
    visitor = browser.visitor(request, session, chosen)
    slug = _slug(visitor, _readable(session, visitor), tenant)
    answer = statistics_csv(statistics.read(session, visitor.caller, slug))
    protect(request, answer)
    return answer


def hours(seconds: float) -> str:
    return f"{seconds / 3600:,.1f} h"


def _readable(session: UnitOfWork, visitor: Visitor) -> Mapping[UUID, Tenant]:
    caller = visitor.caller
    if caller.holds(Role.VENDOR_AUDITOR):
        some = tenants.page(session, caller, cursor=None, most=MOST_TENANTS).overviews
        return {one.tenant.id: one.tenant for one in some}
    held = caller.tenants(READERS)
    return {one.tenant.id: one.tenant for one in tenants.own(session, caller) if one.tenant.id in held}


def _slug(visitor: Visitor, readable: Mapping[UUID, Tenant], typed: str) -> str | None:
    """None means all tenants, for an auditor of the vendor."""
    if not typed.strip():
        is_all = visitor.caller.holds(Role.VENDOR_AUDITOR) or not readable
        return None if is_all else next(iter(readable.values())).slug
    try:
        return SLUG.validate_python(typed.strip())
    except ValidationError:
        raise NotFound(phrases.NO_TENANT) from None


def _charts(found: Statistics) -> Sequence[Chart]:
    times = [month for month, _ in found.months]

    def series(name: str, kind: str, read: Callable[[RequestFigures], float | None]) -> Series:
        return Series(name, kind, [read(figures) for _, figures in found.months])

    answers = [
        series(phrases.REQUESTS, "submitted", lambda one: one.requests),
        series(phrases.APPROVED, "decided", lambda one: one.approved),
        series(phrases.DENIED, "dead", lambda one: one.denied),
        series(phrases.TIMED_OUT, "unanswered", lambda one: one.timed_out),
    ]
    ends = [
        series(phrases.COMPLETED, "decided", lambda one: one.completed),
        series(phrases.EXPIRED, "unanswered", lambda one: one.expired),
        series(phrases.REVOKED, "dead", lambda one: one.revoked),
    ]
    answer_time = [series(phrases.MEDIAN_ANSWER, "submitted", lambda one: one.median_answer_seconds)]
    open_time = [series(phrases.ACCESS_OPEN, "decided", lambda one: one.open_seconds)]
    return (
        Chart("answers", phrases.REQUESTS_AND_ANSWERS, times, answers, charts.count, MONTHS),
        Chart("ends", phrases.HOW_ACCESS_ENDED, times, ends, charts.count, MONTHS),
        Chart("answer-time", phrases.MEDIAN_ANSWER, times, answer_time, status.lag, MONTHS),
        Chart("open-time", phrases.HOURS_OPEN, times, open_time, hours, MONTHS),
    )
