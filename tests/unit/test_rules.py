"""Policies: what can be stored, which requests a rule matches, and dated consent."""

import random
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import jsonschema_rs
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from lockbox.facts.enumerations import Mode, Reason
from lockbox.requests.policy import Consent, effective_mode
from lockbox.requests.policy_parts import PolicyPart, fits
from lockbox.requests.policy_rules import Match, Overrides, Policy, RequestFacts, Rule
from tests.each import each
from tests.examples import examples
from tests.unit.policies import ASKS, MATCHES, PEOPLE, POLICIES

NOON = datetime(2026, 2, 28, 12, tzinfo=UTC)
ANN, AMIR, ABE, *_ = PEOPLE
READS_ANN = RequestFacts("mail", ["read"], Reason.SUPPORT_CASE, ["mailbox:ann", "file:7"])


def fits_by_hand(pattern: str, text: str) -> bool:
    """Decide like `fits`, by the definition: a star matches nothing, or one character and whatever a star matches."""
    if not pattern:
        return not text
    if pattern[0] == "*":
        return fits_by_hand(pattern[1:], text) or (bool(text) and fits_by_hand(pattern, text[1:]))
    return text[:1] == pattern[0] and fits_by_hand(pattern[1:], text[1:])


def shuffled(value: Any, order: random.Random) -> Any:
    """Return JSON with all objects and lists in another order, except lists of rules and tiers."""
    if isinstance(value, dict):
        names = order.sample(list(value), len(value))
        return {n: value[n] if n in {"rules", "tiers"} else shuffled(value[n], order) for n in names}
    return order.sample(value, len(value)) if isinstance(value, list) else value


def test_a_policy_can_be_written_in_few_words() -> None:
    policy = Policy(vendor_review=False, quorum=2)

    assert not policy.vendor_review
    assert policy.quorum == 2
    assert policy.model_dump(mode="json", exclude_defaults=True) == {"vendor_review": False, "quorum": 2}


@settings(max_examples=examples(100), deadline=None)
@given(POLICIES)
def test_a_policy_survives_conversion_to_json_and_back(policy: Policy) -> None:
    assert Policy.model_validate(policy.model_dump(mode="json")) == policy
    assert Policy.model_validate_json(policy.model_dump_json()) == policy


@pytest.mark.far
@settings(max_examples=examples(100), deadline=None)
@given(POLICIES, st.randoms(use_true_random=False))
def test_the_json_of_a_policy_ignores_the_order_of_writing(policy: Policy, order: random.Random) -> None:
    written = policy.model_dump(mode="json")

    again = Policy.model_validate(shuffled(written, order))

    assert again.model_dump_json() == policy.model_dump_json()


@each(
    ("wrong", "says"),
    [
        ({"made_up": 1}, "Extra inputs"),
        ({"reasons": []}, "at least 1"),
        ({"tiers": [["legal"], []]}, "put a group into each tier"),
        ({"stages": [{"group": "ops"}]}, "stages: there is no group ops; add it to groups"),
        ({"tiers": [["legal", "ops"]]}, "tiers: there is no group ops; add it to groups"),
        ({"stages": [{"group": "empty"}]}, "stages: the group empty is empty; put people into it"),
        ({"tiers": [["empty"]]}, "tiers: the group empty is empty; put people into it"),
        ({"stages": [{"group": "legal", "quorum": 3}]}, "stages: the group legal cannot give 3 approvals with 2"),
        ({"groups": {"Legal": []}}, "pattern"),
        ({"groups": {"legal": [str(ANN), str(ANN)]}}, "only once"),
        ({"groups": {f"g{number}": [] for number in range(51)}}, "at most 50"),
        ({"groups": {"legal": [str(UUID(int=number)) for number in range(501)]}}, "at most 500"),
        ({"consent": {"mode": "enforce", "until": "2026-03-01T00:00:00Z"}}, "observe"),
        ({"consent": {"mode": "off"}}, "Field required"),
        ({"consent": {"mode": "off", "until": "2026-03-01T00:00:00"}}, "with its time zone"),
        ({"consent": {"mode": "off", "until": "9999-12-31T23:59:59-05:00"}}, "choose a moment"),
    ],
)
def test_a_policy_that_cannot_be_stored_is_refused_with_advice(wrong: dict[str, Any], says: str) -> None:
    groups = {"legal": [str(ANN), str(AMIR)], "empty": []}

    with pytest.raises(ValidationError, match=says):
        Policy.model_validate({"groups": groups} | wrong)


@pytest.mark.parametrize(
    ("terms", "says"),
    [
        ({"stages": [{"group": "ops"}]}, r"rules\.1\.terms\.stages: there is no group ops"),
        ({"tiers": [["ops"]]}, r"rules\.1\.terms\.tiers: there is no group ops"),
        ({"stages": [{"group": "legal", "quorum": 2}]}, r"rules\.1\.terms\.stages: .* 2 approvals with 1"),
    ],
)
def test_the_groups_of_a_policy_rule_must_have_enough_members_for_its_quorums(
    terms: dict[str, Any], says: str
) -> None:
    fine = {"name": "fine", "match": {"services": ["mail"]}, "terms": {"stages": [{"group": "legal"}]}}

    with pytest.raises(ValidationError, match=says):
        Policy.model_validate({"groups": {"legal": [str(ANN)]}, "rules": [fine, fine | {"terms": terms}]})


