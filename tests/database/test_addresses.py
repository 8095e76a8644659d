"""Further mail addresses of a person: how one is added and confirmed, which mails go there, and how it is removed."""

from collections.abc import Callable
from typing import TypeVar
from uuid import UUID

import pytest
from sqlalchemy import Engine

from harness.people import World
from harness.stage import setting
from lockbox.admin import members
from lockbox.admin import tenants as tenancy
from lockbox.database import Database
from lockbox.errors import AddressTaken, Invalid, NotFound, SignInAgain, TooManyAddresses
from lockbox.facts.enumerations import AuthMethod
from lockbox.identity import authentication, tenants
from lockbox.identity.models import Address
from lockbox.identity.roles import Role, Side
from lockbox.identity.sessions import ClientInfo
from lockbox.notifications import addresses
from lockbox.notifications.models import Outcome
from lockbox.notifications.senders.protocol import SendFailed
from lockbox.requests.lifecycle import Action
from tests.database.postbag import Postbag, address, open_notifications
from tests.database.scenes import read, write
from tests.database.tenancy import does
from tests.each import each
from tests.mailbox import code_of, sent_about
from tests.policy_setup import signed_in

AT_HOME = ClientInfo("192.0.2.7", "Firefox")
DESK = "desk@contoso.example"
T = TypeVar("T")
TOLD = """
SELECT coalesce(x.email, p.email) AS email FROM notifications n JOIN people p ON p.id = n.person_id
LEFT JOIN addresses x ON x.id = n.address_id WHERE n.template = :template ORDER BY 1
"""


def _by(world: World, who: str, call: Callable[..., T], *args: object, **named: object) -> T:
    with world.db.transaction() as session:
        authentication.enter(session, world.people[who])
        return call(session, world.people[who], AT_HOME, *args, **named)


def _confirmed(world: World, worker: Database, who: str, email: str = DESK, **named: object) -> Address:
    added = _by(world, who, addresses.add, email, **named)
    return _by(world, who, addresses.confirm, added.id, code_of(worker, added.id))


def _emails(world: World, template: str) -> list[str]:
    """Return the addresses to which notifications with a template go."""
    return [row.email for row in read(world.db, TOLD, template=template)]


def test_an_unconfirmed_mail_address_gets_only_its_confirmation_code(
    world: World, worker: Database, post: Postbag
) -> None:
    added = _by(world, "ann", addresses.add, DESK)
    world.submit()
    (code,) = sent_about(worker, added.id)

    post.deliver(worker, open_notifications(worker))

    assert (code.to_address, code.subject) == (DESK, "Confirm this address for mails to you")
    assert added.confirmed_at is None
    assert DESK not in {mail.to_address for mail in post.mail.sent}


def test_prompts_and_outcomes_are_mailed_separately_to_each_confirmed_address(
    world: World, worker: Database, post: Postbag
) -> None:
    _confirmed(world, worker, "ann")
    request = world.submit()

    world.act("amir", Action.APPROVE, request.id)
    post.deliver(worker, open_notifications(worker))

    anns = address(world.db, world, "ann")
    assert {DESK, anns} <= set(_emails(world, "pending"))
    assert {DESK, anns} <= set(_emails(world, "active"))
    assert {mail.to_address for mail in post.mail.sent if mail.to_name == "Ann"} == {DESK, anns}


def test_receipts_go_to_all_addresses_of_the_decider_and_the_admins_despite_mail_preferences(
    world: World, worker: Database
) -> None:
    _confirmed(world, worker, "ann", prompts=False)
    _confirmed(world, worker, "tara", "tara@home.example", prompts=False)
    request = world.submit()

    world.act("ann", Action.APPROVE, request.id)

    anns, taras = address(world.db, world, "ann"), address(world.db, world, "tara")
    assert _emails(world, "receipt") == sorted([DESK, anns, taras, "tara@home.example"])
    assert DESK not in _emails(world, "pending") + _emails(world, "active")


def test_requesters_and_managers_may_have_further_mail_addresses(world: World, worker: Database) -> None:
    _confirmed(world, worker, "erin", "erin@home.example")

    world.act("ann", Action.DENY, world.submit().id)

    assert "erin@home.example" in _emails(world, "denied")


def test_tenant_changes_are_mailed_to_all_addresses_of_a_person(world: World, worker: Database) -> None:
    _confirmed(world, worker, "ann", prompts=False)

    does(world, "tara", tenancy.rename, "Contoso AG")

    assert DESK in _emails(world, "tenant_renamed")


