"""The tools of a worker process: its engine, schedule and senders, created once per process after the fork."""

import gc
import os
import threading
from dataclasses import dataclass
from datetime import timedelta
from functools import cache

from celery.signals import worker_process_init, worker_process_shutdown
from sqlalchemy import Engine

from catalogue.unsafe_settings import UnsafeSettings
from config import traces
from config.settings import Settings, load
from connectors.connection_steps import MOST_SLOTS, ConnectionDriver
from connectors.models import ConnectorKind
from connectors.postgres_roles import PostgresRoles
from connectors.targets import TargetFolder
from connectors.webhook_calls import WebhookCalls
from lockbox.audit.log import signing_keys
from lockbox.audit.log.checkpoint import VerifierKey
from lockbox.audit.log.checkpoint_folder import WitnessCheck, WitnessFolder
from lockbox.audit.log.sealer import Signer
from lockbox.audit.log.signing_keys import BadKey
from lockbox.database import Database, ProcessKeys, make_engine
from lockbox.identity import keyring
from lockbox.identity.keyring import ApprovalKeys, CodeKeys, Keyring
from lockbox.notifications.endpoints import SecretVault
from lockbox.notifications.send_job import Senders
from lockbox.notifications.senders.smtp import SmtpMail
from lockbox.notifications.webhook import HttpWebhooks
from lockbox.requests import policy_store
from lockbox.requests.case_check import CaseAdapters
from lockbox.schedule import Schedule

KEPT_CONNECTIONS = 4
NOTIFY_CONNECTIONS = 20
CORE_CONNECTIONS = 8
"""Each of the core worker's five threads uses one connection at a time, and three of them use one more for a lock."""
CHILD_CONNECTIONS = 4
"""A child does one task at a time, and the task may also need a connection for a lock."""
CORE_CHILDREN = 3
"""Each of the two maintenance jobs occupies one child at a time, so a child is always free for the clock's tasks."""
CONNECTOR_THREADS = MOST_SLOTS
"""A thread waits while its target does not answer; `TargetSlots` leaves some threads to other targets."""
CONNECTOR_CONNECTIONS = 12
"""A step uses a connection briefly, before and after it calls the target. Further connections are for the poller, for
finding windows that have ended, and for the heartbeat."""
CONNECTIONS = {
    "core": CORE_CONNECTIONS + CORE_CHILDREN * CHILD_CONNECTIONS,
    "notifications": NOTIFY_CONNECTIONS,
    "connectors": CONNECTOR_CONNECTIONS,
}
"""How many connections a worker of each kind opens at most."""
LOCKS = 3
"""How many locks a core worker's threads may hold at once: to reconcile, to seal, and to check the invariants."""
NOTIFY_THREADS = NOTIFY_CONNECTIONS - 4
"""How many notify tasks run at once. Each uses one of the process' connections to Postgres at a time. The remaining
connections are for the recorder of results, the reconciler, the heartbeat and mails that list what is pending."""

_making = threading.Lock()
_is_child = threading.Event()


@cache
def settings() -> Settings:
    try:
        return load()
    except UnsafeSettings as error:
        raise SystemExit(f"lockbox: {error}") from None


@dataclass(frozen=True)
class SealingSettings:
    signer: Signer
    folder: WitnessFolder | None
    digest_every: timedelta


@dataclass(frozen=True)
class Runtime:
    """The tools of one process.

    `senders` is None if no mail relay is configured, and `sealing` is None if no key is configured.

    Only the connector worker has a `driver`, and only the notifications worker has `cases`.
    """

    database: Database
    senders: Senders | None
    deliveries_kept: timedelta
    sealing: SealingSettings | None
    driver: ConnectionDriver | None = None
    cases: CaseAdapters | None = None


def make(settings: Settings) -> Runtime:
    """Nothing is connected yet. Raises UnsafeSettings if a required setting is missing."""
    url = settings.require(_login(settings))
    most = _most_connections(settings)
    engine = make_engine(url, role="worker", pool_size=KEPT_CONNECTIONS, overflow=most - KEPT_CONNECTIONS)
    keys = _judging_keys(settings) if settings.connectors_database_url else ProcessKeys(Keyring([]))
    db = Database(engine, Schedule(settings.require("redis_url")), keys=keys, direct=_direct(settings))
    driver = _driver(settings, db) if settings.connectors_database_url else None
    cases = _cases(settings) if settings.notifications_database_url else None
    return Runtime(
        db, _senders(settings), timedelta(days=settings.deliveries_kept_days), _sealing(settings), driver, cases
    )


SERVICES = {
    "worker_database_url": "lockbox-core",
    "notifications_database_url": "lockbox-notifications",
    "connectors_database_url": "lockbox-connectors",
}
"""The name of each kind of worker in traces, by the setting of its database login."""


