"""What somebody does to a request from a list of them: read by the rules of the API, and done by the house."""

from dataclasses import dataclass
from uuid import UUID

from pydantic import ValidationError

from api.portal.account import Desk
from api.portal.pages import origin
from api.refusal_log import Tried, note, trying
from api.schemas.requests import Comment
from lockbox.errors import Conflict, Invalid, NotYours, Refusal
from lockbox.requests import decide, policy_diff
from lockbox.requests.decisions import Verdict
from lockbox.requests.lifecycle import Action


@dataclass(frozen=True)
class Refused:
    """What was refused about which request, and what its form held."""

    request_id: UUID
    action: str
    why: Refusal
    comment: str


def do(work: Desk, request_id: UUID, action: Action, comment: str, version: int) -> Refusal | None:
    """Act on a request for whoever has sent a form; return why not where it is refused.

    Raises:
        Unknown: there is no such request that they may know of.
        NotSignedIn: nobody is signed in.
    """
    try:
        verdict = Verdict(action, comment_of(comment), version=version)
        with work.open() as (session, visitor):
            came = origin(work.request)
            trying(work.request, Tried(visitor.caller, came, request_id, action))
            decide.act(session, visitor.caller, came, request_id, verdict)
    except (Conflict, NotYours, Invalid) as refused:
        note(work.request, refused)
        return refused
    return None


def comment_of(typed: str) -> str | None:
    """Return what was written beside a deed, nothing where nothing was.

    Raises:
        Invalid: it is not what the API would take.
    """
    try:
        return Comment(comment=typed.replace("\r\n", "\n").strip() or None).comment
    except ValidationError as error:
        raise Invalid(f"What you wrote was not taken: {policy_diff.told(error)}.", field="comment") from None
