"""Signed calls tell a vendor's own system to open and close access; its answer says whether access is closed."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from catalogue.connector_document import ServiceConnector
from catalogue.service_catalogue import Catalogue, Service
from connectors.connection_steps import ConnectionDriver
from connectors.models import ConnectorKind
from connectors.targets import TargetFolder
from connectors.webhook_calls import WebhookCalls
from devstack.stack import CHECKOUT
from harness.people import MAILBOX, SETTINGS, World
from harness.stage import Urls, superuser_at
from harness.webhook_receiver import Call, ScriptedAnswer, WebhookReceiver, receiving
from lockbox.database import Database, ProcessKeys, make_engine
from lockbox.failpoints import KILLED
from lockbox.identity.keyring import ApprovalKeys
from lockbox.notifications.endpoints import new_secret
from lockbox.notifications.webhook import HttpWebhooks
from lockbox.requests.lifecycle import Action
from tests.database.postbag import Postbag
from tests.database.scenes import read, write

# What a connector worker does with all connections there are, or to begin them, until it dies.
DIE = """
import sys
from pathlib import Path
from connectors.connection_steps import ConnectionDriver
from connectors.models import ConnectorKind
from connectors.targets import TargetFolder
from connectors.webhook_calls import WebhookCalls
from lockbox import failpoints
from lockbox.audit.log.checkpoint import VerifierKey
from lockbox.database import Database, ProcessKeys, make_engine
from lockbox.identity.keyring import ApprovalKeys
from lockbox.notifications.webhook import HttpWebhooks
from lockbox.schedule import Schedule
from sqlalchemy import text
from tests.database.test_webhook_connector import catalogue_of
login, redis, key, tenant, folder, point = sys.argv[1:]
keys = ProcessKeys(ApprovalKeys([], [VerifierKey.read(key)]))
db = Database(make_engine(login, role="dies"), Schedule(redis, patience=2.0), keys=keys)
calls = WebhookCalls(TargetFolder(Path(folder)), HttpWebhooks(allow_http=True))
driver = ConnectionDriver(db, catalogue_of(tenant), {ConnectorKind.WEBHOOK: calls})
failpoints.arm(point)
driver.begin(most=10)
with db.transaction() as session:
    ids = session.execute(text("SELECT id FROM connections")).scalars().all()
driver.run(ids)
"""
BOTH = ("connector.after_claim", "connector.before_record", "connector.after_record")
OF_OPEN = ("webhook.before_call", "webhook.after_response", *BOTH)
OF_CLOSE = (*(f"{point}{nth}" for point in OF_OPEN[:2] for nth in ("", ":2")), *BOTH)
"""A close makes two calls: to close, and to ask whether it is closed."""


class VendorSystem:
    """Opens and closes connections only by correctly signed calls, and never reopens one that it has closed."""

    def __init__(self, receiver: WebhookReceiver) -> None:
        self.receiver = receiver
        self.open: set[str] = set()
        self.closed: set[str] = set()
        self.is_stubborn = False
        receiver.answer_to = self.answer  # type: ignore[method-assign]  # it is scripted

    def answer(self, call: Call) -> ScriptedAnswer:
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
def driver(connectors: Database, world: World, vendor: VendorSystem, tmp_path: Path) -> ConnectionDriver:
    file = tmp_path / "vendor"
    file.write_text(f"{vendor.receiver.url}\n{vendor.receiver.secret}\n", encoding="utf-8")
    file.chmod(0o600)
    calls = WebhookCalls(TargetFolder(tmp_path), HttpWebhooks(allow_http=True))
    return ConnectionDriver(connectors, catalogue_of(world.tenant.slug), {ConnectorKind.WEBHOOK: calls})


def catalogue_of(tenant: str) -> Catalogue:
    """Return the usual catalogue, with one service whose connector calls the vendor's system."""
    connector = ServiceConnector(kind="webhook", target="vendor", tenant=tenant)
    services = dict(SETTINGS.catalogue.services)
    services["exchange-online"] = Service(title="Mail", connector=connector)
    return SETTINGS.catalogue.model_copy(update={"services": services})


def _run(driver: ConnectionDriver, db: Database) -> dict[str, int]:
    return dict(driver.run([row.id for row in read(db, "SELECT id FROM connections ORDER BY id")]))


