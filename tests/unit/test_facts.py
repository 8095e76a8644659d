"""Each fact of a request appears where its declaration says so, and handwritten lists agree with the declarations."""

import csv
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, cast, get_args
from uuid import UUID

import pytest
from pydantic import ValidationError

from api.portal.pages import READER, TEMPLATES
from api.portal.requests import history
from api.portal.requests.request_form import FACT_FIELDS, SENT_FORM
from api.routes.requests import view
from api.schemas.requests import RequestView
from api.schemas.submissions import NewRequest
from cli import request_table, submission
from lockbox.admin import audit_access, erased_texts, erasure
from lockbox.audit.canonical import canonical
from lockbox.audit.wording import FACTS, LABELS
from lockbox.facts.ask import Ask, SubmittedAsk
from lockbox.facts.clock import Clock
from lockbox.facts.enumerations import AuthMethod, Mode, Reason, SignInKind, State
from lockbox.facts.fact import (
    CHAT,
    CSV,
    EVENT,
    FORM,
    LIST,
    LOG,
    MAIL,
    NO,
    PAGE,
    REPEAT,
    WEBHOOK,
    WHY,
    Fact,
    FactView,
    Part,
    facts_of,
    kinds_of,
    read,
    why,
)
from lockbox.facts.requester import Requester
from lockbox.facts.window import Window
from lockbox.identity.roles import Caller, Role, RoleGrant, Side
from lockbox.notifications import chat_message, webhook
from lockbox.notifications.models import Format
from lockbox.requests import approvals, policy_rules, submit
from lockbox.requests.models import AccessRequest, RequestEntry
from lockbox.requests.request_input import RequestInput, repeated
from tests.each import each
from tests.unit.sample_mail import PUBLIC, SERVICES, mail, sample_mail
from tests.unit.test_cli_requests import VIEW

PARTS: tuple[type[Part], ...] = (Ask, Requester, Clock, Window)
WHOSE = {"id", "tenant_id", "requester_id", "token_id", "submitted_by"}
NOBODY = UUID(int=2)
AT = datetime(2026, 11, 24, 9, tzinfo=UTC)
SCHEMA = Path(__file__).parents[2] / "lockbox/schema/functions.sql"
SAMPLES: list[tuple[Any, Any]] = [
    *((list[str], ["mailbox:anna@contoso.example"]), (dict[str, Any], {"rows": 7}), (int, 7), (bool, True)),
    *((datetime, AT), (UUID, UUID(int=7)), (str, "DE")),
]
COMPOSED = {"resources", "context"}
"""Facts whose form in an event is composed by hand."""
SIGNED = {
    *("service", "actions", "mode", "policy_version", "opened_at", "max_uses", "pre_approval_id", "opens_at"),
    *("extends", "break_glass", "context", "resources"),
}
"""What the server signs of a request under the name of its field; other signed members have other names."""
PRINTED: dict[str, Any] = VIEW | {"level": None, "context": None, "created_at": "2026-11-29T08:05:00Z"}
COLUMNS = [
    *("Request", "Customer", "State", "Engineer", "Service", "Resources", "Actions", "Reason", "Case"),
    *("Ticket system", "Page of the case"),
    *("Severity", "Employed by", "Office", "Located in", "Signed in"),
    *("Justification", "Seconds requested", "Submitted", "Opened", "Closed", "Deadline"),
]
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
    values: dict[str, Any] = dict.fromkeys(WHOSE, UUID(int=1))
    return AccessRequest(**values | {name: sample(part, name) for part in PARTS for name in part.model_fields})


def names(view: Any) -> list[tuple[type[Part], str]]:
    return [(part, name) for part, name, fact in facts() if view in fact.views]


def test_the_declared_parts_of_a_request_cover_all_its_columns() -> None:
    declared = [name for part in PARTS for name in part.model_fields]

    assert len(declared) == len(set(declared))
    assert set(AccessRequest.model_fields) == {*declared, *WHOSE}


def test_a_part_of_a_request_refuses_unknown_arguments() -> None:
    with pytest.raises(ValidationError, match="severity"):
        Requester(severity="S1")  # type: ignore[call-arg]


def test_stored_request_values_are_read_although_a_limit_became_stricter() -> None:
    row = full()
    row.justification, row.severity = "x" * 9000, "S1"  # type: ignore[assignment]

    part = read(Ask, row)

    assert len(part.justification) == 9000
    assert part.severity is not None
    assert part.severity.value == "S1"


@each(("part", "name"), names(EVENT))
def test_an_event_contains_each_request_fact_in_clear_or_as_a_commitment(part: type[Part], name: str) -> None:
    request = full()

    clear, hashed = dict[str, Any](submit.facts(request)), dict[str, Any](submit.personal(request))
    said = [where for where in (clear, hashed) if name in where]

    assert said == [clear if facts_of(part, EVENT)[name].personal is NO else hashed]
    assert canonical({name: said[0][name]}) == canonical({name: getattr(request, name)})


