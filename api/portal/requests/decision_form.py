"""The form of a decision, validated by the API's own models."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from api.portal import phrases
from api.schemas.requests import ApprovalInput
from lockbox import mistakes
from lockbox.errors import Invalid, LockboxError
from lockbox.identity import time_zones
from lockbox.requests.decision_context import DecisionInput
from lockbox.requests.lifecycle import Action
from lockbox.requests.models import AccessRequest
from lockbox.requests.quorum import ApprovalLimits


class DecisionForm(BaseModel):
    """If `narrow` is set, the boxes that are still ticked are in `resources` and `actions`."""

    model_config = ConfigDict(frozen=True)

    comment: str = ""
    window: Annotated[str, Field(max_length=9)] = ""
    uses: Annotated[str, Field(max_length=9), AfterValidator(str.strip)] = ""
    start: Annotated[str, Field(max_length=19)] = ""
    narrow: str = ""
    resources: list[str] = []
    actions: list[str] = []

    @property
    def kept(self) -> Mapping[str, Sequence[str] | None]:
        """None if the form does not narrow the request."""
        narrowed = bool(self.narrow)
        return {"resources": self.resources if narrowed else None, "actions": self.actions if narrowed else None}

    def keeps(self, field: str, name: str) -> bool:
        kept = self.kept[field]
        return kept is None or name in kept

    def is_narrower_than(self, asked: AccessRequest) -> bool:
        """Whether the form allows less than the request asks for, apart from the time."""
        all_of = {"resources": asked.resources, "actions": asked.actions}
        fewer = (some is not None and len(some) < len(all_of[field]) for field, some in self.kept.items())
        return bool(self.uses) or any(fewer)


NOTHING_TYPED = DecisionForm()


@dataclass(frozen=True)
class SentForm:
    """`seen` is the version of the request that the form showed."""

    refused: LockboxError | None = None
    action: str = ""
    form: DecisionForm = NOTHING_TYPED
    seen: int | None = None
    finding: str = ""


def read(action: Action, form: DecisionForm, version: int, zone: str) -> DecisionInput:
    is_yes = action is Action.APPROVE
    try:
        limits = (form.window, form.uses) if is_yes else ("", "")
        window, uses = (int(typed.encode("ascii")) if typed else None for typed in limits)
        comment = form.comment.replace("\r\n", "\n").strip() or None
        opens_at = _instant(form.start, zone) if form.start and is_yes else None
        body = ApprovalInput(comment=comment, access_window=window, max_uses=uses, opens_at=opens_at)
    except ValidationError as error:
        raise Invalid(phrases.TERMS_NOT_ACCEPTED.format(why=mistakes.advice(error))) from None
    except ValueError:
        raise Invalid(phrases.TERMS_NOT_NUMBERS) from None
    if not is_yes:
        return DecisionInput(action, body.comment, version=version)
    narrowed = replace(ApprovalLimits.of(body), resources=form.kept["resources"], actions=form.kept["actions"])
    return DecisionInput(action, body.comment, version, narrowed)


def _instant(written: str, zone: str) -> datetime:
    try:
        return time_zones.instant(written, zone)
    except ValueError as error:
        raise Invalid(phrases.NO_START.format(why=error)) from None
