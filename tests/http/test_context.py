"""Parameters that a service declares, and levels: checked, shown, matched by rules, signed, and in the log."""

import json
from typing import Any

import pytest
from httpx import Response
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from catalogue.context_schema import ContextSchema
from catalogue.service_catalogue import Catalogue, Level, Service
from harness.people import SETTINGS
from harness.stage import unbound
from lockbox.facts.enumerations import Reason
from lockbox.requests.policy_rules import Policy, RequestFacts
from tests.http.door import Door, OpenDoor, facts
from tests.http.portal import SETTINGS as PAGES
from tests.http.portal import OpenPortal
from tests.policy_setup import lay_down

CONTEXT = {"environment": "production", "rows": 10}
SCHEMA = ContextSchema.model_validate_json(
    json.dumps(
        {
            "properties": {
                "environment": {"type": "string", "enum": ["production", "staging"], "title": "Environment"},
                "rows": {"type": "integer", "maximum": 100},
                "dry_run": {"type": "boolean"},
            },
            "required": ["environment"],
        }
    )
)
RULES = [
    {"name": "Production", "match": {"services": ["exchange-online"], "context": {"environment": ["production"]}},
     "terms": {"quorum": 2}},
    {"name": "Exports", "match": {"levels": ["export", "admin"]}, "terms": {"access_ceiling": 600}},
]  # fmt: skip
BODIES = text("SELECT convert_from(body, 'UTF8') AS body FROM events WHERE request_id = :r ORDER BY seq")
CHANGED = text('UPDATE requests SET context = \'{"environment": "staging"}\' WHERE id = :r')
OLD_VOTE = """
INSERT INTO decisions (id, request_id, person_id, principals, means, decision, channel, decided_at)
VALUES (uuidv7(), :r, :p, '{}', 'oidc', :decision, 'api', now())
"""


def catalogue(of: Catalogue) -> Catalogue:
    service = of.services["exchange-online"]
    declared = Service(title=service.title, actions=service.actions, context=SCHEMA)
    return of.model_copy(update={"services": of.services | {"exchange-online": declared}})


@pytest.fixture
def door(open_door: OpenDoor) -> Door:
    return open_door().with_settings(catalogue=catalogue(SETTINGS.catalogue))


def submitted(answer: Response) -> dict[str, Any]:
    assert answer.status_code == 201, answer.text
    view: dict[str, Any] = answer.json()
    return view


@pytest.mark.parametrize(
    ("context", "field", "said"),
    [
        ({}, "context.environment", "Add this parameter."),
        ({"environment": "prod"}, "context.environment", "Choose production, staging."),
        ({"environment": "staging", "rows": 101}, "context.rows", "Write 100 or less."),
        ({"environment": "staging", "colour": "red"}, "context.colour", "There is no parameter of that name;"),
    ],
)
def test_an_invalid_request_context_is_refused_field_by_field(
    door: Door, context: dict[str, Any], field: str, said: str
) -> None:
    before = door.rows()

    (error,) = facts(door.file(context=context), 422, "invalid-context")["errors"]

    assert error["field"] == field
    assert error["message"].startswith(said)
    assert door.rows() == before


@pytest.mark.parametrize(
    "context", [{"a b": 1}, {"a": 1.5}, {"a": [1]}, {"a": None}, {"a": "x\u200by"}, {"a": 2**53}]
)
def test_a_malformed_context_parameter_is_refused_as_an_invalid_request(door: Door, context: dict[str, Any]) -> None:
    assert facts(door.file(context=context), 422, "invalid-request")["errors"][0]["field"].startswith("context")


