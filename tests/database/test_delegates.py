"""Who is a delegate for whom: during the period, until someone ends it, and only if both may decide."""

import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine

from harness.clocks import ShiftedClock
from harness.people import World
from lockbox.admin import delegates, members
from lockbox.database import Database
from lockbox.errors import DelegationClash, Invalid, NotFound, NotYours
from lockbox.identity import authentication
from lockbox.identity.roles import Role
from lockbox.identity.time_zones import clock_time
from lockbox.notifications import recipients
from lockbox.requests.lifecycle import Action
from lockbox.sql import new_id
from tests.database.audit_logs import last_change, recorded_changes
from tests.database.postbag import PUBLIC_URL
from tests.database.scenes import at_once, write
from tests.database.tenancy import does, id_of, names_delegate, reads, with_delegates
from tests.each import each
from tests.mailbox import sent_about
from tests.policy_setup import lay_down

DAY = timedelta(days=1)


@pytest.fixture
def world(api: Database) -> World:
    """A world in which Aude, the auditor, and Abe, an approver, may be named as delegates."""
    return with_delegates(api)


def stands(world: World, db: Database | None = None, **shift: float) -> dict[str, set[str]]:
    """Return who is a delegate for whom, by name, at a time relative to now."""
    names = {caller.person_id: name for name, caller in world.people.items()}
    with (db or world.db).transaction() as session:
        authentication.enter(session, world.people["tara"])
        at = datetime.now(UTC) + timedelta(**shift)
        found = recipients.look_up(session, {world.tenant.id}, at).delegates[world.tenant.id]
    return {names[delegate]: {names[principal] for principal in principals} for delegate, principals in found.items()}


def test_a_delegate_acts_from_the_start_to_the_end_of_the_period(world: World) -> None:
    start = datetime.now(UTC) + DAY
    entry = names_delegate(world, starts_at=start, ends_at=start + DAY)

    assert not entry.counts
    assert [stands(world, hours=hours) for hours in (0, 23, 25, 47, 49)] == [
        {},
        {},
        {"aude": {"ann"}},
        {"aude": {"ann"}},
        {},
    ]


def test_a_delegate_of_two_approvers_has_one_vote(world: World) -> None:
    names_delegate(world, "ann")
    names_delegate(world, "amir")

    assert stands(world) == {"aude": {"ann", "amir"}}


@pytest.mark.parametrize(("who", "role"), [("ann", "approver"), ("tara", "tenant_admin")])
def test_a_delegation_can_be_ended_by_the_principal_or_an_admin(world: World, who: str, role: str) -> None:
    entry = names_delegate(world)
    waiting = world.submit().id

    does(world, who, delegates.end, entry.delegation.id)

    told = last_change(world.db)
    assert (told.action, told.role) == ("delegate_ended", role)
    assert told.changes["period"].endswith(" → none")
    assert "Aude" in told.told
    assert stands(world) == {}
    assert reads(world, "ann", delegates.current) == []
    with pytest.raises(NotYours):
        world.act("aude", Action.APPROVE, waiting)


def test_ending_a_delegation_a_second_time_records_no_change(world: World) -> None:
    entry = names_delegate(world)
    does(world, "ann", delegates.end, entry.delegation.id)
    before = len(recorded_changes(world.db))

    does(world, "ann", delegates.end, entry.delegation.id)

    assert len(recorded_changes(world.db)) == before


def test_an_approver_cannot_end_a_delegation_of_another_approver(world: World) -> None:
    entry = names_delegate(world)

    with pytest.raises(NotYours):
        does(world, "amir", delegates.end, entry.delegation.id)

    assert stands(world) == {"aude": {"ann"}}


def test_a_delegation_of_another_tenant_is_not_found(world: World, api: Database) -> None:
    elsewhere = World.make(api)
    does(elsewhere, "tara", members.set_eligible, id_of(elsewhere, "aude"), eligible=True)
    theirs = names_delegate(elsewhere)

    for one in (theirs.delegation.id, new_id()):
        with pytest.raises(NotFound):
            does(world, "tara", delegates.end, one)
    with pytest.raises(NotFound):
        reads(world, "tara", delegates.current, slug=elsewhere.tenant.slug)


@pytest.mark.parametrize("who", ["tara", "ann", "aude"])
def test_members_see_current_and_planned_delegations(world: World, later: ShiftedClock, who: str) -> None:
    at = datetime.now(UTC)
    names_delegate(world, "ann")
    names_delegate(world, "amir", delegate="abe", starts_at=at + DAY, ends_at=at + 2 * DAY)
    later.shift = -2 * DAY
    names_delegate(world, "abe", ends_at=at - DAY, db=Database(world.db.engine, world.db.schedule, later))

    listed = reads(world, who, delegates.current)

    assert [(one.principal, one.delegate, one.counts) for one in listed] == [
        ("Ann", "Aude", True),
        ("Amir", "Abe", False),
    ]


