"""A tenant's policy: default terms, rules by request, groups, dated consent; and the changes between two policies."""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Self, get_type_hints
from uuid import UUID

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    RootModel,
    StringConstraints,
    model_validator,
)
from pydantic_core import CoreSchema, core_schema

from catalogue.context_schema import LARGEST, LONGEST_TEXT, MOST_PARAMETERS, NAME, REFUSED_ONCE, ContextValue
from catalogue.service_catalogue import LEVELS, Level
from lockbox.audit.canonical import instant
from lockbox.facts.bounds import Word
from lockbox.facts.enumerations import Reason, Severity
from lockbox.notifications.policy_wording import ABSENT
from lockbox.requests.policy import DECLARED, Consent, RequesterPlace, Terms, stricter
from lockbox.requests.policy_parts import (
    FIRST_STEP,
    MOST_STARS,
    ApprovalStage,
    ChosenCasePatterns,
    ChosenCountries,
    ChosenReasons,
    ChosenTiers,
    GroupName,
    Once,
    PolicyPart,
    Reminders,
    Stricter,
    fits,
)
from lockbox.text_rules import (
    IS_WHOLE,
    LINE_PATTERN,
    WILDCARD_PATTERN,
    Country,
    check_line,
    check_resource_pattern,
)

MOST_RULES = 100
MOST_GROUPS = 50
MOST_MEMBERS = 500
MOST_MATCHING_RULES = 50
PLACES = ("employing_entity", "office_country", "physical_country")
"""The fields of a requester that rules match on."""
FACTS = ("service", "actions", "reason_code", "resources", "level", "context", "severity", *PLACES)
"""The fields of a request that rules match on."""
PATTERN = re.compile(r"[a-z][a-z0-9-]{0,31}:\S+")
Line = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=100),
    AfterValidator(check_line),
    Field(json_schema_extra={"pattern": LINE_PATTERN}),
]
UNNAMED = Field(exclude_if=lambda value: not value)
"""For a newer field of a rule, which processes of the previous release do not know. It is stored only if a rule uses
it."""
Members = Annotated[Once[UUID], Field(max_length=MOST_MEMBERS)]
NAMES_ALONE = {"additionalProperties": False, "propertyNames": {"maxLength": 63}}


@dataclass(frozen=True)
class RequestFacts:
    """A `level` of None means unknown."""

    service: str
    actions: Collection[str]
    reason: Reason
    resources: Collection[str]
    severity: Severity | None = None
    requester: RequesterPlace | None = None
    level: Level | None = None
    context: Mapping[str, ContextValue] = field(default_factory=dict)

    @classmethod
    def of(cls, asked: Any, level: Level | None = None, requester: RequesterPlace | None = None) -> Self:  # noqa: ANN401 - a row, or what is asked
        what = asked.service, tuple(asked.actions), Reason(asked.reason_code), tuple(asked.resources)
        return cls(*what, asked.severity, requester, level, asked.context or {})

    @property
    def countries(self) -> frozenset[str | None]:
        who = self.requester
        return frozenset({who.office_country, who.physical_country} if who else {None})

    @property
    def employing_entity(self) -> str | None:
        return self.requester.employing_entity if self.requester else None


def overlap(one: str, other: str) -> bool:
    """Whether a resource could match both patterns. Two patterns with stars are compared only at their ends."""
    if "*" not in one or "*" not in other:
        return fits(one, other) if "*" not in other else fits(other, one)
    (begins, *_, ends), (begins_too, *_, ends_too) = one.split("*"), other.split("*")
    return (begins.startswith(begins_too) or begins_too.startswith(begins)) and (
        ends.endswith(ends_too) or ends_too.endswith(ends)
    )


def _pattern(value: str) -> str:
    check_resource_pattern(value)
    if not PATTERN.fullmatch(value):
        raise ValueError(
            "write a pattern as kind:id, with * for any part of the id, such as mailbox:*@contoso.example"
        )
    value = re.sub(r"\*+", "*", value)
    if value.count("*") > MOST_STARS:
        raise ValueError(f"use at most {MOST_STARS} stars in a pattern")
    return value


