"""What a process works with comes from its settings, and making it connects to nothing."""

import threading

import pytest
from sqlalchemy.pool import QueuePool

from api.app import CONNECTIONS, KINDS_ON_LOOP, make_app, make_database, make_reading, make_vital
from config.settings import Settings
from lockbox.audit.log.checkpoint import VerifierKey
from lockbox.audit.verifier.approval_checks import NAME
from lockbox.call_groups.groups import GROUPS
from lockbox.database import Database
from tests.logs import KEY, OTHER_KEY, public
from worker import runtime
from worker.maintenance import JOBS

NOWHERE = "postgresql+psycopg://worker@127.0.0.1:1/nothing"


def test_worker_processes_trust_the_configured_audit_keys_newest_first() -> None:
    keys = [public(OTHER_KEY), public(KEY)]
    of_approvals = VerifierKey(NAME, KEY.public_key().public_bytes_raw()).text
    chosen = Settings(
        environment="test",
        worker_database_url="postgresql+psycopg://worker@127.0.0.1:1/nothing",
        redis_url="redis://127.0.0.1:1/0",
        smtp_url="smtp://127.0.0.1:1",
        audit_public_keys=tuple(key.text for key in keys),
        approval_public_keys=(of_approvals,),
    )

    senders = runtime.make(chosen).senders

    assert senders is not None
    assert list(senders.audit_keys.values()) == keys
    assert senders.approval_keys == (of_approvals,)
    assert not senders.sending_pool.loop.is_running, "it starts with the first send, never before a fork"


def test_the_pools_of_a_worker_open_the_stated_number_of_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    core = _settings(worker_database_url=NOWHERE)
    parent = _most(runtime.make(core).database)
    in_child = threading.Event()
    in_child.set()
    monkeypatch.setattr(runtime, "_is_child", in_child)
    child = _most(runtime.make(core).database)

    assert parent + runtime.CORE_CHILDREN * child == runtime.CONNECTIONS["core"]
    notifications = runtime.make(_settings(notifications_database_url=NOWHERE))
    assert _most(notifications.database) == runtime.CONNECTIONS["notifications"]
    assert len(JOBS) < runtime.CORE_CHILDREN, "the clock finds a child that is free"


def test_the_pools_of_an_api_process_open_the_stated_number_of_connections() -> None:
    chosen = _settings(database_url=NOWHERE)
    database = make_database(chosen)

    vital, reading = make_vital(chosen, database), make_reading(chosen, database)
    kinds = len(make_app(chosen, database, vital, reading=reading).state.groups)

    assert kinds == KINDS_ON_LOOP
    assert _most(database) + _most(vital) + _most(reading) + kinds * GROUPS == CONNECTIONS


def _settings(**urls: str) -> Settings:
    return Settings.model_validate({"environment": "test", "redis_url": "redis://127.0.0.1:1/0"} | urls)


def _most(db: Database) -> int:
    pool = db.engine.pool
    assert isinstance(pool, QueuePool)
    return pool.size() + pool._max_overflow  # noqa: SLF001 - it has no public name