@pytest.mark.parametrize(
    "ending", ["disabled delegate", "disabled principal", "unmarked", "no member", "no approver"]
)
def test_a_delegation_counts_only_while_delegate_and_principal_are_active_and_entitled(
    world: World, superuser: Engine, ending: str
) -> None:
    names_delegate(world)
    before = stands(world)
    statement, name = {
        "disabled delegate": ("UPDATE people SET disabled_at = clock_timestamp() WHERE id = :id", "aude"),
        "disabled principal": ("UPDATE people SET disabled_at = clock_timestamp() WHERE id = :id", "ann"),
        "unmarked": ("DELETE FROM eligible_delegates WHERE person_id = :id", "aude"),
        "no member": ("DELETE FROM memberships WHERE person_id = :id", "aude"),
        "no approver": ("UPDATE memberships SET role = 'auditor' WHERE person_id = :id", "ann"),
    }[ending]

    write(superuser, statement, id=id_of(world, name))

    assert before == {"aude": {"ann"}}
    assert stands(world) == {}
    (listed,) = reads(world, "tara", delegates.current)
    assert not listed.counts


def test_a_delegate_with_several_roles_counts_once(world: World) -> None:
    both = frozenset({Role.AUDITOR, Role.TENANT_ADMIN})
    does(world, "tara", members.set_roles, id_of(world, "aude"), roles=both)
    names_delegate(world)

    assert stands(world) == {"aude": {"ann"}}


def test_a_delegate_is_mailed_a_list_of_pending_requests_when_the_period_begins(
    world: World, sender: Database, later: ShiftedClock
) -> None:
    start = datetime.now(UTC) + timedelta(hours=2)
    entry = names_delegate(world, starts_at=start, ends_at=start + DAY)
    waiting = world.submit()
    denied = world.submit()
    world.act("abe", Action.DENY, denied.id)

    before = sent_about(sender, entry.delegation.id)
    later.shift = timedelta(hours=2, seconds=1)
    (mail,) = sent_about(sender, entry.delegation.id)

    assert before == []
    assert (mail.to_name, mail.subject) == ("Aude", "You are now the delegate of an approver of Contoso")
    until = clock_time(start + DAY)
    for said in (mail.text, mail.html):
        words = " ".join(re.sub(r"<[^>]+>", "", said).split())
        assert f"You are the delegate of Ann at Contoso from now until {until}" in words
        assert "Erin requests access to Exchange Online" in words
        assert "did this on" not in said
        assert "Pre-approvals may wait for you as well" in words
        assert "/sign-in" not in said
        assert f"{PUBLIC_URL}/requests/{waiting.id}" in said
        assert str(denied.id) not in said


def test_a_delegates_mail_has_no_link_where_the_policy_omits_links(
    world: World, sender: Database, later: ShiftedClock
) -> None:
    board = {"name": "Board", "match": {"resources": ["mailbox:ceo@*"]}, "terms": {"mail_link": False}}
    lay_down(world, rules=[board])
    start = datetime.now(UTC) + timedelta(hours=2)
    entry = names_delegate(world, starts_at=start, ends_at=start + DAY)
    linked, without = world.submit(), world.submit(resources=["mailbox:ceo@contoso.example"])
    later.shift = timedelta(hours=2, seconds=1)

    (mail,) = sent_about(sender, entry.delegation.id)

    for said in (mail.text, mail.html):
        assert re.findall(r"https?://[^\s\"<]+", said) == [f"{PUBLIC_URL}/requests/{linked.id}"]
        assert str(without.id) in said
        assert "By your policy" in " ".join(said.split())


def test_a_delegate_is_notified_of_the_delegation_even_if_no_request_is_pending(
    world: World, sender: Database, later: ShiftedClock
) -> None:
    entry = names_delegate(world)
    later.shift = timedelta(seconds=1)

    (mail,) = sent_about(sender, entry.delegation.id)

    assert "No requests are waiting for an answer" in mail.text
    assert "http" not in mail.text + mail.html


def test_ending_a_delegation_before_the_start_of_its_period_causes_no_mail(
    world: World, sender: Database, later: ShiftedClock
) -> None:
    start = datetime.now(UTC) + timedelta(hours=2)
    entry = names_delegate(world, starts_at=start, ends_at=start + DAY)
    does(world, "ann", delegates.end, entry.delegation.id)
    later.shift = timedelta(hours=3)

    assert sent_about(sender, entry.delegation.id) == []


def test_naming_a_delegate_writes_one_event_with_the_period_and_the_names(world: World) -> None:
    entry = names_delegate(world)

    told = last_change(world.db)

    assert (told.action, told.actor, told.role) == ("delegate_named", "Ann", "approver")
    assert (told.details["principal"], told.details["delegate"]) == ("Ann", "Aude")
    assert told.changes["period"].startswith("none → ")
    assert told.facts["delegation_id"] == str(entry.delegation.id)
    assert told.told == {"Tara", "Ann", "Amir", "Abe", "Aude"}


