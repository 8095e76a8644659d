"""Only checkpoints signed by a known key are sent, whatever the database owner writes."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Engine, text
from structlog.testing import capture_logs

from catalogue.service_catalogue import Plan
from harness.clocks import ShiftedClock
from harness.people import World
from harness.stage import unbound
from lockbox.admin import tenants
from lockbox.admin.tenants import TenantInput
from lockbox.audit.log import checkpoint
from lockbox.database import Database
from lockbox.notifications import checkpoint_digest
from lockbox.notifications.models import Outcome
from tests.database.postbag import Postbag
from tests.database.scenes import read
from tests.database.tenancy import manages
from tests.logs import KEY, NAME, OTHER_KEY, public, sealed

KEYS = {public().id: public()}
TELLING = "SELECT id FROM notifications WHERE closed_at IS NULL AND checkpoint_id IS NOT NULL ORDER BY id"


@pytest.fixture
def due(world: World, sender: Database, later: ShiftedClock, post: Postbag) -> World:
    """A world with a checkpoint that is queued for a webhook and for two people."""
    post.endpoint(world, "https://tenant.example/audit", tenant_id=world.tenant.id)
    world.fresh()
    sealed(sender)
    later.shift = timedelta(hours=25)
    list(checkpoint_digest.queue_due(sender, timedelta(days=1)))
    return world


def overwrite(root: Engine, statement: str, **values: object) -> None:
    """Write as a database owner who has switched the triggers off."""
    with root.connect() as connection:
        connection.execute(text("SET session_replication_role = replica"))
        connection.execute(text(statement), values)


def sign_over(root: Engine, key: Ed25519PrivateKey = KEY, origin: str | None = None) -> None:
    """Replace each checkpoint by one that the given key signed, of the same log or of another."""
    for row in read(root, "SELECT id, note FROM checkpoints"):
        said = checkpoint.read(row.note)
        note = checkpoint.sign(replace(said, origin=origin or said.origin), NAME, [key])
        overwrite(root, "UPDATE checkpoints SET note = :note WHERE id = :id", note=note, id=row.id)


FORGERIES: list[Callable[[Engine], None]] = [
    lambda root: sign_over(root, OTHER_KEY),
    lambda root: sign_over(root, origin=f"{NAME}/audit/vendor"),
    lambda root: overwrite(root, "UPDATE checkpoints SET note = replace(note, 'time 2', 'time 3')"),
    lambda root: overwrite(root, "UPDATE checkpoints SET note = ''"),
]


def delivered(post: Postbag, sender: Database, query: str = TELLING) -> list[Outcome | None]:
    """Deliver what the query finds; return the outcome of each."""
    return [one.outcome for one in post.deliver(sender, [row.id for row in read(unbound(sender), query)])]


@pytest.mark.usefixtures("due")
def test_a_digest_names_the_key_that_signed_the_checkpoint_and_not_the_key_in_the_database(
    sender: Database, superuser: Engine, post: Postbag
) -> None:
    forged = public(OTHER_KEY)
    overwrite(superuser, "INSERT INTO audit_keys VALUES (:key, 'log', now() + interval '1 second')", key=forged.text)

    delivered(post, sender)

    assert len(post.mail.sent) == 2
    assert all(public().text in mail.text and forged.fingerprint not in mail.text for mail in post.mail.sent)


@pytest.mark.usefixtures("due")
@pytest.mark.parametrize("forge", FORGERIES, ids=["unknown key", "another log", "changed", "empty"])
def test_a_checkpoint_signed_by_an_unknown_key_is_not_sent_and_raises_an_alarm(
    sender: Database, superuser: Engine, post: Postbag, forge: Callable[[Engine], None]
) -> None:
    forge(superuser)

    with capture_logs() as lines:
        outcomes = delivered(post, sender)

    assert (post.mail.sent, post.hooks.sent) == ([], [])
    assert outcomes == [Outcome.DEAD] * 3
    alarms = [line for line in lines if line["event"] == "checkpoint.not_verified"]
    assert [line["log_level"] for line in alarms] == ["critical"] * 3
    assert {row.error for row in read(unbound(sender), "SELECT error FROM deliveries")} == {"unverified"}
    (endpoint,) = read(unbound(sender), "SELECT failing_since FROM endpoints")
    assert endpoint.failing_since is None


@pytest.mark.usefixtures("due")
def test_without_known_keys_no_checkpoint_is_sent(sender: Database, post: Postbag) -> None:
    post.audit_keys = {}

    delivered(post, sender)

    assert (post.mail.sent, post.hooks.sent) == ([], [])


@pytest.mark.usefixtures("due")
def test_a_checkpoint_signed_by_an_older_key_names_that_key(sender: Database, post: Postbag) -> None:
    newest = public(OTHER_KEY)
    post.audit_keys = {newest.id: newest, **KEYS}

    delivered(post, sender)

    assert [public().fingerprint in mail.text for mail in post.mail.sent] == [True, True]


@pytest.mark.usefixtures("due")
def test_a_digest_mail_quotes_the_signed_note_and_not_the_database_row(
    sender: Database, superuser: Engine, post: Postbag
) -> None:
    overwrite(superuser, "UPDATE checkpoints SET size = 4711, at = '2001-01-01'")

    delivered(post, sender)

    text = post.mail.sent[0].text
    assert "held 1 events" in text
    assert "2001" not in text


@pytest.mark.parametrize("keys", [[KEY], [OTHER_KEY, KEY], []])
def test_the_invitation_of_a_first_admin_contains_the_fingerprint_of_the_newest_key(
    world: World, sender: Database, post: Postbag, keys: list[Ed25519PrivateKey]
) -> None:
    post.audit_keys = {public(key).id: public(key) for key in keys}
    founding = TenantInput("fabrikam", "Fabrikam", "standard", "Fay", "fay@fabrikam.example")
    manages(world, "olga", tenants.add, founding, {"standard": Plan()})

    post.deliver(
        sender, [row.id for row in read(unbound(sender), "SELECT id FROM notifications WHERE about_id IS NOT NULL")]
    )

    (mail,) = [mail for mail in post.mail.sent if mail.to_name == "Fay"]
    for body in (mail.text, mail.html):
        assert [public(key).fingerprint in body for key in (KEY, OTHER_KEY)] == [
            keys == [KEY],
            keys[:1] == [OTHER_KEY],
        ]
        assert ("fingerprint" in body) == bool(keys)