def test_a_policy_has_at_most_a_hundred_rules() -> None:
    rule = Rule(name="mail", match=Match(services=("mail",)), terms=Overrides(quorum=2))

    assert len(Policy(rules=(rule,) * 100).rules) == 100
    with pytest.raises(ValidationError, match="at most 100"):
        Policy(rules=(rule,) * 101)


@pytest.mark.parametrize("name", ["", " ", "n" * 101, "two\nlines", "turned\u202e", "bell\a"])
def test_the_name_of_a_policy_rule_is_one_short_line(name: str) -> None:
    with pytest.raises(ValidationError):
        Rule(name=name, match=Match(services=("mail",)), terms=Overrides(quorum=2))


@each(
    ("match", "hit"),
    [
        ({"services": ["mail"]}, True),
        ({"services": ["files"]}, False),
        ({"services": ["files", "mail"]}, True),
        ({"actions": ["read"]}, True),
        ({"actions": ["repair"]}, False),
        ({"reasons": ["support_case"]}, True),
        ({"reasons": ["other"]}, False),
        ({"resources": ["file:*"]}, True),
        ({"resources": ["file:8", "mailbox:a*"]}, True),
        ({"resources": ["calendar:*"]}, False),
        ({"services": ["mail"], "actions": ["read"], "reasons": ["support_case"], "resources": ["file:7"]}, True),
        ({"services": ["mail"], "actions": ["read"], "reasons": ["support_case"], "resources": ["file:8"]}, False),
        ({"services": ["mail"], "actions": ["repair"]}, False),
        ({"services": ["files"], "actions": ["read"]}, False),
        ({"services": ["mail"], "reasons": ["other"]}, False),
    ],
)
def test_a_policy_rule_matches_if_every_dimension_matches(match: dict[str, Any], *, hit: bool) -> None:
    assert Match.model_validate(match).matches(READS_ANN) is hit


@settings(max_examples=examples(100), deadline=None)
@given(MATCHES, ASKS, ASKS)
def test_requesting_more_never_avoids_a_policy_rule(match: Match, ask: RequestFacts, more: RequestFacts) -> None:
    both = replace(ask, actions=[*ask.actions, *more.actions], resources=[*more.resources, *ask.resources])

    assert match.matches(both) >= match.matches(ask)


@settings(max_examples=examples(400), deadline=None)
@given(st.text("ab*", max_size=8), st.text("ab", max_size=10))
@example("a*a", "a")
@example("*ab*ab*", "abab")
@example("*ab*ab*", "ab")
@example("a*b*b", "ab")
@example("*", "")
def test_a_resource_pattern_matches_as_defined(pattern: str, text: str) -> None:
    assert fits(pattern, text) is fits_by_hand(pattern, text)


@pytest.mark.parametrize(
    ("pattern", "resource"),
    [
        ("mailbox:ann", "mailbox:Ann"),
        ("mailbox:ann", "mailbox:ann2"),
        ("mailbox:ann", "a-mailbox:ann"),
        ("mailbox:a.n", "mailbox:ann"),
        ("mailbox:a?n", "mailbox:ann"),
        ("mailbox:[a]nn", "mailbox:ann"),
        ("mailbox:*", "mailboxes:ann"),
    ],
)
def test_a_resource_pattern_must_match_the_whole_resource_and_only_its_stars_are_special(
    pattern: str, resource: str
) -> None:
    match = Match(resources=(pattern,))

    assert match.matches(RequestFacts("mail", ["read"], Reason.OTHER, [pattern.replace("*", "x")]))
    assert not match.matches(RequestFacts("mail", ["read"], Reason.OTHER, [resource]))


@each(
    "wrong",
    [
        {},
        {"services": []},
        {"services": ["Mail"]},
        {"services": ["mail", "mail"]},
        {"actions": [f"a{number}" for number in range(51)]},
        {"reasons": ["curiosity"]},
        {"resources": ["mailbox"]},
        {"resources": ["*"]},
        {"resources": ["*:ann"]},
        {"resources": ["mailbox:"]},
        {"resources": ["mailbox:an n"]},
        {"resources": ["mailbox:ann\u202e"]},
        {"resources": ["mailbox:a*b*c*d*e*"]},
        {"resources": ["mailbox:" + "a" * 249]},
        {"resources": ["mailbox:a**", "mailbox:a*"]},
    ],
)
def test_a_policy_rule_with_a_contradictory_match_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Match.model_validate(wrong)


def test_consecutive_stars_in_a_resource_pattern_count_as_one_star() -> None:
    assert Match(resources=("mailbox:a***b**c*d*",)).resources == ("mailbox:a*b*c*d*",)