def test_the_context_of_a_request_is_shown_to_readers_and_only_its_hash_is_logged(door: Door) -> None:
    view = submitted(door.file(context=CONTEXT, actions=["export", "read"]))

    opened = door.act("ann", "approve", view["id"]).json()
    with door.root.connect() as connection:
        rows = connection.execute(
            text("SELECT convert_from(body, 'UTF8') AS body FROM events WHERE request_id = :r ORDER BY seq"),
            {"r": view["id"]},
        ).all()
    shown = door.get("gate", "/v1/access", **door.world.question()).json()

    assert (view["context"], view["level"]) == (CONTEXT, "export")
    assert door.get("erin", "/v1/requests").json()["items"][0]["level"] == "export"
    assert (opened["state"], shown["open"]) == ("active", True)
    body = json.loads(rows[0].body)
    assert (body["level"], len(body["personal"]["context"])) == ("export", 64)
    assert "production" not in "".join(row.body for row in rows)


def test_an_access_check_is_refused_if_the_context_was_changed_after_the_approval(door: Door) -> None:
    view = submitted(door.file(context=CONTEXT))
    door.act("ann", "approve", view["id"])
    with unbound(door.db).begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(CHANGED, {"r": view["id"]})

    facts(door.get("gate", "/v1/access", **door.world.question()), 403, "no-open-window")


def test_policy_rules_match_context_parameters_and_levels(door: Door) -> None:
    lay_down(door.world, rules=RULES)

    production = submitted(door.file(context=CONTEXT, access_window=600))
    staging = submitted(door.file(context={"environment": "staging"}))
    export = facts(door.file(context={"environment": "staging"}, actions=["export"]), 422, "window-too-long")

    assert (production["quorum"], staging["quorum"]) == (2, 1)
    assert export["limit_seconds"] == 600


def test_missing_context_parameters_and_unknown_levels_match_every_rule() -> None:
    policy = Policy.model_validate({"rules": RULES})

    assert [rule.match.matches(_ask()) for rule in policy.rules] == [True, True]
    known = _ask(level=Level.READ, context={"environment": "staging"})
    assert [rule.match.matches(known) for rule in policy.rules] == [False, False]


def _ask(**more: Any) -> RequestFacts:
    return RequestFacts("exchange-online", ["read"], Reason.OTHER, ["mailbox:a"], **more)


@pytest.mark.parametrize("decision", ["approve", "endorse"])
def test_older_code_that_ignores_the_context_cannot_approve_a_request_with_a_context(
    door: Door, decision: str
) -> None:
    view = submitted(door.file(context=CONTEXT))
    ann = door.world.people["ann"].person_id

    with pytest.raises(DBAPIError, match="has a context, of which the code that decides does not know"):
        door.run_sql(OLD_VOTE, r=view["id"], p=ann, decision=decision)
    door.run_sql(OLD_VOTE, r=view["id"], p=ann, decision="deny")


def test_the_form_takes_context_parameters_and_the_page_shows_them_with_the_level(open_portal: OpenPortal) -> None:
    portal = open_portal(settings=PAGES.model_copy(update={"catalogue": catalogue(PAGES.catalogue)}))
    browser = portal.by_passkey("erin")
    form = browser.get("/ask")
    names = ["exchange-online:environment", "exchange-online:rows"]
    fields: dict[str, str | list[str]] = dict(form.form("/ask/preview").fields)
    fields |= {"tenant": portal.world.tenant.slug, "service": "exchange-online", "justification": "Broken"}
    fields |= {"resources": "mailbox:a@b.example", "parameter": names, "actions": ["read"]}

    wrong = browser.post("/ask/preview", fields | {"value": ["", "x"]})
    preview = browser.post("/ask/preview", fields | {"value": ["staging", "7"]})
    sent: dict[str, str | list[str]] = dict(preview.form("/ask").fields)
    page = browser.post("/ask", sent | {"actions": ["read"], "parameter": names, "value": ["staging", "7"]})

    assert "Parameters of Exchange Online" in form.words
    assert "Add this parameter." in wrong.words
    assert "context.environment" not in wrong.words
    assert "Write a whole number." in wrong.words
    assert "Level read Parameters Environment: staging; rows: 7" in preview.words
    assert "Level read" in page.words
    assert "Parameters Environment: staging rows: 7" in page.words
