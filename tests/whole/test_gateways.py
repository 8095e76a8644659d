"""One table of calls against each real gateway: what is refused never reaches the service, what is judged does."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from api.app import make_app
from api.gateway import GateRuntime
from cli.stack import CHECKOUT
from config.catalogue_file import read_catalogue
from config.embedded import ServerAddresses
from config.gate_document import TokenIssuer
from config.service_catalogue import Catalogue
from gate import identity_map
from gate.identity_map import MappingInput
from harness.gateway_world import PUBLIC, SERVICE, GateMount, serving
from harness.people import HERE, SETTINGS, World
from harness.ports import own_port
from harness.stage import Urls, fresh_database, on_database
from harness.wait import wait_for
from lockbox.admin import tenants
from lockbox.database import Database, make_engine
from lockbox.identity.roles import Role, Scope
from lockbox.requests.lifecycle import Action
from lockbox.schedule import Schedule
from tests.oidc_issuer import AUDIENCE, LocalIssuer, local_issuer
from tests.whole import gateways
from tests.whole.gateways import HELLO, PATIENCE, EntranceAnswer, GatewayPlaces, LockboxLine, RecordingService, ask

KINDS = {"nginx": (gateways.nginx, gateways.running_nginx)}
BOUND = 1.0
"""A call that begins so many seconds after a revoke was answered is refused."""
SHUT_SECONDS = 4.0
"""A gateway whose Lockbox does not answer says no within this."""
NUMBERS = count(1)
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
    ("Lockbox-Gateway", "lbx_test_evil"),
    ("Lockbox-Request", "00000000-0000-0000-0000-000000000000"),
    ("Lockbox-Engineer", "evil"),
    ("Lockbox-Until", "9999-12-31T00:00:00Z"),
    ("Lockbox-Decision", "evil"),
    ("Lockbox_Request", "evil"),
    ("Lockbox-Anything", "evil"),
]


@dataclass
class Installation:
    """A Lockbox with a gate, an issuer whose tokens name engineers, and a service that a gateway stands before."""

    world: World
    db: Database
    urls: Urls
    issuer: LocalIssuer
    api: int
    service: RecordingService

    def token(self, subject: str = "erin-at-work", **changes: Any) -> str:
        """A token of the issuer for somebody."""
        now = int(time.time())
        claims: dict[str, Any] = {"sub": subject, "azp": "support-console", "iat": now, "exp": now + 300}
        return self.issuer.token(**claims | changes)


@dataclass
class Entrance:
    """One running gateway, and how clients come to it."""

    kind: str
    port: int
    line: LockboxLine
    home: Installation

    def ask(
        self,
        target: str,
        *more: tuple[str, str],
        method: str = "GET",
        token: str | None = "",
        host: str | None = None,
    ) -> EntranceAnswer:
        """Call by the gateway; with erin's token, or another one, or none."""
        headers = [("Host", host or f"{self.home.world.tenant.slug}.mail.example"), *more]
        if token is not None:
            headers.append(("Authorization", f"Bearer {token or self.home.token()}"))
        return ask(self.port, f"{method} {target} HTTP/1.1", headers)

    def refused(self, target: str, *more: tuple[str, str], **how: str | None) -> EntranceAnswer:
        """Call, and check that it is refused and nothing reaches the service."""
        before = len(self.home.service.seen)
        answer = self.ask(target, *more, **how)  # type: ignore[arg-type]
        assert answer.status >= 400, answer
        assert HELLO not in answer.body
        assert self.home.service.seen[before:] == []
        return answer

    def served(self, target: str, *more: tuple[str, str], **how: str | None) -> EntranceAnswer:
        """Call, and check that what reaches the service is what was asked for and what the gate judged."""
        before = len(self.home.service.seen)
        answer = self.ask(target, *more, **how)  # type: ignore[arg-type]
        assert answer.status == 200, answer
        (seen,) = self.home.service.seen[before:]
        judged = self.line.asked[-1]
        names = ("x-original-{}" if self.kind == "nginx" else "x-forwarded-{}").format
        asked = (how.get("method") or "GET", target, f"{self.home.world.tenant.slug}.mail.example")
        assert (seen.method, seen.target, seen.headers["host"]) == asked
        assert (judged[names("method")], judged[names("uri")], judged[names("host")]) == asked
        return answer

    def opened(self, address: str, **changes: Any) -> UUID:
        """Open a window for a mailbox, and wait until it is."""
        request = self.home.world.submit(**{"resources": [f"mailbox:{address}"]} | changes)
        request_id = self.home.world.act("ann", Action.APPROVE, request.id).id
        wait_for("the gate answers so", lambda: self.ask(f"/mailboxes/{address}").status == 200, PATIENCE)
        return request_id


