"""Report on one request: who asked, who decided, when access was open, and what was done inside."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from jinja2 import Environment, PackageLoader, StrictUndefined
from pydantic import BaseModel

from lockbox.audit.event_search import RecordedEvent
from lockbox.audit.reported_mails import ReportedMails, mailed
from lockbox.audit.verifier.approval_checks import OPENS_AT, SUBMISSION
from lockbox.audit.verifier.event_checks import submitted

ACTIVITY = "activity"
FIRST_USED, LAST_USED = "first_used", "last_used"
USES_SETTLE = timedelta(seconds=30)
"""How long after a window's end its last use is reported: until then, a gate may still write its counts."""
LATE = timedelta(hours=1)
"""For how long after a window's end activity may still be reported."""
OPEN, ERASED = "active", "erased"
PRINCIPAL = "principal_"
ENGINEER = "engineer_"
"""The beginning of the names of the fields with engineers' names; a number follows it."""
NOBODY = {"clock": "the clock", "owner": "the owner of the installation"}
ENDS = {
    "denied": "denied",
    "cancelled": "cancelled by the vendor",
    "timed_out": "timed out",
    "completed": "completed",
    "revoked": "revoked",
    "expired": "expired",
}
DEEDS = {
    "submit": "submitted it",
    "endorse": "endorsed it",
    "approve": "approved it",
    "break_glass": "opened it by break-glass",
    "deny": "denied it",
    "cancel": "cancelled it",
    "time_out": "timed it out",
    "complete": "completed it",
    "revoke": "revoked it",
    "expire": "ended it at its deadline",
    "question": "asked",
    "answer": "answered",
}
CONVERSED = ("question", "answer")
PAGES = Environment(
    loader=PackageLoader("lockbox.audit"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True)
class ReportStep:
    at: datetime
    action: str
    from_state: str | None
    to_state: str | None
    who: str
    role: str
    principals: tuple[str, ...]
    comment: str | None
    number: int | None

    @property
    def deed(self) -> str:
        return DEEDS.get(self.action, self.action)


@dataclass(frozen=True)
class ReportedUse:
    """An activity inside the window, as the gateway reported it.

    `as_asked` is whether the request names that resource and that action.
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
class RequestRecord:
    """A request's row, which stands in for moves that the audit log no longer has.

    `moves` counts all moves of the request.
    """

    request_id: UUID
    service: str
    actions: tuple[str, ...]
    resources: tuple[str, ...]
    reason_code: str
    state: str
    moves: int
    opened_at: datetime | None
    closed_at: datetime | None


class ReportedRequest(BaseModel, frozen=True):
    """None stands for values that were erased or are hidden from the reader.

    `opened_at` is None if the window ended before its planned start. `granted_actions` and `granted_resources` are
    what was granted, if less than asked. `more` is whether there was more activity than listed. `lost` lists the
    numbers of moves missing from the audit log; the request's row stands in for them. `altered` lists the events
    whose columns contradict the body, or whose body is not the sealed one.
    """

    request_id: UUID
    tenant: str
    service: str
    actions: tuple[str, ...]
    resources: tuple[str, ...]
    reason_code: str
    case_ref: str | None
    case_system: str | None
    case_url: str | None
    justification: str | None
    opened_at: datetime | None
    closed_at: datetime | None
    mails: tuple[ReportedMails, ...]
    uses: tuple[ReportedUse, ...]
    more: bool
    state: str
    lost: tuple[int, ...]
    altered: tuple[UUID, ...]
    granted_actions: tuple[str, ...] | None
    granted_resources: tuple[str, ...] | None


class Report(ReportedRequest):
    """`let_in` is a sentence about how often the gate let the engineer in."""

    steps: tuple[ReportStep, ...]
    questions: tuple[ReportStep, ...]
    let_in: str

    @property
    def sealed(self) -> bool:
        """Whether each step exists, has its number in the log, and is unchanged since it was sealed."""
        return not self.lost and not self.altered and all(step.number is not None for step in self.steps)

    @property
    def asker(self) -> ReportStep | None:
        return next((step for step in self.steps if step.from_state is None), None)

    @property
    def ending(self) -> str:
        return ENDS.get(self.state, "not ended yet")

    @property
    def use(self) -> str:
        if self.opened_at is None:
            return "It was never open: nobody had access."
        if not self.uses and self.lost:
            return "It was open; its activity may be missing from the audit log, as its moves are."
        if not self.uses:
            return (
                "No activity was recorded while it was open."
                if self.closed_at
                else "No activity has been recorded so far."
            )
        times = sum(one.count for one in self.uses)
        counted = f"{'At least ' if self.more else ''}{times} {'action' if times == 1 else 'actions'}"
        return f"{counted} {'was' if times == 1 else 'were'} recorded while it was open."


def report(
    tenant: str,
    moves: Iterable[RecordedEvent],
    used: Sequence[RecordedEvent],
    *,
    asked: Sequence[RecordedEvent] = (),
    told: Sequence[RecordedEvent] = (),
    more: bool = False,
    kept: RequestRecord | None = None,
    let_in: str = "",
) -> Report:
    """`moves` are in order, `used` oldest first.

    `asked` are the request's questions and answers. `told` are the events that record who was notified. `kept` is the
    request's row; without it, the moves must include the submission.
    """
    events = list(moves)
    first = next((event for event in events if event.from_state is None or SUBMISSION in event.said), None)
    asked_for = _asked(first) if first else None
    steps = (*_submitted(first), *map(step, events))
    lost = _lost(events, kept)
    known = kept if kept and lost else None
    opening = next((event for event in events if event.to_state == OPEN), None)
    ended = next(
        (one.at for one in steps if one.from_state == OPEN != one.to_state), known.closed_at if known else None
    )
    begins = _opens_at(opening) if opening else known.opened_at if known else None
    opened = None if begins and ended and ended <= begins else begins
    facts = asked_for or (vars(kept) if kept else {})
    return Report(
        tenant=tenant,
        **{name: facts[name] for name in ("request_id", "service", "actions", "resources", "reason_code")},
        case_ref=first.value("case_ref") if first else None,
        case_system=facts.get("case_system"),
        case_url=first.value("case_url") if first else None,
        justification=first.value("justification") if first else None,
        steps=steps,
        opened_at=opened,
        closed_at=ended if opened else None,
        uses=tuple(map(use, used)),
        more=more,
        state=(known.state if known else steps[-1].to_state) or "",
        lost=lost,
        altered=tuple(event.id for event in (*events, *asked, *told, *used) if event.altered),
        questions=tuple(map(step, asked)),
        mails=_mails((*events, *asked), told),
        let_in=let_in,
        granted_actions=_granted_actions(opening),
        granted_resources=_granted_resources(opening),
    )


def _opens_at(opening: RecordedEvent) -> datetime:
    return _moment(opening.said.get(OPENS_AT), opening.at)


def _granted_actions(opening: RecordedEvent | None) -> tuple[str, ...] | None:
    return _texts(opening.said.get("granted_actions")) if opening else None


def _granted_resources(opening: RecordedEvent | None) -> tuple[str, ...] | None:
    named = opening.value("granted_resources") if opening else None
    return _texts(_read(named)) if named else None


def _asked(first: RecordedEvent) -> dict[str, Any] | None:
    resources = first.value("resources")
    match submitted(first.said):
        case {"service": str(service), "actions": list(actions), "reason_code": str(reason)}:
            return {
                "request_id": first.request_id,
                "service": service,
                "actions": _texts(actions) or (),
                "resources": (_texts(_read(resources)) if resources else None) or (),
                "reason_code": reason,
                "case_system": submitted(first.said).get("case_system"),
            }
    return None


def _submitted(first: RecordedEvent | None) -> Iterator[ReportStep]:
    said = first.said.get(SUBMISSION) if first else None
    if first is None or not isinstance(said, dict):
        return
    yield ReportStep(
        at=_moment(said.get("at"), first.at),
        action="submit",
        from_state=None,
        to_state="reviewing",
        who=first.value("engineer") or ERASED,
        role="engineer",
        principals=(),
        comment=None,
        number=first.number,
    )


def _read(named: str) -> object:
    try:
        return json.loads(named)
    except ValueError:
        return None


def _texts(named: object) -> tuple[str, ...] | None:
    return (tuple(map(str, named)) or None) if isinstance(named, list) else None


def _lost(events: Iterable[RecordedEvent], kept: RequestRecord | None) -> tuple[int, ...]:
    there: set[int] = set()
    for event in events:
        if isinstance(seq := event.said.get("seq"), int):
            # Moves before the customer was asked are in the vendor's log; this event contains their hash.
            there |= {*range(1, seq), seq} if SUBMISSION in event.said else {seq}
    most = kept.moves if kept else max(there, default=0)
    return tuple(number for number in range(1, most + 1) if number not in there)


def page(found: Report, *, made_at: datetime) -> str:
    return PAGES.get_template("report.html").render(report=found, made_at=made_at, moment=moment)


def moment(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}Z" if at else "-"


def step(event: RecordedEvent) -> ReportStep:
    others = [value for name, value in sorted(event.personal.items()) if name.startswith(PRINCIPAL)]
    return ReportStep(
        at=event.at,
        action=event.action,
        from_state=event.from_state,
        to_state=event.to_state,
        who=(event.value("name") or ERASED) if event.actor_id else NOBODY.get(event.actor_role, ERASED),
        role=event.actor_role,
        principals=tuple(others),
        comment=event.value("comment"),
        number=event.number,
    )


def use(event: RecordedEvent) -> ReportedUse:
    said = event.said
    count, as_asked = said.get("count"), said.get("as_asked")
    return ReportedUse(
        first_at=_moment(said.get("first_at"), event.at),
        last_at=_moment(said.get("last_at"), event.at),
        method=str(said.get("method", ERASED)),
        resource=event.value("resource"),
        outcome=str(said.get("outcome", ERASED)),
        count=count if isinstance(count, int) else 1,
        as_asked=as_asked is True,
        by=event.value("name") or ERASED,
    )


def _moment(said: object, otherwise: datetime) -> datetime:
    try:
        return datetime.fromisoformat(said) if isinstance(said, str) else otherwise
    except ValueError:
        return otherwise


def _mails(steps: Iterable[RecordedEvent], told: Iterable[RecordedEvent]) -> tuple[ReportedMails, ...]:
    deeds = {str(event.id): DEEDS.get(event.action, event.action) for event in steps}
    return tuple(
        ReportedMails(
            event.at,
            None if "template" in event.said else deeds.get(str(event.said.get("of_event"))),
            mailed(event.said, event.personal),
        )
        for event in told
    )
