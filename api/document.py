"""Make the OpenAPI document: what the routes say, completed by names, words, security, problems and webhooks."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api import glossary, problem_codes, webhook_document
from api.schemas import authzen
from api.schemas.parts import phrase, problems

DESCRIPTION = """\
The vendor's engineers request access, the customer's approvers decide, and gateways check whether a window is open.

**Authentication.** Send `Authorization: Bearer lbx_…`, or a token of a configured identity provider. Some operations
need a fresh sign-in, and answer an older one with `fresh-sign-in-needed`.

**Problems.** Every refusal is `application/problem+json` (RFC 9457) with a stable `code`, and
`docs/reference/errors.md` lists all codes. A 429 and a 503 say in `Retry-After` when to try again.

**Repeating.** An operation that takes an `Idempotency-Key` can be repeated for 24 hours and has its effect once.

**Versions.** `ETag` is the version of what was read; with `If-Match` an operation acts on that version alone, and
answers 412 if it is not the newest.

**Request ids.** Each answer has an `X-Request-Id`: yours, if you send one of at most 64 letters, digits, dots, dashes
and underscores, else a new one. The logs have it too: name it when you report a fault.

**Unknown input** is refused: a query parameter or a member of a body that the operation does not know is a 422.
"""
LICENCE = {"name": "Apache 2.0", "identifier": "Apache-2.0"}
SERVERS = [{"url": "/", "description": "The Lockbox that serves this document."}]
TAGS = {
    "requests": "Submit, review, approve and end access requests, and read what happened to them.",
    "access": "Check whether an access window is open.",
    "authzen": "Check access by OpenID AuthZEN's Authorization API 1.0.",
    "audit": "Search, export and verify the audit log.",
    "tenants": "Set up customers: their policy, mode, observers and gates.",
    "members": "Manage the people of a customer: members, invitations, delegations, recovery.",
    "vendor": "Manage the vendor's people and gates; list what could not be delivered, and customers with a legal "
    "hold, an off-boarding or their own retention.",
    "webhooks": "Set up webhooks, read their delivery log, and replay events.",
    "account": "Read and change the caller's own account.",
    "tokens": "Create, rotate and revoke the caller's own tokens, and sign in on a device.",
    "health": "Check whether the API is alive and ready, and read its metrics.",
}
BEARER = {
    "type": "http",
    "scheme": "bearer",
    "description": "A Lockbox token (`lbx_…`), or a token of a configured identity provider.",
}
METRICS_TOKEN = {
    "type": "http",
    "scheme": "bearer",
    "description": "The value of `LOCKBOX_METRICS_TOKEN`; calls from the API's own machine need none.",
}
PUBLIC = ("/.well-known/", "/livez", "/readyz", "/v1/device-logins")
"""Routes that need no credential."""
METRICS = "/metrics"
OPEN = ("/.well-known/", "/livez", "/readyz")
"""Routes that never refuse."""
LENGTHS = {"minLength": "minItems", "maxLength": "maxItems"}
PROBLEM = "application/problem+json"
SIGN_IN = frozenset({401, 403})
ANYWHERE = frozenset({400, 405, 422, 429, 503})
WITH_BODY = frozenset({413, 415})
POSSIBLE = frozenset({404, 409, 412, 428}) | SIGN_IN | ANYWHERE | WITH_BODY
RETRY = frozenset({429, 503})
RETRY_AFTER = {
    "description": "In how many seconds the call may succeed.",
    "required": True,
    "schema": {"type": "integer", "minimum": 0},
    "example": 1,
}
SIDES = ("-Input", "-Output")
SECTION = re.compile(r"\n+(?:Args|Attributes|Raises|Returns):\n.*", re.DOTALL)
"""What of a docstring is for programmers of the server alone."""
UNLIKE = {"authzen": "AuthZEN"}


def made(app: FastAPI) -> dict[str, Any]:
    """Return the document of an app."""
    document = get_openapi(
        title=app.title,
        version=app.version,
        summary=app.summary,
        description=DESCRIPTION,
        routes=app.routes,
        servers=SERVERS,
        license_info=LICENCE,
        tags=[{"name": name, "description": said} for name, said in TAGS.items()],
    )
    parts = document["components"]
    parts["schemas"] = _one_name_each({**parts["schemas"], **authzen.components(), **webhook_document.schemas()})
    parts["securitySchemes"] = {"bearer": BEARER, "metrics_token": METRICS_TOKEN}
    _tidy(document)
    parts["headers"] = {"RetryAfter": RETRY_AFTER}
    parts["responses"] = {f"Problem{status}": _problem(status) for status in sorted(POSSIBLE)}
    parts["parameters"] = webhook_document.HEADERS
    document["webhooks"] = webhook_document.webhooks()
    for path, method, operation in _operations(document):
        _name(path, method, operation)
        _complete(path, operation)
    glossary.describe_schemas(parts["schemas"])
    glossary.describe_parameters({one["operationId"]: one for _, _, one in _operations(document)})
    return document


def _operations(document: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            yield path, method, operation


def _one_name_each(schemas: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schemas by one name each: that of what is written, which is the looser one where they differ."""
    return {name.removesuffix(SIDES[0]): schema for name, schema in schemas.items() if not name.endswith(SIDES[1])}


