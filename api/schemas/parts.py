"""Shared parts of bodies: validated text, people, and problems."""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.config import JsonDict, JsonValue
from pydantic.json_schema import JsonSchemaValue, SkipJsonSchema
from pydantic_core import CoreSchema
from pydantic_core.core_schema import no_info_after_validator_function

from config.context_schema import LARGEST, LONGEST_TEXT, MOST_PARAMETERS, REFUSED_ONCE
from config.context_schema import NAME as CONTEXT_NAME
from lockbox.requests.policy_parts import HARD_ACCESS_LIMIT
from lockbox.text_rules import (
    HTTPS_PATTERN,
    IS_WHOLE,
    LINE_PATTERN,
    RESOURCE_PATTERN,
    TEXT_PATTERN,
    Check,
    check_https,
    check_line,
    check_name,
    check_resource,
    check_text,
)


@dataclass(frozen=True)
class TextRule:
    """Check text by a rule, after its length, and state the rule in the OpenAPI document."""

    check: Check
    pattern: str

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {**handler(schema), "pattern": self.pattern}


IS_TEXT = TextRule(check_text, TEXT_PATTERN)
IS_LINE = TextRule(check_line, LINE_PATTERN)
IS_NAME = TextRule(check_name, LINE_PATTERN)
IS_PAGE = TextRule(check_https, HTTPS_PATTERN)
Line = Annotated[str, IS_LINE]
Words = Annotated[str, Field(max_length=200), IS_LINE]
"""A search text."""
Slug = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9][a-z0-9-]*$")]
Word = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9][a-z0-9_-]*$")]
Resource = Annotated[str, Field(max_length=256), TextRule(check_resource, RESOURCE_PATTERN)]
Context = Annotated[
    dict[
        Annotated[str, Field(pattern=rf"^{CONTEXT_NAME.pattern}$")],
        Annotated[
            Annotated[str, Field(max_length=LONGEST_TEXT), IS_LINE]
            | Annotated[int, Field(ge=-LARGEST, le=LARGEST, strict=True), IS_WHOLE]
            | Annotated[bool, Field(strict=True)],
            REFUSED_ONCE,
        ],
    ],
    Field(max_length=MOST_PARAMETERS, json_schema_extra={"additionalProperties": False}),
]
"""The parameters that a service declares; what each can be, its catalogue says."""
Seconds = Annotated[int, Field(ge=1, le=HARD_ACCESS_LIMIT, strict=True), IS_WHOLE]


class RequestBody(BaseModel):
    """A body; unknown members are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _without_default(schema: dict[str, Any]) -> None:
    schema.pop("default", None)


Absent = SkipJsonSchema[None]
"""The marker of a member that may be left out but not be null."""


def absent() -> Any:  # noqa: ANN401 - as pydantic's own Field
    """Return the default of a member that may be left out, without a default in the OpenAPI document."""
    return Field(default=None, json_schema_extra=_without_default)


def has(**rules: JsonValue) -> JsonDict:
    """Return the JSON Schema of what has these fields, each by its rule; for rules about fields that go together."""
    return {"required": [*rules], "properties": {**rules}}


class PersonView(BaseModel):
    """A person, as others see them."""

    id: UUID
    name: str


class Problem(BaseModel):
    """A refusal (RFC 9457), with further members for some codes."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    code: str
    detail: str


def phrase(status: int) -> str:
    """Return the status phrase of RFC 9110, whatever this Python calls it."""
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
    """Return the OpenAPI description of the error answers of a route."""
    content: Mapping[str, Any] = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        status: {"model": Problem, "content": content, "description": phrase(status)}
        for status in sorted({400, 401, 403, 405, 422, 429, 503, *statuses})
    }
