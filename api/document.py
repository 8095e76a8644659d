"""Make the OpenAPI document from the routes and `glossary.yaml`."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api import webhook_document
from api.problems import every_code
from api.schemas import authzen
from api.schemas.parts import phrase, problems
from lockbox.facts.ask import Ask
from lockbox.facts.requester import Requester
from lockbox.facts.window import Window

FILE = Path(__file__).with_name("openapi.json")
"""The committed document, which the API serves."""
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
"""The sections of a docstring that are only for programmers of the server."""
UNLIKE = {"authzen": "AuthZEN"}
GLOSSARY = Path(__file__).with_name("glossary.yaml")
REF = "#/components/schemas/"
Schema = dict[str, Any]
PROPERTIES = "properties"
DECLARED = {
    name: {"about": field.description, "example": field.examples[0]}
    for part in (Ask, Requester, Window)
    for name, field in part.model_fields.items()
    if field.description and field.examples
}
"""The descriptions and examples of a request's facts, from the declarations, for all schemas with these facts."""


def made(app: FastAPI) -> dict[str, Any]:
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
    _describe_schemas(parts["schemas"])
    _describe_parameters({one["operationId"]: one for _, _, one in _operations(document)})
    return document


def _operations(document: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            yield path, method, operation


def _one_name_each(schemas: Mapping[str, Any]) -> dict[str, Any]:
    # Where input and output differ, the input schema is the looser one.
    return {name.removesuffix(SIDES[0]): schema for name, schema in schemas.items() if not name.endswith(SIDES[1])}


def _tidy(document: Mapping[str, Any]) -> None:
    for part in list(_parts({"paths": document["paths"], "components": document["components"]})):
        if part.get("type") == "array":
            # pydantic writes `minLength` for a list with further checks.
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
    if isinstance(part, dict):
        yield part
    for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from _parts(inner)


def _problem(status: int) -> dict[str, Any]:
    codes = [one for one in every_code() if one.status == status]
    shown = codes[0]
    example = {
        "type": f"urn:lockbox:problem:{shown.code}",
        "title": phrase(status),
        "status": status,
        "code": shown.code,
        "detail": shown.meaning,
    }
    named = ", ".join(f"`{code.code}`" for code in codes)
    content = problems(status)[status]["content"]
    response = {
        "description": f"{phrase(status)}: {named}.",
        "content": {kind: {**facts, "example": example} for kind, facts in content.items()},
    }
    return response | (
        {"headers": {"Retry-After": {"$ref": "#/components/headers/RetryAfter"}}} if status in RETRY else {}
    )


def _name(path: str, method: str, operation: dict[str, Any]) -> None:
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


class GlossaryGap(Exception):  # noqa: N818 - the name says what is missing
    """The glossary lacks an entry or an example, or has an entry that nothing uses."""


class Glossary:
    def __init__(self, section: str) -> None:
        written: Mapping[str, Mapping[str, Any]] = yaml.safe_load(GLOSSARY.read_text(encoding="utf-8"))[section]
        self._entries = {**(DECLARED if section == PROPERTIES else {}), **written}
        self._unused = set(written)

    def entry(self, of: str, name: str) -> Mapping[str, Any]:
        for key in (f"{of}.{name}", name):
            if key in self._entries:
                self._unused.discard(key)
                return self._entries[key]
        raise GlossaryGap(f"api/glossary.yaml: add {name}, or {of}.{name}")

    def is_special(self, of: str, name: str) -> bool:
        return f"{of}.{name}" in self._entries

    def check(self) -> None:
        if self._unused:
            raise GlossaryGap(f"api/glossary.yaml: remove {', '.join(sorted(self._unused))}")


def _describe_schemas(schemas: Mapping[str, Schema]) -> None:
    words = Glossary(PROPERTIES)
    given = {(of, name): words.entry(of, name) for of, name, _ in _properties(schemas)}
    words.check()
    for of, name, found in _properties(schemas):
        if "description" not in found or words.is_special(of, name):
            found["description"] = given[of, name]["about"]
        if "example" in given[of, name]:
            found["examples"] = [given[of, name]["example"]]
    for of, name, found in _properties(schemas):
        if "examples" not in found:
            found["examples"] = [_example(found, schemas, f"{of}.{name}")]


def _describe_parameters(operations: Mapping[str, Schema]) -> None:
    words = Glossary("parameters")
    for of, operation in operations.items():
        for parameter in operation.get("parameters", ()):
            entry = words.entry(of, parameter["name"])
            parameter.setdefault("description", entry["about"])
            parameter["example"] = entry["example"]
    words.check()


def _properties(schemas: Mapping[str, Schema]) -> Iterator[tuple[str, str, Schema]]:
    for of, schema in schemas.items():
        for name, found in schema.get("properties", {}).items():
            yield of, name, found


def _example(schema: Schema, schemas: Mapping[str, Schema], of: str) -> object:
    if "examples" in schema:
        return schema["examples"][0]
    if "$ref" in schema:
        return _example(schemas[schema["$ref"].removeprefix(REF)], schemas, of)
    if "properties" in schema:
        return {name: _example(found, schemas, f"{of}.{name}") for name, found in schema["properties"].items()}
    if "enum" in schema:
        return schema["enum"][0]
    if "anyOf" in schema:
        return _example(schema["anyOf"][0], schemas, of)
    if schema.get("type") == "array" and "items" in schema:
        return [_example(schema["items"], schemas, of)]
    raise GlossaryGap(f"api/glossary.yaml: add an example to {of}")