def address() -> str:
    """A mailbox that no other test uses."""
    return f"m{next(NUMBERS)}@contoso.example"


def catalogue(issuer: LocalIssuer) -> Catalogue:
    """The catalogue that is shipped, with this issuer."""
    sample = read_catalogue(CHECKOUT / "deploy" / "catalogue.yaml")
    trusted = TokenIssuer(
        issuer=issuer.url,
        audience=AUDIENCE,
        azp=("support-console",),
        algorithms=("ES256",),
        jwks_url=f"{issuer.url}/jwks",
    )
    return Catalogue(services={SERVICE: sample.services[SERVICE]}, plans=sample.plans, issuers=(trusted,))


@contextmanager
def api_of(issuer: LocalIssuer, db: Database) -> Iterator[int]:
    """Serve the API with the gate before it."""
    app = make_app(SETTINGS.model_copy(update={"catalogue": catalogue(issuer), "public_url": PUBLIC}), db)
    gateway: GateRuntime = app.state.gateway
    with serving(GateMount(gateway, app)) as port:
        wait_for("the gate answers so", lambda: gateway.memory.was_read, PATIENCE)
        yield port


@pytest.fixture(scope="module")
def home(template: ServerAddresses) -> Iterator[Installation]:
    """Lockbox and the service, for all gateways."""
    with ExitStack() as ends:
        urls = ends.enter_context(fresh_database(template, flushes=False))
        db = Database(make_engine(urls.api, role="test-gateways"), Schedule(urls.redis))
        ends.callback(db.dispose)
        world, issuer = World.make(db), ends.enter_context(local_issuer())
        with db.transaction() as session:
            wanted = MappingInput(issuer.url, "erin-at-work", world.people["erin"].person_id)
            identity_map.add(session, world.people["olga"], HERE, wanted, frozenset({issuer.url}))
        service = RecordingService()
        ends.callback(service.close)
        api = ends.enter_context(api_of(issuer, db))
        yield Installation(world, db, urls, issuer, api, service)


@pytest.fixture(scope="module", params=KINDS)
def entrance(
    home: Installation, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Entrance]:
    """One gateway after another, each by its sample."""
    kind: str = request.param
    find, running = KINDS[kind]
    program = find()
    if program is None:
        (pytest.fail if gateways.is_demanded() else pytest.skip)(f"install {kind}")
    home.world.add(kind, Role.SYSTEM, scopes={Scope(f"gate:{kind}")}, services={SERVICE})
    line = LockboxLine(home.api)
    line.connect()
    folder = tmp_path_factory.mktemp(kind)
    places = GatewayPlaces(own_port(), line.port, home.service.port, home.world.tokens[kind])
    for each in (folder, *folder.parents[:2]):  # nginx' workers are nobody's
        each.chmod(0o755)
    with running(program, folder, places):
        yield Entrance(kind, places.entrance, line, home)
    line.cut()


def test_an_open_window_lets_in_and_the_service_learns_what_for(entrance: Entrance) -> None:
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
    assert (
        entrance.line.asked[-1]["x-original-method" if entrance.kind == "nginx" else "x-forwarded-method"] == "HEAD"
    )


