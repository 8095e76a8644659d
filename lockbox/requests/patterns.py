"""Compare resources and cases with patterns, in which a star is any text; pure."""

import re
from collections.abc import Iterable
from typing import Annotated

from pydantic import AfterValidator, Field

from lockbox.text_rules import LINE_PATTERN, check_line

MOST_STARS = 4
EITHER = "|"


def fits(pattern: str, text: str) -> bool:
    """Whether the whole text is what the pattern says, where `*` is any text, also none.

    Case matters. Each stretch between stars is looked for once, from left to right, so it takes linear time and
    nothing that somebody writes can make it backtrack.
    """
    first, *rest = pattern.split("*")
    if not rest:
        return text == first
    *between, last = rest
    at, end = len(first), len(text) - len(last)
    if at > end or not (text.startswith(first) and text.endswith(last)):
        return False
    for phase in between:
        found = text.find(phase, at, end)
        if found < 0:
            return False
        at = found + len(phase)
    return True


def fits_case(patterns: Iterable[str], case_ref: str) -> bool:
    """Whether a case fits all of these patterns, and of each one of the alternatives between its bars."""
    return all(any(fits(one, case_ref) for one in pattern.split(EITHER)) for pattern in patterns)


def _case_pattern(value: str) -> str:
    check_line(value)
    parts = [re.sub(r"\*+", "*", part.strip()) for part in value.split(EITHER)]
    if not all(parts) or any(part.count("*") > MOST_STARS for part in parts):
        raise ValueError(
            f"write patterns such as INC*, with {EITHER} between alternatives and at most {MOST_STARS} stars in each"
        )
    return EITHER.join(sorted(set(parts)))


CasePattern = Annotated[
    str,
    Field(min_length=1, max_length=200, json_schema_extra={"pattern": LINE_PATTERN}),
    AfterValidator(_case_pattern),
]
"""What the reference of a case looks like: `INC*`, or `INC*|CHG*` for one or the other. See `fits_case`."""
