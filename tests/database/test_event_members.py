"""The description of the log format lists every JSON member that events have, whatever way led to access."""

import json
import re
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from harness.clocks import StoppedClock
from harness.people import HERE, World
from lockbox.admin import exclusions, legal_holds, tenant_data
from lockbox.database import Database
from lockbox.facts.enumerations import Severity
from lockbox.identity.roles import BOUND_TO, Role, Scope
from lockbox.requests import after_reviews, closed_cases, timers
from lockbox.requests.after_reviews import FindingInput
from lockbox.requests.lifecycle import Action, AfterReviewFinding
from tests.database.tenancy import does, manages
from tests.database.test_extensions import extended
from tests.database.test_future_start import HOUR, scheduled
from tests.database.test_pre_approvals import in_force, revoke
from tests.policy_setup import group, lay_down

FORMAT = (Path(__file__).parents[2] / "docs" / "audit-format.md").read_text(encoding="utf-8")
EVENTS, BEGINNING = "Events and their bodies", "Where a request begins in a log"
SECTIONS = {part.partition("\n")[0]: part for part in re.split(r"^#+ ", FORMAT, flags=re.MULTILINE)}
CODE = re.compile(r"`([a-z_0-9]+)`")
BODIES = text("SELECT action, convert_from(body, 'UTF8') AS body FROM events")
CASE = {"case_ref": "CASE-7", "case_system": "helpdesk"}


def extended_narrowed_and_ended(world: World) -> None:
    """Make a window that is approved for less than requested, extended, and ended."""
    first = world.submit(severity=Severity.S1, actions=["read", "export"], max_uses=5)
    world.act("ann", Action.APPROVE, first.id, access_window=1800, actions=["read"])
    world.act("ann", Action.APPROVE, extended(world, first.id).id)
    world.act("erin", Action.COMPLETE, first.id)


def opened_beforehand(world: World) -> None:
    which = in_force(world)
    world.submit()
    revoke(world, which)


def approved_by_steps(world: World) -> None:
    groups = {"first": group(world, "abe"), "then": group(world, "ann")}
    lay_down(world, stages=[{"group": "first"}, {"group": "then", "order": 2}], groups=groups)
    world.act("abe", Action.APPROVE, world.fresh().id)


def opened_by_break_glass(world: World) -> None:
    """Make a window that is opened by break-glass, ended, and found justified."""
    lay_down(world, break_glass_services=["exchange-online"])
    request = world.fresh(break_glass=True, access_window=900)
    world.act("max", Action.BREAK_GLASS, request.id, comment="Mail is down")
    world.act("ann", Action.REVOKE, request.id)
    said = FindingInput(AfterReviewFinding.JUSTIFIED, "As agreed")
    with world.db.transaction() as session:
        after_reviews.give_finding(session, world.people["ann"], HERE, request.id, said)


def reviewed_for_a_case_that_closes(world: World) -> None:
    """Make an endorsed request end with its case."""
    lay_down(world, vendor_review=True)
    world.act("max", Action.ENDORSE, world.fresh(**CASE).id)
    desk = world.add("desk", Role.SYSTEM, scopes={Scope.CASE_CLOSE.value, f"{BOUND_TO}{world.tenant.slug}"})
    with world.db.transaction() as session:
        closed_cases.close_case(session, desk, HERE, "helpdesk", "CASE-7", is_only=True)


def kept_and_left(world: World) -> None:
    """Acknowledge the exclusions, shorten the retention time, set and release a legal hold, and ask to leave."""
    version = manages(world, "olga", exclusions.state, "Demands by law are not covered").version
    does(world, "tara", exclusions.acknowledge, version=version)
    does(world, "tara", tenant_data.keep_for, 90, most=None)
    does(world, "tara", legal_holds.hold, "A dispute")
    does(world, "tara", legal_holds.release)
    does(world, "tara", tenant_data.ask_to_leave)


def held_back_at_its_start(world: World, worker: Database, still: StoppedClock) -> None:
    """Make a window with a later start, before which the policy becomes stricter."""
    lay_down(world)
    request = scheduled(world, still)
    lay_down(world, quorum=2)
    still.at += 2 * HOUR
    timers.run(worker, [request.id])


def described(action: str, *, is_first: bool) -> set[str]:
    """Return the words in code type where the format describes all events, this event, or a request's first event."""
    about = {EVENTS, BEGINNING} if is_first else {EVENTS}
    return {
        word
        for title, part in SECTIONS.items()
        if title in about or f"`{action}`" in part or (is_first and "`submit`" in part)
        for word in CODE.findall(part)
    }


@pytest.mark.far
def test_the_audit_format_page_documents_every_json_field_of_events(
    world: World, superuser: Engine, worker: Database, still: StoppedClock
) -> None:
    for happens in (
        extended_narrowed_and_ended,
        opened_beforehand,
        approved_by_steps,
        opened_by_break_glass,
        reviewed_for_a_case_that_closes,
        partial(held_back_at_its_start, worker=worker, still=still),
        kept_and_left,
    ):
        happens(world)

    with superuser.connect() as connection:
        rows = [(row.action, json.loads(row.body)) for row in connection.execute(BODIES)]
    unsaid = {
        (action, name)
        for action, body in rows
        for part in (body, body["personal"], body.get("submission", {}))
        for name in part.keys() - described(action, is_first=body["seq"] == 1 or "submission" in body)
    }

    assert {action for action, _ in rows} >= {"break_glass", "after_review", "escalate", "hold_back"}
    assert unsaid == set()
