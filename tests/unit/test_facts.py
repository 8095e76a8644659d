"""Each fact of a request is said where its declaration says so, and what is written by hand agrees with it."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args
from uuid import UUID

import pytest
from pydantic import ValidationError

from api.schemas.requests import RequestView
from api.schemas.submissions import NewRequest
from lockbox.admin import audit_access, erased_texts, erasure
from lockbox.audit.canonical import canonical
from lockbox.audit.wording import FACTS, LABELS
from lockbox.facts.ask import Ask, SubmittedAsk
from lockbox.facts.clock import Clock
from lockbox.facts.enumerations import AuthMethod, Mode, Reason, SignInKind, State
from lockbox.facts.fact import EVENT, LOG, MAIL, NO, REPEAT, WEBHOOK, WHY, Fact, Part, facts_of, kinds_of, read
from lockbox.facts.requester import Requester
from lockbox.facts.window import Window
from lockbox.notifications import webhook
from lockbox.notifications.models import Format
from lockbox.requests import approvals, policy_store, submit
from lockbox.requests.models import AccessRequest
from lockbox.requests.request_input import RequestInput, repeated
from tests.each import each
from tests.unit.sample_mail import PUBLIC, SERVICES, mail, sample_mail

PARTS: tuple[type[Part], ...] = (Ask, Requester, Clock, Window)
WHOSE = {"id", "tenant_id", "requester_id", "token_id", "submitted_by"}
AT = datetime(2026, 11, 24, 9, tzinfo=UTC)
SCHEMA = Path(__file__).parents[2] / "lockbox/schema/functions.sql"
SAMPLES: list[tuple[Any, Any]] = [
    *((list[str], ["mailbox:anna@contoso.example"]), (dict[str, Any], {"rows": 7}), (int, 7), (bool, True)),
    *((datetime, AT), (UUID, UUID(int=7)), (str, "DE")),
]
COMPOSED = {"resources", "context"}
"""Facts whose form in an event is put together by hand."""
SIGNED = {
    *("service", "actions", "mode", "policy_version", "opened_at", "max_uses", "pre_approval_id", "opens_at"),
    *("extends", "break_glass", "context", "resources"),
}
"""What the server signs of a request under the name of its field; further members are named otherwise."""
SIGNED_OTHERWISE = {"format", "request_id", "tenant_id", "engineer", "until", "by"}


def facts() -> Iterator[tuple[type[Part], str, Fact]]:
    """Yield every fact with its part and the name of its field."""
    for part in PARTS:
        for name, field in part.model_fields.items():
            yield from ((part, name, fact) for fact in field.metadata if isinstance(fact, Fact))


def sample(part: type[Part], name: str) -> Any:
    """Return a value that a field of this kind may have."""
    if kind := kinds_of(part).get(name):
        return list(kind)[-1]
    annotation = part.model_fields[name].annotation
    return next(value for kind, value in SAMPLES if kind in {annotation, *get_args(annotation)})


def full() -> AccessRequest:
    """Return a request that says all of its facts."""
    values: dict[str, Any] = dict.fromkeys(WHOSE, UUID(int=1))
    return AccessRequest(**values | {name: sample(part, name) for part in PARTS for name in part.model_fields})


def names(view: Any) -> list[tuple[type[Part], str]]:
    """Return the facts of one view."""
    return [(part, name) for part, name, fact in facts() if view in fact.views]


def test_the_parts_have_all_columns_of_the_table_but_whose_it_is() -> None:
    declared = [name for part in PARTS for name in part.model_fields]

    assert len(declared) == len(set(declared))
    assert set(AccessRequest.model_fields) == {*declared, *WHOSE}


def test_a_part_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ValidationError, match="severity"):
        Requester(severity="S1")  # type: ignore[call-arg]


def test_what_is_stored_is_read_though_a_bound_became_stricter() -> None:
    row = full()
    row.justification, row.severity = "x" * 9000, "S1"  # type: ignore[assignment]

    part = read(Ask, row)

    assert len(part.justification) == 9000
    assert part.severity is not None
    assert part.severity.value == "S1"


@each(("part", "name"), names(EVENT))
def test_an_event_says_a_fact_in_clear_or_only_by_its_hash(part: type[Part], name: str) -> None:
    request = full()

    clear, hashed = dict[str, Any](submit.facts(request)), dict[str, Any](submit.personal(request))
    said = [where for where in (clear, hashed) if name in where]

    assert said == [clear if facts_of(part, EVENT)[name].personal is NO else hashed]
    assert canonical({name: said[0][name]}) == canonical({name: getattr(request, name)})


def test_nothing_else_of_a_request_is_in_its_event() -> None:
    said = {**submit.facts(full()), **submit.personal(full())}

    assert said.keys() == {name for _, name in names(EVENT)} | COMPOSED


@each("name", [name for _, name in names(REPEAT)])
def test_a_request_that_repeats_another_takes_a_fact_from_it(name: str) -> None:
    earlier = full()
    returned = re.findall(
        r"lock_(?:earlier|extended)_request.*?RETURNS TABLE \((.*?)\) LANGUAGE", SCHEMA.read_text(), re.DOTALL
    )

    asked = repeated(earlier_row(earlier), access_window=60)

    assert getattr(asked, name) == getattr(earlier, name)
    assert len(returned) == 2
    assert all(re.search(rf"\b{name} ", columns) for columns in returned)


def earlier_row(request: AccessRequest) -> Any:
    """Return a request as it is locked to be repeated."""
    return type("Row", (), {**dict(request), "tenant": "contoso"})


@each("name", [name for _, name in names(LOG)])
def test_the_pages_of_the_log_label_a_fact(name: str) -> None:
    assert {**LABELS, **FACTS}[name] in {fact.label for _, of, fact in facts() if of == name}


@each("name", [name for part, name in names(MAIL) if part is Ask])
def test_a_mail_has_a_line_for_a_fact(name: str) -> None:
    value = sample(Ask, name)

    label = facts_of(Ask, MAIL)[name].label
    made, without = mail(**{name: value}), mail(**{name: None})

    assert re.search(rf"^{label} +{value}$", made.text, re.MULTILINE)
    assert label in made.html
    assert label not in without.text


@each("name", [name for part, name in names(WEBHOOK) if part is Ask])
def test_a_call_has_a_member_for_a_fact(name: str) -> None:
    target = webhook.WebhookTarget(UUID(int=3), "https://calls.example", Format.JSON, False, b"", None)
    value = sample(Ask, name)

    body = webhook.request_payload(sample_mail(**{name: value}), target, public_url=PUBLIC, services=SERVICES)

    assert json.loads(body)["data"][name] == value


@each("name", [name for _, name, fact in facts() if fact.personal is not NO])
def test_what_is_personal_can_be_erased(name: str) -> None:
    removable = re.search(r"FUNCTION without_texts.*?'\{(.*?)\}'", SCHEMA.read_text(), re.DOTALL)

    assert removable
    assert name in re.split(r"[,\s]+", removable[1])
    assert re.search(rf"\b{name} = ", str(erased_texts.ROWS[1]))
    assert name in Requester.model_fields or f"r.{name}" in str(erasure.NAMING)


@each("name", [name for _, name, fact in facts() if fact.personal is WHY])
def test_the_vendors_auditors_do_not_read_why(name: str) -> None:
    assert name in audit_access.VENDORS.hidden


def test_the_server_signs_these_facts() -> None:
    request = full()

    said = json.loads(approvals.statement(request, ["b", "a"]))

    assert said.keys() == SIGNED | SIGNED_OTHERWISE
    assert set(AccessRequest.model_fields) >= SIGNED


def test_what_rules_look_at_is_a_fact() -> None:
    assert set(policy_store.PLACES) <= set(Requester.model_fields)


def test_what_is_asked_is_a_part_of_what_is_stored() -> None:
    asked = RequestInput(
        tenant="contoso",
        service="mail",
        resources=["a:b"],
        actions=["read"],
        reason_code=Reason.OTHER,
        justification="why",
        access_window=60,
    )

    assert set(SubmittedAsk.model_fields) <= set(RequestInput.model_fields) & set(Ask.model_fields)
    assert asked.in_system("desk").case_system == "desk"
    assert {Mode, State, SignInKind, AuthMethod} <= set(kinds_of(AccessRequest).values())


ASKED = {
    "tenant": "contoso",
    "service": "exchange-online",
    "resources": ["mailbox:anna@contoso.example"],
    "reason_code": "other",
    "justification": "The mailbox does not open",
    "access_window": 900,
}


@each("name", [*SubmittedAsk.model_fields])
def test_a_fact_may_be_sent_within_its_bounds_and_is_answered_without_them(name: str) -> None:
    answered = RequestView.model_json_schema(mode="serialization")

    assert name in NewRequest.model_json_schema()["properties"]
    assert name in answered["required"]
    assert not {"maxLength", "pattern", "maximum", "maxItems"} & {
        *re.findall(r"'(\w+)':", str(answered["properties"][name]))
    }


@each("name", [name for part in PARTS for name in part.model_fields if name not in NewRequest.model_fields])
def test_what_is_found_out_about_a_request_cannot_be_sent(name: str) -> None:
    with pytest.raises(ValidationError, match=name):
        NewRequest.model_validate(ASKED | {name: None})


def test_what_can_be_sent_is_accepted() -> None:
    assert NewRequest.model_validate(ASKED).actions == ["read"]