def test_pending_mails_to_a_removed_address_are_not_sent(world: World, worker: Database, post: Postbag) -> None:
    desk = _confirmed(world, worker, "ann")
    world.submit()
    (waits,) = read(world.db, "SELECT id FROM notifications WHERE template = 'pending' AND address_id IS NOT NULL")
    _by(world, "ann", addresses.remove, desk.id)

    (one,) = post.deliver(worker, [waits.id])

    assert (one.outcome, post.mail.sent) == (Outcome.MOOT, [])


def test_removing_an_admin_or_the_address_of_an_admin_drops_no_queued_notifications(
    world: World, worker: Database, post: Postbag
) -> None:
    desk = _confirmed(world, worker, "tara")
    world.add("nell", Role.TENANT_ADMIN, world.tenant.id)

    does(world, "nell", tenancy.rename, "Contoso AG")
    _by(world, "tara", addresses.remove, desk.id)
    does(world, "nell", members.remove, world.people["tara"].person_id)
    post.deliver(worker, open_notifications(worker))

    told = {mail.to_address for mail in post.mail.sent if "Contoso AG" in mail.text}
    assert told >= {DESK, address(world.db, world, "tara")}


def test_a_change_of_address_is_mailed_to_all_previous_addresses_of_the_person(
    world: World, worker: Database, post: Postbag
) -> None:
    desk = _confirmed(world, worker, "ann")
    second = _confirmed(world, worker, "ann", "second@contoso.example")
    _by(world, "ann", addresses.choose, second.id, prompts=False)
    _by(world, "ann", addresses.remove, desk.id)
    anns = address(world.db, world, "ann")

    post.deliver(worker, open_notifications(worker))

    assert _emails(world, "address_added") == sorted([anns, anns, DESK])
    assert _emails(world, "address_confirmed") == sorted([anns, anns, DESK])
    assert _emails(world, "address_changed") == sorted([anns, DESK, "second@contoso.example"])
    assert _emails(world, "address_removed") == sorted([anns, DESK, "second@contoso.example"])
    gone = [mail for mail in post.mail.sent if mail.subject == "An address for mails to you was removed"]
    assert {mail.to_address for mail in gone} == {anns, DESK, "second@contoso.example"}
    assert all(DESK in mail.text for mail in gone)


def test_events_about_addresses_contain_no_address_in_clear(world: World, worker: Database) -> None:
    desk = _confirmed(world, worker, "ann")
    _by(world, "ann", addresses.remove, desk.id)

    rows = read(
        world.db,
        "SELECT e.action, convert_from(e.body, 'UTF8') AS body, d.fields #>> '{mailbox,1}' AS value FROM events e "
        "JOIN event_details d ON d.event_id = e.id AND d.fields ? 'mailbox' WHERE e.request_id IS NULL ORDER BY e.id",
    )
    assert [(row.action, row.value) for row in rows] == [
        ("address_added", DESK),
        ("address_confirmed", DESK),
        ("address_removed", DESK),
    ]
    assert not [row for row in rows if DESK in row.body]


@each("whose", ["amir", "max"])
def test_another_persons_sign_in_address_is_refused_without_naming_that_person(world: World, whose: str) -> None:
    theirs = address(world.db, world, whose)

    with pytest.raises(AddressTaken) as refused:
        _by(world, "ann", addresses.add, theirs.upper())

    assert refused.value.detail == addresses.TAKEN
    assert not read(world.db, "SELECT FROM addresses")


def test_colleagues_may_share_a_mail_address_but_vendor_and_customer_people_may_not(
    world: World, worker: Database
) -> None:
    _confirmed(world, worker, "max", "team@vendor.example")
    _confirmed(world, worker, "mia", "team@vendor.example")

    with pytest.raises(AddressTaken):
        _by(world, "ann", addresses.add, "team@vendor.example")

    assert len(read(world.db, "SELECT FROM addresses WHERE confirmed_at IS NOT NULL")) == 2


def test_an_address_of_a_customer_is_removed_when_it_becomes_the_sign_in_address_of_a_vendor_person(
    world: World, worker: Database
) -> None:
    _confirmed(world, worker, "ann")

    with setting(world.db).transaction() as session:
        tenants.add_person(session, "Desk", DESK.upper(), Side.VENDOR)
    world.submit()

    assert DESK not in _emails(world, "pending")


