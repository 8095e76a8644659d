"""The mistakes in a form, by field."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from lockbox.errors import Invalid, LockboxError

FieldErrors = Mapping[str, Sequence[str]]


class FormRejected(Invalid):
    """`errors` has a message for each field."""


@dataclass(frozen=True)
class FormMistake:
    """`name` is the field's label, empty if `message` names it; `place` is the field's id on the page, or empty."""

    name: str
    place: str
    message: str


def rejected(detail: str, mistakes: Iterable[tuple[str, str]]) -> FormRejected:
    """`mistakes` are pairs of a field and advice on how to correct it."""
    errors = [{"field": field, "message": sentence(said)} for field, said in dict.fromkeys(mistakes)]
    return FormRejected(detail, errors=errors)


def sentence(said: str) -> str:
    return f"{said[0].upper()}{said[1:].rstrip('.')}."


def mistakes_of(refused: LockboxError | None) -> Iterator[tuple[str, str]]:
    facts = refused.facts if refused else {}
    if "errors" in facts:
        yield from ((one["field"], one["message"]) for one in facts["errors"])
    elif refused and "field" in facts:
        yield facts["field"], refused.detail


def by_field(mistakes: Iterable[tuple[str, str]]) -> FieldErrors:
    found = defaultdict[str, list[str]](list)
    for field, message in mistakes:
        found[field].append(message)
    return dict(found)


def summary(
    refused: LockboxError | None, names: Mapping[str, str], places: Mapping[str, str]
) -> Sequence[FormMistake]:
    """`names` are the labels of the fields; `places` are their places on the page."""
    if not isinstance(refused, FormRejected):
        return ()
    return [
        FormMistake(names.get(field, ""), places.get(field, ""), message) for field, message in mistakes_of(refused)
    ]
