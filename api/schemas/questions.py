"""Bodies of questions about a request."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, Field

from api.schemas.parts import PersonView, RequestBody
from lockbox.facts.enumerations import State
from lockbox.text_rules import IS_TEXT


class QuestionText(RequestBody):
    """The text of a question or an answer."""

    text: Annotated[str, Field(max_length=2000), IS_TEXT]


class QuestionView(BaseModel):
    """A question and its answer, null if there is none yet.

    `state` is the request's state when it was asked, `stops_clock` whether the approval clock waits for the answer.
    The texts are null for readers who may not see them, and after an erasure.
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
    """A request's questions, the oldest first."""

    items: list[QuestionView]
