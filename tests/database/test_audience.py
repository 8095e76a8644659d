"""Who is notified of each move, according to the notifications that the move wrote."""

from datetime import timedelta

import pytest
from sqlalchemy import Engine

from harness.outbox import fan_out_all
from harness.people import HERE, World
from harness.stage import as_sender, setting
from lockbox.database import Database
from lockbox.facts.enumerations import Mode
from lockbox.identity import tenants
from lockbox.identity.roles import Role
from lockbox.requests import timers
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from tests.database.postbag import Postbag, open_notifications
from tests.database.scenes import read, set_back, write
from tests.policy_setup import group, lay_down

MANAGERS = {"max", "mia"}
APPROVERS = {"ann", "amir", "abe"}
HOOKS = {"vendor-hook", "tenant-hook"}
ENFORCE, OBSERVE, OFF = Mode.ENFORCE, Mode.OBSERVE, Mode.OFF
Step = tuple[str, Action]
ENDORSE: Step = ("max", Action.ENDORSE)
APPROVE: Step = ("ann", Action.APPROVE)


def _told(world: World, db: Database, state: str) -> set[str]:
    """Return the names of all people and endpoints for which a notification of that state was queued."""
    names = {caller.person_id: name for name, caller in world.people.items()}
    rows = read(
        db,
        "SELECT n.person_id, h.url FROM notifications n LEFT JOIN endpoints h ON h.id = n.endpoint_id "
        "WHERE n.template = :state",
        state=state,
    )
    told = [names[row.person_id] if row.person_id else row.url.removeprefix("https://") for row in rows]
    assert len(told) == len(set(told))
    return set(told)


def _world(api: Database, policy: Policy, mode: Mode = ENFORCE) -> World:
    """Make a world in which both sides and another tenant have a webhook."""
    world, post = World.make(api, policy, mode), Postbag()
    with setting(api).transaction() as session:
        other = tenants.add(session, "fabrikam", "Fabrikam", policy={})
    post.endpoint(world, "https://vendor-hook", tenant_id=None)
    post.endpoint(world, "https://tenant-hook", tenant_id=world.tenant.id)
    post.endpoint(world, "https://other-hook", tenant_id=other.id)
    return world


CASES: list[tuple[Mode, list[Step], str, set[str]]] = [
    (ENFORCE, [], "reviewing", MANAGERS | {"vendor-hook"}),
    (ENFORCE, [ENDORSE], "pending", APPROVERS | HOOKS),
    (ENFORCE, [ENDORSE, APPROVE], "active", {"erin", "amir", "abe"} | HOOKS),
    (ENFORCE, [ENDORSE, ("ann", Action.DENY)], "denied", {"erin", "amir", "abe"} | HOOKS),
    (ENFORCE, [ENDORSE, ("erin", Action.CANCEL)], "cancelled", {"erin"} | APPROVERS | HOOKS),
    (ENFORCE, [ENDORSE, APPROVE, ("erin", Action.COMPLETE)], "completed", {"erin"} | APPROVERS | HOOKS),
    (ENFORCE, [ENDORSE, APPROVE, ("tara", Action.REVOKE)], "revoked", {"erin"} | APPROVERS | HOOKS),
    (ENFORCE, [ENDORSE, APPROVE, ("abe", Action.REVOKE)], "revoked", {"erin", "ann", "amir"} | HOOKS),
    (ENFORCE, [("max", Action.DENY)], "denied", {"erin", "mia", "vendor-hook"}),
    (ENFORCE, [("erin", Action.CANCEL)], "cancelled", {"erin", "vendor-hook"} | MANAGERS),
    (OBSERVE, [ENDORSE], "active", {"erin", "tara"} | APPROVERS | HOOKS),
    (OBSERVE, [ENDORSE, ("mia", Action.REVOKE)], "revoked", {"erin", "tara"} | APPROVERS | HOOKS),
    (OFF, [ENDORSE], "active", {"erin", "tara"} | HOOKS),
]


def _named(value: object) -> str | None:
    if isinstance(value, list):
        return "-".join(f"{who}_{action}" for who, action in value) or "submitted"
    return str(value) if isinstance(value, str) else None


@pytest.mark.parametrize(("mode", "steps", "state", "expected"), CASES, ids=_named)
def test_each_move_of_a_request_notifies_the_audience_of_that_move(
    api: Database, mode: Mode, steps: list[Step], state: str, expected: set[str]
) -> None:
    world = _world(api, Policy(), mode)
    request = world.submit()

    for who, action in steps:
        world.act(who, action, request.id)

    assert _told(world, api, state) == expected


@pytest.mark.parametrize(
    ("steps", "state", "expected"),
    [
        ([], "timed_out", MANAGERS | {"erin", "vendor-hook"}),
        ([ENDORSE], "timed_out", APPROVERS | HOOKS | {"erin"}),
        ([ENDORSE, APPROVE], "expired", APPROVERS | HOOKS | {"erin"}),
    ],
    ids=_named,
)
def test_both_sides_are_notified_of_moves_made_by_the_timer(
    api: Database, worker: Database, superuser: Engine, *, steps: list[Step], state: str, expected: set[str]
) -> None:
    world = _world(api, Policy())
    request = world.submit()
    for who, action in steps:
        world.act(who, action, request.id)
    set_back(superuser, [request.id], 1)

    timers.run(worker, [request.id])

    assert _told(world, api, state) == expected


