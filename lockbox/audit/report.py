"""The report on one request: who asked, who decided, when it was open, and what was done inside."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from jinja2 import Environment, PackageLoader, StrictUndefined

from lockbox.audit.recorded import Recorded

ACTIVITY = "activity"
LATE = timedelta(hours=1)
"""For how long after a window's end it may still be reported what was done inside."""
OPEN = "active"
ERASED = "erased"
PRINCIPAL = "principal_"
NOBODY = {"clock": "the clock", "owner": "whoever runs the lockbox"}
ENDS = {
    "denied": "denied",
    "cancelled": "withdrawn by the vendor",
    "timed_out": "not answered in time",
    "completed": "given back",
    "revoked": "closed early",
    "expired": "time over",
}
DEEDS = {
    "submit": "asked for it",
    "endorse": "endorsed it",
    "approve": "approved it",
    "deny": "denied it",
    "cancel": "withdrew it",
    "time_out": "ended it: no answer in time",
    "complete": "gave it back",
    "revoke": "closed it early",
    "expire": "ended it: time over",
}
PAGES = Environment(
    loader=PackageLoader("lockbox.audit"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True)
class Step:
    """A move of the request: who made it, in which role and for whom else, and what they said of it."""

    at: datetime
    action: str
    to_state: str | None
    who: str
    role: str
    stands_for: tuple[str, ...]
    comment: str | None
    number: int | None

    @property
    def deed(self) -> str:
        """What was done, in words."""
        return DEEDS.get(self.action, self.action)


@dataclass(frozen=True)
class Use:
    """Something that was done inside the window, as the system that it was done in has reported it.

    `as_asked` is whether the request named that resource and that action.
    """

    first_at: datetime
    last_at: datetime
    method: str
    resource: str | None
    outcome: str
    count: int
    as_asked: bool
    by: str


@dataclass(frozen=True)
class Report:
    """All that somebody has to know who was not there. Fields that were erased, or not for the reader, are None.

    `more` is whether more was done inside than is listed; `sealed` is whether a checkpoint covers every step.
    """

    request_id: UUID
    tenant: str
    service: str
    actions: tuple[str, ...]
    resources: tuple[str, ...]
    reason_code: str
    case_ref: str | None
    justification: str | None
    steps: tuple[Step, ...]
    opened_at: datetime | None
    closed_at: datetime | None
    uses: tuple[Use, ...]
    more: bool

    @property
    def state(self) -> str | None:
        """The state that it is in."""
        return self.steps[-1].to_state

    @property
    def sealed(self) -> bool:
        """Whether each step has its number in the log."""
        return all(step.number is not None for step in self.steps)

    @property
    def ending(self) -> str:
        """How it ended, in words."""
        return ENDS.get(self.state or "", "not over yet")

    @property
    def use(self) -> str:
        """Whether anything was done inside, in a sentence."""
        if self.opened_at is None:
            return "It was never open: nobody got in."
        if not self.uses:
            return "No use was recorded while it was open." if self.closed_at else "No use has been recorded so far."
        times = sum(one.count for one in self.uses)
        counted = f"{'At least ' if self.more else ''}{times} {'action' if times == 1 else 'actions'}"
        return f"{counted} {'was' if times == 1 else 'were'} recorded while it was open."


def report(tenant: str, moves: Iterable[Recorded], used: Sequence[Recorded], *, more: bool = False) -> Report:
    """Return the report on a request, from its moves in order and from what was done inside, the oldest first."""
    steps = list(moves)
    first, said = steps[0], steps[0].said
    resources = first.value("resources")
    opened = next((step.at for step in steps if step.to_state == OPEN), None)
    ended = next((step.at for step in steps if step.from_state == OPEN and step.to_state != OPEN), None)
    return Report(
        request_id=UUID(said["request_id"]),
        tenant=tenant,
        service=said["service"],
        actions=tuple(said["actions"]),
        resources=tuple(json.loads(resources)) if resources else (),
        reason_code=said["reason_code"],
        case_ref=first.value("case_ref"),
        justification=first.value("justification"),
        steps=tuple(map(step, steps)),
        opened_at=opened,
        closed_at=ended,
        uses=tuple(map(use, used)),
        more=more,
    )


def page(found: Report, *, made_at: datetime) -> str:
    """Return the report as a page of HTML that needs nothing else."""
    return PAGES.get_template("report.html").render(report=found, made_at=made_at, moment=moment)


def moment(at: datetime | None) -> str:
    """Return a moment in UTC to the second."""
    return f"{at:%Y-%m-%d %H:%M:%S}Z" if at else "-"


def step(event: Recorded) -> Step:
    """Return a move as a report shows it."""
    others = [value for name, (_, value) in sorted(event.details.items()) if name.startswith(PRINCIPAL)]
    return Step(
        at=event.at,
        action=event.action,
        to_state=event.to_state,
        who=(event.value("name") or ERASED) if event.actor_id else NOBODY[event.actor_role],
        role=event.actor_role,
        stands_for=tuple(others),
        comment=event.value("comment"),
        number=event.number,
    )


def use(event: Recorded) -> Use:
    """Return something that was done inside as a report shows it."""
    said: dict[str, Any] = event.said
    return Use(
        first_at=datetime.fromisoformat(said["first_at"]),
        last_at=datetime.fromisoformat(said["last_at"]),
        method=said["method"],
        resource=event.value("resource"),
        outcome=said["outcome"],
        count=said["count"],
        as_asked=said["as_asked"],
        by=event.value("name") or ERASED,
    )
