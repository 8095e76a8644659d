"""Delegates: named from those an admin marked, for a while, for one approver each; never passed on."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from harness.people import World
from lockbox.admin import members
from lockbox.database import Database
from lockbox.errors import DelegationClash, Invalid, NotYours
from tests.database.audit_logs import last_change
from tests.database.scenes import at_once
from tests.database.tenancy import does, id_of, names_delegate, with_delegates

DAY = timedelta(days=1)


@pytest.fixture
def world(api: Database) -> World:
    """A world in which Aude, the auditor, and Abe, an approver, may be named as delegates."""
    return with_delegates(api)


def test_naming_is_one_event_with_the_period_and_both_names(world: World) -> None:
    entry = names_delegate(world)

    told = last_change(world.db)

    assert (told.action, told.actor, told.role) == ("delegate_named", "Ann", "approver")
    assert (told.details["principal"], told.details["delegate"]) == ("Ann", "Aude")
    assert told.changes["period"].startswith("none → ")
    assert told.facts["delegation_id"] == str(entry.delegation.id)
    assert told.told == {"Tara", "Ann", "Amir", "Abe", "Aude"}


def test_an_admin_names_a_delegate_for_somebody_who_is_absent(world: World) -> None:
    entry = names_delegate(world, "tara", principal="amir")

    assert (entry.principal, entry.delegate, entry.counts) == ("Amir", "Aude", True)
    assert (last_change(world.db).actor, last_change(world.db).role) == ("Tara", "tenant_admin")


def test_an_approver_names_a_delegate_for_nobody_else(world: World) -> None:
    with pytest.raises(NotYours, match="your own delegate"):
        names_delegate(world, "ann", principal="amir")


@pytest.mark.parametrize("principal", ["tara", "aude", "erin"])
def test_only_an_approver_has_a_delegate(world: World, principal: str) -> None:
    with pytest.raises(Invalid, match="Only approvers") as refused:
        names_delegate(world, "tara", delegate="abe", principal=principal)

    assert refused.value.facts == {"field": "principal"}


def test_an_admin_who_is_no_approver_has_no_delegate(world: World) -> None:
    with pytest.raises(Invalid, match="Only approvers"):
        names_delegate(world, "tara")


@pytest.mark.parametrize("delegate", ["amir", "erin", "olga"])
def test_a_delegate_is_a_member_whom_an_admin_marked(world: World, delegate: str) -> None:
    with pytest.raises(Invalid, match="marked as an eligible") as refused:
        names_delegate(world, delegate=delegate)

    assert refused.value.facts == {"field": "delegate"}


def test_somebody_of_another_tenant_is_no_delegate_here(world: World, api: Database) -> None:
    elsewhere = World.make(api)
    does(elsewhere, "tara", members.set_eligible, id_of(elsewhere, "aude"), eligible=True)
    world.people["theirs"] = elsewhere.people["aude"]

    with pytest.raises(Invalid, match="marked as an eligible"):
        names_delegate(world, delegate="theirs")


def test_nobody_stands_in_for_themselves(world: World) -> None:
    with pytest.raises(Invalid, match="You cannot be your own delegate"):
        names_delegate(world, "abe", delegate="abe")


@pytest.mark.parametrize(
    ("start", "end", "said"),
    [
        (None, -DAY, "end in the future"),
        (2 * DAY, DAY, "end after it starts"),
        (DAY, DAY, "end after it starts"),
        (None, 91 * DAY, "at most 90 days"),
        (DAY, 92 * DAY, "at most 90 days"),
    ],
)
def test_a_period_that_is_none_is_refused_in_words(
    world: World, start: timedelta | None, end: timedelta, said: str
) -> None:
    at = datetime.now(UTC)

    with pytest.raises(Invalid, match=said) as refused:
        names_delegate(world, starts_at=at + start if start else None, ends_at=at + end)

    assert refused.value.facts == {"field": "ends_at"}


def test_ninety_days_are_not_too_long_and_a_start_in_the_past_is_now(world: World) -> None:
    at = datetime.now(UTC)

    entry = names_delegate(world, starts_at=at - 30 * DAY, ends_at=at + 90 * DAY)

    assert entry.counts
    assert entry.delegation.starts_at >= at


def test_an_approver_has_one_delegate_at_a_time(world: World) -> None:
    at = datetime.now(UTC)
    names_delegate(world, starts_at=at + DAY, ends_at=at + 3 * DAY)

    for delegate in ("aude", "abe"):
        for start, end in ((0, 2), (2, 4), (0, 4), (1.5, 2)):
            with pytest.raises(DelegationClash, match="has a delegate in that period"):
                names_delegate(world, delegate=delegate, starts_at=at + start * DAY, ends_at=at + end * DAY)
    before = names_delegate(world, delegate="abe", starts_at=at, ends_at=at + DAY)
    after = names_delegate(world, delegate="abe", starts_at=at + 3 * DAY, ends_at=at + 4 * DAY)

    assert (before.delegate, after.delegate) == ("Abe", "Abe")


def test_a_delegate_passes_nothing_on(world: World) -> None:
    names_delegate(world, "ann", delegate="abe")

    with pytest.raises(DelegationClash, match="is a delegate in that period"):
        names_delegate(world, "abe", delegate="aude")


def test_somebody_who_has_a_delegate_is_nobodys_delegate(world: World) -> None:
    names_delegate(world, "abe", delegate="aude")

    with pytest.raises(DelegationClash, match="delegate has a delegate in that period"):
        names_delegate(world, "ann", delegate="abe")


def test_chains_in_periods_that_do_not_meet_are_none(world: World) -> None:
    at = datetime.now(UTC)
    names_delegate(world, "ann", delegate="abe", ends_at=at + DAY)

    entry = names_delegate(world, "abe", delegate="aude", starts_at=at + DAY, ends_at=at + 2 * DAY)

    assert entry.principal == "Abe"


def test_two_who_name_delegates_at_once_cannot_make_a_chain(world: World, pool: ThreadPoolExecutor) -> None:
    answers = at_once(
        pool,
        lambda: names_delegate(world, "abe", delegate="aude"),
        lambda: names_delegate(world, "ann", delegate="abe"),
    )

    assert sorted(type(answer).__name__ for answer in answers) == ["DelegationClash", "DelegationSummary"]
