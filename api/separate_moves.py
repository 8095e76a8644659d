"""Act on several requests, each in a transaction of its own, and keep why each that was refused was."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeVar
from uuid import UUID

from fastapi import Request
from sqlalchemy.exc import DBAPIError

from api.problems import IN_USE, is_contended
from api.refusal_log import AttemptedAction, note
from lockbox.database import UnitOfWork
from lockbox.errors import Busy, Conflict, Invalid, LockboxError, NotFound, NotYours
from lockbox.identity.roles import Caller
from lockbox.requests import decide
from lockbox.requests.decisions import DecisionInput
from lockbox.requests.queries import RequestEntry
from lockbox.requests.transition import Origin

Shown = TypeVar("Shown")
Opened = Callable[[], AbstractContextManager[tuple[UnitOfWork, Caller]]]
"""Opens a transaction, and says who acts in it."""


def attempt(
    request: Request,
    opened: Opened,
    came: Origin,
    request_id: UUID,
    decision_input: DecisionInput,
    *,
    shown: Callable[[RequestEntry, Caller], Shown],
) -> Shown | LockboxError:
    """Act on one request; return what is shown of it then, or why it was refused, which is noted.

    Raises:
        NotSignedIn: nobody is signed in.
    """
    try:
        with opened() as (session, caller):
            request.state.tried = AttemptedAction(caller, came, request_id, decision_input.action)
            entry = decide.act_and_show(session, caller, came, request_id, decision_input)
        return shown(entry, caller)
    except (Conflict, NotYours, Invalid, NotFound) as refused:
        note(request, refused)
        return refused
    except DBAPIError as error:
        if not is_contended(error):
            raise
        return Busy(IN_USE)
