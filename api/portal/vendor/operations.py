"""The operations page: the installation and its last day. It shows only counts and ages."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import Query, Request, Response

from api import browser
from api.call_routes import CallRouter
from api.deps import DatabaseDep, SettingsDep
from api.portal import charts, phrases
from api.portal.charts import Chart, Series
from api.portal.pages import TAG, page
from lockbox.database import now
from lockbox.monitoring import metrics, operations, status
from lockbox.monitoring.metrics import MOST_SILENT, HourlyCounts
from lockbox.monitoring.status import ProcessHeartbeat

router = CallRouter(prefix="/operations", tags=[TAG], include_in_schema=False)

MOST_PAGES = 10_000
PAGES_OF = {status.GATES_REPORTING: "/gates", status.LEGAL_HOLDS: "/data", status.OFFBOARDINGS: "/data"}
"""The pages with details about a status line."""


@router.get("")
def show(
    request: Request,
    chosen: SettingsDep,
    db: DatabaseDep,
    failing: Annotated[int, Query(ge=1, le=MOST_PAGES)] = 1,
) -> Response:
    with db.transaction() as session:
        visitor, at = browser.visitor(request, session, chosen), now(session)
    found = operations.read_operations(db, visitor.caller, failing_page=failing)
    return page(
        request,
        "operations",
        visitor=visitor,
        at=at,
        stands=found.status,
        states=[(state, metrics.at_most(number)) for state, number in found.status.states.items()],
        pages_of=PAGES_OF,
        lines=list(status.lines(found.status, found.day.schedule_lag if found.day else None)),
        living=[_life(beat) for beat in found.status.beats if beat.age <= MOST_SILENT],
        silent=[_life(beat) for beat in found.status.beats if beat.age > MOST_SILENT],
        findings=found.findings,
        failing=found.failing,
        failing_page=failing,
        lag=status.lag,
        charts=_charts(found.day) if found.day else [],
        day=found.day,
        gate=metrics.read_gate(db),
        flower_url=chosen.flower_url,
    )


def _life(beat: ProcessHeartbeat) -> tuple[ProcessHeartbeat, str, str]:
    return beat, status.lag(beat.age), f"{round(beat.skew * 1000):+d} ms"


def _charts(day: HourlyCounts) -> Sequence[Chart]:
    submitted = [
        Series(phrases.SUBMITTED, "submitted", day.counts("submitted")),
        Series(phrases.DECIDED, "decided", day.counts("decided")),
        Series(phrases.TIMED_OUT, "timed-out", day.counts("timed_out")),
    ]
    notifications = [
        Series(phrases.SENT, "sent", day.counts("sent")),
        Series(phrases.DEAD, "dead", day.counts("dead")),
    ]
    schedule = [Series(phrases.SCHEDULE_LAG, "schedule", day.worst("schedule_lag"))]
    seal = [Series(phrases.SEAL_LAG, "seal", day.worst("seal_lag"))]
    return (
        Chart("requests", phrases.REQUESTS, day.hours, submitted, charts.count),
        Chart("notifications", phrases.NOTIFICATIONS, day.hours, notifications, charts.count),
        Chart("schedule", phrases.WORST_SCHEDULE_LAG, day.hours, schedule, status.lag),
        Chart("seal", phrases.WORST_SEAL_LAG, day.hours, seal, status.lag),
    )