def _tidy(document: Mapping[str, Any]) -> None:
    """Mend what FastAPI and pydantic write.

    The limits of a list are `minItems` and `maxItems`: pydantic writes `minLength` for lists with further checks. The
    titles of properties and parameters only repeat their names. A schema has one name, whoever writes it.
    """
    for part in list(_parts({"paths": document["paths"], "components": document["components"]})):
        if part.get("type") == "array":
            for wrong, right in LENGTHS.items():
                if wrong in part:
                    part[right] = part.pop(wrong)
        if isinstance(part.get("title"), str):
            del part["title"]
        if isinstance(part.get("$ref"), str):
            part["$ref"] = part["$ref"].removesuffix(SIDES[0]).removesuffix(SIDES[1])
        if isinstance(part.get("description"), str):
            part["description"] = SECTION.sub("", part["description"])


def _parts(part: object) -> Iterator[dict[str, Any]]:
    """Yield every object of the document."""
    if isinstance(part, dict):
        yield part
    for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from _parts(inner)


def _problem(status: int) -> dict[str, Any]:
    """Return the answer with a status, with an example, and the codes that it may have."""
    codes = [one for one in problem_codes.every() if one.status == status]
    shown = codes[0]
    example = {
        "type": f"urn:lockbox:problem:{shown.code}",
        "title": phrase(status),
        "status": status,
        "code": shown.code,
        "detail": shown.meaning,
    }
    named = ", ".join(f"`{one.code}`" for one in codes)
    content = problems(status)[status]["content"]
    response = {
        "description": f"{phrase(status)}: {named}.",
        "content": {kind: {**facts, "example": example} for kind, facts in content.items()},
    }
    return response | (
        {"headers": {"Retry-After": {"$ref": "#/components/headers/RetryAfter"}}} if status in RETRY else {}
    )


def _name(path: str, method: str, operation: dict[str, Any]) -> None:
    """Name an operation as its function is named; FastAPI appends path and method."""
    name = operation["operationId"].removesuffix(re.sub(r"\W", "_", path) + f"_{method}")
    words = " ".join(UNLIKE.get(word, word) for word in name.split("_"))
    operation |= {"operationId": name, "summary": words[0].upper() + words[1:]}


def _complete(path: str, operation: dict[str, Any]) -> None:
    operation["security"] = _security(path)
    answers = operation["responses"]
    declared = {int(status) for status, facts in answers.items() if PROBLEM in facts.get("content", {})}
    possible = declared | SIGN_IN | ANYWHERE | (WITH_BODY if "requestBody" in operation else frozenset())
    if path.startswith(OPEN):
        possible -= SIGN_IN
    for status in possible:
        if status in declared or str(status) not in answers:
            answers[str(status)] = {"$ref": f"#/components/responses/Problem{status}"}
    unreal = {str(status) for status in declared - possible}
    operation["responses"] = {status: answers[status] for status in sorted(answers) if status not in unreal}


def _security(path: str) -> list[dict[str, list[str]]]:
    if path == METRICS:
        return [{"metrics_token": []}, {}]
    return [] if path.startswith(PUBLIC) else [{"bearer": []}]
