"""Monthly counts of a tenant's requests. Only a bounded number of the newest requests is counted."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, Field
from sqlalchemy import Row, text

from catalogue.service_catalogue import LEVELS
from lockbox.admin import permissions, tenants
from lockbox.audit.export import row
from lockbox.database import UnitOfWork, now
from lockbox.errors import Invalid, NotYours
from lockbox.facts.enumerations import Severity
from lockbox.identity import authentication
from lockbox.identity.models import Tenant
from lockbox.identity.roles import Caller, Role

Count = Annotated[int, Field(ge=0)]
MOST_COUNTED = 10_000
"""How many of the newest requests are counted. The SQL reads no more, however long the history is."""
MONTHS = 12
MOST_TOP = 10
READERS = frozenset({Role.TENANT_ADMIN, Role.AUDITOR})
ERASED = "erased"
NEWEST_OF_TENANT = "WHERE tenant_id BETWEEN :tenant_id AND :tenant_id ORDER BY tenant_id DESC, id DESC LIMIT :most"
NEWEST_OF_ALL = f"ORDER BY id DESC LIMIT {MOST_COUNTED}"
# A bound by time would make Postgres read all tenants' requests of that time. So the newest requests are read first
# and then filtered. A generic plan assumes that BETWEEN matches one row in 200. These are fewer rows than are
# counted, so Postgres might read and sort a tenant's whole history. It assumes that an unknown limit stops after a
# tenth of the rows, which makes reading in the index's order cheap.
COUNTED = """
WITH looked AS MATERIALIZED (
    SELECT service, requester_id, reason_code, severity, level, mode, state, break_glass, pre_approval_id,
        created_at, asked_at, opened_at, opens_at, closed_at,
        deadline_at
    FROM requests {newest}
), counted AS MATERIALIZED (
    SELECT date_trunc('month', created_at, 'UTC') AS month, service, requester_id, reason_code, severity, level,
        state, opened_at IS NOT NULL AS was_opened, mode = 'enforce' AND NOT break_glass AS was_asked,
        break_glass AND opened_at IS NOT NULL AS by_break_glass,
        pre_approval_id IS NOT NULL AND opened_at IS NOT NULL AS was_pre_approved,
        CASE WHEN mode = 'enforce' AND NOT break_glass AND pre_approval_id IS NULL
                AND (opened_at IS NOT NULL OR state = 'denied')
            THEN extract(epoch FROM coalesce(opened_at, closed_at) - asked_at) END AS answered_after,
        greatest(0, extract(epoch FROM least(coalesce(closed_at, :at), deadline_at)
            - coalesce(opens_at, opened_at))) AS open_for
    FROM looked WHERE created_at >= :since AND asked_at IS NOT NULL
), grouped AS (
    SELECT month, service, requester_id, reason_code, severity, level,
        grouping(month, service, requester_id, reason_code, severity, level) AS kind,
        count(*) AS requests,
        count(*) FILTER (WHERE was_opened AND was_asked) AS approved,
        count(*) FILTER (WHERE state = 'denied') AS denied,
        count(*) FILTER (WHERE state = 'timed_out') AS timed_out,
        count(*) FILTER (WHERE state = 'cancelled') AS cancelled,
        count(*) FILTER (WHERE state = 'pending') AS pending,
        count(*) FILTER (WHERE was_opened AND NOT was_asked) AS opened_without_approval,
        count(*) FILTER (WHERE by_break_glass) AS opened_by_break_glass,
        count(*) FILTER (WHERE state = 'active') AS active,
        count(*) FILTER (WHERE state = 'completed') AS completed,
        count(*) FILTER (WHERE state = 'revoked') AS revoked,
        count(*) FILTER (WHERE state = 'expired') AS expired,
        percentile_cont(0.5) WITHIN GROUP (ORDER BY answered_after) AS median_answer_seconds,
        coalesce(sum(open_for), 0) AS open_seconds,
        count(*) FILTER (WHERE was_pre_approved) AS pre_approved
    FROM counted GROUP BY GROUPING SETS ((), (month), (service), (requester_id), (reason_code), (severity), (level))
), placed AS (
    SELECT {grouped}, {figures},
        row_number() OVER (PARTITION BY kind ORDER BY requests DESC, service, reason_code, requester_id) AS place
    FROM grouped
)
SELECT {grouped}, {figures}, p.name AS engineer,
    (SELECT count(*) FROM looked) AS looked, (SELECT min(created_at) FROM looked) AS first
FROM placed g LEFT JOIN people p ON p.id = g.requester_id
WHERE g.month IS NOT NULL OR g.place <= {top} ORDER BY g.kind, g.month, g.place
"""
MONTH, SERVICE, ENGINEER, REASON, SEVERITY, LEVEL, TOTAL = 31, 47, 55, 59, 61, 62, 63
"""Values of SQL's grouping(): each set bit stands for a column by which a row is not grouped."""


class RequestFigures(BaseModel, frozen=True):
    """Counts of requests that reached the customer, by their state or outcome.

    `opened_without_approval` counts requests opened in the modes `observe` and `off` or by break-glass;
    `opened_by_break_glass` counts break-glass only. `pending` and `active` requests are not over.
    `median_answer_seconds` is the time from asking the customer to the approval that opened the window, or to the
    denial; None without answers. `pre_approved` counts requests approved in advance.
    """

    requests: Count
    approved: Count
    denied: Count
    timed_out: Count
    cancelled: Count
    pending: Count
    opened_without_approval: Count
    opened_by_break_glass: Count
    active: Count
    completed: Count
    revoked: Count
    expired: Count
    median_answer_seconds: int | None
    open_seconds: Count
    pre_approved: Count


