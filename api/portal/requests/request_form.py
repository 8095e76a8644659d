"""The form of a new request, validated by the API's own model."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

from fastapi import Form
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, create_model

from api.browser import Visitor
from api.portal import form_errors, phrases
from api.schemas.submissions import NewRequest
from catalogue.context_schema import MOST_PARAMETERS, ContextValue
from catalogue.service_catalogue import MOST_SERVICES, Service
from lockbox import mistakes
from lockbox.database import UnitOfWork
from lockbox.errors import NotFound
from lockbox.facts.ask import SubmittedAsk
from lockbox.facts.fact import FORM, REPEAT, facts_of, kinds_of, values_of
from lockbox.identity import time_zones
from lockbox.requests import queries
from lockbox.text_rules import TEXT_PATTERN

MINUTE = 60
MOST_DIGITS = 9
MOST_COLUMNS = MOST_SERVICES * MOST_PARAMETERS
WHOLE = re.compile(r"-?[0-9]{1,16}")
SWITCHES = ("true", "false")


def _text(typed: str) -> str:
    return typed.replace("\r\n", "\n").strip()


FormText = Annotated[str, AfterValidator(_text)]
"""A text as typed, with its line breaks."""


Column = Annotated[list[FormText], Field(max_length=MOST_COLUMNS)]


@dataclass(frozen=True)
class FactField:
    """A field for a declared fact of a request. `words` are its choices; a text has at most `longest` characters."""

    name: str
    label: str
    hint: str
    is_required: bool
    words: Sequence[str]
    longest: int
    has_lines: bool


def _fact_fields() -> Iterator[FactField]:
    schema = NewRequest.model_json_schema()["properties"]
    for name, fact in facts_of(SubmittedAsk, FORM).items():
        bounds = {**schema[name], **schema[name].get("anyOf", [{}])[0]}
        yield FactField(
            name,
            fact.label,
            fact.help,
            SubmittedAsk.model_fields[name].is_required(),
            list(kinds_of(SubmittedAsk).get(name, ())),
            bounds.get("maxLength", 0),
            bounds.get("pattern") == TEXT_PATTERN,
        )


FACT_FIELDS = tuple(_fact_fields())


class RequestForm(BaseModel):
    """The form as typed, unchecked, with the parameters of all services.

    Items of `parameter` and `value` with the same index belong together. The declared facts are further fields.
    """

    model_config = ConfigDict(frozen=True)

    tenant: FormText = ""
    service: str = ""
    resources: str = ""
    actions: list[str] = []
    case_ref: FormText = ""
    access_window: str = ""
    max_uses: FormText = ""
    case_system: str = ""
    case_url: FormText = ""
    duplicate_reason: FormText = ""
    not_before: Annotated[str, Field(max_length=19)] = ""
    break_glass: Annotated[str, Field(max_length=3)] = ""
    parameter: Column = []
    value: Column = []

    @property
    def lines(self) -> list[str]:
        return [line.strip() for line in self.resources.splitlines() if line.strip()]

    @property
    def parameters(self) -> Mapping[str, str]:
        """Values by `service:parameter`."""
        return dict(zip(self.parameter, self.value, strict=False))

    @property
    def texts(self) -> Mapping[str, str]:
        typed = dict(self)
        return {one.name: typed.get(one.name, "") for one in FACT_FIELDS}

    @property
    def sent(self) -> Iterator[tuple[str, str]]:
        for name, typed in self:
            yield from ((name, text) for text in (typed if isinstance(typed, list) else [typed]))


FACT_TEXTS: dict[str, Any] = {one.name: (FormText, "") for one in FACT_FIELDS}
SENT_FORM: type[RequestForm] = create_model("SentRequestForm", __base__=RequestForm, **FACT_TEXTS)

if TYPE_CHECKING:
    RequestFormDep = Annotated[RequestForm, Form()]
else:
    RequestFormDep = Annotated[SENT_FORM, Form()]


def earlier(session: UnitOfWork, visitor: Visitor, request_id: UUID) -> RequestForm:
    entry = queries.find(session, visitor.caller, request_id)
    asked = entry.request
    if asked.requester_id != visitor.caller.person_id:
        raise NotFound(phrases.NO_OWN_REQUEST)
    parameters = (asked.context or {}).items()
    repeated = values_of(SubmittedAsk, asked, facts_of(SubmittedAsk, REPEAT))
    kept = {name: value for name, value in repeated.items() if value}
    kept |= {"resources": "\n".join(asked.resources), "access_window": str(asked.access_window)}
    kept |= {"max_uses": str(asked.max_uses or ""), "tenant": entry.tenant}
    kept |= {"parameter": [f"{asked.service}:{name}" for name, _ in parameters]}
    return SENT_FORM.model_validate(kept | {"value": [_typed(value) for _, value in parameters]})


def _typed(value: ContextValue) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _context(written: RequestForm, services: Mapping[str, Service]) -> dict[str, ContextValue]:
    service = services.get(written.service)
    found: dict[str, ContextValue] = {}
    for name, parameter in (service.context.properties if service and service.context else {}).items():
        typed = written.parameters.get(f"{written.service}:{name}", "")
        if not typed:
            continue
        found[name] = typed
        if parameter.type == "boolean" and typed in SWITCHES:
            found[name] = typed == "true"
        if parameter.type == "integer" and WHOLE.fullmatch(typed):
            found[name] = int(typed)
    return found


def read(written: RequestForm, zone: str, services: Mapping[str, Service]) -> NewRequest:
    """`zone` is the time zone of the typed start."""
    try:
        start = time_zones.instant(written.not_before, zone) if written.not_before else None
    except ValueError:
        mistake = "not_before", phrases.REQUEST_ADVICE["not_before"]
        raise form_errors.rejected(phrases.LOOK_AGAIN, [mistake]) from None
    given: dict[str, Any] = {
        name: typed or (typed if field.is_required() else None)
        for name, typed in written
        if (field := NewRequest.model_fields.get(name))
    }
    uses = int(written.max_uses) if is_seconds(written.max_uses) else given["max_uses"]
    given |= {
        "resources": written.lines,
        "actions": written.actions,
        "case_system": (written.case_ref and written.case_system) or None,
        "access_window": int(written.access_window) if is_seconds(written.access_window) else None,
        "break_glass": bool(written.break_glass),
        "context": _context(written, services),
    }
    try:
        return NewRequest.model_validate(given | {"not_before": start, "max_uses": uses})
    except ValidationError as error:
        wrong = [(_field(where), _message(where, said)) for where, said in mistakes.of(error)]
        raise form_errors.rejected(phrases.LOOK_AGAIN, wrong) from None


def _field(where: Sequence[int | str]) -> str:
    return f"context.{where[1]}" if where[0] == "context" and len(where) > 1 else str(where[0])


CHOICES = {
    one.name: (phrases.FROM_THE_LIST if one.is_required else phrases.FROM_THE_LIST_OR_NONE).format(
        label=one.label.lower()
    )
    for one in FACT_FIELDS
    if one.words
}


def _message(where: Sequence[int | str], said: str) -> str:
    field, *rest = where
    plain = phrases.REQUEST_ADVICE.get(str(field)) or CHOICES.get(str(field)) or said
    line = phrases.LINE.format(number=int(rest[0]) + 1) if field == "resources" and rest else ""
    return f"{line}{said}" if line else plain


def is_seconds(written: str) -> bool:
    return written.isascii() and written.isdecimal() and len(written) <= MOST_DIGITS and int(written) > 0
