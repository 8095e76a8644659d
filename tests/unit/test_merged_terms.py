"""Merged terms are the strictest of all: no rule and no order of rules ever loosens anything."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from lockbox.facts.enumerations import ApproveMeans, Reason
from lockbox.requests.policy import DECLARED, Terms, loosens, stricter
from lockbox.requests.policy_parts import ApprovalStage
from lockbox.requests.policy_rules import Match, Overrides, Policy, RequestFacts, Rule, stored, strictest, terms_for
from tests.each import each
from tests.examples import examples
from tests.unit.policies import ASKS, PEOPLE, POLICIES, RULES, TERMS

MAIL = RequestFacts("mail", ["read"], Reason.SUPPORT_CASE, ["mailbox:ann"])
FILES = RequestFacts("files", ["read"], Reason.SUPPORT_CASE, ["file:7"])
OTHER, CASE, ALERT = Reason.OTHER, Reason.SUPPORT_CASE, Reason.VENDOR_ALERT
LEGAL, LEGALS, OPS = ApprovalStage(group="legal"), ApprovalStage(group="legal", quorum=2), ApprovalStage(group="ops")

# For each of the terms: a loose choice, a stricter one.
ORDER = [
    ("vendor_review", False, True),
    ("review_window", 60, 59),
    ("approval_window", 60, 59),
    ("access_ceiling", 60, 59),
    ("total_access_ceiling", 60, 59),
    ("start_ahead", 60, 0),
    ("quorum", 1, 2),
    ("stages", (), (LEGAL,)),
    ("stages", (LEGAL,), (LEGALS,)),
    ("stages", (OPS,), (LEGAL, OPS)),
    ("reasons", {OTHER, CASE}, {OTHER}),
    ("reasons", {OTHER}, set()),
    ("require_case", False, True),
    ("case_patterns", (), ("INC*",)),
    ("case_patterns", ("INC*",), ("*7", "INC*")),
    ("unconfirmed_case", "accept", "flag"),
    ("unconfirmed_case", "flag", "refuse"),
    ("justification_least", 1, 2),
    ("report_on_close", False, True),
    ("mail_link", True, False),
    ("mail_justification", True, False),
    ("mail_suffices", True, False),
    ("approve_means", ApproveMeans.ATTESTED, ApproveMeans.PASSKEY_SIGNED),
    ("first_passkey_wait", 0, 60),
    ("first_passkey_wait", 60, 61),
    ("sign_in_age", 61, 60),
    ("revoke_sign_in_age", 61, 60),
    ("revoke_sign_in_age", None, 86_400),
    ("max_uses", 3, 2),
    ("max_uses", None, 1000),
    ("questions_stop_clock", True, False),
    ("comment_required", {"deny"}, {"approve", "deny", "revoke"}),
    ("break_glass_services", ("files", "mail"), ("mail",)),
    ("break_glass_services", ("mail",), ()),
    ("break_glass_people", None, PEOPLE[:2]),
    ("break_glass_people", PEOPLE[:2], PEOPLE[:1]),
    ("break_glass_people", PEOPLE[:1], ()),
    ("break_glass_ceiling", 61, 60),
    ("break_glass_monthly", 2, 1),
    ("overdue_finding", "allow_and_alarm", "block"),
    ("countries", None, {"DE", "FR"}),
    ("countries", {"DE", "FR"}, {"DE"}),
    ("countries", {"DE"}, set()),
    ("requester_means", "any", "sign-in"),
    ("requester_means", "sign-in", "strong"),
    ("requester_sign_in_age", 61, 60),
    ("requester_sign_in_age", None, 86_400),
    ("comment_required", set(), {"revoke"}),
    ("break_glass_services", ("files", "mail"), ("mail",)),
    ("break_glass_services", ("mail",), ()),
    ("break_glass_people", None, PEOPLE),
    ("break_glass_people", PEOPLE, PEOPLE[:1]),
    ("break_glass_people", PEOPLE, ()),
    ("break_glass_ceiling", 61, 60),
    ("break_glass_monthly", 2, 1),
]


WHO_HEARS_WHEN = {
    "tiers",
    "escalation",
    "approval_reminders",
    "review_reminders",
    "review_escalation",
    "closing_warning",
}


def earliest(terms: Terms) -> dict[str, int]:
    return {group: position for position, tier in enumerate(terms.tiers) for group in tier}


@each(("field", "loose", "strict"), ORDER)
def test_the_stricter_of_two_policy_terms_wins(field: str, loose: Any, strict: Any) -> None:
    lax, tight = Terms.model_validate({field: loose}), Terms.model_validate({field: strict})

    assert stricter(lax, tight) == stricter(tight, lax) == tight
    assert loosens(tight, lax)
    assert not loosens(lax, tight)


def test_strictness_is_defined_for_all_policy_terms_except_timing() -> None:
    assert {field for field, _, _ in ORDER} == set(Terms.model_fields) - WHO_HEARS_WHEN


@settings(max_examples=examples(150), deadline=None)
@given(TERMS, TERMS)
def test_merged_terms_have_all_reminders_and_the_earlier_escalations_and_warnings(a: Terms, b: Terms) -> None:
    merged = stricter(a, b)

    for name in ("approval_reminders", "review_reminders"):
        assert getattr(merged, name) == tuple(sorted({*getattr(a, name), *getattr(b, name)}))
    for name in ("escalation", "review_escalation"):
        of_both, one, other = (getattr(side, name) for side in (merged, a, b))
        for number, percent in enumerate(of_both):
            assert percent == min(side[number] for side in (one, other) if len(side) > number)
        assert len(of_both) == max(len(one), len(other))
    assert merged.closing_warning == max(a.closing_warning, b.closing_warning)


def test_any_number_of_rules_with_reminders_can_be_merged() -> None:
    rules = tuple(
        Rule(
            name="often",
            match=Match(services=("mail",)),
            terms=Overrides(approval_reminders=tuple(range(start, start + 9))),
        )
        for start in range(1, 90, 9)
    )

    assert terms_for(Policy(rules=rules), MAIL).approval_reminders == tuple(range(1, 91))


@settings(max_examples=examples(150), deadline=None)
@given(TERMS, TERMS, TERMS)
def test_merging_policy_terms_is_associative_and_commutative(a: Terms, b: Terms, c: Terms) -> None:
    assert stricter(a, b) == stricter(b, a)
    assert stricter(stricter(a, b), c) == stricter(a, stricter(b, c))
    assert stricter(a, a) == a


@settings(max_examples=examples(150), deadline=None)
@given(TERMS, TERMS)
def test_merging_policy_terms_never_loosens_either_side(a: Terms, b: Terms) -> None:
    merged = stricter(a, b)

    assert not loosens(a, merged)
    assert not loosens(b, merged)


@settings(max_examples=examples(150), deadline=None)
@given(TERMS, TERMS)
def test_new_policy_terms_loosen_old_terms_exactly_if_merging_both_differs_from_the_new_terms(
    a: Terms, b: Terms
) -> None:
    b = b.model_copy(update={name: getattr(a, name) for name in WHO_HEARS_WHEN})

    assert loosens(a, b) is (stricter(a, b) != b)


@settings(max_examples=examples(150), deadline=None)
@given(TERMS, TERMS)
def test_merged_policy_terms_prompt_each_group_at_the_earlier_time(a: Terms, b: Terms) -> None:
    when = earliest(stricter(a, b))

    assert when == {
        group: min(earliest(side)[group] for side in (a, b) if group in earliest(side))
        for group in earliest(a) | earliest(b)
    }


def test_a_tier_emptied_by_merging_is_kept_and_later_tiers_do_not_move_up() -> None:
    merged = stricter(Terms(tiers=(("a",), ("b",), ("c",))), Terms(tiers=(("b",),)))

    assert merged.tiers == (("a", "b"), (), ("c",))


def test_merged_rules_without_a_common_reason_code_allow_no_reason_code() -> None:
    merged = stricter(Terms(reasons=frozenset({OTHER, ALERT})), Terms(reasons=frozenset({CASE})))

    assert merged.reasons == frozenset()


def test_a_policy_rule_tightens_only_requests_it_matches() -> None:
    policy = Policy(
        quorum=2,
        groups={"legal": PEOPLE},
        rules=(
            Rule(
                name="mail",
                match=Match(services=("mail",)),
                terms=Overrides(access_ceiling=3600, stages=(LEGALS,), reasons=frozenset({CASE})),
            ),
        ),
    )

    assert terms_for(policy, MAIL) == Terms(
        quorum=2, access_ceiling=3600, stages=(LEGALS,), reasons=frozenset({CASE})
    )
    assert terms_for(policy, FILES) == Terms(quorum=2)


def test_every_matching_policy_rule_counts() -> None:
    by_service = Rule(name="mail", match=Match(services=("mail",)), terms=Overrides(quorum=2, sign_in_age=600))
    by_action = Rule(name="reading", match=Match(actions=("read",)), terms=Overrides(quorum=3, sign_in_age=800))

    assert terms_for(Policy(rules=(by_service, by_action)), MAIL) == Terms(quorum=3, sign_in_age=600)
    assert terms_for(Policy(rules=(by_service, by_action)), FILES) == Terms(quorum=3, sign_in_age=800)


def test_a_policy_rule_looser_than_the_policy_has_no_effect() -> None:
    lax = Overrides(vendor_review=False, quorum=1, access_ceiling=7 * 86_400, mail_link=True, sign_in_age=86_400)
    policy = Policy(quorum=2, mail_link=False, rules=(Rule(name="lax", match=Match(services=("mail",)), terms=lax),))

    assert terms_for(policy, MAIL) == Terms(quorum=2, mail_link=False)


@settings(max_examples=examples(100), deadline=None)
@given(POLICIES, ASKS, st.data())
def test_the_order_of_policy_rules_has_no_effect(policy: Policy, ask: RequestFacts, data: st.DataObject) -> None:
    rules = tuple(data.draw(st.permutations(policy.rules)))

    assert terms_for(policy.model_copy(update={"rules": rules}), ask) == terms_for(policy, ask)


@settings(max_examples=examples(100), deadline=None)
@given(POLICIES, ASKS)
def test_the_effective_terms_of_a_request_never_loosen_the_tenants_terms(policy: Policy, ask: RequestFacts) -> None:
    assert not loosens(policy, terms_for(policy, ask))


@settings(max_examples=examples(100), deadline=None)
@given(POLICIES, RULES, ASKS)
def test_a_further_policy_rule_never_loosens_the_terms_of_a_request(
    policy: Policy, rule: Rule, ask: RequestFacts
) -> None:
    more = policy.model_copy(update={"rules": (rule, *policy.rules)})

    assert not loosens(terms_for(policy, ask), terms_for(more, ask))


@settings(max_examples=examples(100), deadline=None)
@given(POLICIES, RULES, ASKS)
def test_a_matching_policy_rule_is_obeyed(policy: Policy, rule: Rule, ask: RequestFacts) -> None:
    terms = terms_for(policy.model_copy(update={"rules": (*policy.rules, rule)}), ask)
    wanted = policy.model_copy(update=rule.terms.given())

    if rule.match.matches(ask):
        assert not loosens(wanted, terms)
    else:
        assert terms == terms_for(policy, ask)


@settings(max_examples=examples(100), deadline=None)
@given(POLICIES, ASKS)
def test_terms_that_meet_every_rule_meet_the_strictest_terms(policy: Policy, ask: RequestFacts) -> None:
    strict = strictest(policy)

    assert not loosens(policy, strict)
    assert not loosens(terms_for(policy, ask), strict)
    assert all(not loosens(policy.model_copy(update=rule.terms.given()), strict) for rule in policy.rules)


def test_without_rules_the_strictest_terms_are_the_tenants_terms() -> None:
    assert strictest(Policy(quorum=2, mail_suffices=True)) == Terms(quorum=2, mail_suffices=True)


@settings(max_examples=examples(50), deadline=None)
@given(POLICIES)
def test_a_stored_policy_omits_newer_fields_with_default_values_and_reads_back_equal(policy: Policy) -> None:
    kept = stored(policy)

    assert Policy.model_validate(kept) == policy
    assert not set(stored(Policy())) & {name for name, term in DECLARED.items() if term.is_later}