def test_an_address_that_became_the_sign_in_address_of_another_person_cannot_be_confirmed(
    world: World, worker: Database
) -> None:
    added = _by(world, "ann", addresses.add, DESK)
    code = code_of(worker, added.id)
    with setting(world.db).transaction() as session:
        tenants.add_person(session, "Desk", DESK, Side.CUSTOMER)

    with pytest.raises(AddressTaken):
        _by(world, "ann", addresses.confirm, added.id, code)


def test_only_the_newest_code_confirms_an_address_and_only_until_the_code_expires(
    world: World, worker: Database, superuser: Engine
) -> None:
    added, other = _by(world, "ann", addresses.add, DESK), _by(world, "ann", addresses.add, "b@contoso.example")
    code, others = code_of(worker, added.id), code_of(worker, other.id)
    late = "UPDATE addresses SET created_at = now() - interval '2 days', expires_at = now() WHERE id = :id"

    with pytest.raises(Invalid):
        _by(world, "ann", addresses.confirm, added.id, others)
    write(superuser, late, id=added.id)
    with pytest.raises(Invalid):
        _by(world, "ann", addresses.confirm, added.id, code)
    confirmed = _by(world, "ann", addresses.confirm, other.id, others.lower().replace("-", " "))

    assert confirmed.confirmed_at is not None
    assert code not in str(read(world.db, "SELECT to_jsonb(a) AS a FROM addresses a"))


def test_a_person_cannot_read_or_change_or_confirm_addresses_of_another_person(
    world: World, worker: Database
) -> None:
    added = _by(world, "ann", addresses.add, DESK)
    code = code_of(worker, added.id)

    for call, args in ((addresses.confirm, (code,)), (addresses.remove, ())):
        with pytest.raises(NotFound):
            _by(world, "tara", call, added.id, *args)
    with pytest.raises(NotFound):
        _by(world, "tara", addresses.choose, added.id, prompts=False)

    assert _mine(world, "tara") == []


@pytest.mark.parametrize(
    ("means", "minutes_ago"),
    [(AuthMethod.TOKEN, 0), (AuthMethod.PASSKEY, 16), (AuthMethod.OIDC, 16), (AuthMethod.MAIL, 0)],
)
def test_an_old_or_weak_sign_in_cannot_change_addresses(world: World, means: AuthMethod, minutes_ago: float) -> None:
    world.people["ann"] = signed_in(world, "ann", means, minutes_ago=minutes_ago)
    write(
        setting(world.db).engine,
        "INSERT INTO identities VALUES ('https://idp.example', 'ann', :ann, now(), now())",
        ann=world.people["ann"].person_id,
    )

    with pytest.raises(SignInAgain):
        _by(world, "ann", addresses.add, DESK)

    assert not read(world.db, "SELECT FROM addresses")


@pytest.mark.far
def test_a_person_has_at_most_five_addresses_and_adds_at_most_ten_a_day(world: World) -> None:
    for number in range(5):
        _by(world, "ann", addresses.add, f"{number}@contoso.example")

    with pytest.raises(TooManyAddresses, match="remove one"):
        _by(world, "ann", addresses.add, DESK)
    for number in range(5):
        _by(world, "ann", addresses.remove, _mine(world, "ann")[0])
        _by(world, "ann", addresses.add, f"again-{number}@contoso.example")
    _by(world, "ann", addresses.remove, _mine(world, "ann")[0])
    with pytest.raises(TooManyAddresses, match="wait"):
        _by(world, "ann", addresses.add, DESK)


def _mine(world: World, who: str) -> list[UUID]:
    with world.db.transaction() as session:
        authentication.enter(session, world.people[who])
        return [one.id for one in addresses.mine(session, world.people[who])]


def test_a_failure_at_one_mail_address_repeats_no_mail_to_working_addresses(
    world: World, worker: Database, superuser: Engine
) -> None:
    _confirmed(world, worker, "ann")
    world.submit()
    post = Postbag()
    post.mail.refused[DESK] = SendFailed("450 mailbox busy")

    for _ in range(3):
        post.deliver(worker, open_notifications(worker))
        write(superuser, "UPDATE notifications SET run_at = now() WHERE closed_at IS NULL")

    prompts = [mail.to_address for mail in post.mail.sent if mail.subject.startswith("Approval needed")]
    assert prompts.count(address(world.db, world, "ann")) == 1
    (desk,) = read(
        world.db, "SELECT attempts FROM notifications WHERE template = 'pending' AND address_id IS NOT NULL"
    )
    assert desk.attempts == 3
