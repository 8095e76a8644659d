"""The API reference: plain pages made from the OpenAPI document, with a search on the server."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any

from fastapi import Depends, Query, Request, Response
from markupsafe import Markup, escape

from api.browser import Visitor
from api.call_routes import CallRouter
from api.document import FILE
from api.portal import phrases
from api.portal.pages import TAG, TEMPLATES, page, signed_in
from api.problems import every_code
from lockbox.errors import NotFound

router = CallRouter(prefix="/docs", tags=[TAG], include_in_schema=False)

SCHEMA = "#/components/schemas/"
MOST_FOUND = 60
JSON = "application/json"
Search = Annotated[str, Query(max_length=200)]
OptionalVisitor = Annotated[Visitor | None, Depends(signed_in)]


@dataclass(frozen=True)
class DocumentedField:
    name: str
    type: str
    schema: str | None
    said: str
    example: str
    is_required: bool
    place: str = ""


@dataclass(frozen=True)
class SchemaPage:
    name: str
    said: str
    members: Sequence[DocumentedField]
    values: Sequence[str]
    example: str


@dataclass(frozen=True)
class Answer:
    status: str
    said: str
    schema: str | None


@dataclass(frozen=True)
class OperationEntry:
    id: str
    tag: str
    method: str
    path: str
    summary: str
    said: str
    credential: str
    parameters: Sequence[DocumentedField]
    body: str | None
    answers: Sequence[Answer]
    sample: str

    def holds(self, words: Sequence[str]) -> bool:
        names = " ".join(parameter.name for parameter in self.parameters)
        text = f"{self.id} {self.method} {self.path} {self.summary} {self.said} {names} {self.body}".lower()
        return all(word in text for word in words)


@dataclass(frozen=True)
class ReferenceSection:
    name: str
    said: str
    operations: Sequence[OperationEntry]
    calls: Sequence[OperationEntry]


@dataclass(frozen=True)
class Found:
    address: str
    title: str
    said: str


class Reference:
    def __init__(self, document: Mapping[str, Any]) -> None:
        self.said: str = document["info"]["description"]
        self._schemas: Mapping[str, Any] = document["components"]["schemas"]
        self._components: Mapping[str, Any] = document["components"]
        operations = [
            self._operation(path, method, said)
            for path, methods in document["paths"].items()
            for method, said in methods.items()
        ]
        calls = [self._operation(name, "post", said["post"]) for name, said in document["webhooks"].items()]
        self.sections = {tag["name"]: self._section(tag, operations, calls) for tag in document["tags"]}
        self.schemas = {name: self._schema(name, said) for name, said in sorted(self._schemas.items())}
        self.problems = every_code()

    def search(self, text: str) -> Sequence[Found]:
        words = text.lower().split()
        return list(self._found(words)) if words else []

    def _found(self, words: Sequence[str]) -> Iterator[Found]:
        for section in self.sections.values():
            for one in (*section.operations, *section.calls):
                if one.holds(words):
                    yield Found(f"/docs/{section.name}#{one.id}", f"{one.method} {one.path}", one.summary)
        for schema in self.schemas.values():
            named = " ".join([schema.name, schema.said, *(member.name for member in schema.members), *schema.values])
            if all(word in named.lower() for word in words):
                yield Found(f"/docs/schemas/{schema.name}", schema.name, schema.said)
        for problem in self.problems:
            if all(word in f"{problem.code} {problem.meaning}".lower() for word in words):
                yield Found(f"/docs/problems#{problem.code}", f"{problem.status} {problem.code}", problem.meaning)

    def _section(
        self, tag: Mapping[str, str], operations: Sequence[OperationEntry], calls: Sequence[OperationEntry]
    ) -> ReferenceSection:
        name = tag["name"]
        return ReferenceSection(
            name,
            tag["description"],
            [operation for operation in operations if operation.tag == name],
            [call for call in calls if call.tag == name],
        )

    def _operation(self, path: str, method: str, said: Mapping[str, Any]) -> OperationEntry:
        taken = [self._resolved(one) for one in said.get("parameters", ())]
        body = said.get("requestBody", {}).get("content", {}).get(JSON, {}).get("schema")
        return OperationEntry(
            id=said["operationId"],
            tag=said["tags"][0],
            method=method.upper(),
            path=path,
            summary=said["summary"],
            said=said["description"],
            credential=_credential(said["security"]),
            parameters=[self._parameter(one) for one in taken],
            body=_named(body) if body else None,
            answers=[self._answer(status, self._resolved(one)) for status, one in said["responses"].items()],
            sample=self._sample(path, method, said, body),
        )

    def _resolved(self, said: Mapping[str, Any]) -> Mapping[str, Any]:
        if "$ref" not in said:
            return said
        _, _, kind, name = said["$ref"].split("/")
        found: Mapping[str, Any] = self._components[kind][name]
        return found

    def _parameter(self, said: Mapping[str, Any]) -> DocumentedField:
        schema = said["schema"]
        return DocumentedField(
            said["name"],
            _type(schema),
            _named(schema),
            said["description"],
            _text(said["example"]),
            said.get("required", False),
            said["in"],
        )

    def _answer(self, status: str, said: Mapping[str, Any]) -> Answer:
        schema = next((_named(one["schema"]) for one in said.get("content", {}).values() if "schema" in one), None)
        return Answer(status, said["description"], schema)

    def _schema(self, name: str, said: Mapping[str, Any]) -> SchemaPage:
        required = said.get("required", ())
        members = [
            DocumentedField(
                one,
                _type(of),
                _named(of),
                of["description"],
                json.dumps(of["examples"][0], ensure_ascii=False),
                one in required,
            )
            for one, of in said.get("properties", {}).items()
        ]
        example = json.dumps(self._example(name), indent=2, ensure_ascii=False) if members else ""
        return SchemaPage(name, said.get("description", ""), members, said.get("enum", ()), example)

    def _example(self, name: str) -> Mapping[str, Any]:
        return {one: of["examples"][0] for one, of in self._schemas[name].get("properties", {}).items()}

    def _sample(self, path: str, method: str, said: Mapping[str, Any], body: Mapping[str, Any] | None) -> str:
        if not path.startswith("/"):
            return ""
        needed = [one for one in map(self._resolved, said.get("parameters", ())) if one.get("required")]
        for one in needed:
            if one["in"] == "path":
                path = path.replace(f"{{{one['name']}}}", str(one["example"]))
        query = "&".join(f"{one['name']}={one['example']}" for one in needed if one["in"] == "query")
        lines = ["curl" + ("" if method == "get" else f" -X {method.upper()}")]
        lines += ['-H "Authorization: Bearer $LOCKBOX_TOKEN"'] if said["security"] else []
        lines += [f"-H '{one['name']}: {one['example']}'" for one in needed if one["in"] == "header"]
        if body is not None and (name := _named(body)):
            required = self._schemas[name].get("required", ())
            small = {one: value for one, value in self._example(name).items() if one in required}
            lines += [f"--json '{json.dumps(small, ensure_ascii=False)}'"]
        return " \\\n  ".join([*lines, f'"$LOCKBOX_URL{path}{"?" + query if query else ""}"'])


def _credential(security: Sequence[Mapping[str, Any]]) -> str:
    names = {name for one in security for name in one}
    if not names:
        return "none"
    return "token" if "bearer" in names else "metrics"


def _named(schema: Mapping[str, Any]) -> str | None:
    if "$ref" in schema:
        return str(schema["$ref"].removeprefix(SCHEMA))
    inner = [*schema.get("anyOf", ()), *([schema["items"]] if "items" in schema else [])]
    return next((name for one in inner if (name := _named(one))), None)


def _type(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"].removeprefix(SCHEMA))
    for choice in ("anyOf", "oneOf"):
        if choice in schema:
            return phrases.OR.join(_type(one) for one in schema[choice])
    if "const" in schema:
        return _text(schema["const"])
    if "enum" in schema:
        return phrases.OR.join(_text(one) for one in schema["enum"])
    if schema.get("type") == "array":
        items = phrases.LIST_OF.format(what=_type(schema.get("items", {})))
        return items + _bounds(schema, "minItems", "maxItems", phrases.ITEMS)
    word = str(schema.get("format") or schema.get("type") or phrases.ANY_VALUE)
    return word + (
        _bounds(schema, "minLength", "maxLength", phrases.CHARACTERS) + _bounds(schema, "minimum", "maximum", "")
    )


def _bounds(schema: Mapping[str, Any], least: str, most: str, of: str) -> str:
    low, high = schema.get(least), schema.get(most)
    if low is None and high is None:
        return ""
    words = phrases.AT_LEAST.format(low=low) if high is None else phrases.SPAN.format(low=low or 0, high=high)
    return f", {words} {of}".rstrip()


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def marked(text: str) -> Markup:
    """Convert text of the document to HTML: paragraphs, `code` and **bold** words."""
    return Markup("").join(Markup("<p>{}</p>").format(_inline(part)) for part in text.strip().split("\n\n"))


def _inline(text: str) -> Markup:
    parts = [
        Markup("<code>{}</code>").format(part) if number % 2 else _bold(part)
        for number, part in enumerate(text.split("`"))
    ]
    return Markup("").join(parts)


def _bold(text: str) -> Markup:
    parts = [
        Markup("<b>{}</b>").format(part) if number % 2 else escape(part)
        for number, part in enumerate(text.split("**"))
    ]
    return Markup("").join(parts)


TEMPLATES.filters["marked"] = marked
TEMPLATES.filters["inline"] = _inline


@cache
def reference() -> Reference:
    return Reference(json.loads(FILE.read_bytes()))


@router.get("")
def overview(request: Request, visitor: OptionalVisitor, q: Search = "") -> Response:
    found = reference().search(q)
    return page(
        request,
        "reference",
        visitor=visitor,
        reference=reference(),
        q=q.strip(),
        found=found[:MOST_FOUND],
        more=max(0, len(found) - MOST_FOUND),
    )


@router.get("/problems")
def problems(request: Request, visitor: OptionalVisitor) -> Response:
    return page(request, "reference_problems", visitor=visitor, reference=reference(), q="")


@router.get("/schemas")
def schemas(request: Request, visitor: OptionalVisitor) -> Response:
    return page(request, "reference_schemas", visitor=visitor, reference=reference(), q="")


@router.get("/schemas/{schema}")
def show_schema(request: Request, visitor: OptionalVisitor, schema: str) -> Response:
    if schema not in reference().schemas:
        raise NotFound(phrases.NO_SCHEMA)
    shown = reference().schemas[schema]
    return page(request, "reference_schema", visitor=visitor, reference=reference(), schema=shown, q="")


@router.get("/{section}")
def show_section(request: Request, visitor: OptionalVisitor, section: str) -> Response:
    if section not in reference().sections:
        raise NotFound(phrases.NO_SECTION)
    shown = reference().sections[section]
    return page(request, "reference_section", visitor=visitor, reference=reference(), section=shown, q="")