def test_an_approval_that_does_not_complete_the_quorum_causes_only_receipts_and_webhook_calls(api: Database) -> None:
    world = _world(api, Policy(vendor_review=False, quorum=2))
    request = world.submit()
    before = read(api, "SELECT count(*) AS n FROM notifications WHERE channel = 'mail'")[0].n

    world.act("ann", Action.APPROVE, request.id)

    assert read(api, "SELECT count(*) AS n FROM notifications WHERE channel = 'mail'")[0].n == before + 2
    assert _told(world, api, "receipt") == {"ann", "tara"}
    query = (
        "SELECT h.url FROM notifications n JOIN endpoints h ON h.id = endpoint_id JOIN events e ON e.id = n.event_id"
    )
    called = read(api, f"{query} WHERE e.action = 'approve'")
    assert {row.url.removeprefix("https://") for row in called} == HOOKS


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([ENDORSE], {"max"}),
        ([("max", Action.DENY)], {"max"}),
        ([ENDORSE, APPROVE], {"max", "ann", "tara"}),
        ([ENDORSE, ("ann", Action.DENY)], {"max", "ann", "tara"}),
        ([ENDORSE, ("tara", Action.DENY)], {"max", "tara"}),
        ([ENDORSE, APPROVE, ("abe", Action.REVOKE)], {"max", "ann", "tara"}),
        ([("erin", Action.CANCEL)], set()),
    ],
    ids=_named,
)
def test_deciders_and_tenant_admins_get_receipts_of_decisions(
    api: Database, steps: list[Step], expected: set[str]
) -> None:
    world = _world(api, Policy())
    request = world.submit()

    for who, action in steps:
        world.act(who, action, request.id)

    rows = read(api, "SELECT DISTINCT person_id FROM notifications WHERE template = 'receipt'")
    names = {caller.person_id: name for name, caller in world.people.items()}
    assert {names[row.person_id] for row in rows} == expected


def test_an_admin_who_approves_gets_a_receipt_and_no_other_mail(api: Database) -> None:
    world = _world(api, Policy(vendor_review=False))
    with setting(api).transaction() as session:
        tenants.give_role(session, world.people["tara"].person_id, Role.APPROVER, world.tenant.id)
    request = world.submit()

    world.act("ann", Action.APPROVE, request.id)

    assert _told(world, api, "receipt") == {"ann", "tara"}
    assert _told(world, api, "active") == {"erin", "amir", "abe"} | HOOKS


def test_a_decision_receipt_is_sent_despite_later_moves_and_names_the_deciders_ip_address(
    world: World, worker: Database, post: Postbag
) -> None:
    request = world.submit()
    world.act("ann", Action.APPROVE, request.id)
    world.act("erin", Action.COMPLETE, request.id)

    post.deliver(worker, open_notifications(worker))

    receipts = {mail.to_name: mail.text for mail in post.mail.sent if mail.subject.startswith("Receipt: ")}
    assert receipts.keys() == {"Ann", "Tara"}
    assert all(HERE.address in text and "Access is open" in text for text in receipts.values() if HERE.address)
    others = [mail for mail in post.mail.sent if not mail.subject.startswith("Receipt: ")]
    assert not [mail for mail in others if HERE.address and HERE.address in mail.text]


def test_each_move_schedules_notifications_at_once_and_prompts_expire_at_the_deadline(world: World) -> None:
    request = world.submit()
    opened = world.act("ann", Action.APPROVE, request.id)

    prompts = read(
        world.db, "SELECT run_at <= now() AS is_due, until_at FROM notifications WHERE template = 'pending'"
    )
    outcomes = read(
        world.db, "SELECT run_at <= now() AS is_due, until_at FROM notifications WHERE template = 'active'"
    )
    assert opened.opened_at
    assert {tuple(row) for row in prompts} == {(True, request.deadline_at)}
    assert {tuple(row) for row in outcomes} == {(True, opened.opened_at + timedelta(hours=24))}


DISABLE_ANN = "UPDATE people SET disabled_at = now() WHERE name = 'Ann'"
DISABLE_HOOKS = "UPDATE endpoints SET disabled_at = now()"
WANT_OTHER_TYPES = "UPDATE endpoints SET event_types = '{request.active}'"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (DISABLE_ANN, {"amir", "abe"} | HOOKS),
        (DISABLE_HOOKS, APPROVERS),
        (WANT_OTHER_TYPES, APPROVERS),
    ],
)
def test_disabled_people_and_people_who_opted_out_are_not_notified(
    api: Database, superuser: Engine, change: str, expected: set[str]
) -> None:
    world = _world(api, Policy(vendor_review=False))
    write(superuser, change)

    world.submit()

    assert _told(world, api, "pending") == expected


