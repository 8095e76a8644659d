"""The report on a closed window: its use in a sentence, who did what, and the recorded activity."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from lockbox.audit.closed_windows import ClosedWindow
from lockbox.audit.report import ENDS, ERASED, LATE, NOBODY, ReportedUse, ReportStep
from lockbox.notifications.mail_text import one_line, prose

MOST_STEPS = 20
MOST_PRINCIPALS = 5
LONGEST_COMMENT = 200
LONGEST_RESOURCE = 200
LONGEST_WORD = 60

Time = Callable[[datetime], str]


def summary(closed: ClosedWindow) -> str:
    """Return the activity in a few words, such as `12 actions, 3 of them not asked for`."""
    if not closed.times:
        return "no use reported"
    said = _actions(closed.times)
    if closed.astray == closed.times:
        return f"{said}, not asked for"
    return f"{said}, {closed.astray:,} of them not asked for" if closed.astray else said


def said(closed: ClosedWindow, to_state: str, as_of: datetime, time: Time) -> dict[str, Any]:
    """Return the variables of the templates for a window.

    Args:
        closed: the window.
        to_state: how it ended.
        as_of: when the trail was read.
        time: tells a moment to the reader.
    """
    late_until = closed.shut_at + LATE
    return {
        "use": _use(closed),
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
        return "No use was reported while it was open."
    was = "was" if closed.times == 1 else "were"
    return f"{_actions(closed.times)} {was} reported while it was open{_beside(closed)}."


def _beside(closed: ClosedWindow) -> str:
    if not closed.astray:
        return ", as it was asked for"
    if closed.astray == closed.times:
        return ", and not as it was asked for"
    return f"; {closed.astray:,} of them not as it was asked for"


def _actions(times: int) -> str:
    return f"{times:,} {'action' if times == 1 else 'actions'}"


def _step(one: ReportStep, time: Time) -> dict[str, str]:
    return {
        "when": time(one.at),
        "who": one_line(one.who),
        "role": "" if one.role in NOBODY else one.role.replace("_", " "),
        "principals": ", ".join(map(one_line, one.stands_for[:MOST_PRINCIPALS])),
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
        "times": "once" if one.count == 1 else f"{one.count:,} times",
        "outcome": one_line(one.outcome, LONGEST_WORD),
        "as_asked": one.as_asked,
        "by": one_line(one.by),
    }


def _sealed(closed: ClosedWindow) -> str:
    numbers = [one.number for one in closed.steps if one.number is not None]
    return ", ".join(map(str, numbers[:MOST_STEPS])) if len(numbers) == len(closed.steps) else ""