def _about_something(schema: dict[str, Any]) -> None:
    """Make the JSON Schema demand a non-empty field besides `context`, and `services` if `context` is not empty."""
    named = {name: _names(name) for name in schema["properties"] if name != "context"}
    of_none = {"properties": {"context": {"maxProperties": 0}}}
    schema["anyOf"] = list(named.values())
    schema["allOf"] = [{"anyOf": [of_none, named["services"]]}]


def _names(dimension: str) -> dict[str, Any]:
    return {"required": [dimension], "properties": {dimension: {"minItems": 1}}}


def _in_order(levels: tuple[Level, ...]) -> tuple[Level, ...]:
    return tuple(sorted(levels, key=LEVELS.index))


def _each_sorted(context: dict[str, tuple[ContextValue, ...]]) -> dict[str, tuple[ContextValue, ...]]:
    for values in context.values():
        if len({(type(value), value) for value in values}) < len(values):
            raise ValueError("name each only once")
    return {name: tuple(sorted(context[name], key=json.dumps)) for name in sorted(context)}


def _by_name(groups: dict[str, tuple[UUID, ...]]) -> dict[str, tuple[UUID, ...]]:
    return dict(sorted(groups.items()))


Pattern = Annotated[
    str, Field(max_length=256, json_schema_extra={"pattern": WILDCARD_PATTERN}), AfterValidator(_pattern)
]
Groups = Annotated[
    dict[GroupName, Members],
    Field(max_length=MOST_GROUPS, json_schema_extra=NAMES_ALONE),
    AfterValidator(_by_name),
]


ContextName = Annotated[str, Field(max_length=32, pattern=rf"^{NAME.pattern}$")]
ContextChoice = Annotated[
    Annotated[str, Field(max_length=LONGEST_TEXT)]
    | Annotated[int, Field(ge=-LARGEST, le=LARGEST, strict=True), IS_WHOLE]
    | Annotated[bool, Field(strict=True)],
    REFUSED_ONCE,
]


def _is_empty(value: object) -> bool:
    return not value


def _meets(given: ContextValue | None, values: Collection[ContextValue]) -> bool:
    # In Python, 1 equals True; in JSON, they are two values.
    return given is None or any(type(given) is type(value) and given == value for value in values)


class Match(PolicyPart):
    """What a rule is about; an empty field matches anything. Resources are patterns, see `fits`.

    `context` names values for parameters of the named services. A parameter that the request does not give, or a
    level that is not known, matches any value. `outside_countries` matches requesters whose location or office is in
    none of these countries. `outside_entities` matches requesters whom none of these entities employs. An unknown
    country or employer matches as well.
    """

    model_config = ConfigDict(json_schema_extra=_about_something)

    services: Annotated[Once[Word], Field(max_length=MOST_MATCHING_RULES)] = ()
    actions: Annotated[Once[Word], Field(max_length=MOST_MATCHING_RULES)] = ()
    reasons: Once[Reason] = ()
    resources: Annotated[Once[Pattern], Field(max_length=MOST_MATCHING_RULES)] = ()
    # Empty fields are not written, so that releases without these fields can read such a policy.
    levels: Annotated[Once[Level], AfterValidator(_in_order), Field(exclude_if=_is_empty)] = ()
    context: Annotated[
        dict[ContextName, Annotated[tuple[ContextChoice, ...], Field(min_length=1, max_length=MOST_MATCHING_RULES)]],
        Field(max_length=MOST_PARAMETERS, json_schema_extra=NAMES_ALONE, exclude_if=_is_empty),
        AfterValidator(_each_sorted),
    ] = Field(default_factory=dict)
    severities: Annotated[Once[Severity], UNNAMED] = ()
    outside_countries: Annotated[Once[Country], UNNAMED] = ()
    outside_entities: Annotated[Once[Line], Field(max_length=MOST_MATCHING_RULES), UNNAMED] = ()

    @model_validator(mode="after")
    def _is_about_something(self) -> Self:
        if not any(dimension for name, dimension in self if name != "context"):
            raise ValueError(
                "name a service, action, level, reason, resource, severity, country or entity; "
                "what holds for all needs no rule"
            )
        if self.context and not self.services:
            raise ValueError("name the services whose parameters these are")
        return self

    def matches(self, ask: RequestFacts) -> bool:
        """Every non-empty dimension must match; a single match in a dimension is enough."""
        return (
            (not self.services or ask.service in self.services)
            and (not self.actions or any(action in self.actions for action in ask.actions))
            and (not self.reasons or ask.reason in self.reasons)
            and (not self.levels or ask.level is None or ask.level in self.levels)
            and all(_meets(ask.context.get(name), values) for name, values in self.context.items())
            and (not self.resources or any(fits(p, resource) for p in self.resources for resource in ask.resources))
            and (not self.severities or ask.severity in self.severities)
            and (not self.outside_countries or not ask.countries.issubset(self.outside_countries))
            and (not self.outside_entities or ask.employing_entity not in self.outside_entities)
        )

    def could_match(self, some: RequestFacts) -> bool:
        return (
            (not self.services or some.service in self.services)
            and (not self.actions or any(action in self.actions for action in some.actions))
            and (not self.reasons or some.reason in self.reasons)
            and (
                not self.resources or any(overlap(p, resource) for p in self.resources for resource in some.resources)
            )
        )


