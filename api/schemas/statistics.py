"""Response bodies for statistics of requests."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from api.schemas.parts import PersonView
from catalogue.service_catalogue import Level
from lockbox.admin.statistics import CountedGroup, RequestFigures, Statistics
from lockbox.facts.enumerations import Severity


class FiguresView(RequestFigures):
    """Counts of requests that reached the customer, by what became of them so far."""

    model_config = ConfigDict(from_attributes=True)


class MonthView(BaseModel):
    """Figures of the requests that were submitted in one month, in UTC."""

    month: Annotated[str, Field(pattern=r"^\d{4}-\d{2}$")]
    figures: FiguresView


class ServiceFiguresView(BaseModel):
    """Figures of the requests for one service."""

    service: str
    figures: FiguresView


class EngineerFiguresView(BaseModel):
    """Figures of one engineer's requests."""

    engineer: PersonView
    figures: FiguresView


class ReasonFiguresView(BaseModel):
    """Figures of the requests with one reason."""

    reason_code: str
    figures: FiguresView


class SeverityFiguresView(BaseModel):
    """Figures of the requests of one severity, or without one."""

    severity: Severity | None
    figures: FiguresView


class LevelFiguresView(BaseModel):
    """Figures of the requests of one level; null is for requests made before levels existed."""

    level: Level | None
    figures: FiguresView


class StatisticsView(BaseModel):
    """Twelve months of requests, by the month of their submission; the last month is not over yet.

    At most the newest 10,000 requests are counted. If they do not cover the twelve months, `counted_from` says since
    when all requests are counted, and months before that are left out.
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
        lists = {
            "months": [{"month": f"{month:%Y-%m}", "figures": figures} for month, figures in found.months],
            "services": _groups(found.services, "service"),
            "engineers": [
                {"engineer": {"id": engineer.id, "name": engineer.name}, "figures": engineer.figures}
                for engineer in found.engineers
                if engineer.id
            ],
            "reasons": _groups(found.reasons, "reason_code"),
            "severities": _groups(found.severities, "severity"),
            "levels": _groups(found.levels, "level"),
        }
        return cls.model_validate(vars(found) | lists | {"tenant": found.tenant.slug if found.tenant else None})


def _groups(found: Sequence[CountedGroup], name: str) -> list[dict[str, object]]:
    return [{name: one.name or None, "figures": one.figures} for one in found]
