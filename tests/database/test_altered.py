"""Readers who verify nothing are shown what was sealed, and warned where the database now differs."""

import csv
import io
from uuid import UUID

import pytest
from sqlalchemy import Engine

from harness.people import World
from harness.stage import Urls
from lockbox.admin import audit_access
from lockbox.audit import export as tables
from lockbox.audit import report
from lockbox.audit.event_search import EventFilter, RecordedEvent
from lockbox.audit.events import Origin
from lockbox.audit.report import Report
from lockbox.audit.verifier.export_format import FindingKind
from lockbox.audit.verifier.verify import GOOD
from lockbox.database import Database, now
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from tests.database.scenes import read
from tests.database.test_exports import begun, exported, freely, note, reads, story, verified
from tests.database.test_retention import age, denied, retain
from tests.logs import sealed

__all__ = ["story"]
HERE = Origin("api")
BODY = "UPDATE events SET body = convert_to(replace(convert_from(body, 'UTF8'), '{}', '{}'), 'UTF8')"
SPOILT = "UPDATE events SET body = decode('{}', 'hex') WHERE seq = {}"
NAME = """
UPDATE event_details SET fields = jsonb_set(fields, '{name,1}', '"Mallory"') WHERE fields #>> '{name,1}' = 'Ann'
"""
ASKED = "UPDATE requests SET asked_at = NULL"
COLUMNS = {
    "action": "UPDATE events SET action = 'deny' WHERE seq = 2",
    "actor_id": "UPDATE events SET actor_id = uuidv7() WHERE seq = 2",
    "actor_role": "UPDATE events SET actor_role = 'manager' WHERE seq = 2",
    "at": "UPDATE events SET at = at - interval '1 day' WHERE seq = 2",
    "from_state": "UPDATE events SET from_state = NULL WHERE seq = 2",
    "to_state": "UPDATE events SET to_state = 'denied' WHERE seq = 2",
}


def listed(world: World, who: str = "tara") -> list[RecordedEvent]:
    reader = reads(world, who)
    with world.db.transaction() as session:
        found = audit_access.search(session, reader, EventFilter(), before=None, most=50)
    return sorted(found.events, key=lambda event: event.id)


def table(world: World) -> list[dict[str, str]]:
    found = b"".join(tables.table(audit_access.pages(world.db, reads(world)), begun(world))).decode()
    return list(csv.DictReader(io.StringIO(found, newline="")))


def reported(world: World, request_id: UUID | None = None) -> tuple[Report, str]:
    """Return the report on a request, by default the only one, and the report's page."""
    one = request_id or read(world.db, "SELECT id FROM requests")[0].id
    with world.db.transaction() as session:
        found = audit_access.report(session, world.people["tara"], HERE, one)
        return found, report.page(found, made_at=now(session))


def test_a_report_of_an_unaltered_request_has_no_findings(story: World) -> None:
    found, page = reported(story)

    assert [event.altered for event in listed(story) if event.request_id] == [()] * 3
    assert {row["Altered"] for row in table(story)} == {""}
    assert (found.altered, found.lost, found.sealed) == ((), (), True)
    assert "Every step is sealed" in page


@pytest.mark.parametrize("name", COLUMNS)
def test_a_report_names_an_altered_request_column_and_shows_the_sealed_value(
    story: World, superuser: Engine, name: str
) -> None:
    before, rows = [event for event in listed(story) if event.request_id], table(story)

    freely(superuser, COLUMNS[name])

    after = [event for event in listed(story) if event.request_id]
    assert [event.altered for event in after] == [(), (name,), ()]
    assert [getattr(event, name) for event in after] == [getattr(event, name) for event in before]
    assert table(story) == [rows[0], rows[1] | {"Altered": name}, rows[2]]
    found, page = reported(story)
    assert (found.altered, found.sealed) == ((after[1].id,), False)
    assert "Do not rely on this report" in page
    assert "Every step is sealed" not in page


@pytest.mark.far
def test_a_value_that_does_not_match_its_commitment_is_not_shown(story: World, superuser: Engine) -> None:
    freely(superuser, NAME)

    assert [event.altered for event in listed(story) if event.request_id] == [(), ("name",), ()]
    assert table(story)[1] == table(story)[1] | {"User": str(story.people["ann"].person_id), "Altered": "name"}
    found, page = reported(story)
    assert [step.who for step in found.steps] == ["Erin", report.ERASED, "Erin"]
    assert "Mallory" not in page
    assert "Do not rely on this report" in page


