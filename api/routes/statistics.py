"""Routes for statistics by month."""

from fastapi import Response

from api.call_routes import CallRouter
from api.csv_answers import statistics_csv
from api.deps import CurrentUser, SessionDep
from api.schemas.parts import Slug, problems
from api.schemas.statistics import StatisticsView
from lockbox.admin import statistics

router = CallRouter(prefix="/v1/statistics", tags=["audit"])


@router.get("", responses=problems(404))
def get_statistics(who: CurrentUser, session: SessionDep, tenant: Slug | None = None) -> StatisticsView:
    """Count a tenant's requests of the last twelve months, for its admins and auditors and the vendor's auditors.

    Without `tenant`, the caller's only tenant is counted, or all tenants for an auditor of the vendor. At most the
    newest 10,000 requests are counted; if there are more, `counted_from` says from when on.
    """
    return StatisticsView.of(statistics.read(session, who, tenant))


@router.get("/export", response_class=Response, responses=problems(404) | {200: {"content": {"text/csv": {}}}})
def export_statistics(who: CurrentUser, session: SessionDep, tenant: Slug | None = None) -> Response:
    """Export the statistics as CSV: rows for all requests, each month, service, engineer, reason, severity, level."""
    return statistics_csv(statistics.read(session, who, tenant))