def test_an_admin_names_a_delegate_for_an_absent_approver(world: World) -> None:
    entry = names_delegate(world, "tara", principal="amir")

    assert (entry.principal, entry.delegate, entry.counts) == ("Amir", "Aude", True)
    assert (last_change(world.db).actor, last_change(world.db).role) == ("Tara", "tenant_admin")


def test_an_approver_cannot_name_a_delegate_for_another_approver(world: World) -> None:
    with pytest.raises(NotYours, match="your own delegate"):
        names_delegate(world, "ann", principal="amir")


@each("principal", ["tara", "aude", "erin"])
def test_only_an_approver_has_a_delegate(world: World, principal: str) -> None:
    with pytest.raises(Invalid, match="Only approvers") as refused:
        names_delegate(world, "tara", delegate="abe", principal=principal)

    assert refused.value.facts == {"field": "principal"}


@each("delegate", ["amir", "erin", "olga"])
def test_a_delegate_must_be_marked_eligible_by_an_admin(world: World, delegate: str) -> None:
    with pytest.raises(Invalid, match="marked as an eligible") as refused:
        names_delegate(world, delegate=delegate)

    assert refused.value.facts == {"field": "delegate"}


def test_a_member_of_another_tenant_cannot_be_a_delegate(world: World, api: Database) -> None:
    elsewhere = World.make(api)
    does(elsewhere, "tara", members.set_eligible, id_of(elsewhere, "aude"), eligible=True)
    world.people["theirs"] = elsewhere.people["aude"]

    with pytest.raises(Invalid, match="marked as an eligible"):
        names_delegate(world, delegate="theirs")


def test_an_approver_cannot_name_themselves_as_delegate(world: World) -> None:
    with pytest.raises(Invalid, match="You cannot be your own delegate"):
        names_delegate(world, "abe", delegate="abe")


@each(
    ("start", "end", "said"),
    [
        (None, -DAY, "end in the future"),
        (2 * DAY, DAY, "end after it starts"),
        (DAY, DAY, "end after it starts"),
        (None, 91 * DAY, "at most 90 days"),
        (DAY, 92 * DAY, "at most 90 days"),
    ],
)
def test_an_invalid_delegation_period_is_refused(
    world: World, start: timedelta | None, end: timedelta, said: str
) -> None:
    at = datetime.now(UTC)

    with pytest.raises(Invalid, match=said) as refused:
        names_delegate(world, starts_at=at + start if start else None, ends_at=at + end)

    assert refused.value.facts == {"field": "ends_at"}


def test_a_delegation_may_last_ninety_days_and_a_start_in_the_past_is_set_to_now(world: World) -> None:
    at = datetime.now(UTC)

    entry = names_delegate(world, starts_at=at - 30 * DAY, ends_at=at + 90 * DAY)

    assert entry.counts
    assert entry.delegation.starts_at >= at


def test_an_approver_has_only_one_delegate_at_a_time(world: World) -> None:
    at = datetime.now(UTC)
    names_delegate(world, starts_at=at + DAY, ends_at=at + 3 * DAY)

    for delegate in ("aude", "abe"):
        for start, end in ((0, 2), (2, 4), (0, 4), (1.5, 2)):
            with pytest.raises(DelegationClash, match="has a delegate in that period"):
                names_delegate(world, delegate=delegate, starts_at=at + start * DAY, ends_at=at + end * DAY)
    before = names_delegate(world, delegate="abe", starts_at=at, ends_at=at + DAY)
    after = names_delegate(world, delegate="abe", starts_at=at + 3 * DAY, ends_at=at + 4 * DAY)

    assert (before.delegate, after.delegate) == ("Abe", "Abe")


def test_a_delegate_cannot_delegate_further(world: World) -> None:
    names_delegate(world, "ann", delegate="abe")

    with pytest.raises(DelegationClash, match="is a delegate in that period"):
        names_delegate(world, "abe", delegate="aude")


def test_an_approver_with_a_delegate_cannot_be_a_delegate(world: World) -> None:
    names_delegate(world, "abe", delegate="aude")

    with pytest.raises(DelegationClash, match="delegate has a delegate in that period"):
        names_delegate(world, "ann", delegate="abe")


def test_delegation_chains_in_disjoint_periods_are_allowed(world: World) -> None:
    at = datetime.now(UTC)
    names_delegate(world, "ann", delegate="abe", ends_at=at + DAY)

    entry = names_delegate(world, "abe", delegate="aude", starts_at=at + DAY, ends_at=at + 2 * DAY)

    assert entry.principal == "Abe"


def test_concurrent_delegations_cannot_form_a_chain(world: World, pool: ThreadPoolExecutor) -> None:
    answers = at_once(
        pool,
        lambda: names_delegate(world, "abe", delegate="aude"),
        lambda: names_delegate(world, "ann", delegate="abe"),
    )

    assert sorted(type(answer).__name__ for answer in answers) == ["DelegationClash", "DelegationSummary"]
