"""The report on a closed window: what the audit log records about it, as a sentence and in full."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from lockbox.audit import event_search, wording
from lockbox.audit.event_search import RecordedEvent
from lockbox.audit.report import ENDS, ERASED, LATE, NOBODY, OPEN, ReportedUse, ReportStep, step, use
from lockbox.audit.verifier.event_checks import MEMBERS, parsed_body
from lockbox.database import UnitOfWork
from lockbox.notifications import mail_text
from lockbox.notifications.mail_text import counted
from lockbox.text_rules import one_line, prose

MOST_USES = 20
WANTED = frozenset({*MEMBERS, "number", "body", "details"})
MOVES = text("""
SELECT e.id, s.number, e.tenant_id, e.request_id, e.seq, e.at, e.action, e.actor_id, e.actor_role, e.from_state,
    e.to_state, e.body, e.deadline_at,
    (SELECT d.fields - '{address,user_agent}'::text[] FROM event_details d WHERE d.event_id = e.id) AS details
FROM events e LEFT JOIN seals s ON s.event_id = e.id
WHERE e.request_id = ANY(:ids) AND e.seq IS NOT NULL ORDER BY e.request_id, e.seq
""")
# Unrequested activity is listed first, however much other activity there is.
USES = text("""
SELECT e.id, NULL AS number, e.tenant_id, e.request_id, e.seq, e.at, e.action, e.actor_id, e.actor_role, e.from_state,
    e.to_state, e.body, e.entries, e.times, e.astray,
    (SELECT d.fields - '{address,user_agent}'::text[] FROM event_details d WHERE d.event_id = e.id) AS details
FROM unnest(CAST(:ids AS uuid[])) AS i (id) CROSS JOIN LATERAL (
    SELECT v.id, v.tenant_id, v.request_id, v.seq, v.at, v.action, v.actor_id, v.actor_role, v.from_state, v.to_state,
        v.body, said ->> 'as_asked' AS as_asked, count(*) OVER () AS entries,
        sum(CAST(said ->> 'count' AS numeric)) OVER () AS times,
        sum(CAST(said ->> 'count' AS numeric)) FILTER (WHERE said ->> 'as_asked' = 'false') OVER () AS astray
    FROM events v CROSS JOIN LATERAL (SELECT CAST(convert_from(v.body, 'UTF8') AS jsonb) AS said OFFSET 0) a
    WHERE v.request_id = i.id AND v.action = 'activity'
    ORDER BY as_asked, v.at, v.id LIMIT :most
) e ORDER BY e.request_id, e.at, e.id
""")
LET_IN = text("SELECT request_id, body FROM events WHERE request_id = ANY(:ids) AND action = 'last_used'")
MOST_STEPS = 20
MOST_PRINCIPALS = 5
LONGEST_COMMENT = 200
LONGEST_RESOURCE = 200
LONGEST_WORD = 60
Time = Callable[[datetime], str]


@dataclass(frozen=True)
class ClosedWindow:
    """A closed window as the customer may see it.

    `shut_at` is when the window stopped granting access; the audit log may record the end later. `entries` is the
    number of activity entries in the audit log, `times` the number of uses that they report, and `astray` how many of
    these uses are outside the request. `uses` are at most `MOST_USES` of the entries, preferably entries outside the
    request. `let_in` is the body of the event about the last use at the gate.
    """

    steps: tuple[ReportStep, ...]
    opened_at: datetime
    shut_at: datetime
    uses: tuple[ReportedUse, ...] = ()
    entries: int = 0
    times: int = 0
    astray: int = 0
    let_in: Mapping[str, Any] = field(default_factory=dict)


def read(session: UnitOfWork, request_ids: Sequence[UUID]) -> dict[UUID, ClosedWindow]:
    if not request_ids:
        return {}
    moves, used = defaultdict[UUID, list[Row[Any]]](list), defaultdict[UUID, list[Row[Any]]](list)
    for row in session.execute(MOVES, {"ids": list(request_ids)}):
        moves[row.request_id].append(row)
    for row in session.execute(USES, {"ids": list(request_ids), "most": MOST_USES}):
        used[row.request_id].append(row)
    let_in = {row.request_id: parsed_body(row.body) for row in session.execute(LET_IN, {"ids": list(request_ids)})}
    found = {one: _closed(rows, used[one], let_in.get(one, {})) for one, rows in moves.items()}
    return {one: closed for one, closed in found.items() if closed}


def _closed(moves: Sequence[Row[Any]], used: Sequence[Row[Any]], let_in: Mapping[str, Any]) -> ClosedWindow | None:
    opening = next((row for row in moves if row.to_state == OPEN), None)
    end = next((row for row in moves if row.from_state == OPEN and row.to_state != OPEN), None)
    if opening is None or end is None:
        return None
    return ClosedWindow(
        steps=tuple(step(_recorded(row)) for row in moves),
        opened_at=_begun(opening),
        shut_at=min(end.at, opening.deadline_at or end.at),
        uses=tuple(use(_recorded(row)) for row in used),
        entries=used[0].entries if used else 0,
        times=int(used[0].times) if used else 0,
        astray=int(used[0].astray or 0) if used else 0,
        let_in=let_in,
    )


def _begun(opening: Row[Any]) -> datetime:
    said = parsed_body(opening.body).get("opens_at")
    return datetime.fromisoformat(said) if isinstance(said, str) else opening.at


def _recorded(row: Row[Any]) -> RecordedEvent:
    """Return an event as its body states it; columns that contradict the body are ignored."""
    facts = {name: value for name, value in row._asdict().items() if name in WANTED}
    return event_search.checked(facts | {"in_place": None})


def summary(closed: ClosedWindow) -> str:
    """Such as `12 actions, 3 of them outside the request`."""
    if not closed.times:
        count = closed.let_in.get("count")
        if not isinstance(count, int):
            return mail_text.NOTHING_REPORTED
        return mail_text.USED_AT_GATE.format(times=counted(mail_text.TIMES, count))
    actions = counted(mail_text.ACTIONS, closed.times)
    if not closed.astray:
        return actions
    outside = mail_text.ALL_OUTSIDE if closed.astray == closed.times else mail_text.SOME_OUTSIDE
    return outside.format(actions=actions, astray=closed.astray)


def said(closed: ClosedWindow, to_state: str, as_of: datetime, time: Time) -> dict[str, Any]:
    """Return the report's values for the mail templates; `as_of` is when the audit log was read."""
    late_until = closed.shut_at + LATE
    return {
        "use": _use(closed),
        "let_in": wording.let_in(closed.let_in, time),
        "astray": closed.astray,
        "ending": ENDS[to_state],
        "opened_at": time(closed.opened_at),
        "shut_at": time(closed.shut_at),
        "as_of": time(as_of),
        "late_until": time(late_until) if as_of < late_until else None,
        "steps": [_step(one, time) for one in closed.steps[:MOST_STEPS]],
        "further_steps": max(len(closed.steps) - MOST_STEPS, 0),
        "uses": [_line(one, time) for one in closed.uses],
        "further_uses": closed.entries - len(closed.uses),
        "sealed": _sealed(closed),
    }