def _login(settings: Settings) -> str:
    if settings.connectors_database_url:
        return "connectors_database_url"
    return "notifications_database_url" if settings.notifications_database_url else "worker_database_url"


def _driver(settings: Settings, db: Database) -> ConnectionDriver:
    targets = TargetFolder(settings.connector_targets)
    roles = PostgresRoles(targets, needs_tls=settings.environment == "production")
    calls = WebhookCalls(targets, HttpWebhooks(allow_http=settings.webhooks_allow_http, route=settings.outbound))
    return ConnectionDriver(db, settings.catalogue, {ConnectorKind.POSTGRES: roles, ConnectorKind.WEBHOOK: calls})


def _judging_keys(settings: Settings) -> ProcessKeys:
    """Return the keys to verify windows. For approvals, these are only the public keys."""
    approvals = signing_keys.trusted(settings.approval_public_keys).values()
    shipped = None
    if settings.checkpoint_folder and settings.audit_public_keys:
        folder = WitnessFolder(settings.checkpoint_folder)
        shipped = WitnessCheck(folder, signing_keys.trusted(settings.audit_public_keys))
    try:
        ring = keyring.read_marks(settings.mark_key_files) if settings.mark_key_files else keyring.development()
    except BadKey as bad:
        raise UnsafeSettings(f"LOCKBOX_MARK_KEY_FILES: {bad}") from None
    return ProcessKeys(ApprovalKeys([], list(approvals)) if approvals else None, shipped, ring)


def _most_connections(settings: Settings) -> int:
    if settings.connectors_database_url:
        return CONNECTOR_CONNECTIONS
    if settings.notifications_database_url:
        return NOTIFY_CONNECTIONS
    return CHILD_CONNECTIONS if _is_child.is_set() else CORE_CONNECTIONS


def _direct(settings: Settings) -> Engine | None:
    """Return the engine for locks that outlive a transaction, if the other connections go through a pooler."""
    if settings.database_direct_url is None:
        return None
    more = 0 if _is_child.is_set() else LOCKS - 1
    return make_engine(settings.require("database_direct_url"), role="worker-direct", pool_size=1, overflow=more)


def runtime() -> Runtime:
    """Return the tools of this process, never those of its parent."""
    with _making:
        return _of_process(os.getpid())


@cache
def _of_process(_: int) -> Runtime:
    traces.start(settings(), SERVICES[_login(settings())])
    return make(settings())


def _sealing(settings: Settings) -> SealingSettings | None:
    if not settings.audit_key_files:
        return None
    try:
        signer = Signer(settings.log_name, signing_keys.read(settings.audit_key_files), _earlier(settings))
    except BadKey as bad:
        raise UnsafeSettings(f"LOCKBOX_AUDIT_KEY_FILES: {bad}") from None
    folder = WitnessFolder(settings.checkpoint_folder) if settings.checkpoint_folder else None
    return SealingSettings(signer, folder, timedelta(hours=settings.digest_hours))


def _earlier(settings: Settings) -> list[VerifierKey]:
    return list(signing_keys.trusted(settings.audit_public_keys).values())


def _senders(settings: Settings) -> Senders | None:
    if settings.smtp_url is None:
        return None
    mail = SmtpMail(settings.require("smtp_url"), sender=settings.mail_from, ca_file=settings.smtp_ca_file)
    return Senders(
        mail=mail,
        hooks=HttpWebhooks(allow_http=settings.webhooks_allow_http, route=settings.outbound),
        vault=SecretVault([key.get_secret_value() for key in settings.secret_keys]),
        public_url=settings.public_url,
        services=settings.catalogue.titles,
        wordings=policy_store.wordings,
        sender=settings.mail_from,
        audit_keys=signing_keys.trusted(settings.audit_public_keys),
        codes=_codes(settings),
        approval_keys=settings.approval_public_keys,
    )


def _cases(settings: Settings) -> CaseAdapters:
    secret = settings.case_adapter_secret
    return CaseAdapters(
        settings.catalogue.case_systems,
        secret.get_secret_value() if secret else None,
        allow_http=settings.webhooks_allow_http,
        route=settings.outbound,
    )


def _codes(settings: Settings) -> CodeKeys:
    if not settings.code_key_files:
        return keyring.development_codes()
    try:
        return keyring.read_codes(settings.code_key_files)
    except BadKey as bad:
        raise UnsafeSettings(f"LOCKBOX_CODE_KEY_FILES: {bad}") from None


@worker_process_shutdown.connect(weak=False)
def _send_last_spans(**_: object) -> None:
    traces.stop()


@worker_process_init.connect(weak=False)
def _warm(**_: object) -> None:
    _is_child.set()
    runtime()
    # A full collection walks every imported module and takes as long as a batch. Later collections skip the objects
    # that exist by now.
    gc.collect()
    gc.freeze()
