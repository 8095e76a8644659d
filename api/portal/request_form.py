"""The form of a new request: as it is typed, and read as the API's own body."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Form
from pydantic import ValidationError

from api.browser import Visitor
from api.portal import form_errors, phrases
from api.schemas.submissions import NewRequest
from config.context_schema import MOST_PARAMETERS, ContextValue
from config.service_catalogue import MOST_SERVICES, Service
from lockbox.database import UnitOfWork
from lockbox.errors import NotFound
from lockbox.facts.enumerations import Reason
from lockbox.identity import time_zones
from lockbox.requests import policy_diff, queries

MINUTE = 60
MOST_DIGITS = 9
MOST_COLUMNS = MOST_SERVICES * MOST_PARAMETERS
WHOLE = re.compile(r"-?[0-9]{1,16}")
SWITCHES = ("true", "false")
Column = Annotated[list[str], Form(max_length=MOST_COLUMNS)]


@dataclass(frozen=True)
class RequestForm:
    """The form as typed, unchecked; `parameters` are those of all services, by `service:parameter`."""

    tenant: str = ""
    service: str = ""
    resources: str = ""
    actions: tuple[str, ...] = ()
    reason_code: str = Reason.SUPPORT_CASE.value
    justification: str = ""
    case_ref: str = ""
    access_window: str = str(15 * MINUTE)
    max_uses: str = ""
    case_system: str = ""
    case_url: str = ""
    duplicate_reason: str = ""
    not_before: str = ""
    break_glass: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)
    severity: str = ""

    @property
    def lines(self) -> list[str]:
        """The resources, one a line."""
        return [line.strip() for line in self.resources.splitlines() if line.strip()]


async def request_form(
    tenant: Annotated[str, Form()] = "",
    service: Annotated[str, Form()] = "",
    resources: Annotated[str, Form()] = "",
    actions: Annotated[list[str] | None, Form()] = None,
    reason_code: Annotated[str, Form()] = "",
    justification: Annotated[str, Form()] = "",
    case_ref: Annotated[str, Form()] = "",
    access_window: Annotated[str, Form()] = "",
    max_uses: Annotated[str, Form()] = "",
    break_glass: Annotated[str, Form(max_length=3)] = "",
    case_system: Annotated[str, Form()] = "",
    case_url: Annotated[str, Form()] = "",
    duplicate_reason: Annotated[str, Form()] = "",
    not_before: Annotated[str, Form(max_length=19)] = "",
    parameter: Column = [],  # noqa: B006 - FastAPI copies it
    value: Column = [],  # noqa: B006 - likewise
    severity: Annotated[str, Form()] = "",
) -> RequestForm:
    """Return the content of a form; entries of `parameter` and `value` with one index belong together."""
    return RequestForm(
        tenant.strip(),
        service,
        resources,
        tuple(actions or ()),
        reason_code,
        justification.replace("\r\n", "\n"),
        case_ref.strip(),
        access_window,
        max_uses.strip(),
        case_system,
        case_url.strip(),
        duplicate_reason.replace("\r\n", "\n").strip(),
        not_before,
        break_glass,
        dict(zip(parameter, (one.strip() for one in value), strict=False)),
        severity,
    )


RequestFormDep = Annotated[RequestForm, Depends(request_form)]


def earlier(session: UnitOfWork, visitor: Visitor, request_id: UUID) -> RequestForm:
    """Return one of the person's own requests as form content."""
    entry = queries.find(session, visitor.caller, request_id)
    asked = entry.request
    if asked.requester_id != visitor.caller.person_id:
        raise NotFound(phrases.NO_OWN_REQUEST)
    return RequestForm(
        entry.tenant,
        asked.service,
        "\n".join(asked.resources),
        tuple(asked.actions),
        asked.reason_code,
        asked.justification,
        asked.case_ref or "",
        str(asked.access_window),
        str(asked.max_uses or ""),
        asked.case_system or "",
        asked.case_url or "",
        severity=asked.severity or "",
        parameters={f"{asked.service}:{name}": _typed(value) for name, value in (asked.context or {}).items()},
    )


def _typed(value: ContextValue) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _context(written: RequestForm, services: Mapping[str, Service]) -> dict[str, ContextValue]:
    """Return the parameters of the chosen service that were filled in, as their types have them where they can be."""
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
    """Validate a form with the API's own body; a start is in that time zone."""
    try:
        start = time_zones.instant(written.not_before, zone) if written.not_before else None
    except ValueError:
        mistake = "not_before", phrases.REQUEST_ADVICE["not_before"]
        raise form_errors.rejected(phrases.LOOK_AGAIN, [mistake]) from None
    try:
        return NewRequest.model_validate(
            {
                "tenant": written.tenant,
                "service": written.service,
                "resources": written.lines,
                "actions": list(written.actions),
                "reason_code": written.reason_code,
                "justification": written.justification,
                "case_ref": written.case_ref or None,
                "case_system": (written.case_ref and written.case_system) or None,
                "case_url": written.case_url or None,
                "duplicate_reason": written.duplicate_reason or None,
                "access_window": int(written.access_window) if is_seconds(written.access_window) else None,
                "not_before": start,
                "break_glass": bool(written.break_glass),
                "context": _context(written, services),
                "severity": written.severity or None,
                "max_uses": int(written.max_uses) if is_seconds(written.max_uses) else written.max_uses or None,
            }
        )
    except ValidationError as error:
        mistakes = [(_field(where), _message(where, said)) for where, said in policy_diff.of(error)]
        raise form_errors.rejected(phrases.LOOK_AGAIN, mistakes) from None


def _field(where: Sequence[int | str]) -> str:
    """Return where it is wrong: a parameter by its name, another list as a whole."""
    return f"context.{where[1]}" if where[0] == "context" and len(where) > 1 else str(where[0])


def _message(where: Sequence[int | str], said: str) -> str:
    field, *rest = where
    plain = phrases.REQUEST_ADVICE.get(str(field)) or said
    line = phrases.LINE.format(number=int(rest[0]) + 1) if field == "resources" and rest else ""
    return f"{line}{said}" if line else plain


def is_seconds(written: str) -> bool:
    """Whether that is a number of seconds, above none."""
    return written.isascii() and written.isdecimal() and len(written) <= MOST_DIGITS and int(written) > 0
