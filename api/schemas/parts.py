"""Shared parts of bodies: validated text, people, and problems."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Any, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict, JsonValue
from pydantic.json_schema import SkipJsonSchema

from lockbox.text_rules import IS_LINE

Line = Annotated[str, IS_LINE]
Words = Annotated[str, Field(max_length=200), IS_LINE]
"""A search text."""
View = TypeVar("View", bound=BaseModel)
Slug = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9][a-z0-9-]*$")]


class RequestBody(BaseModel):
    """Unknown members are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _without_default(schema: dict[str, Any]) -> None:
    schema.pop("default", None)


Absent = SkipJsonSchema[None]
"""The marker of a member that may be left out but not be null."""


def absent() -> Any:  # noqa: ANN401 - as pydantic's own Field
    """An optional member. The OpenAPI document shows no default for it."""
    return Field(default=None, json_schema_extra=_without_default)


def has(**rules: JsonValue) -> JsonDict:
    """The JSON Schema of an object with these required fields, each with its schema."""
    return {"required": [*rules], "properties": {**rules}}


class PersonView(BaseModel):
    """A person, as others see them."""

    id: UUID
    name: str


def view_of(kind: type[View], row: object, **further: object) -> View:
    """The view's fields are the row's attributes of the same names, unless `further` has them."""
    attributes = {name: getattr(row, name) for name in kind.model_fields if name not in further}
    return kind.model_validate(attributes | further)


class Problem(BaseModel):
    """A refusal (RFC 9457), with further members for some codes."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    code: str
    detail: str


def phrase(status: int) -> str:
    """Return the reason phrase of RFC 9110, independently of the Python version."""
    return {413: "Content Too Large", 422: "Unprocessable Content"}.get(status) or HTTPStatus(status).phrase


def _if_match(tag: str, *, required: bool) -> dict[str, Any]:
    schema = {"type": "string", "pattern": rf'^(\*|"{tag}")$'}
    return {"parameters": [{"name": "If-Match", "in": "header", "required": required, "schema": schema}]}


MAY_MATCH = _if_match("[0-9]{1,9}", required=False)
"""The If-Match header of a move, for the OpenAPI document."""
MUST_MATCH = _if_match("[0-9]{1,9}", required=True)
MUST_MATCH_TAG = _if_match("[0-9a-f]{16}", required=True)
"""The If-Match header of replacing a whole document, for the OpenAPI document."""


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    content: Mapping[str, Any] = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        status: {"model": Problem, "content": content, "description": phrase(status)}
        for status in sorted({400, 401, 403, 405, 422, 429, 503, *statuses})
    }