def test_no_undeclared_field_of_a_request_is_in_its_event() -> None:
    said = {**submit.facts(full()), **submit.personal(full())}

    assert said.keys() == {name for _, name in names(EVENT)} | COMPOSED


@each("name", [name for _, name in names(REPEAT)])
def test_a_resubmission_or_extension_copies_the_facts_of_the_earlier_request(name: str) -> None:
    earlier = full()
    returned = re.findall(
        r"lock_(?:earlier|extended)_request.*?RETURNS TABLE \((.*?)\) LANGUAGE", SCHEMA.read_text(), re.DOTALL
    )

    asked = repeated(earlier_row(earlier), access_window=60)

    assert getattr(asked, name) == getattr(earlier, name)
    assert len(returned) == 2
    assert all(re.search(rf"\b{name} ", columns) for columns in returned)


def earlier_row(request: AccessRequest) -> Any:
    """Return a request as the row that a resubmission or extension locks."""
    return type("Row", (), {**dict(request), "tenant": "contoso"})


@each("name", [name for _, name in names(LOG)])
def test_log_pages_label_each_request_fact(name: str) -> None:
    assert {**LABELS, **FACTS}[name] in {fact.label for _, of, fact in facts() if of == name}


@each("name", [name for part, name in names(MAIL) if part is Ask])
def test_a_mail_has_a_line_for_each_request_fact(name: str) -> None:
    value = sample(Ask, name)

    label = facts_of(Ask, MAIL)[name].label
    made, without = mail(**{name: value}), mail(**{name: None})

    assert re.search(rf"^{label} +{value}$", made.text, re.MULTILINE)
    assert label in made.html
    assert label not in without.text


@each("name", [name for part, name in names(WEBHOOK) if part is Ask])
def test_a_webhook_call_has_a_member_for_each_request_fact(name: str) -> None:
    target = webhook.WebhookTarget(UUID(int=3), "https://calls.example", Format.JSON, False, b"", None)
    value = sample(Ask, name)

    body = webhook.request_payload(sample_mail(**{name: value}), target, public_url=PUBLIC, services=SERVICES)

    assert json.loads(body)["data"][name] == value


@each("name", [name for part, name in names(CHAT) if part is Ask])
def test_a_chat_message_has_a_line_for_each_request_fact(name: str) -> None:
    fact, value = facts_of(Ask, CHAT)[name], sample(Ask, name)

    told, without = (
        chat_message.of_request(sample_mail(**{name: said}), "why", public_url=PUBLIC, services=SERVICES)
        for said in (value, None)
    )

    assert f"{fact.label}: {fact.show(value)}" in said_in(told).splitlines()
    assert f"{fact.label}:" not in said_in(without)


def said_in(message: dict[str, Any]) -> str:
    return str(message["blocks"][0]["text"]["text"])


@each("name", [name for _, name in names(FORM)])
def test_the_form_shows_and_sends_each_request_fact(name: str) -> None:
    value = str(sample(Ask, name))
    form = SENT_FORM.model_validate({name: value, "tenant": "contoso"})
    drawn = next(one for one in FACT_FIELDS if one.name == name)

    macros = TEMPLATES.get_template("form_parts.html").module
    html = macros.fact(drawn, form.texts[name], {})  # type: ignore[attr-defined] # the template's own macro

    assert {(name, value), ("tenant", "contoso")} <= set(form.sent)
    assert f'name="{name}"' in html
    assert value in html
    assert f"{drawn.label}" in html
    assert SubmittedAsk.model_fields[name].is_required() is drawn.is_required


@each("place", [PAGE, LIST])
def test_a_page_shows_each_request_fact_to_people_who_may_read_it(place: FactView) -> None:
    request, filters = full(), {PAGE: "on_page", LIST: "listed"}
    wanted = {name: fact for part, name, fact in facts() if place in fact.views}
    read_by = {fact.label: fact.show(getattr(request, name)) for name, fact in wanted.items()}
    in_clear_of = {fact.label for fact in wanted.values() if fact.personal is not WHY}

    approver = Caller(NOBODY, "Ann", frozenset({RoleGrant(Role.APPROVER, request.tenant_id)}), side=Side.CUSTOMER)
    auditor = Caller(NOBODY, "Vic", frozenset({RoleGrant(Role.VENDOR_AUDITOR)}))
    said = {who: dict(said_to(who, filters[place], request)) for who in (approver, auditor)}

    assert said[approver] == read_by
    assert said[auditor].keys() == in_clear_of
    assert read_by


def said_to(who: Caller, listed: str, request: AccessRequest) -> list[tuple[str, str]]:
    """Return the facts of a request that a page shows to a reader."""
    token = READER.set(cast("Any", SimpleNamespace(caller=who)))
    try:
        return cast("list[tuple[str, str]]", TEMPLATES.filters[listed](request))
    finally:
        READER.reset(token)


