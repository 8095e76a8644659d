"""The operations page: the state of the installation and its last day, in counts and ages only."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from api import browser
from api.deps import DatabaseDep, SettingsDep
from api.portal import plots
from api.portal.pages import TAG, page
from api.portal.plots import Plot, Series
from lockbox.database import now
from lockbox.monitoring import status
from lockbox.monitoring.metrics import MOST_SILENT, HourlyCounts
from lockbox.monitoring.status import ProcessHeartbeat
from lockbox.requests.lifecycle import State

router = APIRouter(prefix="/operations", tags=[TAG], include_in_schema=False)

MOST_PAGES = 10_000


<<<<<<< HEAD
=======
@dataclass(frozen=True)
class OperationsFigure:
    """A figure: its label, its value, and whether it is as expected."""

    name: str
    value: str
    is_well: bool = True


>>>>>>> a17b470 (Write the API's docstrings in plain English)
@router.get("")
def show(
    request: Request,
    chosen: SettingsDep,
    db: DatabaseDep,
    failing: Annotated[int, Query(ge=1, le=MOST_PAGES)] = 1,
) -> Response:
    """Show what `lockbox operate status` and the metrics show, and plots of 24 hours."""
    with db.transaction() as session:
        visitor, at = browser.visitor(request, session, chosen), now(session)
    found = status.read_operations(db, visitor.caller, failing_page=failing)
    return page(
        request,
        "operations",
        visitor=visitor,
        at=at,
        stands=found.status,
        states=[(state.value, found.status.states.get(state.value, 0)) for state in State],
        lines=list(status.lines(found.status, found.day.schedule_lag if found.day else None)),
        living=[_life(one) for one in found.status.beats if one.age <= MOST_SILENT],
        silent=[_life(one) for one in found.status.beats if one.age > MOST_SILENT],
        findings=found.findings,
        failing=found.failing,
        failing_page=failing,
        lag=status.lag,
        plots=_plots(found.day) if found.day else [],
        day=found.day,
        flower_url=chosen.flower_url,
    )


<<<<<<< HEAD
=======
def _lines(found: OperationsStatus) -> Iterator[OperationsFigure]:
    of, day = found.status.figures, found.day
    yield OperationsFigure("Windows open", _count(of.one("access_open")))
    yield OperationsFigure(
        "Scheduled steps", _count(sum(of.labelled("pending").values()) if of.postgres is not None else None)
    )
    yield _must_be_none("Overdue steps", of.one("overdue"))
    lag = day.schedule_lag if day else None
    yield OperationsFigure("Schedule lag of the last minute", UNKNOWN if lag is None else plots.lag(lag))
    yield OperationsFigure("Last reconcile", _ago(of.one("heartbeat", ProcessPart.RECONCILE)))
    yield from _notifications(of)
    yield OperationsFigure("Events to seal", _count(of.one("unsealed")))
    yield _within("Seal lag", of.one("seal_lag"), MOST_SEAL_LAG)
    yield OperationsFigure("Newest checkpoint", _ago(of.one("checkpoint_age")))
    yield from _workers(found)
    yield OperationsFigure(
        "Unacknowledged messages", _count(of.redis.unacked) if of.redis else "Redis is away", bool(of.redis)
    )
    missing = sum(number for (_, way), number in of.drift().items() if way == "missing")
    yield OperationsFigure(
        "Missing in the schedule", _count(missing) if of.redis else "Redis is away", bool(of.redis) and not missing
    )


def _notifications(of: MetricSnapshot) -> Iterator[OperationsFigure]:
    """Report the state of mail, which operators fix, and of webhooks, which their owners fix."""
    if of.postgres is None:
        yield OperationsFigure("Mails to send", UNKNOWN)
        yield OperationsFigure("Webhook calls to send", UNKNOWN)
        return
    mail = {name: of.one(name, Channel.MAIL) or 0.0 for name in ("unsent", "oldest_unsent", "dead_lately", "dead")}
    yield OperationsFigure("Mails to send", _count(mail["unsent"]))
    yield _within("Oldest mail to send", mail["oldest_unsent"], MOST_UNSENT_AGE)
    yield _must_be_none("Mails not delivered within a day", mail["dead_lately"])
    yield OperationsFigure("Mails not delivered", _count(mail["dead"]))
    calls = {name: of.one(name, Channel.WEBHOOK) or 0.0 for name in ("unsent", "oldest_unsent", "dead")}
    yield OperationsFigure("Webhook calls to send", _count(calls["unsent"]))
    yield OperationsFigure("Oldest webhook call to send", plots.lag(calls["oldest_unsent"]))
    yield OperationsFigure("Webhook calls not delivered", _count(calls["dead"]))


def _workers(found: OperationsStatus) -> Iterator[OperationsFigure]:
    alive = found.status.figures.labelled("processes")
    for part, name in (
        (ProcessPart.API, "API processes"),
        (ProcessPart.CORE, "Core workers"),
        (ProcessPart.NOTIFICATIONS, "Notifications workers"),
    ):
        number = alive.get(part, 0.0)
        yield OperationsFigure(f"{name} alive", _count(number), bool(number))


>>>>>>> a17b470 (Write the API's docstrings in plain English)
def _life(beat: ProcessHeartbeat) -> tuple[ProcessHeartbeat, str, str]:
    return beat, status.lag(beat.age), f"{round(beat.skew * 1000):+d} ms"


def _plots(day: HourlyCounts) -> Sequence[Plot]:
    filed = [
        Series("Filed", "filed", day.counts("filed")),
        Series("Decided", "decided", day.counts("decided")),
        Series("No answer in time", "timed-out", day.counts("timed_out")),
    ]
    told = [Series("Sent", "sent", day.counts("sent")), Series("Dead", "dead", day.counts("dead"))]
    schedule = [Series("Schedule lag", "schedule", day.worst("schedule_lag"))]
    seal = [Series("Seal lag", "seal", day.worst("seal_lag"))]
    return (
        Plot("requests", "Requests", day.hours, filed, plots.count),
        Plot("notifications", "Notifications", day.hours, told, plots.count),
        Plot("schedule", "Worst schedule lag", day.hours, schedule, status.lag),
        Plot("seal", "Worst seal lag", day.hours, seal, status.lag),
    )