def test_a_webhook_connector_opens_and_closes_and_verifies_windows_by_signed_calls(
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


def test_a_webhook_connector_repeats_a_call_to_close_until_the_system_confirms(
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


def test_a_webhook_connector_gets_no_window_of_another_tenant(
    world: World, driver: ConnectionDriver, vendor: VendorSystem
) -> None:
    other = World.make(world.db)
    request = other.submit()
    other.act("ann", Action.APPROVE, request.id)

    assert driver.begin(most=10) == 0
    assert vendor.receiver.calls == []


def test_a_connector_opens_windows_of_its_tenant_without_waiting_for_windows_of_other_tenants(
    world: World, driver: ConnectionDriver
) -> None:
    other = World.make(world.db)
    for one in (other, world):
        request = one.submit()
        one.act("ann", Action.APPROVE, request.id)

    assert driver.begin(most=1) == 1
    assert driver.begin(most=1) == 0
    begun = read(world.db, "SELECT tenant_id FROM connections")
    assert [row.tenant_id for row in begun] == [world.tenant.id]


def test_a_refused_connector_call_opens_no_connection_and_is_repeated(
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


def _mailed(world: World, post: Postbag, db: Database) -> dict[str, set[str]]:
    """Deliver what is open; return for each template of a mail about the target who got it."""
    rows = read(db, "SELECT id, person_id, template FROM notifications WHERE closed_at IS NULL")
    names = {caller.person_id: name for name, caller in world.people.items()}
    post.deliver(db, [row.id for row in rows])
    told = [(row.template, names[row.person_id]) for row in rows if row.person_id]
    assert len(told) == len(set(told)), "nobody is told twice"
    return {template: {name for one, name in told if one == template} for template, _ in told}


def _fail(driver: ConnectionDriver, db: Database, superuser: Engine, times: int) -> None:
    for _ in range(times):
        assert _run(driver, db) == {"failed": 1}
        write(superuser, "UPDATE connections SET run_at = now()")


@pytest.mark.far
def test_a_failing_close_is_mailed_once_and_the_later_success_is_mailed_once(
    world: World, driver: ConnectionDriver, vendor: VendorSystem, superuser: Engine
) -> None:
    post = Postbag()
    post.endpoint(world, "https://tenant-hook", tenant_id=world.tenant.id)
    request = world.submit()
    world.act("ann", Action.APPROVE, request.id)
    driver.begin(most=10)
    assert _run(driver, world.db) == {"open": 1}
    world.act("tara", Action.REVOKE, request.id)
    assert not {"connection_opened", "target_opened"} & _mailed(world, post, world.db).keys()
    vendor.is_stubborn = True

    _fail(driver, world.db, superuser, 2)
    assert _mailed(world, post, world.db) == {}, "two tries may fail"
    post.mail.sent.clear()
    _fail(driver, world.db, superuser, 4)
    assert _mailed(world, post, world.db) == {
        "connection_close_failed": {"ann", "amir", "abe", "tara"},
        "target_close_failed": {"olga"},
    }
    by_subject = {mail.to_name: mail for mail in post.mail.sent}
    assert by_subject["Ann"].subject.startswith("Access could not be closed at the target: ")
    assert "sessions that were\nopen there may go on" in by_subject["Ann"].text
    assert by_subject["Olga"].subject.startswith("Act now: target vendor did not close access")
    assert "still open" in by_subject["Olga"].text
    for word in (request.justification, "Erin", MAILBOX):
        assert word in by_subject["Ann"].text
        assert word not in by_subject["Olga"].text, "operators see no requests"

    vendor.is_stubborn = False
    assert _run(driver, world.db) == {"closed": 1}
    assert _mailed(world, post, world.db) == {
        "connection_close_settled": {"ann", "amir", "abe", "tara"},
        "target_close_settled": {"olga"},
    }
    calls = [json.loads(call.body) for call in post.hooks.sent]
    of_target = [(call["type"], call["data"]["state"]) for call in calls if "connection" in call["data"]]
    assert of_target == [
        ("request.connection_opened", "active"),
        ("request.connection_close_failed", "revoked"),
        ("request.connection_closed", "revoked"),
    ]
    failing = next(call["data"]["connection"] for call in calls if call["type"].endswith("close_failed"))
    assert (failing["target"], failing["failing"]) == ("vendor", "still_open")


@pytest.mark.far
def test_the_engineer_is_also_mailed_if_opening_a_window_fails(
    world: World, driver: ConnectionDriver, vendor: VendorSystem, superuser: Engine
) -> None:
    post = Postbag()
    right, vendor.receiver.secret = vendor.receiver.secret, new_secret()
    request = world.submit()
    world.act("ann", Action.APPROVE, request.id)
    driver.begin(most=10)
    _mailed(world, post, world.db)
    everybody = {"ann", "amir", "abe", "tara", "erin"}

    _fail(driver, world.db, superuser, 5)
    assert _mailed(world, post, world.db) == {"connection_open_failed": everybody, "target_open_failed": {"olga"}}
    vendor.receiver.secret = right

    assert _run(driver, world.db) == {"open": 1}
    assert _mailed(world, post, world.db) == {"connection_open_settled": everybody, "target_open_settled": {"olga"}}
    erin = [mail for mail in post.mail.sent if mail.to_name == "Erin"][-1]
    assert erin.text.startswith("You have been let in now")


def test_the_connector_workers_database_role_writes_only_connector_events(world: World, urls: Urls) -> None:
    request = world.submit()
    event = read(world.db, "SELECT id, at FROM events WHERE request_id = :id", id=request.id)[0]
    engine = make_engine(urls.connectors, role="test-connectors")
    values = {"event": event.id, "tenant": world.tenant.id, "request": request.id, "at": event.at}
    queued = """
        INSERT INTO outbox (event_id, tenant_id, request_id, at, run_at, template, mode, asked)
        VALUES (:event, :tenant, :request, :at, :at, 'connection_closed', 'enforce', '{}')
    """
    with pytest.raises(DBAPIError, match="row-level security"), engine.begin() as connection:
        connection.execute(text(queued), values)
    engine.dispose()


Die = Callable[[str], None]


@pytest.fixture
def die(urls: Urls, api: Database, connectors: Database, world: World, tmp_path: Path) -> Die:
    """Return a function: another process drives the connections until it dies at a failpoint, and its lease ends."""
    approvals = ApprovalKeys([Ed25519PrivateKey.generate()])
    api.keys = connectors.keys = ProcessKeys(approvals)

    def run(point: str) -> None:
        words = (urls.connectors, urls.redis, approvals.listed, world.tenant.slug, f"{tmp_path}", point)
        ended = subprocess.run(
            [sys.executable, "-c", DIE, *words], cwd=CHECKOUT, capture_output=True, text=True, check=False, timeout=60
        )
        assert ended.returncode == KILLED, ended.stderr
        with superuser_at(urls.superuser) as engine:
            write(engine, "UPDATE connections SET run_at = clock_timestamp() WHERE run_at IS NOT NULL")

    return run


def _events(db: Database) -> list[str]:
    return [row.action for row in read(db, "SELECT action FROM events WHERE action LIKE 'connection%' ORDER BY id")]


@pytest.mark.far
@pytest.mark.parametrize("point", [*OF_OPEN, "transaction.before_arm"])
def test_a_killed_workers_call_to_open_a_window_is_repeated_and_undone_when_the_window_ends(
    point: str, world: World, driver: ConnectionDriver, vendor: VendorSystem, die: Die
) -> None:
    request = world.submit()
    world.act("ann", Action.APPROVE, request.id)
    die(point)
    assert driver.begin(most=10) == 0, "it was promised"
    _run(driver, world.db)

    (row,) = read(world.db, "SELECT id, state FROM connections")
    assert (row.state, vendor.open) == ("open", {str(row.id)})
    assert _events(world.db) == ["connection_opened"]
    assert set(vendor.types) == {"open"}
    world.act("ann", Action.REVOKE, request.id)
    assert _run(driver, world.db) == {"closed": 1}
    assert vendor.open == set()


@pytest.mark.far
@pytest.mark.parametrize("point", OF_OPEN)
def test_a_killed_workers_call_to_open_a_window_leaves_nothing_open_after_the_window_ended(
    point: str, world: World, driver: ConnectionDriver, vendor: VendorSystem, die: Die
) -> None:
    request = world.submit()
    world.act("ann", Action.APPROVE, request.id)
    die(point)
    world.act("ann", Action.REVOKE, request.id)
    assert _run(driver, world.db) == {"closed": 1}

    assert vendor.open == set()
    assert _events(world.db)[-1] == "connection_closed"
    assert vendor.types[-2:] == ["close", "is_closed"]


@pytest.mark.far
@pytest.mark.parametrize("point", OF_CLOSE)
def test_a_killed_workers_call_to_close_a_window_is_repeated_and_recorded_once(
    point: str, world: World, driver: ConnectionDriver, vendor: VendorSystem, die: Die
) -> None:
    request = world.submit()
    world.act("ann", Action.APPROVE, request.id)
    driver.begin(most=10)
    assert _run(driver, world.db) == {"open": 1}
    world.act("ann", Action.REVOKE, request.id)
    die(point)
    _run(driver, world.db)

    assert vendor.open == set()
    assert read(world.db, "SELECT state FROM connections")[0].state == "closed"
    assert _events(world.db).count("connection_closed") == 1
    assert vendor.types[0] == "open"
    assert set(vendor.types[1:]) == {"close", "is_closed"}
