"""Act on several requests, each in a transaction of its own."""

from collections.abc import Callable
from typing import TypeVar
from uuid import UUID

from fastapi import Request
from sqlalchemy.exc import DBAPIError

from api.problems import IN_USE, is_contended
from api.refusal_log import AttemptedAction, note
from lockbox.audit.events import Origin
from lockbox.database import Database, UnitOfWork
from lockbox.errors import Busy, Conflict, Invalid, LockboxError, NotFound, NotYours
from lockbox.identity.roles import Caller
from lockbox.requests import decide
from lockbox.requests.decision_context import DecisionInput
from lockbox.requests.models import RequestEntry
from lockbox.use_cases import run_alone

Shown = TypeVar("Shown")


def attempt(
    request: Request,
    db: Database,
    who: Callable[[UnitOfWork], Caller],
    request_id: UUID,
    decision_input: DecisionInput,
    *,
    origin: Origin,
    shown: Callable[[RequestEntry, Caller], Shown],
) -> Shown | LockboxError:
    """Return what `shown` makes of the changed request, or the refusal, which is recorded."""

    def judge(session: UnitOfWork) -> Shown:
        caller = who(session)
        request.state.tried = AttemptedAction(caller, origin, request_id, decision_input.action)
        return shown(decide.act_and_show(session, caller, origin, request_id, decision_input), caller)

    try:
        return run_alone(db, judge)
    except (Conflict, NotYours, Invalid, NotFound) as refused:
        note(request, refused)
        return refused
    except DBAPIError as error:
        if not is_contended(error):
            raise
        return Busy(IN_USE)