@pytest.mark.parametrize("consent", [Mode.OBSERVE, Mode.OFF])
@pytest.mark.parametrize("after", [timedelta(0), timedelta(microseconds=1), timedelta(days=9)])
def test_dated_consent_relaxes_mode_enforce_and_ends_by_itself(consent: Any, after: timedelta) -> None:
    policy = Policy(consent=Consent(mode=consent, until=NOON))

    assert effective_mode(Mode.ENFORCE, policy.consent, NOON - timedelta(microseconds=1)) is consent
    assert effective_mode(Mode.ENFORCE, policy.consent, NOON + after) is Mode.ENFORCE


@pytest.mark.parametrize("mode", [Mode.OBSERVE, Mode.OFF])
@pytest.mark.parametrize("consent", [None, Mode.OBSERVE, Mode.OFF])
def test_dated_consent_has_no_effect_in_other_modes(mode: Mode, consent: Any) -> None:
    policy = Policy(consent=consent and Consent(mode=consent, until=NOON))

    assert effective_mode(mode, policy.consent, NOON - timedelta(hours=1)) is mode


def test_without_dated_consent_mode_enforce_is_the_effective_mode() -> None:
    assert effective_mode(Mode.ENFORCE, None, NOON) is Mode.ENFORCE


def test_the_end_of_dated_consent_ignores_the_time_zone() -> None:
    here = Consent(mode=Mode.OFF, until=datetime(2026, 2, 28, 14, tzinfo=timezone(timedelta(hours=2))))

    assert here == Consent(mode=Mode.OFF, until=NOON)
    assert here.model_dump(mode="json") == {"mode": "off", "until": "2026-02-28T12:00:00Z"}


def test_a_group_that_is_prompted_first_but_not_required_may_have_one_member() -> None:
    policy = Policy.model_validate({"groups": {"legal": [str(ANN)]}, "tiers": [["legal"]]})

    assert policy.tiers == (("legal",),)


PATTERN = "write a pattern as kind:id, with * for any part of the id, such as mailbox:*@contoso.example"


@each(
    ("match", "is_taken"),
    [
        ({"services": ["mail"], "context": {"environment": ["test"]}}, True),
        ({"actions": ["read"], "context": {"environment": ["test"]}}, False),
        ({"actions": ["read"], "context": {}}, True),
        ({"context": {}}, False),
        ({"outside_countries": ["DE"]}, True),
        ({"outside_countries": ["XX"]}, False),
    ],
)
def test_the_json_schema_of_a_rules_match_accepts_what_a_policy_accepts(
    match: dict[str, Any], *, is_taken: bool
) -> None:
    assert jsonschema_rs.Draft202012Validator(Match.model_json_schema()).is_valid(match) is is_taken
    with nullcontext() if is_taken else pytest.raises(ValidationError):
        Match.model_validate(match)


@each(
    ("part", "facts", "is_taken"),
    [
        (Overrides, {"quorum": 2, "stages": None}, True),
        (Overrides, {"quorum": None, "stages": None}, False),
        (Overrides, {}, False),
        (Overrides, {"tiers": [["legal"]]}, True),
        (Overrides, {"tiers": [["legal"], []]}, False),
        (Policy, {"tiers": [["legal"]]}, True),
        (Policy, {"tiers": [[]]}, False),
    ],
)
def test_the_json_schema_of_terms_accepts_what_a_policy_accepts(
    part: type[PolicyPart], facts: dict[str, Any], *, is_taken: bool
) -> None:
    groups = {"groups": {"legal": [str(ANN)]}} if part is Policy else {}

    assert jsonschema_rs.Draft202012Validator(part.model_json_schema()).is_valid(facts | groups) is is_taken
    with nullcontext() if is_taken else pytest.raises(ValidationError):
        part.model_validate(facts | groups)


@pytest.mark.parametrize(
    ("model", "wrong", "says"),
    [
        (Match, {"resources": ["mailbox"]}, PATTERN),
        (
            Match,
            {"resources": ["mailbox:\u200b"]},
            "leave out the character U+200B (zero width space): readers would not see it",
        ),
        (Match, {"resources": ["mailbox:" + "a*" * 5]}, "use at most 4 stars in a pattern"),
        (
            Rule,
            {"name": "a\x07b", "match": {"services": ["mail"]}, "terms": {"quorum": 2}},
            "leave out the character U+0007: readers would not see it",
        ),
        (
            Consent,
            {"mode": "off", "until": "9999-12-31T23:59:59-05:00"},
            "choose a moment that a calendar holds",
        ),
        (
            Consent,
            {"mode": "enforce", "until": "2026-03-01T00:00:00Z"},
            "choose observe or off; without consent the tenant decides anyway",
        ),
        (
            Policy,
            {"tiers": [["ops"]]},
            "tiers: there is no group ops; add it to groups, or leave it out here",
        ),
    ],
)
def test_a_policy_that_cannot_be_stored_is_refused_in_a_sentence(
    model: type[BaseModel], wrong: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        model.model_validate(wrong)

    assert [error["msg"] for error in refused.value.errors()] == [f"Value error, {says}"]
