"""The report on a window: queued when it closes, made from the audit log a minute later, only for the customer."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine

from harness.clocks import ShiftedClock
from harness.outbox import fan_out_all
from harness.people import HERE, World
from harness.stage import Urls, as_sender, unbound
from lockbox.admin import erasure
from lockbox.database import Database, now
from lockbox.facts.enumerations import Mode
from lockbox.identity.roles import Role, Scope
from lockbox.notifications import due_reports, window_report
from lockbox.notifications.senders.protocol import OutgoingMail
from lockbox.notifications.window_report import ClosedWindow
from lockbox.owner_transaction import as_owner
from lockbox.requests import activity, policy_store, timers
from lockbox.requests.activity import ActivityEntry
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from tests.database.postbag import Postbag
from tests.database.scenes import MAILBOX, assert_indexes_are_true, read, set_back, write
from tests.logs import sealed
from tests.policy_setup import lay_down, stand_in

WAITING = (
    "SELECT id, person_id, run_at, request_id FROM notifications WHERE template = 'report' AND closed_at IS NULL"
)
EVIL = "<script>alert(1)</script>\u202eevil"
NO_USE = "No activity was reported while it was open."


def promised(world: World, sender: Database, later: ShiftedClock, request_id: UUID, *, after: int = 61) -> set[str]:
    """Return for whom a report on that request is queued `after` seconds later; fail if anyone is twice."""
    promise(sender, later, after)
    names = {caller.person_id: name for name, caller in world.people.items()}
    told = [names[row.person_id] for row in read(world.db, WAITING) if row.request_id == request_id]
    assert len(told) == len(set(told))
    return set(told)


def promise(sender: Database, later: ShiftedClock, after: int) -> None:
    """Queue the reports that are due `after` seconds later."""
    later.shift += timedelta(seconds=after)
    fan_out_all(as_sender(sender))
    for _ in due_reports.promise(sender, policy_store.wordings):
        pass


def opened(world: World, who: str = "ann") -> UUID:
    return world.act(who, Action.APPROVE, world.submit().id).id


def use(world: World, request_id: UUID, *entries: tuple[str, str, int]) -> None:
    """Report activity in the window as the guarding system: for each entry a method, a resource, and a count."""
    ward = world.people.get("ward") or world.add(
        "ward", Role.SYSTEM, scopes={Scope.ACTIVITY_REPORT}, services={"exchange-online"}
    )
    with world.db.transaction() as session:
        at = now(session)
        done = [ActivityEntry(at, method, resource, "done", count=count) for method, resource, count in entries]
        activity.report(session, ward, HERE, request_id, done)


def reports(sender: Database, later: ShiftedClock, post: Postbag, *, after: int = 61) -> dict[str, OutgoingMail]:
    """Deliver what is due `after` seconds later; return the reports by the names of their readers."""
    promise(sender, later, after)
    post.deliver(sender, [row.id for row in read(sender, WAITING)])
    return {mail.to_name: mail for mail in post.mail.sent if mail.subject.startswith("Report")}


@pytest.mark.parametrize(("who", "action"), [("erin", Action.COMPLETE), ("tara", Action.REVOKE)])
def test_a_closed_window_is_reported_to_its_audience_a_minute_later(
    world: World, sender: Database, later: ShiftedClock, who: str, action: Action
) -> None:
    request_id = opened(world)
    while_open = promised(world, sender, later, request_id, after=0)

    world.act(who, action, request_id)

    assert while_open == set()
    assert promised(world, sender, later, request_id, after=59) == set()
    assert promised(world, sender, later, request_id, after=2) == {"tara", "aude", "ann"}
    assert promised(world, sender, later, request_id) == {"tara", "aude", "ann"}
    assert_indexes_are_true(world.db)


def test_windows_expiring_together_are_each_reported_to_the_people_who_voted(
    world: World, sender: Database, later: ShiftedClock, superuser: Engine
) -> None:
    windows = [opened(world, "ann"), opened(world, "amir"), opened(world, "abe")]
    set_back(superuser, windows, 1)

    timers.run(sender, windows)

    told = [promised(world, sender, later, window) for window in windows]
    assert told == [{"tara", "aude", name} for name in ("ann", "amir", "abe")]
    assert_indexes_are_true(sender)


def test_a_request_that_was_never_opened_has_no_report(
    world: World, sender: Database, later: ShiftedClock, superuser: Engine
) -> None:
    denied, silent, withdrawn = (world.submit().id for _ in range(3))
    world.act("ann", Action.DENY, denied)
    world.act("erin", Action.CANCEL, withdrawn)
    set_back(superuser, [silent], 1)
    timers.run(sender, [silent])

    promise(sender, later, 61)

    assert read(world.db, WAITING) == []


@pytest.mark.parametrize("mode", [Mode.OBSERVE, Mode.OFF])
def test_a_vendor_opened_window_is_reported_only_to_the_customer(
    api: Database, sender: Database, later: ShiftedClock, mode: Mode
) -> None:
    world = World.make(api, Policy(), mode)
    request = world.act("max", Action.ENDORSE, world.submit().id)

    world.act("mia", Action.REVOKE, request.id)

    assert promised(world, sender, later, request.id) == {"tara", "aude"}


@pytest.mark.parametrize("leaves", ["before", "since"])
def test_a_delegate_who_voted_gets_the_report_and_a_former_member_does_not(
    world: World, sender: Database, later: ShiftedClock, superuser: Engine, leaves: str
) -> None:
    lay_down(world, quorum=3)
    stand_in(world, "aude", "ann")
    request = world.submit()
    for who in ("aude", "amir", "abe"):
        world.act(who, Action.APPROVE, request.id)
    amir_goes = "DELETE FROM memberships WHERE person_id = :p"
    if leaves == "before":
        write(superuser, amir_goes, p=world.people["amir"].person_id)

    world.act("erin", Action.COMPLETE, request.id)

    if leaves == "since":
        write(superuser, amir_goes, p=world.people["amir"].person_id)
    assert promised(world, sender, later, request.id) == {"tara", "aude", "abe"}


def test_an_unknown_id_in_the_report_schedule_is_ignored(world: World, sender: Database, later: ShiftedClock) -> None:
    request_id = opened(world)
    world.act("erin", Action.COMPLETE, request_id)
    first = promised(world, sender, later, request_id)
    strange = """
    INSERT INTO reports_due SELECT id, now() FROM events UNION SELECT uuidv7(), now() ON CONFLICT DO NOTHING
    """
    write(unbound(world.db), strange)

    again = promised(world, sender, later, request_id)

    assert first == again == {"tara", "aude", "ann"}
    assert not read(unbound(world.db), "SELECT FROM reports_due")


@pytest.mark.parametrize("when", ["before", "since"])
def test_a_policy_can_turn_window_reports_off(
    world: World, sender: Database, later: ShiftedClock, post: Postbag, when: str
) -> None:
    if when == "before":
        lay_down(world, report_on_close=False)
    request_id = opened(world)
    if when == "since":
        lay_down(world, report_on_close=False)
    world.act("erin", Action.COMPLETE, request_id)

    said = reports(sender, later, post)

    # What was asked under a policy that reports is reported: the stricter of then and today.
    assert set(said) == ({"Tara", "Aude", "Ann"} if when == "since" else set())
    assert not read(world.db, WAITING)


def test_a_policy_rule_turns_on_reports_only_for_requests_it_matches(
    world: World, sender: Database, later: ShiftedClock, post: Postbag
) -> None:
    anna = {"name": "Anna", "match": {"resources": ["mailbox:anna*"]}, "terms": {"report_on_close": True}}
    lay_down(world, report_on_close=False, rules=[anna])
    of_anna, of_bob = (
        world.act("ann", Action.APPROVE, world.submit(resources=[one]).id).id
        for one in (MAILBOX, "mailbox:bob@contoso.example")
    )
    for one in (of_anna, of_bob):
        world.act("erin", Action.COMPLETE, one)

    assert set(reports(sender, later, post)) == {"Tara", "Aude", "Ann"}
    assert {mail.thread_id for mail in post.mail.sent} == {f"<{of_anna}@lockbox.vendor.example>"}


@pytest.mark.far
def test_a_window_report_lists_the_decisions_and_activity_known_when_it_is_sent(
    world: World, sender: Database, worker: Database, later: ShiftedClock, post: Postbag
) -> None:
    request = world.submit()
    world.act("ann", Action.APPROVE, request.id, comment="Be quick")
    use(world, request.id, ("GET", MAILBOX, 3))
    world.act("erin", Action.COMPLETE, request.id)
    sealed(worker)
    early = reports(sender, later, post, after=59)
    use(world, request.id, ("DELETE", "mailbox:bob@contoso.example", 1))

    said = reports(sender, later, post, after=2)

    assert early == {}
    assert set(said) == {"Tara", "Aude", "Ann"}
    text = " ".join(said["Tara"].text.split())
    assert said["Tara"].subject.endswith("has ended, 4 actions, 1 of them outside the request")
    assert "4 actions were reported while it was open; 1 of them outside the request." in text
    for line in (
        "Erin (engineer) submitted it",
        "Ann (approver) approved it",
        '"Be quick"',
        "Erin (requester) completed it",
        f"GET {MAILBOX}: 3 times, done",
        "DELETE mailbox:bob@contoso.example: once, done - OUTSIDE THE REQUEST",
        "reported by Ward",
        "sealed in the audit log, as numbers",
        "Activity before the end can still be reported until",
    ):
        assert line in text, line
    assert "outside the request" in said["Tara"].html


@pytest.mark.parametrize(
    ("let_in", "said"),
    [
        ({}, "no activity reported"),
        ({"count": 1}, "used 1 time at the gate, no activity reported"),
        ({"count": 1200}, "used 1,200 times at the gate, no activity reported"),
        ({"count": "12"}, "no activity reported"),
    ],
)
def test_if_no_activity_was_reported_the_subject_of_the_window_report_counts_the_uses(
    let_in: dict[str, Any], said: str
) -> None:
    at = datetime(2026, 5, 1, tzinfo=UTC)

    assert window_report.summary(ClosedWindow((), at, at, let_in=let_in)) == said


def test_a_report_says_that_a_window_was_not_used(
    world: World, sender: Database, later: ShiftedClock, post: Postbag
) -> None:
    request_id = opened(world)
    world.act("erin", Action.COMPLETE, request_id)

    said = reports(sender, later, post)

    assert said["Aude"].subject.endswith("has ended, no activity reported")
    assert NO_USE in said["Aude"].text
    assert NO_USE in said["Aude"].html
    assert "Some steps are not sealed in the audit log yet." in said["Aude"].text


def test_a_window_report_has_a_length_limit_and_lists_unrequested_activity_first(
    world: World, sender: Database, later: ShiftedClock, post: Postbag
) -> None:
    request_id = opened(world)
    use(world, request_id, *((f"GET-{number}", MAILBOX, 2) for number in range(40)))
    use(world, request_id, ("DELETE", "mailbox:bob@contoso.example", 1))
    world.act("erin", Action.COMPLETE, request_id)

    text = reports(sender, later, post)["Tara"].text

    assert text.count("reported by Ward") == 20
    assert "and 21 more: see the export of the audit log." in text
    assert "DELETE mailbox:bob@contoso.example: once, done - OUTSIDE THE REQUEST" in text
    assert "81 actions were reported while it was open; 1 of them" in text


def test_a_window_report_omits_what_the_policy_keeps_out_of_mails(
    world: World, sender: Database, later: ShiftedClock, post: Postbag
) -> None:
    lay_down(world, mail_link=False, mail_justification=False)
    request = world.submit()
    world.act("ann", Action.APPROVE, request.id)
    world.act("erin", Action.COMPLETE, request.id)

    said = reports(sender, later, post)

    for mail in said.values():
        for body in (mail.text, mail.html):
            assert "https://" not in body
            assert request.justification not in body
            assert str(request.id) in body


def test_texts_in_a_report_mail_are_escaped_and_cannot_change_the_text_direction(
    world: World, sender: Database, later: ShiftedClock, post: Postbag
) -> None:
    request = world.submit()
    world.act("ann", Action.APPROVE, request.id, comment=EVIL)
    use(world, request.id, (EVIL, EVIL, 1))
    world.act("erin", Action.COMPLETE, request.id)

    mail = reports(sender, later, post)["Tara"]

    assert "<script" not in mail.html
    assert "\u202e" not in mail.html + mail.text
    assert mail.html.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 3


def test_a_report_shows_times_in_the_readers_zone_and_utc(
    world: World, sender: Database, later: ShiftedClock, post: Postbag, superuser: Engine
) -> None:
    write(superuser, "UPDATE people SET time_zone = 'Asia/Tokyo' WHERE id = :id", id=world.people["aude"].person_id)
    request_id = opened(world)
    world.act("erin", Action.COMPLETE, request_id)

    said = reports(sender, later, post)

    assert " JST (" in said["Aude"].text
    assert " JST (" not in said["Tara"].text


@pytest.mark.far
def test_an_erased_person_gets_no_report_and_is_not_named(
    world: World, sender: Database, later: ShiftedClock, post: Postbag, urls: Urls
) -> None:
    request_id = opened(world)
    world.act("erin", Action.COMPLETE, request_id)
    with as_owner(urls.owner) as session:
        erasure.erase(session, world.people["ann"].person_id)

    said = reports(sender, later, post)

    assert set(said) == {"Tara", "Aude"}
    assert "- erased (approver) approved it" in said["Tara"].text
    assert "Ann" not in said["Tara"].text


def test_a_former_member_gets_no_report(
    world: World, sender: Database, later: ShiftedClock, post: Postbag, superuser: Engine
) -> None:
    request_id = opened(world)
    world.act("erin", Action.COMPLETE, request_id)
    write(superuser, "DELETE FROM memberships WHERE person_id = :p", p=world.people["aude"].person_id)

    assert set(reports(sender, later, post)) == {"Tara", "Ann"}
