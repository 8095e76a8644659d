"""Bodies of questions about a request."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, Field

from api.schemas.parts import IS_TEXT, PersonView, RequestBody
from lockbox.requests.lifecycle import State


class QuestionText(RequestBody):
    """What somebody asks, or answers."""

    text: Annotated[str, Field(max_length=2000), IS_TEXT]


class QuestionView(BaseModel):
    """A question and its answer, null while there is none.

    `state` is that of the request when it was asked, `stops_clock` whether the approval clock waits for the answer.
    The words are null for readers whom they are not meant for, and where they were erased.
    """

    id: UUID
    state: State
    stops_clock: bool
    asked_by: PersonView
    role: str | None
    asked_at: datetime
    question: str | None
    answered_by: PersonView | None
    answered_at: datetime | None
    answer: str | None


class QuestionList(BaseModel):
    """What was asked about a request, the oldest first."""

    items: list[QuestionView]
