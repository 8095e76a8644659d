"""How a fact of a request is declared: its label, the places that show it, and whether it is personal."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, Flag, StrEnum, auto
from functools import cache
from typing import Any, TypeVar, cast, get_args

from pydantic import ConfigDict
from sqlmodel import SQLModel


class FactView(Flag):
    """A place that shows facts.

    FORM is the form of a new request. REPEAT is what a resubmission or extension copies from the earlier request.
    EVENT is what the request's events hold; LOG is what the audit log's pages show of these events. PAGE is the page
    of a request, LIST its entry in lists, and CSV its row in a table.
    """

    NONE = 0
    FORM = auto()
    REPEAT = auto()
    EVENT = auto()
    LOG = auto()
    MAIL = auto()
    CHAT = auto()
    WEBHOOK = auto()
    PAGE = auto()
    LIST = auto()
    CSV = auto()


FORM, REPEAT, EVENT, LOG = FactView.FORM, FactView.REPEAT, FactView.EVENT, FactView.LOG
MAIL, CHAT, WEBHOOK = FactView.MAIL, FactView.CHAT, FactView.WEBHOOK
PAGE, LIST, CSV = FactView.PAGE, FactView.LIST, FactView.CSV


class Personal(Enum):
    """Whether a fact is personal, and who may read it.

    ERASED: events hold only a commitment, and the value can be erased. WHY: like ERASED, and only readers of the
    justification may read the value.
    """

    NO = auto()
    ERASED = auto()
    WHY = auto()


NO, ERASED, WHY = Personal


@dataclass(frozen=True)
class Fact:
    """`show` returns plain text, without markup."""

    label: str
    views: FactView = FactView.NONE
    personal: Personal = NO
    show: Callable[[Any], str] = str
    help: str = ""


class Part(SQLModel):
    model_config = ConfigDict(extra="forbid")  # type: ignore[assignment] # SQLModel's own kind of configuration


P = TypeVar("P", bound=Part)


@cache
def facts_of(part: type[SQLModel], view: FactView) -> Mapping[str, Fact]:
    """Facts by field name, in the order of declaration; NONE returns the facts of all places."""
    every = ((name, fact) for name, field in part.model_fields.items() for fact in field.metadata)
    return {name: fact for name, fact in every if isinstance(fact, Fact) and view in fact.views}


@cache
def kinds_of(part: type[SQLModel]) -> Mapping[str, type[StrEnum]]:
    every = (
        (name, kind)
        for name, field in part.model_fields.items()
        for kind in (field.annotation, *get_args(field.annotation))
    )
    return {name: kind for name, kind in every if isinstance(kind, type) and issubclass(kind, StrEnum)}


def values_of(part: type[SQLModel], row: object, names: Iterable[str] | None = None) -> dict[str, Any]:
    values = {name: getattr(row, name) for name in (part.model_fields if names is None else names)}
    return values | {n: kind(values[n]) for n, kind in kinds_of(part).items() if values.get(n) is not None}


def read(part: type[P], row: object) -> P:
    """The values are not validated: bounds may have become stricter since the row was stored."""
    return cast("P", part.model_construct(None, **values_of(part, row)))


def taken(part: type[P], values: dict[str, Any]) -> P:
    """Move a part's values out of `values` into a new part; not validated."""
    return cast(
        "P", part.model_construct(None, **{name: values.pop(name) for name in part.model_fields if name in values})
    )


@cache
def in_clear(part: type[SQLModel]) -> tuple[str, ...]:
    return tuple(name for name, fact in facts_of(part, EVENT).items() if fact.personal is NO)


@cache
def committed(part: type[SQLModel]) -> tuple[str, ...]:
    return tuple(name for name, fact in facts_of(part, EVENT).items() if fact.personal is not NO)


def why(part: type[SQLModel]) -> Iterator[str]:
    return (name for name, fact in facts_of(part, FactView.NONE).items() if fact.personal is WHY)


def given(part: Part, view: FactView) -> dict[str, Any]:
    return {name: value for name in facts_of(type(part), view) if (value := getattr(part, name))}


def lines(part: Part, view: FactView, *, reads_why: bool) -> Iterator[tuple[str, str]]:
    facts = facts_of(type(part), view)
    for name, value in given(part, view).items():
        if reads_why or facts[name].personal is not WHY:
            yield facts[name].label, facts[name].show(value)


def cells(part: Part, view: FactView, *, reads_why: bool) -> Iterator[str | None]:
    """A text for each fact; None for an empty value or without permission to read it."""
    values = given(part, view)
    for name, fact in facts_of(type(part), view).items():
        is_read = name in values and (reads_why or fact.personal is not WHY)
        yield fact.show(values[name]) if is_read else None