@each("name", [name for _, name in names(CSV)])
def test_a_csv_has_a_column_for_each_request_fact(name: str) -> None:
    fact, request = facts_of(Ask, CSV)[name], full()
    approver = Caller(NOBODY, "Ann", frozenset({RoleGrant(Role.APPROVER, request.tenant_id)}), side=Side.CUSTOMER)

    body = history.table_head() + b"".join(
        history.table_rows(approver, [RequestEntry(request, "contoso", "Erin", open=False)])
    )
    head, cells = csv.reader(StringIO(body.decode("utf-8-sig")))

    assert len(head) == len(set(head)) == len(cells)
    assert dict(zip(head, cells, strict=True))[fact.label] == fact.show(getattr(request, name))


def test_the_csv_columns_of_request_facts_keep_their_order() -> None:
    head = next(csv.reader(StringIO(history.table_head().decode("utf-8-sig"))))

    assert head[:22] == COLUMNS


@each("name", [*NewRequest.model_fields])
def test_a_cli_command_sends_each_request_fact(name: str) -> None:
    assert name in {option.name for option in submission.REQUEST}


@each("name", [name for _, name in names(PAGE)])
def test_a_cli_command_prints_a_request_fact_only_if_it_has_a_value(name: str) -> None:
    label = next(fact.label for _, of, fact in facts() if of == name)

    printed, without = (request_table.request(PRINTED | {name: value}).rows for value in ("S2", None))

    assert printed[label] == "S2"
    assert label not in without


@each("name", [name for part, name, fact in facts() if LIST in fact.views and fact.personal is not WHY])
def test_the_list_of_a_cli_command_has_a_column_for_each_request_fact(name: str) -> None:
    listing = request_table.requests([PRINTED | {name: "S2"}], in_file=True)

    label = next(fact.label for _, of, fact in facts() if of == name)
    assert listing.rows[0][listing.columns.index(label)] == "S2"


@each("name", [name for _, name, fact in facts() if fact.personal is not NO])
def test_personal_facts_of_a_request_can_be_erased(name: str) -> None:
    removable = re.search(r"FUNCTION without_texts.*?'\{(.*?)\}'", SCHEMA.read_text(), re.DOTALL)

    assert removable
    assert name in re.split(r"[,\s]+", removable[1])
    assert re.search(rf"\b{name} = ", str(erased_texts.ROWS[1]))
    assert name in Requester.model_fields or f"r.{name}" in str(erasure.NAMING)


@each("name", [name for _, name, fact in facts() if fact.personal is WHY])
def test_vendor_auditors_do_not_read_the_reasons_in_a_request(name: str) -> None:
    assert name in audit_access.VENDORS.hidden


@each("name", [name for _, name, fact in facts() if fact.personal is WHY])
def test_the_api_returns_the_reasons_in_a_request_only_to_people_who_may_read_them(name: str) -> None:
    request = full()
    approver = Caller(NOBODY, "Ann", frozenset({RoleGrant(Role.APPROVER, request.tenant_id)}), side=Side.CUSTOMER)
    auditor = Caller(NOBODY, "Vic", frozenset({RoleGrant(Role.VENDOR_AUDITOR)}))

    answers = [
        dict(view(RequestEntry(request, "contoso", "Erin", open=False), who))[name] for who in (approver, auditor)
    ]

    assert answers == [getattr(request, name), None]


def test_the_servers_signature_covers_exactly_the_signed_request_facts() -> None:
    request = full()

    said = json.loads(approvals.statement(request, ["b", "a"]))

    assert said.keys() == SIGNED | SIGNED_OTHERWISE
    assert set(AccessRequest.model_fields) >= SIGNED


def test_the_requester_facts_that_policy_rules_match_are_declared() -> None:
    assert set(policy_rules.PLACES) <= set(Requester.model_fields)


def test_the_input_of_a_new_request_is_part_of_the_stored_request() -> None:
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
def test_limits_of_request_fields_apply_to_input_and_not_to_answers(name: str) -> None:
    answered = RequestView.model_json_schema(mode="serialization")

    assert name in NewRequest.model_json_schema()["properties"]
    assert name in answered["required"]
    assert not {"maxLength", "pattern", "maximum", "maxItems"} & {
        *re.findall(r"'(\w+)':", str(answered["properties"][name]))
    }


@each("name", [name for part in PARTS for name in part.model_fields if name not in NewRequest.model_fields])
def test_derived_facts_of_a_request_cannot_be_sent_by_a_client(name: str) -> None:
    with pytest.raises(ValidationError, match=name):
        NewRequest.model_validate(ASKED | {name: None})


def test_input_facts_of_a_request_can_be_sent_by_a_client() -> None:
    assert NewRequest.model_validate(ASKED).actions == ["read"]


def test_all_personal_reasons_in_a_request_are_blanked_even_reasons_that_no_page_shows() -> None:
    class Quiet(Part):
        on_page: Annotated[str, Fact("On the page", PAGE, WHY)]
        unsaid: Annotated[str, Fact("Unsaid", personal=WHY)]
        open: Annotated[str, Fact("Open", PAGE)]

    assert list(why(Quiet)) == ["on_page", "unsaid"]
