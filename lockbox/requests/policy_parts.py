"""The parts of a policy: its words, numbers and lists, each validated on its own; pure."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from typing import Annotated, Any, TypeVar
from uuid import UUID

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from lockbox.facts.bounds import HARD_ACCESS_LIMIT, Word
from lockbox.facts.enumerations import Reason
from lockbox.text_rules import IS_WHOLE, LINE_PATTERN, Country, check_line

MOST_STARS = 4
EITHER = "|"


def fits(pattern: str, text: str) -> bool:
    """Whether the pattern matches the whole text; `*` matches any text, even none; upper and lower case differ.

    This takes linear time: no pattern or text can cause backtracking.
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
    """The case must match every pattern; `|` separates a pattern's alternatives."""
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
"""A pattern for a case's reference: `INC*`, or `INC*|CHG*` for alternatives. See `fits_case`."""


HOUR = 3600
DAY = 24 * HOUR
HARD_ANSWER_LIMIT = 14 * DAY
HARD_START_LIMIT = 30 * DAY
MOST_APPROVALS = 20
MOST_TIERS = 5
MOST_STEPS = 5
MOST_REMINDERS = 10
MOST_CASE_PATTERNS = 10
MOST_SERVICES = 50
MOST_PEOPLE = 100
HARD_BREAK_GLASS_LIMIT = HOUR
MOST_BREAK_GLASS = 31
T = TypeVar("T")
Switch = Annotated[bool, Field(strict=True)]
GroupName = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9][a-z0-9-]*$")]


class ReasonedDecision(StrEnum):
    """A decision that may need a reason."""

    APPROVE = "approve"
    DENY = "deny"
    REVOKE = "revoke"


class UnconfirmedCase(StrEnum):
    """What happens to a submission if the ticket system cannot be asked to confirm the case.

    With `accept`, the ticket system is never asked. The values' alphabetical order is also their order of strictness.
    """

    ACCEPT = "accept"
    FLAG = "flag"
    REFUSE = "refuse"


class OverdueFinding(StrEnum):
    """What the customer's overdue finding does to further break-glass.

    `block` forbids further break-glass. `allow_and_alarm` allows it, and the mails and the event about it report the
    overdue finding. The values' alphabetical order is also their order of strictness.
    """

    ALLOW_AND_ALARM = "allow_and_alarm"
    BLOCK = "block"


class RequesterMeans(StrEnum):
    """How the requester must have signed in to submit.

    `any` accepts an API token or a service account too, `sign-in` only a person's own sign-in, and `strong` only a
    sign-in with a passkey or an identity provider. The values' alphabetical order is also their order of strictness.
    """

    ANY = "any"
    SIGN_IN = "sign-in"
    STRONG = "strong"


class Stricter(Enum):
    """How two values of a term are merged to the stricter value."""

    LESS = auto()
    """The smaller value; None means no limit."""
    MORE = auto()
    UNION = auto()
    """The values of both together."""
    INTERSECTION = auto()
    """The values that both have; None means all values."""
    EARLIEST = auto()
    STAGES = auto()
    TIERS = auto()


@dataclass(frozen=True)
class Term:
    """`binds` is whether the term restricts anything; the other terms only define who is notified when.

    `is_later` is whether processes of the previous release do not know the term: a stored policy names the term only
    if it is set.
    """

    stricter: Stricter
    binds: bool = True
    is_later: bool = False


