"""Request and response bodies for API tokens."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict, JsonValue

from api.schemas.parts import RequestBody, Slug, has
from lockbox.facts.bounds import Word
from lockbox.identity.roles import Scope
from lockbox.text_rules import IS_LINE, IS_WHOLE

Days = Annotated[int, Field(ge=1, le=365, strict=True), IS_WHOLE]
Hours = Annotated[int, Field(ge=0, le=168, strict=True), IS_WHOLE]

OF_GATES: list[JsonValue] = [one.value for one in Scope if one.dialect]
AT_LEAST_ONE: JsonDict = {"minItems": 1}
EMPTY: JsonDict = {"maxItems": 0}
BINDING_RULES: list[JsonValue] = [
    {
        "if": has(scopes={"contains": {"const": Scope.CASE_CLOSE.value}}),
        "then": has(tenants=AT_LEAST_ONE),
        "else": {"properties": {"tenants": EMPTY}},
    },
    {
        "if": has(scopes={"contains": {"enum": OF_GATES}}),
        "then": has(services=AT_LEAST_ONE, scopes={"anyOf": [{"items": {"const": one}} for one in OF_GATES]}),
    },
]
"""The same rules as in `token_creation`."""


class NewToken(RequestBody):
    """A token for the caller; without `days` the installation decides how long it lasts.

    `scopes`, `services` and `tenants` are for service accounts: people's tokens are bound by their roles. `tenants`
    are the tenants whose cases a token with the scope `case:close` can close.
    """

    model_config = ConfigDict(json_schema_extra={"allOf": BINDING_RULES})

    name: Annotated[str, Field(max_length=100), IS_LINE]
    days: Days | None = None
    scopes: Annotated[list[Scope], Field(max_length=len(Scope))] = Field(default_factory=list)
    services: Annotated[list[Word], Field(max_length=200)] = Field(default_factory=list)
    tenants: Annotated[list[Slug], Field(max_length=200)] = Field(default_factory=list)


class Rotation(RequestBody):
    """How long the old token keeps working, and how long the new one lasts: as long as the old one if left out."""

    overlap_hours: Hours | None = None
    days: Days | None = None


class TokenView(BaseModel):
    """A token of the caller's, without its text; `replaces` is the token that it replaced."""

    id: UUID
    name: str
    scopes: list[str]
    services: list[str]
    tenants: list[str]
    created_at: datetime
    last_used_at: datetime | None
    expires_at: datetime
    replaces: UUID | None


class IssuedTokenView(TokenView):
    """A new token with its text, which cannot be read again."""

    token: str


class TokenList(BaseModel):
    """The caller's tokens, the newest first."""

    items: list[TokenView]
