"""Parts of bodies: text, names and words as they are validated at the door, and how a refusal looks."""

import re
import unicodedata
from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from lockbox.requests.terms import HARD_ACCESS_LIMIT

RESOURCE = re.compile(r"[a-z][a-z0-9-]{0,31}:\S{1,220}")
FORGING_MARKS = re.compile("[\u202a-\u202e\u2066-\u2069\u2028\u2029]")
LINE_BREAKS = frozenset("\n\t\r")


def _text(value: str) -> str:
    if any(unicodedata.category(mark) in {"Cc", "Cs"} and mark not in LINE_BREAKS for mark in value):
        raise ValueError("leave out control characters")
    if FORGING_MARKS.search(value):
        raise ValueError("leave out marks that turn the direction of text or break its lines")
    if not value.strip():
        raise ValueError("say something")
    return value.strip()


def _line(value: str) -> str:
    if not value.isprintable():
        raise ValueError("write it on one line")
    return _text(value)


def _resource(value: str) -> str:
    if "*" in value:
        raise ValueError("name each resource; wildcards are not allowed")
    if not RESOURCE.fullmatch(value) or not value.isprintable():
        raise ValueError("write a resource as kind:id, such as mailbox:anna@contoso.example")
    return value


Text = Annotated[str, AfterValidator(_text)]
Line = Annotated[str, AfterValidator(_line)]
Slug = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9][a-z0-9-]*$")]
Word = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9][a-z0-9_-]*$")]
Resource = Annotated[str, Field(max_length=256), AfterValidator(_resource)]
Seconds = Annotated[int, Field(ge=1, le=HARD_ACCESS_LIMIT, strict=True)]


class Incoming(BaseModel):
    """A body; unknown members are refused rather than ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Named(BaseModel):
    """A person, as others see one."""

    id: UUID
    name: str


class Problem(BaseModel):
    """An answer other than yes (RFC 9457); `code` is stable, `detail` says what to do."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    code: str
    detail: str


def phrase(status: int) -> str:
    """Return the status in words, as RFC 9110 has them, whatever this Python calls it."""
    return {413: "Content Too Large", 422: "Unprocessable Content"}.get(status) or HTTPStatus(status).phrase


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI description of the error answers of a route."""
    content: Mapping[str, Any] = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        status: {"model": Problem, "content": content, "description": phrase(status)}
        for status in (401, 403, 422, 503, *statuses)
    }