class TenantTerms(Terms):
    tiers: ChosenTiers = ()
    approval_reminders: Reminders = (50, 83)
    review_reminders: Reminders = (50, 83)
    reasons: ChosenReasons = frozenset(Reason)
    case_patterns: ChosenCasePatterns = ()
    countries: ChosenCountries | None = None


class EachTerm:
    """Marks a mapping of terms to values, each validated as in `TenantTerms`; None leaves a term as it is.

    An empty value is refused where it would change nothing.
    """

    @classmethod
    def __get_pydantic_core_schema__(cls, _: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        terms = get_type_hints(TenantTerms, include_extras=True).items()
        opinions = {name: handler.generate_schema(_opinion(name, annotation)) for name, annotation in terms}
        fields = {
            name: core_schema.typed_dict_field(core_schema.with_default_schema(opinion, default=None), required=False)
            for name, opinion in opinions.items()
        }
        return core_schema.typed_dict_schema(fields, extra_behavior="forbid")


def _opinion(name: str, annotation: Any) -> Any:  # noqa: ANN401 - a type
    if DECLARED[name].stricter in {Stricter.UNION, Stricter.EARLIEST, Stricter.STAGES, Stricter.TIERS}:
        annotation = Annotated[annotation, Field(min_length=1)]
    return annotation | None


class Overrides(RootModel[Annotated[dict[str, Any], EachTerm]]):
    """The terms that a rule sets; a term that is None stays unchanged."""

    model_config = ConfigDict(frozen=True, json_schema_extra={"not": {"additionalProperties": {"type": "null"}}})

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.given():
            raise ValueError("set at least one of the terms")
        return self

    def given(self) -> dict[str, Any]:
        return {name: value for name, value in self.root.items() if value is not None}


class Rule(PolicyPart):
    """Stricter terms for the requests that `match` describes."""

    name: Line
    match: Match
    terms: Overrides


class Policy(TenantTerms):
    """A tenant's own terms, and rules that make the terms stricter for some requests.

    Every group that a stage or tier names exists and has enough people: a policy under which no one could approve is
    refused when it is saved, not when access is needed. Equal policies have equal JSON, whatever the order in which
    they were written.
    """

    rules: Annotated[tuple[Rule, ...], Field(max_length=MOST_RULES)] = ()
    groups: Groups = Field(default_factory=dict)
    consent: Consent | None = None

    @model_validator(mode="after")
    def _groups_can_answer(self) -> Self:
        for where, group, approvals in self._calls():
            if group not in self.groups:
                raise ValueError(f"{where}: there is no group {group}; add it to groups, or leave it out here")
            people = len(self.groups[group])
            if not people:
                raise ValueError(f"{where}: the group {group} is empty; put people into it, or leave it out here")
            if people < approvals:
                raise ValueError(
                    f"{where}: the group {group} cannot give {approvals} approvals with {people} in it; "
                    "put more people into it, or ask for fewer"
                )
        return self

    def _calls(self) -> Iterator[tuple[str, str, int]]:
        yield from _called("", self.stages, self.tiers)
        for number, rule in enumerate(self.rules):
            terms = rule.terms.given()
            yield from _called(f"rules.{number}.terms.", terms.get("stages", ()), terms.get("tiers", ()))


def _called(
    prefix: str, stages: Collection[ApprovalStage], tiers: Collection[Collection[str]]
) -> Iterator[tuple[str, str, int]]:
    for stage in stages:
        yield f"{prefix}stages", stage.group, stage.quorum
    for tier in tiers:
        for group in tier:
            yield f"{prefix}tiers", group, 1


def stored(policy: Policy) -> dict[str, Any]:
    """The whole policy as JSON, except later terms that are not set (`Term.is_later`)."""
    whole = policy.model_dump(mode="json")
    later = {name for name, term in DECLARED.items() if term.is_later}
    unset = {name for name, value in policy if name in later and value == Policy.model_fields[name].default}
    for rule in whole["rules"]:
        terms = rule["terms"]
        rule["terms"] = {name: value for name, value in terms.items() if name not in later or value is not None}
    return {name: value for name, value in whole.items() if name not in unset}


def terms_for(policy: Policy, ask: RequestFacts) -> Terms:
    """The tenant's own terms, made stricter by every matching rule; the order of the rules has no effect."""
    return merged(policy, (rule for rule in policy.rules if rule.match.matches(ask)))


def strictest_for(policy: Policy, some: RequestFacts) -> Terms:
    """The tenant's own terms, merged with every rule that could match a request for a part of the access `some`.

    The resources of `some` are patterns.
    """
    return merged(policy, (rule for rule in policy.rules if rule.match.could_match(some)))


def merged(policy: Policy, rules: Iterable[Rule]) -> Terms:
    terms = stricter(policy, policy)
    for rule in rules:
        terms = stricter(terms, terms.model_copy(update=rule.terms.given()))
    return terms


def strictest(policy: Policy) -> Terms:
    """The tenant's own terms, merged with the terms of every rule."""
    return merged(policy, policy.rules)


def changes(old: Policy, new: Policy) -> dict[str, str]:
    """Return the differences as dotted ASCII names, such as `rules.0.terms.quorum`, with "old → new".

    Rules and tiers are counted from 0. Members are ids, windows are in seconds, and "none" is a missing value. The
    only free text is the name of a rule, which is in quotes.
    """
    was, now = dict(_flat(old)), dict(_flat(new))
    return {
        name: f"{was.get(name, ABSENT)} → {now.get(name, ABSENT)}"
        for name in was | now
        if was.get(name) != now.get(name)
    }


def _flat(policy: Policy) -> Iterator[tuple[str, str]]:
    yield from _flat_terms("", {name: value for name, value in policy if name in DECLARED})
    for number, rule in enumerate(policy.rules):
        yield from _flat_rule(f"rules.{number}.", rule)
    for group, members in policy.groups.items():
        yield f"groups.{group}", _listed(members) or "nobody"
    if policy.consent:
        yield "consent", f"{policy.consent.mode} until {instant(policy.consent.until)}"


def _flat_rule(prefix: str, rule: Rule) -> Iterator[tuple[str, str]]:
    yield f"{prefix}name", json.dumps(rule.name, ensure_ascii=False)
    for name, hits in rule.match:
        if name == "context":
            for parameter, values in hits.items():
                yield f"{prefix}match.context.{parameter}", ", ".join(map(json.dumps, values))
        elif hits:
            yield f"{prefix}match.{name}", _listed(hits)
    yield from _flat_terms(f"{prefix}terms.", rule.terms.given())


def _flat_terms(prefix: str, terms: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in terms.items():
        match DECLARED[name].stricter, value:
            case Stricter.STAGES, _:
                for stage in value:
                    step = f" in step {stage.order}" if stage.order > FIRST_STEP else ""
                    yield f"{prefix}{name}.{stage.group}", f"{stage.quorum}{step}"
            case Stricter.TIERS, _:
                for number, groups in enumerate(value):
                    yield f"{prefix}{name}.{number}", _listed(groups)
            case _, tuple() | frozenset():
                yield f"{prefix}{name}", _listed(sorted(value)) or (ABSENT if DECLARED[name].binds else "never")
            case _:
                anybody = value is None and name == "break_glass_people"
                yield f"{prefix}{name}", "anybody" if anybody else str(value).lower()


def _listed(values: Iterable[object]) -> str:
    return ", ".join(str(value) for value in values)
