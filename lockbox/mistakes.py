"""Turn pydantic's errors into advice on what to do, without repeating any input."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from lockbox.notifications.mail_text import duration
from lockbox.notifications.policy_wording import SECONDS

VALUE = "Value error, "
RULE = re.compile(r"(?:Input|Value|String|List|Tuple|Set|Dictionary|Datetime|UUID) (?:should|must) (?P<what>.+)")
QUOTED = re.compile(r"'([^']*)'")
NAMES = {
    r"^[a-z0-9][a-z0-9-]*$": "use small letters, digits and hyphens, and begin with a letter or a digit",
    r"^[a-z0-9][a-z0-9_-]*$": "use small letters, digits, hyphens and underscores, and begin with no mark",
}
ENDS = {"ge": "{} or more", "le": "{} or less", "gt": "more than {}", "lt": "less than {}"}
WORDS = {
    "missing": "this is missing",
    "string": "write text here",
    "int": "write a whole number",
    "float": "write a number",
    "bool": "write true or false",
    "list_type": "write a list here",
    "tuple_type": "write a list here",
    "set_type": "write a list here",
    "frozen_set_type": "write a list here",
    "dict_type": "write an object with members here",
    "model_type": "write an object with members here",
    "model_attributes_type": "write an object with members here",
    "uuid": "write an id as it was given to you",
    "timezone": "write a moment with its time zone, such as 2026-11-24T09:00:00Z",
    "datetime": "write a moment with its time zone, such as 2026-11-24T09:00:00Z",
    "date": "write a day, such as 2026-11-24",
    "json_invalid": "write JSON here",
}
"""The advice, by the type of pydantic's error or by the first word of the type."""


def say(error: Mapping[str, Any]) -> str:
    """Return what to do about one error of pydantic or FastAPI, without a full stop."""
    kind, said, context = str(error["type"]), str(error["msg"]), error.get("ctx") or {}
    if said.startswith(VALUE):
        return said.removeprefix(VALUE)
    if kind in SIZES:
        return SIZES[kind](error, context)
    if kind in {"enum", "literal_error"}:
        return "choose " + QUOTED.sub(r"\1", str(context["expected"]))
    if kind == "extra_forbidden":
        return "there is nothing of that name; leave it out" if said.startswith("Extra") else said
    found = WORDS.get(kind) or WORDS.get(kind.split("_", maxsplit=1)[0])
    if found:
        return found
    rule = RULE.fullmatch(said)
    return f"this has to {rule['what']}" if rule else f"{said[:1].lower()}{said[1:]}"


def of(refused: ValidationError) -> Iterator[tuple[tuple[int | str, ...], str]]:
    """Yield the location of each error, and what to do about it."""
    for error in refused.errors(include_url=False):
        yield error["loc"], say(error)


def advice(refused: ValidationError) -> str:
    return "; ".join(dict.fromkeys(what for _, what in of(refused)))


def _size(error: Mapping[str, Any], context: Mapping[str, Any]) -> str:
    least, most = context.get("min_length"), context.get("max_length")
    is_text = isinstance(error.get("input"), str | bytes) or str(error["type"]).startswith("string")
    if is_text:
        if most is None:
            return "write something" if least == 1 else f"write at least {least} characters"
        return f"write at most {most} characters"
    if most is None:
        return "choose at least one" if least == 1 else f"name at least {least}"
    count = context.get("actual_length")
    return f"name at most {most}{f', not {count}' if count else ''}"


def _bound(error: Mapping[str, Any], context: Mapping[str, Any]) -> str:
    name, bound = next((name, context[name]) for name in ENDS if name in context)
    if SECONDS & set(map(str, error.get("loc", ()))) and isinstance(bound, int) and bound > 0:
        return f"this may be {duration(bound)} ({bound} seconds) {'at least' if name == 'ge' else 'at most'}"
    return f"write {ENDS[name].format(bound)}"


def _pattern(_: Mapping[str, Any], context: Mapping[str, Any]) -> str:
    return NAMES.get(str(context.get("pattern")), "write it in the form in which it was given to you")


SIZES: Mapping[str, Callable[[Mapping[str, Any], Mapping[str, Any]], str]] = {
    **dict.fromkeys(("string_too_short", "string_too_long", "too_short", "too_long"), _size),
    **dict.fromkeys(("bytes_too_short", "bytes_too_long"), _size),
    **dict.fromkeys(("greater_than", "greater_than_equal", "less_than", "less_than_equal"), _bound),
    "string_pattern_mismatch": _pattern,
}