GIVEN = {
    "top": MOST_TOP,
    "grouped": "month, service, requester_id, reason_code, severity, level, kind",
    "figures": ", ".join(RequestFigures.model_fields),
}
OF_TENANT = text(COUNTED.format(newest=NEWEST_OF_TENANT, **GIVEN))
OF_ALL = text(COUNTED.format(newest=NEWEST_OF_ALL, **GIVEN))
NO_REQUESTS = RequestFigures.model_validate(
    {name: None if name == "median_answer_seconds" else 0 for name in RequestFigures.model_fields}
)


@dataclass(frozen=True)
class CountedGroup:
    """`id` is set for engineers.

    `name` is empty for requests without a severity, and for requests made before levels existed.
    """

    name: str
    figures: RequestFigures
    id: UUID | None = None


@dataclass(frozen=True)
class Statistics:
    """Requests submitted in twelve months (UTC), oldest month first; the last month is incomplete.

    `tenant` is None for all tenants. If there were too many requests to count all, `counted_from` is when the oldest
    counted request was submitted, and earlier months are left out.
    """

    tenant: Tenant | None
    since: datetime
    until: datetime
    counted_from: datetime | None
    total: RequestFigures
    months: Sequence[tuple[datetime, RequestFigures]]
    services: Sequence[CountedGroup]
    engineers: Sequence[CountedGroup]
    reasons: Sequence[CountedGroup]
    severities: Sequence[CountedGroup]
    levels: Sequence[CountedGroup]


def read(session: UnitOfWork, caller: Caller, slug: str | None) -> Statistics:
    """Without a slug, return statistics of the caller's only tenant, or of all tenants for the vendor's auditors."""
    authentication.enter(session, caller)
    tenant = _only_tenant(session, caller) if slug is None else permissions.known(session, caller, slug)
    if not caller.holds(Role.VENDOR_AUDITOR) and not (tenant and caller.holds(*READERS, tenant_id=tenant.id)):
        raise NotYours("Only a tenant's admins and auditors, and the vendor's auditors, can read statistics.")
    until = now(session)
    since = _months_before(until, MONTHS - 1)
    values = {"since": since, "at": until} | ({"tenant_id": tenant.id, "most": MOST_COUNTED} if tenant else {})
    rows = session.execute(OF_TENANT if tenant else OF_ALL, values).all()
    return _statistics(tenant, since, until, rows)


def table(found: Statistics) -> Iterator[bytes]:
    columns = list(RequestFigures.model_fields)
    yield row(["group", "name", *columns])
    months = [CountedGroup(f"{month:%Y-%m}", figures) for month, figures in found.months]
    groups = {
        "total": [CountedGroup("", found.total)],
        "month": months,
        "service": found.services,
        "engineer": found.engineers,
        "reason": found.reasons,
        "severity": found.severities,
        "level": found.levels,
    }
    for name, members in groups.items():
        for member in members:
            yield row([name, member.name, *(getattr(member.figures, column) for column in columns)])


def _only_tenant(session: UnitOfWork, caller: Caller) -> Tenant | None:
    if caller.holds(Role.VENDOR_AUDITOR):
        return None
    readable = [one.tenant for one in tenants.own(session, caller) if one.tenant.id in caller.tenants(READERS)]
    if len(readable) > 1:
        raise Invalid("You can read the statistics of several tenants. Name one with `tenant`.", field="tenant")
    return next(iter(readable), None)


def _statistics(tenant: Tenant | None, since: datetime, until: datetime, rows: Sequence[Row[Any]]) -> Statistics:
    (total,) = (one for one in rows if one.kind == TOTAL)
    is_cut = total.looked == MOST_COUNTED and total.first > since
    counted_from = total.first if is_cut else None
    by_month = {one.month.astimezone(UTC): _figures(one) for one in rows if one.kind == MONTH}
    shown = [month for month in _months(since) if counted_from is None or month >= _months_before(counted_from, 0)]
    return Statistics(
        tenant,
        since,
        until,
        counted_from,
        _figures(total),
        [(month, by_month.get(month, NO_REQUESTS)) for month in shown],
        [CountedGroup(one.service, _figures(one)) for one in rows if one.kind == SERVICE],
        [
            CountedGroup(one.engineer or ERASED, _figures(one), one.requester_id)
            for one in rows
            if one.kind == ENGINEER
        ],
        [CountedGroup(one.reason_code, _figures(one)) for one in rows if one.kind == REASON],
        _in_order(Severity, {one.severity: one for one in rows if one.kind == SEVERITY}),
        _in_order(LEVELS, {one.level: one for one in rows if one.kind == LEVEL}),
    )


def _in_order(names: Iterable[str], found: Mapping[str | None, Row[Any]]) -> list[CountedGroup]:
    return [CountedGroup(name or "", _figures(found[name])) for name in (*names, None) if name in found]


def _figures(found: Row[Any]) -> RequestFigures:
    values = {name: getattr(found, name) for name in RequestFigures.model_fields}
    median = values.pop("median_answer_seconds")
    counts = {name: round(value) for name, value in values.items()}
    return RequestFigures(**counts, median_answer_seconds=None if median is None else round(median))


def _months(since: datetime) -> Iterable[datetime]:
    return (_months_before(since, -number) for number in range(MONTHS))


def _months_before(moment: datetime, number: int) -> datetime:
    local = moment.astimezone(UTC)
    year, month = divmod(local.year * 12 + local.month - 1 - number, 12)
    return datetime(year, month + 1, 1, tzinfo=UTC)
