"""Read the catalogue from its file."""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from catalogue.service_catalogue import Catalogue, InconsistentCatalogue
from catalogue.source import CatalogueProblem, MarkedDocument, Place, UnreadableYaml, read_yaml

MOST_BYTES = 262_144
MOST_PROBLEMS = 20
SAMPLE = Path(__file__).with_name("catalogue.yaml")
"""The catalogue of development, used if LOCKBOX_CATALOGUE is not set."""
SAID = {
    "missing": "add this field",
    "extra_forbidden": "remove this field, or mend its name: docs/catalogue.md lists the fields",
    "string_type": "write text; in quotes, if it looks like a number",
    "int_type": "write a whole number",
    "bool_type": "write true or false",
    "tuple_type": "write a list, such as [a, b]",
    "dict_type": "write `name: value` lines below it",
    "model_type": "write `name: value` lines below it",
    "string_too_short": "write at least {min_length} character(s)",
    "string_too_long": "write at most {max_length} characters",
    "too_short": "write at least {min_length}",
    "too_long": "write at most {max_length}",
    "greater_than_equal": "write a number of at least {ge}",
    "less_than_equal": "write a number of at most {le}",
    "literal_error": "write {expected}",
}


class CatalogueRefused(ValueError):  # noqa: N818 - the name says what went wrong
    """The message has one line for each problem, `file:line: field: what to do`."""


class CatalogueUnreadable(CatalogueRefused):
    pass


def read_catalogue(path: Path) -> Catalogue:
    try:
        document = read_yaml(_text(path))
    except UnreadableYaml as refused:
        raise CatalogueRefused(_line(path, refused.line, refused.place, refused.message)) from None
    try:
        return Catalogue.model_validate(document.value)
    except ValidationError as error:
        raise CatalogueRefused("\n".join(_lines(path, document, error))) from None


@cache
def sample_catalogue() -> Catalogue:
    return read_catalogue(SAMPLE)


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise CatalogueUnreadable(
            f"{path}: the catalogue cannot be read ({error.strerror}): name a file that can"
        ) from None
    if len(content) > MOST_BYTES:
        raise CatalogueRefused(f"{path}: make the file smaller: at most {MOST_BYTES:,} bytes are read")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise CatalogueRefused(_line(path, line, (), "save the file as UTF-8: this line has other bytes")) from None


def _lines(path: Path, document: MarkedDocument, error: ValidationError) -> Iterator[str]:
    problems = list(_problems(error))
    for problem in problems[:MOST_PROBLEMS]:
        yield _line(path, document.line(problem.place), problem.place, problem.message)
    if len(problems) > MOST_PROBLEMS:
        yield f"{path}: and {len(problems) - MOST_PROBLEMS} more"


def _problems(error: ValidationError) -> Iterator[CatalogueProblem]:
    items = error.errors(include_url=False, include_input=False)
    for item in items:
        if item["type"] == "too_short" and any(item["loc"] == other["loc"][:-1] for other in items):
            continue  # the items are wrong, so pydantic counted none of them
        context: Mapping[str, Any] = item.get("ctx", {})
        cause = context.get("error")
        if isinstance(cause, InconsistentCatalogue):
            yield from cause.problems
        else:
            said = SAID.get(item["type"], "").format(**context) or item["msg"].removeprefix("Value error, ")
            yield CatalogueProblem(tuple(part for part in item["loc"] if part != "[key]"), said)


def _line(path: Path, line: int, place: Place, message: str) -> str:
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")
    return f"{path}:{line}: {field}: {message}" if field else f"{path}:{line}: {message}"
