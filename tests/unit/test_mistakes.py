"""Every wrong input is answered with what to do, in plain words."""

import re
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from api.schemas.members import NewDelegation, NewMember
from api.schemas.requests import ApprovalInput
from api.schemas.submissions import NewRequest
from api.schemas.webhooks import NewEndpoint, NewSecret
from lockbox import mistakes
from lockbox.requests.policy_parts import GroupName
from lockbox.requests.policy_rules import Policy
from tests.each import each

ASKED = {
    "tenant": "contoso",
    "service": "exchange-online",
    "resources": ["mailbox:ann"],
    "reason_code": "other",
    "justification": "x",
    "access_window": 60,
}
SOMEBODY = {"name": "Nina", "address": "nina@contoso.example", "roles": ["approver"]}
HOSTILE: list[Any] = [
    *(None, True, 0, -1, 10**30, 1.5, float("nan"), "", "x", "X Y", "y" * 5000, b"\xff", [], {}, ["x"], [[]], [None]),
    *(
        ["x"] * 600,
        {"x": "y"},
        {"X": []},
        [{"group": "x", "quorum": 99}],
        {"mode": "off", "until": "2026-01-01"},
        object(),
    ),
]
PLAIN = re.compile(r"[a-z“].*[^.]", re.DOTALL)
RAW = re.compile(r"should|Value|Input|valid |instance|\^")


def told(kind: type[BaseModel], facts: Any) -> dict[str, str]:
    with pytest.raises(ValidationError) as refused:
        kind.model_validate(facts)
    return {".".join(map(str, where)): what for where, what in mistakes.of(refused.value)}


@each(
    ("kind", "facts", "where", "what"),
    [
        (NewMember, SOMEBODY | {"roles": []}, "roles", "choose at least one"),
        (NewMember, SOMEBODY | {"roles": ["root"]}, "roles.0", "choose tenant_admin, approver or auditor"),
        (NewMember, {}, "name", "this is missing"),
        (NewMember, SOMEBODY | {"name": "x" * 201}, "name", "write at most 200 characters"),
        (NewMember, SOMEBODY | {"rank": 1}, "rank", "there is nothing of that name; leave it out"),
        (NewRequest, ASKED | {"resources": ["a:b"] * 60}, "resources", "name at most 50, not 60"),
        (NewRequest, ASKED | {"resources": "a:b"}, "resources", "write a list here"),
        (NewRequest, ASKED | {"tenant": ""}, "tenant", "write something"),
        (NewRequest, ASKED | {"access_window": "60"}, "access_window", "write a whole number"),
        (NewRequest, ASKED | {"engineer": "erin"}, "engineer", "write an id as it was given to you"),
        (ApprovalInput, {"comment": "x" * 5000}, "comment", "write at most 2000 characters"),
        (ApprovalInput, {"comment": 5}, "comment", "write text here"),
        (NewSecret, {"overlap_hours": 169}, "overlap_hours", "write 168 or less"),
        (Policy, {"quorum": 0}, "quorum", "write 1 or more"),
        (Policy, {"quorum": 99}, "quorum", "write 20 or less"),
        (Policy, {"approval_reminders": range(1, 12)}, "approval_reminders", "name at most 10, not 11"),
        (Policy, {"sign_in_age": 5}, "sign_in_age", "this may be 1 min (60 seconds) at least"),
        (Policy, {"access_ceiling": 10**9}, "access_ceiling", "this may be 168 h (604800 seconds) at most"),
        (Policy, {"mail_link": 7}, "mail_link", "write true or false"),
        (Policy, {"consent": {"mode": "off", "until": "x"}}, "consent.until", "write a moment with its time zone"),
        (Policy, {"groups": []}, "groups", "write an object with members here"),
        (Policy, {"tiers": [[], []]}, "tiers", "put a group into each tier, or leave the tier out"),
    ],
)
def test_the_message_for_an_invalid_field_says_what_to_do(
    kind: type[BaseModel], facts: Any, where: str, what: str
) -> None:
    assert told(kind, facts)[where].startswith(what)


@each(
    ("value", "what"),
    [
        ("a\u200bb", "leave out the character U+200B"),
        ("x" * 501, "write at most 500 characters"),
        (2**60, "write 9007199254740991 or less"),
        (1.5, "write a text, a whole number, true or false"),
        (None, "write a text, a whole number, true or false"),
        (["x"], "write a text, a whole number, true or false"),
    ],
)
def test_an_invalid_value_of_a_field_that_accepts_several_types_is_reported_once(value: object, what: str) -> None:
    (where, said), *more = told(NewRequest, ASKED | {"context": {"environment": value}}).items()

    assert (where, said.startswith(what), more) == ("context.environment", True, [])


def test_the_message_for_a_pattern_mistake_lists_the_allowed_characters() -> None:
    with pytest.raises(ValidationError) as refused:
        TypeAdapter[str](GroupName).validate_python("Legal")

    assert mistakes.advice(refused.value).startswith("use small letters, digits and hyphens, and begin with")


@pytest.mark.parametrize(
    "kind", [Policy, NewRequest, NewMember, NewDelegation, NewEndpoint, NewSecret, ApprovalInput]
)
def test_no_wording_of_the_validation_library_reaches_the_caller(kind: type[BaseModel]) -> None:
    wrong = set[str]()

    for value in HOSTILE:
        for facts in (value, *({name: value} for name in kind.model_fields)):
            try:
                kind.model_validate(facts)
            except ValidationError as refused:
                wrong |= {what for _, what in mistakes.of(refused) if RAW.search(what) or not PLAIN.fullmatch(what)}

    assert wrong == set()