class PolicyPart(BaseModel):
    """Equal by value and immutable; unknown members are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _sorted_once(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if twice := [str(value) for value, count in Counter(values).items() if count > 1]:
        raise ValueError(f"name each only once: {', '.join(twice)}")
    return tuple(sorted(values))


Once = Annotated[tuple[T, ...], Field(json_schema_extra={"uniqueItems": True}), AfterValidator(_sorted_once)]
Approvals = Annotated[int, Field(ge=1, le=MOST_APPROVALS, strict=True), IS_WHOLE]
AnswerWindow = Annotated[int, Field(ge=1, le=HARD_ANSWER_LIMIT, strict=True), IS_WHOLE]
AccessWindow = Annotated[int, Field(ge=1, le=HARD_ACCESS_LIMIT, strict=True), IS_WHOLE]
StartAhead = Annotated[int, Field(ge=0, le=HARD_START_LIMIT, strict=True), IS_WHOLE]
SignInAge = Annotated[int, Field(ge=60, le=DAY, strict=True), IS_WHOLE]
PasskeyWait = Annotated[int, Field(ge=0, le=HARD_ANSWER_LIMIT, strict=True), IS_WHOLE]
WarningTime = Annotated[int, Field(ge=0, le=DAY, strict=True), IS_WHOLE]
Percent = Annotated[int, Field(ge=1, le=99, strict=True), IS_WHOLE]
Moments = Once[Percent]
Reminders = Annotated[Moments, Field(max_length=MOST_REMINDERS)]
EscalationMoments = Annotated[Moments, Field(max_length=MOST_TIERS - 1)]
CasePatterns = Once[CasePattern]
ChosenCasePatterns = Annotated[CasePatterns, Field(max_length=MOST_CASE_PATTERNS)]
FIRST_STEP = 1
Step = Annotated[int, Field(ge=FIRST_STEP, le=MOST_STEPS, strict=True), IS_WHOLE]
Characters = Annotated[int, Field(ge=1, le=1000, strict=True), IS_WHOLE]
BreakGlassServices = Annotated[Once[Word], Field(max_length=MOST_SERVICES)]
BreakGlassPeople = Annotated[Once[UUID], Field(max_length=MOST_PEOPLE)]
BreakGlassWindow = Annotated[int, Field(ge=60, le=HARD_BREAK_GLASS_LIMIT, strict=True), IS_WHOLE]
BreakGlassNumber = Annotated[int, Field(ge=1, le=MOST_BREAK_GLASS, strict=True), IS_WHOLE]


class ApprovalStage(PolicyPart):
    """A group that must approve, with at least `quorum` approvals.

    Stages of the same `order` form one step. People of a later step are not prompted and cannot approve until each
    stage of the earlier steps has its approvals. A stage without an order belongs to the first step.
    """

    group: GroupName
    quorum: Approvals = 1
    # The first step is not written, so that releases without orders can read such a policy.
    order: Annotated[Step, Field(exclude_if=lambda order: order == FIRST_STEP)] = FIRST_STEP


def _by_group(stages: tuple[ApprovalStage, ...]) -> tuple[ApprovalStage, ...]:
    _sorted_once(tuple(stage.group for stage in stages))
    return tuple(sorted(stages, key=lambda stage: stage.group))


def _each_group_once(tiers: tuple[tuple[str, ...], ...]) -> tuple[tuple[str, ...], ...]:
    _sorted_once(tuple(group for tier in tiers for group in tier))
    return tuple(tuple(sorted(tier)) for tier in tiers)


def _without_an_empty_end(tiers: tuple[tuple[str, ...], ...]) -> tuple[tuple[str, ...], ...]:
    while tiers and not tiers[-1]:
        tiers = tiers[:-1]
    return tiers


def _none_empty(tiers: tuple[tuple[str, ...], ...]) -> tuple[tuple[str, ...], ...]:
    if not all(tiers):
        raise ValueError("put a group into each tier, or leave the tier out")
    return tiers


def _with_no_empty_tier(schema: dict[str, Any]) -> None:
    schema["items"]["minItems"] = 1


def _given_once(values: object) -> object:
    if isinstance(values, list) and len({str(value) for value in values}) < len(values):
        raise ValueError("name each only once")
    return values


def _in_order(reasons: frozenset[Reason]) -> list[Reason]:
    return sorted(reasons)


def _by_name(decisions: frozenset[ReasonedDecision]) -> list[ReasonedDecision]:
    return sorted(decisions)


Stages = Annotated[tuple[ApprovalStage, ...], AfterValidator(_by_group)]
_Tiers = Annotated[tuple[tuple[GroupName, ...], ...], Field(max_length=MOST_TIERS), AfterValidator(_each_group_once)]
Tiers = Annotated[_Tiers, AfterValidator(_without_an_empty_end)]
ChosenTiers = Annotated[_Tiers, AfterValidator(_none_empty), Field(json_schema_extra=_with_no_empty_tier)]
Reasons = Annotated[
    frozenset[Reason],
    BeforeValidator(_given_once),
    PlainSerializer(_in_order, return_type=list[Reason], when_used="json"),
]
ChosenReasons = Annotated[Reasons, Field(min_length=1)]
Countries = Annotated[
    frozenset[Country], BeforeValidator(_given_once), PlainSerializer(sorted, return_type=list[str], when_used="json")
]
ChosenCountries = Annotated[Countries, Field(min_length=1)]
Comments = Annotated[
    frozenset[ReasonedDecision], PlainSerializer(_by_name, return_type=list[ReasonedDecision], when_used="json")
]
