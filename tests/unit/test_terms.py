"""Which terms can be chosen, and what a submission lacks under them."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from pydantic import ValidationError

from lockbox.facts.enumerations import AuthMethod, Reason, SignInKind
from lockbox.facts.requester import Requester
from lockbox.requests import policy
from lockbox.requests.policy import AT_ONCE, Terms
from lockbox.requests.policy_parts import ApprovalStage
from lockbox.requests.policy_rules import Overrides
from tests.each import each
from tests.examples import examples
from tests.unit.policies import TERMS

NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)
NO_CASE = "This tenant requires a support case. Name it."


UNKNOWN = Requester()


def lacking(terms: Terms, requester: Requester = UNKNOWN, **changes: Any) -> list[tuple[str, str]]:
    """Return what a good submission, with changes, lacks under the terms."""
    submission: dict[str, Any] = {
        "reason_code": Reason.SUPPORT_CASE,
        "justification": "The index is broken",
        "case_ref": "C-1",
        "access_window": 3600,
    }
    timing = changes.pop("timing", AT_ONCE)
    asked = SimpleNamespace(**(submission | changes))
    return list(policy.lacking(asked, terms, timing, requester, NOON))


def test_the_default_policy_terms_are_safe() -> None:
    assert Terms().model_dump(mode="json") == {
        "vendor_review": True,
        "review_window": 14_400,
        "approval_window": 43_200,
        "access_ceiling": 14_400,
        "total_access_ceiling": 28_800,
        "start_ahead": 604_800,
        "max_uses": None,
        "quorum": 1,
        "stages": [],
        "tiers": [],
        "escalation": [50, 67, 75, 80],
        "approval_reminders": [50, 83],
        "review_reminders": [50, 83],
        "review_escalation": [50, 67, 75, 80],
        "closing_warning": 600,
        "report_on_close": True,
        "reasons": ["legal_demand", "other", "support_case", "vendor_alert", "vendor_review"],
        "require_case": False,
        "case_patterns": [],
        "unconfirmed_case": "accept",
        "justification_least": 1,
        "mail_link": True,
        "mail_justification": True,
        "mail_suffices": False,
        "approve_means": "attested",
        "first_passkey_wait": 0,
        "sign_in_age": 900,
        "revoke_sign_in_age": None,
        "questions_stop_clock": False,
        "comment_required": ["deny"],
        "break_glass_services": [],
        "break_glass_people": None,
        "break_glass_ceiling": 3600,
        "break_glass_monthly": 2,
        "overdue_finding": "block",
        "countries": None,
        "requester_means": "any",
        "requester_sign_in_age": None,
    }


@each(
    ("field", "least", "most"),
    [
        ("review_window", 1, 14 * 86_400),
        ("approval_window", 1, 14 * 86_400),
        ("access_ceiling", 1, 7 * 86_400),
        ("total_access_ceiling", 1, 7 * 86_400),
        ("start_ahead", 0, 30 * 86_400),
        ("max_uses", 1, 1000),
        ("quorum", 1, 20),
        ("justification_least", 1, 1000),
        ("first_passkey_wait", 0, 14 * 86_400),
        ("sign_in_age", 60, 86_400),
        ("revoke_sign_in_age", 60, 86_400),
        ("requester_sign_in_age", 60, 86_400),
        ("break_glass_ceiling", 60, 3600),
        ("break_glass_monthly", 1, 31),
    ],
)
@each("model", [Terms, Overrides])
def test_each_number_in_policy_terms_has_hard_limits(
    model: type[Terms] | type[Overrides], field: str, least: int, most: int
) -> None:
    for allowed in (least, most):
        assert model.model_validate({field: allowed}).model_dump()[field] == allowed
    for beyond in (least - 1, most + 1, least + 0.5, "many"):
        with pytest.raises(ValidationError):
            model.model_validate({field: beyond})


@each(
    "wrong",
    [
        {"made_up": 1},
        {"reasons": ["curiosity"]},
        {"stages": [{"group": "legal"}, {"group": "legal", "quorum": 2}]},
        {"stages": [{"group": "legal", "quorum": 0}]},
        {"stages": [{"group": "legal", "quorum": 21}]},
        {"stages": [{"group": "Legal Team"}]},
        {"stages": [{"group": "-legal"}]},
        {"stages": [{"group": "legal\n"}]},
        {"stages": [{"group": "l" * 64}]},
        {"tiers": [["legal", "legal"]]},
        {"tiers": [["legal"], ["ops"], ["legal"]]},
        {"tiers": [["a"], ["b"], ["c"], ["d"], ["e"], ["f"]]},
    ],
)
@each("model", [Terms, Overrides])
def test_contradictory_policy_terms_are_refused(model: type[Terms] | type[Overrides], wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        model.model_validate(wrong)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (
            {"stages": [{"group": group} for group in ("legal", "ops", "legal", "ops", "board")]},
            "name each only once: legal, ops",
        ),
        ({"tiers": [["legal"], ["ops", "legal"]]}, "name each only once: legal"),
        ({"escalation": [50, 60, 50]}, "name each only once: 50"),
    ],
)
@pytest.mark.parametrize("model", [Terms, Overrides])
def test_a_repeated_name_in_policy_terms_is_reported(
    model: type[Terms] | type[Overrides], wrong: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        model.model_validate(wrong)

    assert [error["msg"] for error in refused.value.errors()] == [f"Value error, {says}"]


def test_a_policy_rule_with_an_empty_tier_is_refused() -> None:
    overrides = Overrides.model_validate({"tiers": [["ops", "board"], ["legal"]]})
    assert overrides.given() == {"tiers": (("board", "ops"), ("legal",))}
    for tiers in ([[], ["legal"]], [["legal"], []]):
        with pytest.raises(ValidationError) as refused:
            Overrides.model_validate({"tiers": tiers})

        says = [error["msg"] for error in refused.value.errors()]
        assert says == ["Value error, put a group into each tier, or leave the tier out"]


@pytest.mark.parametrize("nothing", [{}, {"quorum": None}, {"reasons": []}, {"stages": []}, {"tiers": []}])
def test_the_terms_of_a_policy_rule_must_set_something(nothing: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Overrides.model_validate(nothing)


def test_the_terms_of_a_policy_rule_contain_only_what_is_set() -> None:
    overrides = Overrides(quorum=2, vendor_review=False)

    assert overrides.given() == {"quorum": 2, "vendor_review": False}


def test_each_policy_term_can_be_set_by_a_rule() -> None:
    assert list(Overrides(quorum=2).root) == list(Terms.model_fields)


def test_policy_terms_that_differ_only_in_the_order_of_writing_are_equal() -> None:
    one = Terms.model_validate(
        {
            "stages": [{"group": "ops"}, {"group": "legal", "quorum": 2}],
            "tiers": [["ops", "board"], ["legal"]],
            "reasons": ["other", "support_case"],
        }
    )
    other = Terms(
        stages=(ApprovalStage(group="legal", quorum=2), ApprovalStage(group="ops")),
        tiers=(("board", "ops"), ("legal",), ()),
        reasons=frozenset({Reason.SUPPORT_CASE, Reason.OTHER}),
    )

    assert one == other
    assert one.model_dump_json() == other.model_dump_json()
    assert [stage.group for stage in one.stages] == ["legal", "ops"]


@settings(max_examples=examples(100), deadline=None)
@given(TERMS)
def test_any_policy_terms_survive_conversion_to_json_and_back(terms: Terms) -> None:
    written = terms.model_dump(mode="json")

    assert Terms.model_validate(written) == terms
    assert written["reasons"] == sorted(written["reasons"])


def test_a_submission_that_meets_the_policy_terms_lacks_nothing() -> None:
    terms = Terms(require_case=True, justification_least=19, access_ceiling=3600)

    assert lacking(terms) == []


@pytest.mark.parametrize(
    ("terms", "changes", "field", "says"),
    [
        (
            {"reasons": ["other", "vendor_alert"]},
            {},
            "reason_code",
            "The reason support_case is not accepted here. Choose one of other, vendor_alert.",
        ),
        (
            {"reasons": []},
            {},
            "reason_code",
            "The rules of this tenant accept no reason for this request.",
        ),
        ({"require_case": True}, {"case_ref": None}, "case_ref", NO_CASE),
        ({"require_case": True}, {"case_ref": " "}, "case_ref", NO_CASE),
        ({"justification_least": 20}, {}, "justification", "Write at least 20 characters of justification."),
        (
            {"justification_least": 5},
            {"justification": " four  "},
            "justification",
            "Write at least 5 characters of justification.",
        ),
        (
            {"access_ceiling": 3599},
            {},
            "access_window",
            "The access window may be at most 59 min 59 s.",
        ),
    ],
)
def test_a_submission_is_refused_with_what_it_lacks(
    terms: dict[str, Any], changes: dict[str, Any], field: str, says: str
) -> None:
    assert lacking(Terms.model_validate(terms), **changes) == [(field, says)]


def test_everything_a_submission_lacks_is_reported_at_once() -> None:
    terms = Terms(reasons=frozenset({Reason.OTHER}), require_case=True, justification_least=1000, access_ceiling=1)

    fields = [field for field, _ in lacking(terms, case_ref=None)]

    assert fields == ["reason_code", "case_ref", "justification", "access_window"]


IN_GERMANY = Requester(office_country="DE", physical_country="DE")
ABROAD = Requester(office_country="DE", physical_country="US")
WITH_A_PASSKEY = Requester(
    sign_in=SignInKind.SESSION, sign_in_means=AuthMethod.PASSKEY, signed_in_at=NOON - timedelta(minutes=15)
)


@each(
    ("terms", "requester", "says"),
    [
        ({}, UNKNOWN, None),
        ({"countries": ["DE"]}, IN_GERMANY, None),
        ({"countries": ["FR", "DE"]}, ABROAD, "from DE, FR only; the requester is in US."),
        (
            {"countries": ["DE"]},
            UNKNOWN,
            "from DE only; the vendor's directory has no location for this engineer.",
        ),
        (
            {"countries": []},
            IN_GERMANY,
            "from no country; the requester's office is in DE, and the requester is in DE.",
        ),
    ],
)
def test_the_policy_must_allow_the_requesters_countries(
    terms: dict[str, Any], requester: Requester, says: str | None
) -> None:
    found = lacking(Terms.model_validate(terms), requester)

    assert found == ([("countries", f"This tenant accepts requests {says}")] if says else [])


@each(
    ("terms", "changes", "is_enough"),
    [
        ({"requester_means": "strong"}, {}, True),
        ({"requester_means": "strong"}, {"sign_in": SignInKind.DEVICE_LOGIN}, True),
        ({"requester_means": "strong"}, {"sign_in_means": AuthMethod.MAIL}, False),
        ({"requester_means": "sign-in"}, {"sign_in_means": AuthMethod.MAIL}, True),
        ({"requester_means": "sign-in"}, {"sign_in": SignInKind.TOKEN, "sign_in_means": AuthMethod.TOKEN}, False),
        ({"requester_means": "sign-in"}, {"sign_in": SignInKind.SYSTEM, "sign_in_means": None}, False),
        ({"requester_means": "sign-in"}, {"sign_in": None, "sign_in_means": None}, False),
        ({"requester_sign_in_age": 900}, {}, True),
        ({"requester_sign_in_age": 899}, {}, False),
        ({"requester_sign_in_age": 900}, {"signed_in_at": None}, False),
        ({"requester_sign_in_age": 900}, {"sign_in": SignInKind.TOKEN}, False),
        ({"requester_means": "strong", "requester_sign_in_age": 60}, {"sign_in_means": AuthMethod.SAMPLE}, True),
    ],
)
def test_the_sign_in_of_the_requester_must_meet_the_policy(
    terms: dict[str, Any], changes: dict[str, Any], *, is_enough: bool
) -> None:
    found = lacking(Terms.model_validate(terms), Requester(**dict(WITH_A_PASSKEY) | changes))

    assert [field for field, _ in found] == ([] if is_enough else ["sign_in"])


@each("wrong", [[], ["de"], ["XK"], ["DE", "DE"], "DE"])
def test_countries_in_policy_terms_are_named_by_their_codes(wrong: Any) -> None:
    with pytest.raises(ValidationError):
        Overrides.model_validate({"countries": wrong})
