"""Act on a request from a list, with the API's validation."""

from dataclasses import dataclass
from uuid import UUID

from pydantic import ValidationError

from api.portal.account import AccountContext
from api.portal.pages import origin
from api.refusal_log import AttemptedAction, note
from api.schemas.requests import CommentInput
from lockbox.errors import Conflict, Invalid, LockboxError, NotYours
from lockbox.requests import decide, policy_diff
from lockbox.requests.decisions import DecisionInput
from lockbox.requests.lifecycle import Action


@dataclass(frozen=True)
class RefusedListAction:
    """A refused action on a request of a list, and the content of its form."""

    request_id: UUID
    action: str
    why: LockboxError
    comment: str


def do(work: AccountContext, request_id: UUID, action: Action, comment: str, version: int) -> LockboxError | None:
    """Act on a request for the sender of a form; return the refusal, if any.

    Raises:
        NotFound: there is no such request that they may see.
        NotSignedIn: nobody is signed in.
    """
    try:
        verdict = DecisionInput(action, comment_of(comment), version=version)
        with work.open() as (session, visitor):
            came = origin(work.request)
            work.request.state.tried = AttemptedAction(visitor.caller, came, request_id, action)
            decide.act(session, visitor.caller, came, request_id, verdict)
    except (Conflict, NotYours, Invalid) as refused:
        note(work.request, refused)
        return refused
    return None


def comment_of(typed: str) -> str | None:
    """Return the comment of an action, or nothing.

    Raises:
        Invalid: the API would refuse it.
    """
    try:
        return CommentInput(comment=typed.replace("\r\n", "\n").strip() or None).comment
    except ValidationError as error:
        raise Invalid(f"Not accepted: {policy_diff.advice(error)}.", field="comment") from None
