"""A vendor's own system is told to open and to close, by signed calls, and is asked whether it is closed."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from config.connector_document import ServiceConnector
from config.service_catalogue import Catalogue, Service
from connectors.connection_steps import ConnectionDriver
from connectors.models import ConnectorKind
from connectors.targets import TargetFolder
from connectors.webhook_calls import WebhookCalls
from harness.people import MAILBOX, SETTINGS, World
from harness.stage import Urls
from harness.webhook_receiver import Call, ScriptedAnswer, WebhookReceiver, receiving
from lockbox.database import Database, make_engine
from lockbox.notifications.endpoints import new_secret
from lockbox.notifications.webhook import HttpWebhooks
from lockbox.requests.lifecycle import Action
from lockbox.schedule import Schedule
from tests.database.scenes import read, write


class VendorSystem:
    """Opens and closes as it is told, by rightly signed calls alone, and never opens again what it has closed."""

    def __init__(self, receiver: WebhookReceiver) -> None:
        self.receiver = receiver
        self.open: set[str] = set()
        self.closed: set[str] = set()
        self.is_stubborn = False
        receiver.answer_to = self.answer  # type: ignore[method-assign]  # it is scripted

    def answer(self, call: Call) -> ScriptedAnswer:
        """Do what a call says."""
        if not call.is_signed:
            return ScriptedAnswer(401)
        one = call.event["connection"]
        if call.event["type"] == "connection.open" and one not in self.closed:
            self.open.add(one)
        if call.event["type"] == "connection.close" and not self.is_stubborn:
            self.closed.add(one)
            self.open.discard(one)
        body = json.dumps({"closed": one not in self.open}).encode()
        return ScriptedAnswer(200, body, headers={"content-length": str(len(body))})

    @property
    def types(self) -> list[str]:
        """What it was told, in order."""
        return [call.event["type"].removeprefix("connection.") for call in self.receiver.calls]


@pytest.fixture
def vendor() -> Iterator[VendorSystem]:
    with receiving() as receiver:
        receiver.secret = new_secret()
        yield VendorSystem(receiver)


@pytest.fixture
def world(api: Database) -> World:
    return World.make(api)


@pytest.fixture
def driver(urls: Urls, world: World, vendor: VendorSystem, tmp_path: Path) -> Iterator[ConnectionDriver]:
    file = tmp_path / "vendor"
    file.write_text(f"{vendor.receiver.url}\n{vendor.receiver.secret}\n", encoding="utf-8")
    file.chmod(0o600)
    db = Database(make_engine(urls.connectors, role="test-connectors", pool_size=4), Schedule(urls.redis))
    calls = WebhookCalls(TargetFolder(tmp_path), HttpWebhooks(allow_http=True))
    yield ConnectionDriver(db, _catalogue(world.tenant.slug), {ConnectorKind.WEBHOOK: calls})
    db.dispose()


def _catalogue(tenant: str) -> Catalogue:
    connector = ServiceConnector(kind="webhook", target="vendor", tenant=tenant)
    services = dict(SETTINGS.catalogue.services)
    services["exchange-online"] = Service(title="Mail", connector=connector)
    return SETTINGS.catalogue.model_copy(update={"services": services})


def _run(driver: ConnectionDriver, db: Database) -> dict[str, int]:
    return dict(driver.run([row.id for row in read(db, "SELECT id FROM connections ORDER BY id")]))


def test_a_window_is_opened_and_closed_by_signed_calls_and_is_asked_about(
    world: World, driver: ConnectionDriver, vendor: VendorSystem
) -> None:
    request = world.submit()
    assert driver.begin(most=10) == 0, "it is not open yet"
    world.act("ann", Action.APPROVE, request.id)

    assert (driver.begin(most=10), driver.begin(most=10)) == (1, 0)
    assert _run(driver, world.db) == {"open": 1}
    world.act("ann", Action.REVOKE, request.id)
    assert _run(driver, world.db) == {"closed": 1}

    assert vendor.types == ["open", "close", "is_closed"]
    assert vendor.open == set()
    told = vendor.receiver.calls[0].event["data"]
    assert (told["resources"], told["actions"], told["tenant"]) == ([MAILBOX], ["read"], world.tenant.slug)
    assert told["engineer"] == str(world.people["erin"].person_id)
    assert all(call.is_signed for call in vendor.receiver.calls)
    assert driver.begin(most=10) == 0, "a window is opened once"


def test_a_system_that_says_it_is_open_is_told_again_until_it_says_closed(
    world: World, driver: ConnectionDriver, vendor: VendorSystem, superuser: Engine
) -> None:
    request = world.submit()
    world.act("ann", Action.APPROVE, request.id)
    driver.begin(most=10)
    _run(driver, world.db)
    vendor.is_stubborn = True
    world.act("erin", Action.COMPLETE, request.id)

    for _ in range(3):
        assert _run(driver, world.db) == {"failed": 1}
        write(superuser, "UPDATE connections SET run_at = now()")
    row = read(world.db, "SELECT state, last_error FROM connections")[0]
    assert (row.state, row.last_error) == ("close_failed", "still_open")
    vendor.is_stubborn = False

    assert _run(driver, world.db) == {"closed": 1}
    assert vendor.open == set()


def test_a_window_of_another_tenant_is_not_told(world: World, driver: ConnectionDriver, vendor: VendorSystem) -> None:
    other = World.make(world.db)
    request = other.submit()
    other.act("ann", Action.APPROVE, request.id)

    assert driver.begin(most=10) == 0
    assert vendor.receiver.calls == []


def test_windows_of_other_tenants_do_not_keep_a_tenants_own_waiting(world: World, driver: ConnectionDriver) -> None:
    other = World.make(world.db)
    for one in (other, world):
        request = one.submit()
        one.act("ann", Action.APPROVE, request.id)

    assert driver.begin(most=1) == 1
    assert driver.begin(most=1) == 0
    begun = read(world.db, "SELECT tenant_id FROM connections")
    assert [row.tenant_id for row in begun] == [world.tenant.id]


def test_a_call_that_is_refused_opens_nothing_and_is_made_again(
    world: World, driver: ConnectionDriver, vendor: VendorSystem, superuser: Engine
) -> None:
    right, vendor.receiver.secret = vendor.receiver.secret, new_secret()
    request = world.submit()
    world.act("ann", Action.APPROVE, request.id)
    driver.begin(most=10)

    assert _run(driver, world.db) == {"failed": 1}
    assert vendor.open == set()
    vendor.receiver.secret = right
    write(superuser, "UPDATE connections SET run_at = now()")
    assert _run(driver, world.db) == {"open": 1}
