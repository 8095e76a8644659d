"""The form of a decision as it was sent, and what it says by the rules of the API."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from pydantic import ValidationError

from api.portal import phrases
from api.schemas.requests import ApprovalInput
from lockbox.errors import Invalid
from lockbox.identity import time_zones
from lockbox.requests import policy_diff
from lockbox.requests.decision_context import DecisionInput
from lockbox.requests.lifecycle import Action
from lockbox.requests.models import AccessRequest


@dataclass(frozen=True)
class DecisionForm:
    """A form as sent, so that a refusal keeps it."""

    action: str = ""
    comment: str = ""
    window: str = ""
    resources: Sequence[str] | None = None
    actions: Sequence[str] | None = None
    uses: str = ""
    start: str = ""
    finding: str = ""

    def keeps(self, field: str, name: str) -> bool:
        """Return whether a resource or action is ticked; all are at first."""
        kept: Sequence[str] | None = getattr(self, field)
        return kept is None or name in kept

    def is_narrower_than(self, asked: AccessRequest) -> bool:
        """Return whether the form allows less than was asked for, but for its time."""
        kept = ((self.resources, asked.resources), (self.actions, asked.actions))
        return bool(self.uses) or any(some is not None and len(some) < len(every) for some, every in kept)


def read(said: DecisionForm, version: int, zone: str) -> DecisionInput:
    """Validate a form with the API's own bodies.

    Raises:
        Invalid: the API would not accept it either.
    """
    is_yes = said.action == Action.APPROVE
    try:
        limits = (said.window, said.uses) if is_yes else ("", "")
        window, uses = (int(one.encode("ascii")) if one else None for one in limits)
        comment = said.comment.replace("\r\n", "\n").strip() or None
        opens_at = _instant(said.start, zone) if said.start and is_yes else None
        body = ApprovalInput(comment=comment, access_window=window, max_uses=uses, opens_at=opens_at)
    except ValidationError as error:
        raise Invalid(phrases.TERMS_NOT_ACCEPTED.format(why=policy_diff.advice(error))) from None
    except ValueError:
        raise Invalid(phrases.TERMS_NOT_NUMBERS) from None
    if not is_yes:
        return DecisionInput(Action(said.action), body.comment, version=version)
    allowed = body.access_window, version, said.resources, said.actions
    return DecisionInput(Action.APPROVE, body.comment, *allowed, max_uses=body.max_uses, opens_at=body.opens_at)


def _instant(written: str, zone: str) -> datetime:
    try:
        return time_zones.instant(written, zone)
    except ValueError as error:
        raise Invalid(phrases.NO_START.format(why=error)) from None