def test_who_is_refused_is_told_why_and_where_to_ask(entrance: Entrance) -> None:
    mailbox = address()
    form = f"{PUBLIC}/ask?tenant={entrance.home.world.tenant.slug}&service={SERVICE}&resource=mailbox%3A"

    answer = entrance.refused(f"/mailboxes/{mailbox}")
    page = entrance.refused(f"/mailboxes/{mailbox}", ("Accept", "text/html,*/*"))

    assert (answer.status, page.status) == (403, 403)
    assert answer.headers["lockbox-reason"] == page.headers["lockbox-reason"] == "no_window"
    assert answer.headers["content-type"] == "application/problem+json"
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == page.headers["cache-control"] == "no-store"
    assert form.encode() in answer.body
    assert form.encode() in page.body.replace(b"&amp;", b"&")


def test_without_a_good_token_nobody_is_anybody(entrance: Entrance) -> None:
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
    entrance.refused(f"/mailboxes/{mailbox}", ("Authorization", f"Bearer {entrance.home.token('mallory')}"))


def test_a_window_is_for_its_resource_action_and_tenant(entrance: Entrance) -> None:
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


@pytest.mark.parametrize("spelling", RAW.values(), ids=RAW)
def test_a_path_in_any_other_spelling_is_refused(entrance: Entrance, spelling: str) -> None:
    mailbox = address()
    entrance.opened(mailbox, actions=["read", "export"])

    entrance.refused(spelling.format(mailbox))


@pytest.mark.parametrize(("name", "value"), FORGED)
def test_what_a_client_forges_is_refused_or_does_not_get_through(entrance: Entrance, name: str, value: str) -> None:
    open_one, shut_one = address(), address()
    request_id = entrance.opened(open_one)

    entrance.refused(f"/mailboxes/{shut_one}", (name, value))
    entrance.refused(f"/mailboxes/{shut_one}", (name, f"/mailboxes/{open_one}"))
    before = len(entrance.home.service.seen)
    answer = entrance.ask(f"/mailboxes/{open_one}", (name, value))

    for seen in entrance.home.service.seen[before:]:
        assert seen.target == f"/mailboxes/{open_one}"
        assert seen.headers["lockbox-request"] == str(request_id)
        assert value not in seen.headers.values()
        assert not any("evil" in one for one in seen.headers.values())
    assert (answer.status == 200) is (len(entrance.home.service.seen) > before)


def test_a_revoked_window_is_shut_within_a_second(entrance: Entrance) -> None:
    mailbox = address()
    request_id = entrance.opened(mailbox)

    entrance.home.world.act("tara", Action.REVOKE, request_id)
    answered = time.monotonic()

    while True:
        began = time.monotonic()
        if entrance.ask(f"/mailboxes/{mailbox}").status == 403:
            break
        assert began < answered + BOUND
    assert entrance.refused(f"/mailboxes/{mailbox}").headers["lockbox-reason"] == "no_window"


def test_a_window_is_shut_at_its_deadline(entrance: Entrance) -> None:
    mailbox = address()
    entrance.opened(mailbox, access_window=2)

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


@pytest.mark.parametrize("silent", [False, True], ids=["dead", "slow"])
def test_without_an_answer_of_lockbox_it_is_shut_and_soon(entrance: Entrance, *, silent: bool) -> None:
    mailbox = address()
    entrance.opened(mailbox)

    with lockbox_away(entrance, silent=silent):
        began = time.monotonic()
        answer = entrance.refused(f"/mailboxes/{mailbox}")
        assert time.monotonic() - began < SHUT_SECONDS
        assert answer.status in {502, 503, 504}
    wait_for("the gate answers so", lambda: entrance.ask(f"/mailboxes/{mailbox}").status == 200, PATIENCE)


def test_with_redis_dead_a_window_opens_and_is_shut_as_soon(entrance: Entrance) -> None:
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
    db.dispose()


def test_with_postgres_dead_it_is_shut_and_comes_back_by_itself(entrance: Entrance) -> None:
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


def test_a_suspended_tenant_is_shut(entrance: Entrance) -> None:
    mailbox, world = address(), entrance.home.world
    entrance.opened(mailbox)
    with world.db.transaction() as session:
        tenants.suspend(session, world.people["olga"], HERE, world.tenant.slug)
    time.sleep(BOUND)

    assert entrance.refused(f"/mailboxes/{mailbox}").headers["lockbox-reason"] == "suspended"

    with world.db.transaction() as session:
        tenants.resume(session, world.people["olga"], HERE, world.tenant.slug)
