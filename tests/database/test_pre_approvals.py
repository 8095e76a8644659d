"""Pre-approvals: what they open, when they don't, how often they do, and what ends with them."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from harness.people import HERE, SETTINGS, World
from lockbox.admin import pre_approvals
from lockbox.admin.pre_approval_status import PreApprovalStatus, PreApprovalSummary
from lockbox.admin.pre_approvals import PreApprovalInput
from lockbox.requests.lifecycle import State
from tests.database.scenes import MAILBOX, door, moves_of, read

OTHER = "mailbox:bob@contoso.example"
HOUR = 3600
RULE: dict[str, Any] = {
    "service": "exchange-online",
    "resource": "mailbox:*@contoso.example",
    "actions": ["read"],
    "reason_code": "support_case",
    "access_window": HOUR,
    "max_uses": 3,
}


def proposal(**changes: Any) -> PreApprovalInput:
    """Return a good proposal, with changes."""
    return PreApprovalInput(**{**RULE, "ends_at": datetime.now(UTC) + timedelta(days=7), **changes})


def propose(world: World, who: str = "tara", **changes: Any) -> UUID:
    """Propose one, and return its id."""
    with world.db.transaction() as session:
        services = SETTINGS.catalogue.services
        slug = world.tenant.slug
        return pre_approvals.propose(session, world.people[who], HERE, slug, proposal(**changes), services).row.id


def approve(world: World, which: UUID, *people: str) -> PreApprovalSummary:
    """Let these approve it, and return it as it is then."""
    for who in people:
        with world.db.transaction() as session:
            found = pre_approvals.approve(session, world.people[who], HERE, world.tenant.slug, which)
    return found


def revoke(world: World, which: UUID, who: str = "amir") -> PreApprovalSummary:
    """Revoke it."""
    with world.db.transaction() as session:
        return pre_approvals.revoke(session, world.people[who], HERE, world.tenant.slug, which)


def in_force(world: World, **changes: Any) -> UUID:
    """Propose one and let Ann approve it."""
    which = propose(world, **changes)
    assert approve(world, which, "ann").status is PreApprovalStatus.IN_FORCE
    return which


def status(world: World, which: UUID) -> PreApprovalStatus:
    """Return what it is worth now."""
    with world.db.transaction() as session:
        return pre_approvals.find(session, world.people["ann"], world.tenant.slug, which).status


def events(world: World, action: str) -> list[dict[str, Any]]:
    """Return the bodies of the tenant's events of an action."""
    rows = read(world.db, "SELECT body FROM events WHERE action = :action ORDER BY id", action=action)
    return [json.loads(row.body) for row in rows]


def test_a_request_that_is_covered_opens_at_once_and_says_by_whose_decision(world: World) -> None:
    which = in_force(world)

    request = world.submit()

    assert (request.state, request.pre_approval_id) == (State.ACTIVE, which)
    assert door(world) is not None
    (opened,) = events(world, "submit")
    assert opened["pre_approval_id"] == str(which)
    assert opened["approved_by"] == [str(world.people["ann"].person_id)]
    assert moves_of(world.db, request.id) == [(1, "submit", "active")]
    assert events(world, "pre_approval_approved")[0]["in_force"] is True


NOT_COVERED: dict[str, dict[str, Any]] = {
    "another resource": {"resources": ["mailbox:anna@fabrikam.example"]},
    "one resource more": {"resources": [MAILBOX, "mailbox:anna@fabrikam.example"]},
    "another action": {"actions": ["read", "export"]},
    "another reason": {"reason_code": "vendor_alert"},
    "another service": {"service": "sharepoint-online", "resources": [MAILBOX]},
    "a longer window": {"access_window": HOUR + 1},
}


@pytest.mark.parametrize("changes", NOT_COVERED.values(), ids=NOT_COVERED)
def test_what_is_not_covered_whole_goes_to_the_customer(world: World, changes: dict[str, Any]) -> None:
    which = in_force(world)

    request = world.submit(**changes)

    assert (request.state, request.pre_approval_id) == (State.PENDING, None)
    assert read(world.db, "SELECT used FROM pre_approvals WHERE id = :id", id=which)[0].used == 0
