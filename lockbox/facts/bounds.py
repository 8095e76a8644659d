"""The bounds of incoming facts of a request; pure. Stored facts may lie outside of newer bounds."""

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema
from pydantic_core.core_schema import chain_schema

from catalogue.context_schema import LARGEST, LONGEST_TEXT, MOST_PARAMETERS, REFUSED_ONCE
from catalogue.context_schema import NAME as CONTEXT_NAME
from lockbox.text_rules import (
    IS_LINE,
    IS_PAGE,
    IS_TEXT,
    IS_WHOLE,
    RESOURCE_PATTERN,
    TextRule,
    check_resource,
)

HARD_ACCESS_LIMIT = 7 * 24 * 3600
"""The longest window, in seconds."""
MOST_USES = 1000


@dataclass(frozen=True)
class ComesIn:
    """The bounded type that an incoming value must have. The API's description of answers leaves out the bounds."""

    kind: Any

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        plain, bounded = handler(source), handler.generate_schema(self.kind)

        def described(_: CoreSchema, describe: GetJsonSchemaHandler) -> JsonSchemaValue:
            # A chain with one step is described in full by this step.
            return describe(chain_schema([plain if describe.mode == "serialization" else bounded]))

        return chain_schema([bounded], metadata={"pydantic_js_functions": [described]})


Word = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9][a-z0-9_-]*$")]
Resource = Annotated[str, Field(max_length=256), TextRule(check_resource, RESOURCE_PATTERN)]
Resources = Annotated[list[Resource], Field(min_length=1, max_length=50)]
Actions = Annotated[list[Word], Field(min_length=1, max_length=20)]
Justification = Annotated[str, Field(max_length=4000), IS_TEXT]
Case = Annotated[str, Field(max_length=100), IS_LINE]
Page = Annotated[str, Field(max_length=2000), IS_PAGE]
Text = Annotated[str, Field(max_length=500), IS_TEXT]
Uses = Annotated[int, Field(ge=1, le=MOST_USES, strict=True), IS_WHOLE]
Seconds = Annotated[int, Field(ge=1, le=HARD_ACCESS_LIMIT, strict=True), IS_WHOLE]
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
"""The parameters that a service declares; its catalogue limits their values."""
