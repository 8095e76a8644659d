"""The parameters that a service declares for its requests: a flat, safe subset of JSON Schema. Pure."""

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Annotated, Any, Literal, Self, cast

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticKnownError, SchemaError

from catalogue.gate_document import CataloguePart

NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
MOST_PARAMETERS = 20
MOST_CHOICES = 50
LONGEST_TEXT = 500
LONGEST_PATTERN = 200
LARGEST = 2**53 - 1
ContextValue = str | int | bool
"""The values that a parameter can have."""


def _refuse_once(value: object, check: ValidatorFunctionWrapHandler) -> object:
    try:
        return check(value)
    except ValidationError as refused:
        for error in refused.errors(include_url=False):
            if not error["type"].endswith("_type"):
                raise PydanticKnownError(cast("Any", error["type"]), error.get("ctx")) from None
        raise ValueError("write a text, a whole number, true or false") from None


REFUSED_ONCE = WrapValidator(_refuse_once)
"""Reports one error for a union: the error of the value's own type."""


def _check_name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ValueError("write a name of small letters, digits and _ only, at most 32, such as environment")
    return name


def _check_line(text: str) -> str:
    if text != text.strip() or not text.isprintable() or not text:
        raise ValueError("write a text on one line, without blanks around it")
    return text


@lru_cache(maxsize=256)
def _matcher(pattern: str) -> TypeAdapter[str]:
    # pydantic's own engine takes linear time, whatever the pattern: no value can make it backtrack.
    return TypeAdapter(Annotated[str, StringConstraints(pattern=pattern)])


def _check_pattern(pattern: str) -> str:
    try:
        _matcher(pattern)
    except SchemaError:
        raise ValueError(
            "write a regular expression without look-around and back-references, such as ^[A-Z]{2}-[0-9]+$"
        ) from None
    return pattern


ParameterName = Annotated[str, AfterValidator(_check_name)]
OneLine = Annotated[str, Field(max_length=100), AfterValidator(_check_line)]
Bound = Annotated[int, Field(ge=-LARGEST, le=LARGEST, strict=True)]
Length = Annotated[int, Field(ge=0, le=LONGEST_TEXT, strict=True)]
Choice = Annotated[str, Field(max_length=LONGEST_TEXT), AfterValidator(_check_line)] | Bound


class ContextParameter(CataloguePart):
    model_config = ConfigDict(validate_by_name=True)

    type: Literal["string", "integer", "boolean"]
    title: OneLine | None = None
    description: OneLine | None = None
    enum: tuple[Choice, ...] | None = Field(default=None, min_length=1, max_length=MOST_CHOICES)
    pattern: Annotated[str, Field(max_length=LONGEST_PATTERN), AfterValidator(_check_pattern)] | None = None
    min_length: Length | None = Field(default=None, alias="minLength")
    max_length: Length | None = Field(default=None, alias="maxLength")
    minimum: Bound | None = None
    maximum: Bound | None = None

    @model_validator(mode="after")
    def _fits_its_type(self) -> Self:
        of_text = [self.pattern, self.min_length, self.max_length]
        if self.type != "string" and any(one is not None for one in of_text):
            raise ValueError("pattern, minLength and maxLength are for type: string")
        if self.type != "integer" and (self.minimum is not None or self.maximum is not None):
            raise ValueError("minimum and maximum are for type: integer")
        if self.enum is not None:
            kind = {"string": str, "integer": int}.get(self.type)
            if kind is None or any(type(one) is not kind for one in self.enum):
                raise ValueError(f"write choices that are each a {self.type}; a boolean needs none")
            if len(set(self.enum)) < len(self.enum):
                raise ValueError("name each choice once")
        low, high = (self.min_length, self.max_length) if self.type == "string" else (self.minimum, self.maximum)
        if low is not None and high is not None and low > high:
            raise ValueError("the upper bound is below the lower one")
        return self

    def wrong(self, value: ContextValue) -> str | None:
        """Return how to correct a value; None if the value is valid."""
        kinds = {"string": (str, "text"), "integer": (int, "a whole number"), "boolean": (bool, "true or false")}
        kind, called = kinds[self.type]
        if type(value) is not kind:
            return f"write {called}"
        if self.enum is not None and value not in self.enum:
            return f"choose {', '.join(map(str, self.enum))}"
        return self._wrong_text(value) if isinstance(value, str) else self._wrong_number(value)

    def _wrong_text(self, value: str) -> str | None:
        least, most = self.min_length or 0, LONGEST_TEXT if self.max_length is None else self.max_length
        if not least <= len(value) <= most:
            return f"write {f'{least} to {most}' if least else f'at most {most}'} characters"
        if self.pattern is None:
            return None
        try:
            _matcher(self.pattern).validate_python(value)
        except ValidationError:
            return f"write it in the form {self.pattern}"
        return None

    def _wrong_number(self, value: int) -> str | None:
        if self.minimum is not None and value < self.minimum:
            return f"write {self.minimum} or more"
        if self.maximum is not None and value > self.maximum:
            return f"write {self.maximum} or less"
        return None


class ContextSchema(CataloguePart):
    model_config = ConfigDict(validate_by_name=True)

    type: Literal["object"] = "object"
    properties: dict[ParameterName, ContextParameter] = Field(min_length=1, max_length=MOST_PARAMETERS)
    required: tuple[str, ...] = ()
    additional_properties: Literal[False] = Field(default=False, alias="additionalProperties")

    @model_validator(mode="after")
    def _requires_what_it_has(self) -> Self:
        if unknown := sorted(set(self.required) - self.properties.keys()):
            raise ValueError(f"required: name parameters of properties; there is no {unknown[0]}")
        return self


def defects(schema: ContextSchema | None, context: Mapping[str, ContextValue]) -> Iterator[tuple[str, str]]:
    properties = schema.properties if schema else {}
    for name, value in context.items():
        if name not in properties:
            known = f"choose from {', '.join(properties)}" if properties else "this service declares none"
            yield name, f"there is no parameter of that name; {known}"
        elif wrong := properties[name].wrong(value):
            yield name, wrong
    for name in schema.required if schema else ():
        if name not in context:
            yield name, "add this parameter"