def _use(closed: ClosedWindow) -> str:
    if not closed.times:
        return mail_text.NO_USE
    actions = counted(mail_text.ACTIONS, closed.times)
    if not closed.astray:
        use_as = mail_text.USE_AS_REQUESTED
    else:
        use_as = mail_text.USE_OUTSIDE if closed.astray == closed.times else mail_text.USE_PARTLY_OUTSIDE
    return use_as.format(reported=counted(mail_text.REPORTED, closed.times, actions=actions), astray=closed.astray)


def _step(one: ReportStep, time: Time) -> dict[str, str]:
    return {
        "when": time(one.at),
        "who": one_line(one.who),
        "role": "" if one.role in NOBODY else one.role.replace("_", " "),
        "principals": ", ".join(map(one_line, one.principals[:MOST_PRINCIPALS])),
        "deed": one.deed,
        "comment": _cut(prose(one.comment)) if one.comment else "",
    }


def _cut(words: str) -> str:
    return words if len(words) <= LONGEST_COMMENT else f"{words[: LONGEST_COMMENT - 1]}\N{HORIZONTAL ELLIPSIS}"


def _line(one: ReportedUse, time: Time) -> dict[str, Any]:
    return {
        "since": time(one.first_at),
        "until": time(one.last_at) if one.last_at != one.first_at else None,
        "method": one_line(one.method, LONGEST_WORD),
        "resource": one_line(one.resource, LONGEST_RESOURCE) if one.resource else ERASED,
        "times": counted(mail_text.OFTEN, one.count),
        "outcome": one_line(one.outcome, LONGEST_WORD),
        "as_asked": one.as_asked,
        "by": one_line(one.by),
    }


def _sealed(closed: ClosedWindow) -> str:
    numbers = [one.number for one in closed.steps if one.number is not None]
    return ", ".join(map(str, numbers[:MOST_STEPS])) if len(numbers) == len(closed.steps) else ""
