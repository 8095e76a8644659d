"""Bodies of decisions about several requests at once."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, Field

from api.schemas.parts import Problem, RequestBody
from api.schemas.requests import CommentInput, RequestView
from lockbox.requests.lifecycle import Action
from lockbox.text_rules import IS_WHOLE

MOST_AT_ONCE = 50


class DecidedRequest(RequestBody):
    """A request to decide; with a `version`, only if the request is still at this version."""

    id: UUID
    version: Annotated[int, Field(ge=1, le=999_999_999, strict=True), IS_WHOLE] | None = None


def _each_once(requests: list[DecidedRequest]) -> list[DecidedRequest]:
    if len({request.id for request in requests}) < len(requests):
        raise ValueError("name each only once")
    return requests


class SeveralDecisions(CommentInput):
    """One decision about several requests, each decided separately; the comment is recorded with each request."""

    action: Literal[Action.ENDORSE, Action.APPROVE, Action.DENY]
    requests: Annotated[
        list[DecidedRequest],
        Field(min_length=1, max_length=MOST_AT_ONCE, json_schema_extra={"uniqueItems": True}),
        AfterValidator(_each_once),
    ]


class DecisionResult(BaseModel):
    """What became of one of several requests: the request as it is now, or the problem that explains the refusal."""

    request_id: UUID
    request: RequestView | None
    problem: Problem | None


class DecisionResults(BaseModel):
    """What became of each of several requests, in the order in which they were named."""

    items: list[DecisionResult]
