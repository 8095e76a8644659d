"""The committed OpenAPI document is that of the code, and complete: names, words, examples, security, problems."""

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import jsonschema_rs
import pytest
from fastapi.openapi.utils import get_openapi

from api import document, openapi
from api.app import make_app, make_database
from api.problems import every_code
from tests.http.test_routes import NOWHERE

VERBS = (
    *("get", "list", "search", "check", "evaluate", "preview", "replay", "export"),
    *("submit", "resubmit", "endorse", "approve", "deny", "cancel", "revoke", "complete", "report", "ask", "answer"),
    "break",
    *("add", "create", "change", "remove", "rename", "rotate", "redeliver", "test", "request", "record", "declare"),
    *("invite", "withdraw", "propose", "object_to", "leave", "suspend", "resume", "disable", "confirm"),
    *("start", "end", "allow", "decide", "acknowledge"),
)
OPERATION_ID = re.compile(rf"(?:{'|'.join(VERBS)})_[a-z]+(?:_[a-z]+){{0,3}}")
DOCUMENT: dict[str, Any] = json.loads(document.FILE.read_text(encoding="utf-8"))
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]


class Operation(NamedTuple):
    """An operation of the document."""

    method: str
    path: str
    said: dict[str, Any]


OPERATIONS = [
    Operation(method, path, said) for path, methods in DOCUMENT["paths"].items() for method, said in methods.items()
]
PROPERTIES = [
    (f"{schema}.{name}", found)
    for schema, said in SCHEMAS.items()
    for name, found in said.get("properties", {}).items()
]


@pytest.fixture(scope="module")
def once() -> str:
    return openapi.described()


def test_the_committed_openapi_document_matches_the_app(once: str) -> None:
    committed = document.FILE.read_text(encoding="utf-8")

    assert committed == once, "write it anew: make openapi"


def test_the_openapi_document_names_no_host(once: str) -> None:
    assert json.loads(once)["info"]["title"] == "Lockbox"
    assert "localhost" not in once


def test_each_openapi_operation_is_named_by_verb_and_object() -> None:
    names = [said["operationId"] for _, _, said in OPERATIONS]

    assert [name for name in names if not OPERATION_ID.fullmatch(name)] == []
    assert len(names) == len(set(names))


def test_each_openapi_operation_has_one_described_tag_and_a_summary() -> None:
    tags = {tag["name"] for tag in DOCUMENT["tags"] if tag["description"]}

    assert {tag for _, _, said in OPERATIONS for tag in said["tags"]} == tags
    assert [said["operationId"] for _, _, said in OPERATIONS if len(said["tags"]) != 1] == []
    assert [said["operationId"] for _, _, said in OPERATIONS if not (said["summary"] and said["description"])] == []


def test_each_openapi_operation_states_whether_it_needs_a_credential() -> None:
    public = {f"{method} {path}" for method, path, said in OPERATIONS if said["security"] == []}

    assert public == {
        "get /.well-known/authzen-configuration",
        "get /.well-known/lockbox-audit-keys",
        "get /livez",
        "get /readyz",
        "post /v1/device-logins",
        "post /v1/device-logins/state",
    }
    named = {name for _, _, said in OPERATIONS for one in said["security"] for name in one}
    assert named == set(DOCUMENT["components"]["securitySchemes"])


def test_each_openapi_schema_has_the_same_name_and_properties_for_input_and_output() -> None:
    app = make_app(NOWHERE, make_database(NOWHERE))
    schemas = get_openapi(title="", version="", routes=app.routes)["components"]["schemas"]
    written = [name for name in schemas if name.endswith("-Input")]

    assert written
    assert [name for name in SCHEMAS if "-" in name] == []
    for name in written:
        said, answered = schemas[name], schemas[name.replace("-Input", "-Output")]
        assert set(said["properties"]) == set(answered["properties"]), name


def test_each_openapi_property_and_parameter_has_a_description_and_an_example() -> None:
    parameters = [(f"{said['operationId']}.{one['name']}", one) for _, _, said in OPERATIONS for one in _taken(said)]

    for name, found in PROPERTIES:
        assert _is_sentence(found["description"]), name
        assert len(found["examples"]) == 1, name
    for name, found in parameters:
        assert _is_sentence(found["description"]), name
        assert "example" in found, name


def _taken(operation: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from operation.get("parameters", ())


def _is_sentence(said: str) -> bool:
    return said.endswith(".") and (said[0].isupper() or said[0] == "`")


@pytest.mark.far
def test_each_openapi_example_is_valid() -> None:
    components = {"components": DOCUMENT["components"]}

    for name, found in PROPERTIES:
        _check(name, {**found, **components}, found["examples"][0])
    for name, said in SCHEMAS.items():
        if "properties" in said:
            _check(name, {**said, **components}, {one: of["examples"][0] for one, of in said["properties"].items()})
    for _, _, said in OPERATIONS:
        for one in _taken(said):
            _check(f"{said['operationId']}.{one['name']}", {**one["schema"], **components}, one["example"])


def _check(name: str, schema: dict[str, Any], example: object) -> None:
    validator = jsonschema_rs.Draft202012Validator(schema, validate_formats=True)
    assert [f"{name}: {error.message}" for error in validator.iter_errors(example)] == []


def test_a_wrong_openapi_example_would_be_detected() -> None:
    validator = jsonschema_rs.Draft202012Validator(
        {"$ref": "#/components/schemas/PersonView", "components": DOCUMENT["components"]}, validate_formats=True
    )

    assert validator.is_valid({"id": "0197f3a0-0a01-7b11-9c55-3f8f0f6c9a03", "name": "Erin Engel"})
    assert not validator.is_valid({"id": "erin", "name": "Erin Engel"})


def test_only_429_and_503_responses_in_openapi_have_a_retry_after_header() -> None:
    responses = DOCUMENT["components"]["responses"]

    waits = {name for name, said in responses.items() if "Retry-After" in said.get("headers", {})}

    assert waits == {"Problem429", "Problem503"}


def test_each_problem_in_openapi_has_an_example_and_its_codes() -> None:
    for name, said in DOCUMENT["components"]["responses"].items():
        status = int(name.removeprefix("Problem"))
        example = said["content"]["application/problem+json"]["example"]
        codes = [one.code for one in every_code() if one.status == status]

        _check(name, {**SCHEMAS["Problem"], "components": DOCUMENT["components"]}, example)
        assert example["status"] == status
        assert example["code"] in codes
        assert [code for code in codes if f"`{code}`" not in said["description"]] == []


def test_the_openapi_document_omits_notes_to_programmers(once: str) -> None:
    assert document.SECTION.search("Do it.\n\nRaises:\n    NotFound: there is none.")
    assert "\\nAttributes:" not in once
    assert "\\nRaises:" not in once
