"""A policy diff in words: each term has a name, and durations and people are readable."""

from uuid import UUID

from lockbox.notifications.policy_wording import SECONDS, TERMS, lines
from lockbox.requests.policy import Terms
from lockbox.requests.policy_rules import Policy, changes
from tests.each import each

ANN, AMIR = UUID(int=1), UUID(int=2)
BEFORE = Policy(groups={"legal": (ANN,)}, tiers=(("legal",),))
AFTER = Policy.model_validate(
    {
        "quorum": 2,
        "approval_window": 5400,
        "closing_warning": 0,
        "require_case": True,
        "groups": {"legal": [str(ANN), str(AMIR)]},
        "stages": [{"group": "legal"}],
        "approve_means": "passkey-signed",
        "rules": [
            {"name": "exports", "match": {"actions": ["export"]}, "terms": {"approval_window": 600, "quorum": 3}}
        ],
    }
)
SAID = {line.name: (line.title, line.was, line.now) for line in lines(changes(BEFORE, AFTER), {ANN: "Ann"})}


@each(
    ("name", "said"),
    [
        ("quorum", ("Approvals needed", "1", "2")),
        ("approval_window", ("Time to answer", "12 h", "1 h 30 min")),
        ("closing_warning", ("Warning before a window closes", "10 min", "never")),
        ("require_case", ("Require a support case", "no", "yes")),
        (
            "approve_means",
            (
                "Proof of an approval",
                "attested by the vendor's server",
                "signed with the approver's passkey",
            ),
        ),
        ("groups.legal", ("The group legal", "Ann", f"Ann, {AMIR}")),
        ("stages.legal", ("Must also agree legal", "not set", "1")),
        ("tiers.0", ("Asked in tier 1", "legal", "not set")),
        ("rules.0.terms.approval_window", ("Rule 1: Time to answer", "not set", "10 min")),
        ("rules.0.terms.quorum", ("Rule 1: Approvals needed", "not set", "3")),
        ("rules.0.name", ("Rule 1: its name", "not set", '"exports"')),
        ("rules.0.match.actions", ("Rule 1: about actions", "not set", "export")),
    ],
)
def test_a_policy_diff_line_has_a_readable_name_and_readable_old_and_new_values(
    name: str, said: tuple[str, str, str]
) -> None:
    assert SAID[name] == said


@each("name", Terms.model_fields)
def test_every_policy_term_has_a_name(name: str) -> None:
    assert name in TERMS


def test_every_number_of_a_policy_is_a_count_or_a_duration() -> None:
    terms = Terms.model_json_schema()["properties"]
    numbers = {
        name for name, said in terms.items() if "integer" in [one.get("type") for one in said.get("anyOf", [said])]
    }

    assert numbers - SECONDS == {"quorum", "max_uses", "justification_least", "break_glass_monthly"}
    assert numbers >= SECONDS