def test_a_report_names_an_event_whose_body_differs_from_the_sealed_body(story: World, superuser: Engine) -> None:
    freely(superuser, BODY.format('"channel":"api"', '"channel":"ape"'))

    assert {event.altered for event in listed(story) if event.number is not None} == {("body",)}
    assert {row["Altered"] for row in table(story)} == {"body"}
    assert len(reported(story)[0].altered) == 3


@pytest.mark.far
@pytest.mark.parametrize("body", [b"{}", b"[1]", b"\xff\xfe", b'{"service":7,"actions":"all","reason_code":[]}'])
@pytest.mark.parametrize("seq", [1, 2])
def test_a_malformed_event_body_still_identifies_its_event(
    story: World, superuser: Engine, seq: int, body: bytes
) -> None:
    seen, before = note(story), [event for event in listed(story) if event.request_id]
    spoilt = before[seq - 1]

    freely(superuser, SPOILT.format(body.hex(), seq))

    result = verified(exported(story), seen)
    edited, gap = result.findings.first
    assert (edited.kind, edited.number, gap.kind) == (FindingKind.EDITED, spoilt.number, FindingKind.GAP_IN_MOVES)
    found, page = reported(story)
    assert (found.altered, found.service) == ((spoilt.id,), "exchange-online")
    assert "Do not rely on this report" in page
    assert [row["Altered"] for row in table(story)].count("") == len(before) - 1


def test_a_report_reads_requested_values_from_the_sealed_events(story: World, superuser: Engine) -> None:
    before = table(story)

    freely(superuser, "UPDATE requests SET service = 'azure-sql', resources = '{db:1}'")

    assert table(story) == before
    assert before[1]["Item"] == "exchange-online mailbox:anna@contoso.example"


def test_a_request_altered_to_hide_that_approvers_were_asked_stays_in_the_customers_log(
    story: World, superuser: Engine
) -> None:
    seen = note(story)

    freely(superuser, ASKED)

    result = verified(exported(story), seen)
    assert (result.exit_code, result.events) == (GOOD, 3), result.findings
    assert len([event for event in listed(story) if event.request_id]) == 3
    assert len([event for event in listed(story, "aude") if event.request_id]) == 3


@pytest.mark.parametrize(
    "further",
    [
        BODY.format('"to_state":"pending"', '"to_state":"reviewing"'),
        "UPDATE events SET tenant_id = NULL",
        "DELETE FROM events WHERE seq > 1",
    ],
    ids=["bodies", "columns", "moves"],
)
def test_an_event_hidden_by_the_database_owner_is_missing_from_an_export(
    api: Database, worker: Database, superuser: Engine, further: str
) -> None:
    world = World.make(api, Policy(vendor_review=True))
    world.act("max", Action.ENDORSE, world.submit().id)
    sealed(worker)

    freely(superuser, ASKED)
    freely(superuser, further)

    assert verified(exported(world)).exit_code != GOOD


def test_a_report_says_that_retention_removed_events(
    world: World, worker: Database, urls: Urls, superuser: Engine
) -> None:
    request_id = denied(world, superuser)
    sealed(worker)
    assert retain(urls)

    found, page = reported(world, request_id)

    assert (found.lost, found.steps, found.sealed, found.state) == ((1, 2), (), False, "denied")
    assert (found.service, found.reason_code) == ("exchange-online", "support_case")
    assert "no longer holds moves 1, 2" in page
    assert "sealed" not in page.replace("was sealed", "")


@pytest.mark.far
def test_the_report_on_a_request_names_the_moves_that_retention_removed(
    world: World, worker: Database, urls: Urls, superuser: Engine
) -> None:
    first = world.fresh()
    waiting = world.fresh()
    world.act("ann", Action.DENY, first.id)
    for one in (first.id, waiting.id):
        age(superuser, one)
    sealed(worker)
    assert retain(urls)

    found, page = reported(world, first.id)

    assert (found.lost, [step.action for step in found.steps]) == ((1,), ["deny"])
    assert found.service == "exchange-online"
    assert "no longer holds move 1 of" in page
