"""Bodies of the statistics: what became of requests, month by month."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, Field

from api.schemas.parts import PersonView
from config.service_catalogue import Level
from lockbox.admin.statistics import CountedGroup, RequestFigures, Statistics
from lockbox.facts.enumerations import Severity

Count = Annotated[int, Field(ge=0)]


class FiguresView(BaseModel):
    """Counts of requests that reached the customer, by what became of them so far."""

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


class MonthView(BaseModel):
    """The requests that were submitted in one month of UTC."""

    month: Annotated[str, Field(pattern=r"^\d{4}-\d{2}$")]
    figures: FiguresView


class ServiceFiguresView(BaseModel):
    """The requests for one service."""

    service: str
    figures: FiguresView


class EngineerFiguresView(BaseModel):
    """The requests of one engineer."""

    engineer: PersonView
    figures: FiguresView


class ReasonFiguresView(BaseModel):
    """The requests with one reason."""

    reason_code: str
    figures: FiguresView


class SeverityFiguresView(BaseModel):
    """The requests of one severity, or without one."""

    severity: Severity | None
    figures: FiguresView


class LevelFiguresView(BaseModel):
    """The requests of one level; those from before levels have none."""

    level: Level | None
    figures: FiguresView


class StatisticsView(BaseModel):
    """Twelve months of requests, by the month of their submission; the last month goes on.

    At most the newest 10,000 requests are counted. Where that is not all of the twelve months, `counted_from` says
    since when all are counted, and months before it are left out.
    """

    tenant: str | None
    since: datetime
    until: datetime
    counted_from: datetime | None
    total: FiguresView
    months: list[MonthView]
    services: list[ServiceFiguresView]
    engineers: list[EngineerFiguresView]
    reasons: list[ReasonFiguresView]
    severities: list[SeverityFiguresView]
    levels: list[LevelFiguresView]

    @classmethod
    def of(cls, found: Statistics) -> "StatisticsView":
        """Return the body of some statistics."""
        return cls(
            tenant=found.tenant.slug if found.tenant else None,
            since=found.since,
            until=found.until,
            counted_from=found.counted_from,
            total=_figures(found.total),
            months=[MonthView(month=f"{month:%Y-%m}", figures=_figures(one)) for month, one in found.months],
            services=[ServiceFiguresView(service=one.name, figures=_figures(one.figures)) for one in found.services],
            engineers=[_engineer(one, one.id) for one in found.engineers if one.id],
            reasons=[ReasonFiguresView(reason_code=one.name, figures=_figures(one.figures)) for one in found.reasons],
            severities=[
                SeverityFiguresView(severity=Severity(one.name) if one.name else None, figures=_figures(one.figures))
                for one in found.severities
            ],
            levels=[
                LevelFiguresView(level=Level(one.name) if one.name else None, figures=_figures(one.figures))
                for one in found.levels
            ],
        )


def _figures(one: RequestFigures) -> FiguresView:
    return FiguresView(**vars(one))


def _engineer(one: CountedGroup, person_id: UUID) -> EngineerFiguresView:
    return EngineerFiguresView(engineer=PersonView(id=person_id, name=one.name), figures=_figures(one.figures))
