"""Describe the properties and parameters of the OpenAPI document, and give their examples: from `glossary.yaml`."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from lockbox.facts.ask import Ask
from lockbox.facts.requester import Requester
from lockbox.facts.window import Window

FILE = Path(__file__).with_name("glossary.yaml")
REF = "#/components/schemas/"
Schema = dict[str, Any]


PROPERTIES = "properties"
DECLARED = {
    name: {"about": field.description, "example": field.examples[0]}
    for part in (Ask, Requester, Window)
    for name, field in part.model_fields.items()
    if field.description and field.examples
}
"""What the facts of a request mean, wherever they stand: their declaration says it."""


class GlossaryGap(Exception):  # noqa: N818 - it names what is missing
    """The glossary lacks an entry, has one too many, or an entry lacks its example."""


class Glossary:
    """The entries of one section, and which of them were used."""

    def __init__(self, section: str) -> None:
        written: Mapping[str, Mapping[str, Any]] = yaml.safe_load(FILE.read_text(encoding="utf-8"))[section]
        self._entries = {**(DECLARED if section == PROPERTIES else {}), **written}
        self._unused = set(written)

    def entry(self, of: str, name: str) -> Mapping[str, Any]:
        """Return what a name means in one schema or operation.

        Raises:
            GlossaryGap: there is no entry.
        """
        for key in (f"{of}.{name}", name):
            if key in self._entries:
                self._unused.discard(key)
                return self._entries[key]
        raise GlossaryGap(f"api/glossary.yaml: add {name}, or {of}.{name}")

    def is_special(self, of: str, name: str) -> bool:
        """Whether there is an entry for a name in this schema or operation alone."""
        return f"{of}.{name}" in self._entries

    def check(self) -> None:
        """Refuse entries that nothing uses.

        Raises:
            GlossaryGap: names them.
        """
        if self._unused:
            raise GlossaryGap(f"api/glossary.yaml: remove {', '.join(sorted(self._unused))}")


def describe_schemas(schemas: Mapping[str, Schema]) -> None:
    """Describe each property of the schemas, and give it an example."""
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


def describe_parameters(operations: Mapping[str, Schema]) -> None:
    """Describe each parameter of the operations, which are named by their ids, and give it an example."""
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
    """Return an example that is made of those of a schema's own properties.

    Raises:
        GlossaryGap: neither the schema nor the glossary says what a value looks like.
    """
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
