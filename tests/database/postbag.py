"""Sending in tests: senders that keep everything in memory, and senders that stop or die midway."""

import asyncio
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

from cryptography.fernet import Fernet

from harness.memory_senders import MemoryMail, MemoryWebhooks
from harness.people import World
from harness.stage import as_sender, setting
from lockbox.audit.log.checkpoint import VerifierKey
from lockbox.database import Database
from lockbox.identity import keyring
from lockbox.notifications import delivery, endpoints
from lockbox.notifications.endpoints import SecretVault
from lockbox.notifications.results import AttemptResult
from lockbox.notifications.send_job import Senders
from lockbox.notifications.senders.protocol import MailSender, OutgoingMail, WebhookSender
from lockbox.notifications.sending_pool import SendingPool
from lockbox.requests import policy_store
from lockbox.schedule import NOTIFICATIONS
from tests.database.scenes import promised_notifications, read
from tests.logs import public

PUBLIC_URL = "https://lockbox.vendor.example"
TOLERATED_MS = 20_000
SENDER = "Lockbox <lockbox@vendor.example>"
SERVICES = {"exchange-online": "Exchange Online"}


@dataclass
class Postbag:
    """Everything that is sent, kept in memory; `calling` and `mailing` replace the memory senders by real ones.

    Without `sending_pool`, each delivery has its own pool. That pool has room for all notifications, sends them one
    after the other in order, remembers no server that failed to answer, and has no time limit: on a busy machine, a
    notification that waits for hundreds of others is not returned unsent. `audit_keys` defaults to the key that signs
    the logs of tests.
    """

    mail: MemoryMail = field(default_factory=MemoryMail)
    hooks: MemoryWebhooks = field(default_factory=MemoryWebhooks)
    calling: WebhookSender | None = None
    mailing: MailSender | None = None
    sending_pool: SendingPool | None = None
    audit_keys: dict[bytes, VerifierKey] = field(default_factory=lambda: {public().id: public()})
    approval_keys: tuple[str, ...] = ()
    public_url: str = PUBLIC_URL
    vault: SecretVault = field(default_factory=lambda: SecretVault([Fernet.generate_key().decode()]))

    @property
    def senders(self) -> Senders:
        return Senders(
            self.mailing or self.mail,
            self.calling or self.hooks,
            self.vault,
            self.public_url,
            SERVICES,
            policy_store.wordings,
            SENDER,
            self.audit_keys,
            keyring.development_codes(),
            self.approval_keys,
            self.sending_pool or SendingPool(mails_at_once=1, hooks_at_once=1, clock=lambda: 0.0, first_load=10_000),
        )

    def deliver(self, db: Database, ids: Iterable[UUID]) -> list[AttemptResult]:
        return delivery.deliver(as_sender(db), ids, self.senders)

    def endpoint(self, world: World, url: str, *, tenant_id: UUID | None, event_types: Iterable[str] = ()) -> UUID:
        with setting(world.db).transaction() as session:
            endpoints.add(session, self.vault, url, tenant_id=tenant_id, event_types=event_types)
        (row,) = read(world.db, "SELECT id FROM endpoints WHERE url = :url ORDER BY id DESC LIMIT 1", url=url)
        return UUID(str(row.id))


class DyingMail(MemoryMail):
    """Ends the process right after the relay has accepted the mail, before the result is recorded."""

    async def send(self, mail: OutgoingMail) -> None:
        await super().send(mail)
        raise SystemExit(137)


class SlowMail(MemoryMail):
    """Accepts a mail, and answers only when `let_go` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.sending = threading.Event()
        self.let_go = threading.Event()

    async def send(self, mail: OutgoingMail) -> None:
        self.sending.set()
        await asyncio.to_thread(self.let_go.wait, 10)
        await super().send(mail)


def open_notifications(db: Database) -> list[UUID]:
    return [row.id for row in read(db, "SELECT id FROM notifications WHERE closed_at IS NULL ORDER BY id")]


def address(db: Database, world: World, name: str) -> str:
    (row,) = read(db, "SELECT email FROM people WHERE id = :id", id=world.people[name].person_id)
    return str(row.email)


def notification(db: Database, notification_id: UUID) -> tuple[str | None, int, str | None]:
    (row,) = read(db, "SELECT outcome, attempts, last_error FROM notifications WHERE id = :id", id=notification_id)
    return row.outcome, row.attempts, row.last_error


def assert_notifications_are_held(db: Database, shift: timedelta = timedelta(0)) -> None:
    """Check that the index holds each open notification, never too early, and late by no more than scheduling takes.

    An entry scheduled with a delay is due by the clock of Redis, which the test's shift does not move.
    """
    held, promised = db.schedule.members(NOTIFICATIONS), promised_notifications(db)
    assert held.keys() == promised.keys()
    ahead = shift.total_seconds() * 1000
    lags = [(held[one] - due, held[one] + ahead - due) for one, due in promised.items()]
    assert [lag for lag in lags if not any(0 <= one < TOLERATED_MS for one in lag)] == []
