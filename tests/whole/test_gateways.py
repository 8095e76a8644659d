"""One table of calls against each real gateway: a refused call never reaches the service, an allowed one does."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, IncompleteRead
from pathlib import Path
from uuid import UUID

import pytest
from _pytest.mark import ParameterSet
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from typer.testing import CliRunner

from cli.app import app
from devstack.embedded import ServerAddresses
from harness.gateway_world import PUBLIC, SERVICE
from harness.network import HOST
from harness.people import HERE
from harness.ports import own_port
from harness.stage import on_database
from harness.wait import wait_for
from lockbox.admin import tenants
from lockbox.database import Database, make_engine
from lockbox.requests.lifecycle import Action
from lockbox.schedule import Schedule
from tests.programs import absent
from tests.whole.entrances import PATIENCE, Entrance, Installation, address, api_of, entered, installed
from tests.whole.gateways import KINDS, LONGEST_SECONDS, is_demanded
from tests.whole.recording_service import ENDLESS, ENDLESS_SECONDS, HELLO

NEAR = frozenset({"nginx"})
"""Those that `make test` runs; it has no time for all."""
OpenMailbox = tuple[str, UUID]
BOUND = 1.0
"""A call that begins so many seconds after a revoke was answered is refused."""
SHUT_SECONDS = 20.0
"""A gateway whose Lockbox does not answer says no within this."""
TERMINATE = text("""
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name AND usename = 'lockbox_api'
""")
OWN = ("request", "engineer", "tenant", "resource", "action", "until", "decision")
RAW = {
    "two slashes": "//mailboxes/{}",
    "two slashes inside": "/mailboxes//{}",
    "dot segments": "/x/../mailboxes/{}",
    "above the root": "/../mailboxes/{}",
    "dot": "/mailboxes/./{}",
    "encoded dots": "/x/%2e%2e/mailboxes/{}",
    "encoded slash": "/mailboxes%2f{}",
    "encoded slash in capitals": "/mailboxes/x%2F{}",
    "double encoding": "/mailboxes/x%252F{}",
    "semicolon": "/mailboxes/{};a=b",
    "backslash": "/mailboxes\\{}",
    "encoded backslash": "/mailboxes/x%5C{}",
    "encoded zero": "/mailboxes/{}%00",
    "needlessly encoded": "/%6dailboxes/{}",
    "slash at the end": "/mailboxes/{}/",
    "capitals": "/Mailboxes/{}",
    "fragment": "/mailboxes/{}#x",
    "empty query": "/mailboxes/{}?",
    "unknown parameter": "/mailboxes/{}?x=1",
    "repeated parameter": "/mailboxes/{}?trace=1&trace=2",
    "repeated parameter of the mapping": "/mailboxes/{}/archive?format=mbox&format=pst",
    "other parameter of the mapping": "/mailboxes/{}/archive?format=pst",
    "the gate itself": "/lockbox-gate",
    "the gate's own path": "/gate/v1/exchange-online",
    "unmapped": "/",
}
REWRITTEN = frozenset({("traefik", "needlessly encoded")})
"""What a gateway writes in the one spelling before it asks: what it asks about is what it serves."""
FORGED = [
    ("X-Original-URI", "/mailboxes/evil@contoso.example"),
    ("X-Original-Method", "DELETE"),
    ("X-Original-Host", "evil.mail.example"),
    ("X-Original-URL", "/evil"),
    ("X-Rewrite-URL", "/evil"),
    ("X-Forwarded-Uri", "/mailboxes/evil@contoso.example"),
    ("X-Forwarded-Method", "DELETE"),
    ("X-Forwarded-Host", "evil.mail.example"),
    ("X-Forwarded-For", "203.0.113.7"),
    ("X-Forwarded-Path", "/evil"),
    ("X-HTTP-Method-Override", "DELETE"),
    ("Forwarded", "host=evil.mail.example"),
    ("Connection", "Lockbox-Request, X-Forwarded-Uri"),
    ("Lockbox-Gateway", "lbx_test_evil"),
    ("Lockbox-Request", "00000000-0000-0000-0000-000000000000"),
    ("Lockbox-Engineer", "evil"),
    ("Lockbox-Until", "9999-12-31T00:00:00Z"),
    ("Lockbox-Decision", "evil"),
    ("Lockbox-Break-Glass", "true"),
    ("Lockbox_Request", "evil"),
    ("Lockbox.Request", "evil"),
    ("X_Forwarded_Uri", "evil"),
    ("Lockbox-Anything", "evil"),
]


def far(kind: str) -> ParameterSet:
    """A gateway that `make test-far` runs."""
    return pytest.param(kind, marks=pytest.mark.far)


@pytest.fixture(scope="module")
def home(template: ServerAddresses) -> Iterator[Installation]:
    with installed(template) as home:
        yield home


@pytest.fixture(scope="module", params=[kind if kind in NEAR else far(kind) for kind in KINDS])
def entrance(
    home: Installation, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Entrance]:
    kind: str = request.param
    gateway = KINDS[kind]
    program = gateway.find()
    if program is None:
        (pytest.fail if is_demanded() else pytest.skip)(absent(kind))
    with entered(home, kind, gateway, program, tmp_path_factory.mktemp(kind)) as entrance:
        yield entrance


@pytest.fixture(scope="module")
def opened_before() -> dict[str, OpenMailbox]:
    """For each kind of gateway, the mailbox that `opened` opened last."""
    return {}


@pytest.fixture
def opened(entrance: Entrance, opened_before: dict[str, OpenMailbox]) -> OpenMailbox:
    """A mailbox with a window to read and export, shared by tests that leave it open; a suspension ends it."""
    found = opened_before.get(entrance.kind)
    if found is None or entrance.ask(f"/mailboxes/{found[0]}").status != 200:
        mailbox = address()
        found = opened_before[entrance.kind] = mailbox, entrance.opened(mailbox, actions=["read", "export"])
    return found


def test_a_gateway_admits_a_call_covered_by_an_open_window_and_describes_the_window_in_headers(
    entrance: Entrance,
) -> None:
    mailbox = address()
    request_id = entrance.opened(mailbox)

    answer = entrance.served(f"/mailboxes/{mailbox}")

    assert answer.body == HELLO
    shown = entrance.home.service.seen[-1].headers
    assert {name: shown[f"lockbox-{name}"] for name in OWN if name != "until"} == {
        "request": str(request_id),
        "engineer": str(entrance.home.world.people["erin"].person_id),
        "tenant": entrance.home.world.tenant.slug,
        "resource": f"mailbox:{mailbox}",
        "action": "read",
        "decision": "allow",
    }
    assert "lockbox-gateway" not in shown
    entrance.served(f"/mailboxes/{mailbox}?trace=%C3%A4")
    entrance.served(f"/mailboxes/{mailbox}/messages/a%20b", method="GET")
    assert entrance.ask(f"/mailboxes/{mailbox}", method="HEAD").status == 200
    assert entrance.line.asked[-1][entrance.names[0]] == "HEAD"


def test_a_caller_refused_by_a_gateway_learns_why_and_where_to_request_access(entrance: Entrance) -> None:
    mailbox = address()
    form = f"{PUBLIC}/ask?tenant={entrance.home.world.tenant.slug}&service={SERVICE}&resource=mailbox%3A"

    answer = entrance.refused(f"/mailboxes/{mailbox}")
    page = entrance.refused(f"/mailboxes/{mailbox}", ("Accept", "text/html,*/*"))

    assert (answer.status, page.status) == (403, 403)
    assert answer.headers["lockbox-reason"] == page.headers["lockbox-reason"] == "no_window"
    assert answer.headers["content-type"] == "application/problem+json"
    said = json.loads(answer.body)
    assert (said["type"], said["status"], said["code"]) == ("urn:lockbox:problem:gate-no-window", 403, "no_window")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == page.headers["cache-control"] == "no-store"
    assert form.encode() in answer.body
    assert form.encode() in page.body.replace(b"&amp;", b"&")


def test_a_gateway_knows_no_caller_without_a_valid_token(entrance: Entrance) -> None:
    mailbox = address()
    entrance.opened(mailbox)
    old = int(time.time()) - 600

    for token, status, reason in (
        (None, 401, "no_token"),
        ("nonsense", 401, "bad_token"),
        (entrance.home.token(iat=old, exp=old + 300), 401, "bad_token"),
        (entrance.home.token(aud="another"), 401, "bad_token"),
        (entrance.home.token("mallory"), 403, "unknown_engineer"),
    ):
        answer = entrance.refused(f"/mailboxes/{mailbox}", token=token)
        assert (answer.status, answer.headers["lockbox-reason"]) == (status, reason)
        said = json.loads(answer.body)
        assert said["type"] == f"urn:lockbox:problem:gate-{reason.replace('_', '-')}"
        assert said["status"] == status
    entrance.refused(f"/mailboxes/{mailbox}", ("Authorization", f"Bearer {entrance.home.token('mallory')}"))


def test_at_a_gateway_a_window_covers_only_its_resource_and_action_and_tenant(entrance: Entrance) -> None:
    mailbox = address()
    entrance.opened(mailbox)

    for target, method, host in (
        (f"/mailboxes/{address()}", "GET", None),
        (f"/mailboxes/{mailbox}/messages/1", "DELETE", None),
        (f"/mailboxes/{mailbox}/messages/1", "PUT", None),
        (f"/mailboxes/{mailbox}/archive?format=mbox", "GET", None),
        (f"/mailboxes/{mailbox}", "POST", None),
        (f"/mailboxes/{mailbox}", "OPTIONS", None),
        (f"/mailboxes/{mailbox}", "PROPFIND", None),
        (f"/mailboxes/{mailbox}", "GET", "fabrikam.mail.example"),
        (f"/mailboxes/{mailbox}", "GET", "evil.example"),
    ):
        entrance.refused(target, method=method, host=host)


def test_a_gateway_refuses_the_part_omitted_from_a_narrowed_window(entrance: Entrance) -> None:
    mailbox, other = address(), address()
    world, kept = entrance.home.world, [f"mailbox:{mailbox}"]
    request = world.submit(resources=[*kept, f"mailbox:{other}"])
    world.act("ann", Action.APPROVE, request.id, resources=kept)
    wait_for("the gate answers so", lambda: entrance.ask(f"/mailboxes/{mailbox}").status == 200, PATIENCE)

    answer = entrance.refused(f"/mailboxes/{other}")

    assert (answer.status, answer.headers["lockbox-reason"]) == (403, "narrowed")


@pytest.mark.parametrize("spelling", RAW)
def test_a_gateway_refuses_a_path_in_another_spelling(entrance: Entrance, opened: OpenMailbox, spelling: str) -> None:
    mailbox, _ = opened
    target = RAW[spelling].format(mailbox)

    if (entrance.kind, spelling) in REWRITTEN:
        assert entrance.ask(target).status == 200
        seen, judged = entrance.home.service.seen[-1], entrance.line.asked[-1]
        assert seen.target == judged[entrance.names[1]] == f"/mailboxes/{mailbox}"
    else:
        entrance.refused(target)


@pytest.mark.parametrize(("name", "value"), FORGED)
def test_a_gateway_refuses_or_strips_forgeable_headers(
    entrance: Entrance, opened: OpenMailbox, name: str, value: str
) -> None:
    (open_one, request_id), shut_one = opened, address()

    entrance.refused(f"/mailboxes/{shut_one}", (name, value))
    entrance.refused(f"/mailboxes/{shut_one}", (name, f"/mailboxes/{open_one}"))
    before = len(entrance.home.service.seen)
    answer = entrance.ask(f"/mailboxes/{open_one}", (name, value))

    for seen in entrance.home.service.seen[before:]:
        assert seen.target == f"/mailboxes/{open_one}"
        assert seen.headers["lockbox-request"] == str(request_id)
        assert value not in seen.headers.values()
        assert not any("evil" in header for header in seen.headers.values())
    assert (answer.status == 200) is (len(entrance.home.service.seen) > before)


def test_a_gateway_refuses_a_revoked_window_within_a_second(entrance: Entrance) -> None:
    mailbox = address()
    request_id = entrance.opened(mailbox)

    entrance.home.world.act("tara", Action.REVOKE, request_id)
    answered = time.monotonic()

    while True:
        began = time.monotonic()
        if entrance.ask(f"/mailboxes/{mailbox}").status >= 400:
            break
        assert began < answered + BOUND
    assert entrance.refused(f"/mailboxes/{mailbox}").headers["lockbox-reason"] == "no_window"


def test_a_probe_finds_no_hole_in_a_gateway(entrance: Entrance, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(entrance.home.token())
    before = len(entrance.home.service.seen)
    url, host = f"http://{HOST}:{entrance.port}", f"{entrance.home.world.tenant.slug}.mail.example"
    command = ["gate", "probe", url, "--target", f"/mailboxes/{address()}", "--host", host, "--output", "json"]

    found = CliRunner().invoke(app, [*command, "--token-file", str(tmp_path / "token")])

    assert found.exit_code == 0, found.stdout
    assert '"holes": []' in found.stdout
    assert entrance.home.service.seen[before:] == []


def test_a_body_sent_through_a_gateway_reaches_the_service_and_never_lockbox(entrance: Entrance) -> None:
    mailbox = address()
    entrance.opened(mailbox, actions=["read", "change"])

    entrance.served(f"/mailboxes/{mailbox}/messages/1", ("Content-Length", "4"), method="PUT", body=b"body")

    assert entrance.home.service.seen[-1].body == b"body"
    asked = entrance.line.asked[-1]
    assert asked.get("content-length", "0") in {"", "0"}
    assert "transfer-encoding" not in asked


@pytest.mark.parametrize("kind", ["application/grpc", "application/grpc-web+proto", "application/graphql"])
def test_a_gateway_refuses_a_call_whose_action_depends_on_its_body(
    entrance: Entrance, opened: OpenMailbox, kind: str
) -> None:
    target = f"/mailboxes/{opened[0]}"
    entrance.served(target, ("Content-Type", "application/json"))
    assert entrance.home.service.seen[-1].headers["content-type"] == "application/json"

    answer = entrance.refused(target, ("Content-Type", kind))

    assert (answer.status, answer.headers["lockbox-reason"]) == (403, "unmapped")


def test_a_gateway_refuses_graphql_at_its_usual_address_in_any_content_type(entrance: Entrance) -> None:
    query = b'{"query": "{ mailbox { messages } }"}'
    for kind in ("application/json", "application/graphql", "text/plain"):
        sent = ("Content-Type", kind), ("Content-Length", str(len(query)))

        answer = entrance.refused("/graphql", *sent, method="POST", body=query)

        assert (answer.status, answer.headers["lockbox-reason"]) == (403, "unmapped")


def test_a_gateway_asks_lockbox_about_each_call_of_a_connection(entrance: Entrance) -> None:
    open_one, shut_one = address(), address()
    entrance.opened(open_one)
    headers = {
        "Host": f"{entrance.home.world.tenant.slug}.mail.example",
        "Authorization": f"Bearer {entrance.home.token()}",
    }
    connection = HTTPConnection(HOST, entrance.port, timeout=PATIENCE)

    for target, status in ((open_one, 200), (shut_one, 403), (open_one, 200)):
        connection.request("GET", f"/mailboxes/{target}", headers=headers)
        answer = connection.getresponse()
        assert (answer.status, HELLO in answer.read()) == (status, status == 200)
    connection.close()


def test_an_answer_continuing_past_a_revoke_is_cut_at_the_gateways_time_limit(entrance: Entrance) -> None:
    mailbox = address()
    request_id = entrance.opened(mailbox)
    headers = {
        "Host": f"{entrance.home.world.tenant.slug}.mail.example",
        "Authorization": f"Bearer {entrance.home.token()}",
    }
    connection = HTTPConnection(HOST, entrance.port, timeout=PATIENCE)
    began = time.monotonic()
    connection.request("GET", f"/mailboxes/{mailbox}{ENDLESS}", headers=headers)
    answer = connection.getresponse()
    entrance.home.world.act("tara", Action.REVOKE, request_id)

    if KINDS[entrance.kind].bounds_answers:
        with pytest.raises(IncompleteRead):
            answer.read()
        assert LONGEST_SECONDS - 1 < time.monotonic() - began < ENDLESS_SECONDS - 10
    else:
        assert answer.read(15), "its page says that it goes on"
    connection.close()


@pytest.mark.far
def test_a_gateway_refuses_a_window_at_its_deadline(entrance: Entrance) -> None:
    mailbox = address()
    entrance.opened(mailbox, access_window=10)

    wait_for("the gate answers so", lambda: entrance.ask(f"/mailboxes/{mailbox}").status == 403, PATIENCE)

    assert entrance.refused(f"/mailboxes/{mailbox}").headers["lockbox-reason"] == "no_window"


@contextmanager
def lockbox_away(entrance: Entrance, *, silent: bool) -> Iterator[None]:
    line = entrance.line
    line.cut()
    line.is_silent = silent
    if silent:
        line.connect()
    try:
        yield
    finally:
        line.cut()
        line.is_silent = False
        line.connect()


@pytest.mark.far
@pytest.mark.parametrize("silent", [False, True], ids=["dead", "slow"])
def test_a_gateway_refuses_calls_within_seconds_if_lockbox_does_not_answer(
    entrance: Entrance, *, silent: bool
) -> None:
    mailbox = address()
    entrance.opened(mailbox)

    with lockbox_away(entrance, silent=silent):
        began = time.monotonic()
        answer = entrance.refused(f"/mailboxes/{mailbox}")
        assert time.monotonic() - began < SHUT_SECONDS
        assert answer.status in {502, 503, 504}
    wait_for("the gate answers so", lambda: entrance.ask(f"/mailboxes/{mailbox}").status == 200, PATIENCE)


def test_a_window_opens_and_closes_at_a_gateway_as_quickly_without_redis_as_with_redis(entrance: Entrance) -> None:
    home = entrance.home
    db = Database(make_engine(home.urls.api, role="test-no-redis"), Schedule(f"redis://127.0.0.1:{own_port()}/0"))
    with api_of(home.issuer, db) as port:
        entrance.line.target = port
        entrance.line.drop()
        try:
            mailbox = address()
            request_id = entrance.opened(mailbox)
            entrance.served(f"/mailboxes/{mailbox}")
            home.world.act("tara", Action.REVOKE, request_id)
            time.sleep(BOUND)
            assert entrance.refused(f"/mailboxes/{mailbox}").status == 403
        finally:
            entrance.line.target = home.api
            entrance.line.drop()
            wait_for("the gate answers again", lambda: entrance.ask("/").status == 403, PATIENCE)
    db.dispose()


@pytest.mark.far
def test_without_postgres_a_gateway_refuses_calls_and_later_recovers(entrance: Entrance) -> None:
    mailbox, urls = address(), entrance.home.urls
    entrance.opened(mailbox)
    name = make_url(urls.api).database
    elsewhere = create_engine(on_database(urls.superuser, "postgres"), isolation_level="AUTOCOMMIT")
    with elsewhere.connect() as root:
        root.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false"))
        root.execute(TERMINATE, {"name": name})
        try:
            time.sleep(2)
            assert entrance.refused(f"/mailboxes/{mailbox}").headers["lockbox-reason"] in {"behind", "no_answer"}
        finally:
            root.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true"))
    elsewhere.dispose()
    wait_for("the gate answers so", lambda: entrance.ask(f"/mailboxes/{mailbox}").status == 200, PATIENCE)


def reason_for(entrance: Entrance, mailbox: str) -> str:
    return entrance.refused(f"/mailboxes/{mailbox}").headers["lockbox-reason"]


@pytest.mark.far
def test_a_gateway_refuses_a_suspended_tenant(entrance: Entrance) -> None:
    mailbox, world = address(), entrance.home.world
    entrance.opened(mailbox)
    with world.db.transaction() as session:
        tenants.suspend(session, world.people["olga"], HERE, world.tenant.slug)
    time.sleep(BOUND)

    assert reason_for(entrance, mailbox) == "suspended"

    with world.db.transaction() as session:
        tenants.resume(session, world.people["olga"], HERE, world.tenant.slug)
    wait_for("the tenant is resumed", lambda: reason_for(entrance, mailbox) == "no_window", PATIENCE)
