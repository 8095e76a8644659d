"""Complete the OpenAPI document with security schemes and common answers."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api.schemas import authzen
from api.schemas.parts import problems

BEARER = {
    "type": "http",
    "scheme": "bearer",
    "description": "A Lockbox token (`lbx_…`), or a token of a configured identity provider.",
}
UNSIGNED = ("/.well-known/", "/livez", "/readyz", "/metrics", "/v1/device-logins")
"""Routes that need no credential."""
OPEN = ("/.well-known/", "/livez", "/readyz")
"""Routes that never refuse."""
LENGTHS = {"minLength": "minItems", "maxLength": "maxItems"}
PROBLEM = "application/problem+json"
SIGN_IN = frozenset({401, 403})
ANYWHERE = frozenset({400, 405, 422, 429, 503})
WITH_BODY = frozenset({413, 415})
POSSIBLE = frozenset({404, 409, 412, 428}) | SIGN_IN | ANYWHERE | WITH_BODY


def install(app: FastAPI) -> None:
    """Make the app describe itself completely; the document is made once."""

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _completed(app)
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign]


def _completed(app: FastAPI) -> dict[str, Any]:
    made = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
    parts = made["components"]
    parts["securitySchemes"] = {"bearer": BEARER}
    parts["responses"] = {
        f"Problem{status}": {"description": facts["description"], "content": facts["content"]}
        for status, facts in sorted(problems(*POSSIBLE).items())
    }
    parts["schemas"].update(authzen.components())
    _count_items(made)
    for path, operations in made["paths"].items():
        for operation in operations.values():
            _complete(path, operation)
    return made


def _count_items(part: Any) -> None:  # noqa: ANN401 - any part of the document
    """Limit lists by `minItems` and `maxItems`: pydantic writes `minLength` for lists with further checks."""
    if isinstance(part, dict):
        if part.get("type") == "array":
            for wrong, right in LENGTHS.items():
                if wrong in part:
                    part[right] = part.pop(wrong)
        for inner in part.values():
            _count_items(inner)
    elif isinstance(part, list):
        for inner in part:
            _count_items(inner)


def _complete(path: str, operation: dict[str, Any]) -> None:
    if not path.startswith(UNSIGNED):
        operation["security"] = [{"bearer": []}]
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
