"""Erasing: whoever was a deputy, or had one, and nobody whose address merely ends like theirs."""

import pytest
from sqlalchemy import Engine, text

from lockbox.database import Database
from lockbox.notices.senders.memory import MemoryMail
from lockbox.notices.senders.protocol import Mail, Reply, SendFailed
from lockbox.requests.lifecycle import Action
from lockbox.tenancy import members
from tests.builders import Urls, World
from tests.database.postbag import Postbag, open_notices
from tests.database.scenes import read
from tests.database.tenancy import does, id_of, invites, names_deputy, with_deputies
from tests.database.test_erasing import erase, rows_with


class RefusingMail(MemoryMail):
    """A relay that knows nobody, and says so as Postfix does."""

    def __init__(self, said: str) -> None:
        super().__init__()
        self.said = said

    def send(self, mail: Mail) -> None:
        """Refuse."""
        raise SendFailed(
            f"the mail relay answered 550 {self.said[:100]}",
            permanent=True,
            kind="status",
            reply=Reply(550, self.said),
        )


FIELDS = "SELECT d.field, d.value, e.action FROM event_details d JOIN events e ON e.id = d.event_id"


@pytest.fixture
def world(api: Database) -> World:
    return with_deputies(api)


@pytest.mark.parametrize("who", ["ann", "aude"])
def test_whoever_was_a_deputy_or_had_one_is_named_by_no_event(
    world: World, urls: Urls, superuser: Engine, who: str
) -> None:
    names_deputy(world)

    erase(urls, id_of(world, who))

    left = [row for row in read(world.house, FIELDS) if row.value == who.capitalize()]
    assert left == []


def test_whose_address_ends_like_theirs_stays_named(world: World, urls: Urls, superuser: Engine) -> None:
    with superuser.connect() as connection:
        connection.execute(
            text("UPDATE people SET email = 'nn@contoso.example' WHERE id = :id"), {"id": id_of(world, "ann")}
        )
    invites(world, name="Lynn", address="lynn@contoso.example")
    before = [row for row in read(world.house, FIELDS) if "Lynn" in row.value]
    assert before

    erase(urls, id_of(world, "ann"))

    assert [row for row in read(world.house, FIELDS) if "Lynn" in row.value] == before
    (row,) = read(world.house, "SELECT name FROM invitations")
    assert row.name == "Lynn"


def test_a_tenant_that_somebody_had_left_is_told_that_they_were_erased(world: World, urls: Urls) -> None:
    world.act("ann", Action.DENY, world.submit().id)
    does(world, "tara", members.remove, id_of(world, "ann"))

    erase(urls, id_of(world, "ann"))

    rows = read(world.house, "SELECT tenant_id FROM events WHERE action = 'person_erased'")
    assert [row.tenant_id for row in rows] == [world.tenant.id]


def test_what_a_relay_answered_names_their_address_no_longer(
    world: World, urls: Urls, worker: Database, post: Postbag, superuser: Engine
) -> None:
    ann = id_of(world, "ann")
    (person,) = read(world.house, "SELECT email FROM people WHERE id = :id", id=ann)
    world.fresh()
    post.mailing = RefusingMail(f"5.1.1 <{person.email}>: Recipient address rejected: User unknown")
    post.deliver(worker, open_notices(worker))

    erase(urls, ann)

    assert rows_with(world.house, person.email) == []
