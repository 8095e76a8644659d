"""What the audit log says about a changed policy."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from lockbox.audit.canonical import canonical
from lockbox.facts.enumerations import Mode, Reason
from lockbox.requests.policy import Consent
from lockbox.requests.policy_parts import ApprovalStage
from lockbox.requests.policy_rules import Match, Overrides, Policy, Rule, changes
from tests.examples import examples
from tests.unit.policies import PEOPLE, POLICIES

ANN, AMIR, *_ = PEOPLE
MAIL = Rule(
    name='Mail "first"', match=Match(services=("mail",), resources=("mailbox:*", "file:7")), terms=Overrides(quorum=2)
)


def test_a_policy_diff_has_old_and_new_value_of_each_changed_term() -> None:
    said = changes(
        Policy(), Policy(quorum=2, vendor_review=False, reasons=frozenset({Reason.OTHER, Reason.LEGAL_DEMAND}))
    )

    assert said == {
        "vendor_review": "true → false",
        "quorum": "1 → 2",
        "reasons": "legal_demand, other, support_case, vendor_alert, vendor_review → legal_demand, other",
    }


def test_a_policy_diff_lists_changed_groups_and_stages_by_name() -> None:
    old = Policy(groups={"legal": (ANN,), "ops": ()}, stages=(ApprovalStage(group="legal"),))
    new = Policy(
        groups={"legal": (AMIR, ANN), "board": ()},
        stages=(ApprovalStage(group="legal", quorum=2),),
        tiers=(("legal",),),
    )

    assert changes(old, new) == {
        "stages.legal": "1 → 2",
        "groups.legal": f"{ANN} → {ANN}, {AMIR}",
        "groups.ops": "nobody → none",
        "tiers.0": "none → legal",
        "groups.board": "none → nobody",
    }


def test_a_policy_diff_lists_a_new_rule_in_full_and_a_changed_rule_by_its_changes() -> None:
    stricter = MAIL.model_copy(update={"terms": Overrides(quorum=3, stages=(ApprovalStage(group="legal"),))})

    assert changes(Policy(), Policy(rules=(MAIL,))) == {
        "rules.0.name": 'none → "Mail \\"first\\""',
        "rules.0.match.services": "none → mail",
        "rules.0.match.resources": "none → file:7, mailbox:*",
        "rules.0.terms.quorum": "none → 2",
    }
    groups = {"legal": (ANN,)}
    assert changes(Policy(rules=(MAIL,), groups=groups), Policy(rules=(stricter,), groups=groups)) == {
        "rules.0.terms.quorum": "2 → 3",
        "rules.0.terms.stages.legal": "none → 1",
    }


def test_a_policy_diff_lists_a_removed_rule_in_full() -> None:
    assert changes(Policy(rules=(MAIL, MAIL)), Policy(rules=(MAIL,))) == {
        "rules.1.name": '"Mail \\"first\\"" → none',
        "rules.1.match.services": "mail → none",
        "rules.1.match.resources": "file:7, mailbox:* → none",
        "rules.1.terms.quorum": "2 → none",
    }


def test_policy_diffs_and_error_messages_have_the_same_name_for_a_field() -> None:
    rules: list[dict[str, Any]] = [{"name": "A", "match": {"services": ["mail"]}, "terms": {"quorum": 2}}]
    (change,) = (name for name in changes(Policy(), Policy.model_validate({"rules": rules})) if "quorum" in name)

    rules[0]["terms"] = {"quorum": 0}
    with pytest.raises(ValidationError) as refused:
        Policy.model_validate({"rules": rules})

    assert change == ".".join(map(str, refused.value.errors()[0]["loc"])) == "rules.0.terms.quorum"


def test_a_policy_diff_lists_consent_with_the_time_at_which_consent_ends() -> None:
    until = Consent(mode=Mode.OBSERVE, until=datetime(2026, 3, 1, tzinfo=UTC))

    assert changes(Policy(), Policy(consent=until)) == {"consent": "none → observe until 2026-03-01T00:00:00.000000Z"}
    assert changes(Policy(consent=until), Policy()) == {"consent": "observe until 2026-03-01T00:00:00.000000Z → none"}


@settings(max_examples=examples(100), deadline=None)
@given(POLICIES)
def test_an_unchanged_policy_has_no_diff(policy: Policy) -> None:
    assert changes(policy, Policy.model_validate(policy.model_dump(mode="json"))) == {}


@settings(max_examples=examples(300), deadline=None)
@given(POLICIES, POLICIES, st.sampled_from(sorted(Policy.model_fields)))
def test_a_policy_diff_lists_every_difference(policy: Policy, other: Policy, field: str) -> None:
    new = policy.model_copy(update={field: getattr(other, field)})

    said = changes(policy, new)

    assert bool(said) is (new != policy)
    assert {name.partition(".")[0] for name in said} <= {field}


@pytest.mark.far
@settings(max_examples=examples(50), deadline=None)
@given(POLICIES, POLICIES)
def test_a_policy_diff_fits_into_an_event_and_mirrors_the_reverse_diff(old: Policy, new: Policy) -> None:
    there: dict[str, Any] = changes(old, new)
    back = changes(new, old)

    assert canonical(there)
    assert there.keys() == back.keys()