def test_a_requester_who_is_also_an_approver_is_not_prompted_but_gets_the_outcome(
    api: Database,
) -> None:
    world = _world(api, Policy(vendor_review=False))
    world.put_on_both_sides("erin", Role.APPROVER, world.tenant.id)

    request = world.submit()
    world.act("amir", Action.DENY, request.id)

    assert _told(world, api, "pending") == APPROVERS | HOOKS
    assert _told(world, api, "denied") == {"erin", "ann", "abe"} | HOOKS


QUIET = "UPDATE people SET wants_prompts = false WHERE name = ANY(:names)"


@pytest.mark.parametrize(
    ("quiet", "quorum", "expected"),
    [
        (["Ann"], 1, {"amir", "abe"}),
        (["Ann", "Amir"], 1, {"abe"}),
        (["Ann"], 2, {"amir", "abe"}),
        (["Ann", "Amir"], 2, APPROVERS),
        (["Ann", "Amir", "Abe"], 1, APPROVERS),
    ],
)
def test_people_with_prompts_off_are_prompted_only_if_too_few_other_deciders_remain(
    api: Database, superuser: Engine, *, quiet: list[str], quorum: int, expected: set[str]
) -> None:
    world = _world(api, Policy(vendor_review=False, quorum=quorum))
    write(superuser, QUIET, names=quiet)

    world.submit()

    assert _told(world, api, "pending") == expected | HOOKS


def test_a_stage_is_prompted_even_if_everyone_in_that_stage_turned_prompts_off(
    api: Database, superuser: Engine
) -> None:
    world = _world(api, Policy(vendor_review=False))
    lay_down(world, groups={"legal": [str(world.people["abe"].person_id)]}, stages=[{"group": "legal"}])
    write(superuser, QUIET, names=["Abe"])

    world.submit()

    assert "abe" in _told(world, api, "pending")


def test_people_who_were_not_prompted_get_receipts_but_no_outcome(api: Database, superuser: Engine) -> None:
    world = _world(api, Policy(vendor_review=False))
    write(superuser, QUIET, names=["Ann", "Amir"])
    request = world.submit()

    world.act("ann", Action.APPROVE, request.id)

    assert _told(world, api, "receipt") == {"ann", "tara"}
    assert _told(world, api, "active") == {"erin", "abe"} | HOOKS


def _tiered(api: Database, quorum: int = 1) -> World:
    """Make a world in which Ann is asked first and then Amir; Abe is in no tier."""
    world = _world(api, Policy(vendor_review=False))
    groups = {"first": group(world, "ann"), "second": group(world, "amir")}
    lay_down(world, groups=groups, tiers=[["first"], ["second"]], quorum=quorum)
    return world


@pytest.mark.parametrize(
    ("who", "action", "state", "expected"),
    [
        ("ann", Action.APPROVE, "active", {"erin"}),
        ("abe", Action.DENY, "denied", {"erin", "ann"}),
        ("erin", Action.CANCEL, "cancelled", {"erin", "ann"}),
    ],
)
def test_only_prompted_tiers_are_notified_of_the_outcome(
    api: Database, *, who: str, action: Action, state: str, expected: set[str]
) -> None:
    world = _tiered(api)
    request = world.submit()

    world.act(who, action, request.id)

    assert _told(world, api, "pending") == {"ann"} | HOOKS
    assert _told(world, api, state) == expected | HOOKS


def test_an_unprompted_voter_is_notified_of_the_outcome(api: Database) -> None:
    world = _tiered(api, quorum=2)
    request = world.submit()
    world.act("abe", Action.APPROVE, request.id)

    world.act("ann", Action.APPROVE, request.id)

    assert _told(world, api, "active") == {"erin", "abe"} | HOOKS


def test_a_prompted_person_who_left_the_tenant_is_not_notified_of_the_end_of_the_request(
    api: Database, superuser: Engine
) -> None:
    world = _world(api, Policy(vendor_review=False))
    request = world.submit()
    write(superuser, "DELETE FROM memberships WHERE person_id = :abe", abe=world.people["abe"].person_id)

    world.act("ann", Action.DENY, request.id)

    assert _told(world, api, "denied") == {"erin", "amir"} | HOOKS


def test_a_person_who_joins_after_the_opening_is_not_notified_of_the_end_of_the_window(
    api: Database, worker: Database, superuser: Engine
) -> None:
    world = _world(api, Policy(), OBSERVE)
    write(superuser, QUIET, names=["Ann"])
    request = world.submit()
    world.act("max", Action.ENDORSE, request.id)
    fan_out_all(as_sender(api))
    world.add("late", Role.APPROVER, world.tenant.id)
    set_back(superuser, [request.id], 1)

    timers.run(worker, [request.id])

    assert _told(world, api, "active") == {"erin", "amir", "abe", "tara"} | HOOKS
    assert _told(world, api, "expired") == {"erin", "amir", "abe", "tara"} | HOOKS


def test_managers_are_prompted_even_if_all_managers_turned_prompts_off(api: Database, superuser: Engine) -> None:
    world = _world(api, Policy())
    write(superuser, QUIET, names=["Max", "Mia"])

    world.submit()

    assert _told(world, api, "reviewing") == MANAGERS | {"vendor-hook"}
