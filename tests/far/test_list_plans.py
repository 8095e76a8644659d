"""With two hundred thousand closed requests, no list, search or count reads rows that do not belong to its page."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import create_engine, text

from devstack.embedded import ServerAddresses
from harness import history
from harness.history import HistoryPattern
from harness.people import World, add_endpoint
from harness.stage import fresh_database, setting
from lockbox.admin import statistics
from lockbox.admin.statistics import MOST_COUNTED as MOST_COUNTED_REQUESTS
from lockbox.database import Database, make_engine
from lockbox.identity.roles import Role
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from lockbox.requests.request_list import cursor_after
from lockbox.schedule import Schedule
from tests.http.door import LoopThread
from tests.http.portal import Browser, Portal
from tests.list_plans import PlanLog, growing_tables, note_plans, plans_of

REQUESTS = 200_000
"""Sixty times what a statement may read: more of them only take longer to write."""
CLOSED = "SELECT id FROM requests WHERE tenant_id = :tenant AND state = 'expired' ORDER BY id LIMIT 1 OFFSET 5000"
WAITING = "SELECT id FROM requests WHERE tenant_id = :tenant AND state = 'pending' LIMIT 1"
ENDPOINT = text("SELECT id FROM endpoints")
OPEN = 900
LATER = datetime.now(UTC) - timedelta(days=180)
STATES = ("reviewing", "pending", "active", "denied", "cancelled", "timed_out", "completed", "revoked", "expired")
FILTERS = (
    {},
    *({"state": state} for state in STATES),
    {"service": "onedrive"},
    {"level": "admin"},
    {"text": "nowhere to be found"},
    {"text": "CASE-0000"},
    {"created_after": "2026-03-01T00:00:00Z", "created_before": "2026-03-02T00:00:00Z"},
    {"engineer": "Erin"},
    {"engineer": "nobody"},
    {"state": "denied", "text": "mailbox"},
)
SINCE = ({"created_after": "2026-01-01T00:00:00Z"}, {"created_before": "2020-01-01T00:00:00Z"})
AUDITORS = ("tara", "aude", "vera", "small-auditor")
SEARCHES: tuple[dict[str, str], ...] = (
    {},
    {"action": "expire"},
    {"action": "policy_changed"},
    {"person": str(UUID(int=1))},
    {"service": "onedrive"},
    {"request": "{request}"},
    {"text": "nowhere to be found"},
    {"after": "2026-03-01T00:00:00Z", "before": "2026-03-02T00:00:00Z"},
    {"before": "2020-01-01T00:00:00Z"},
)
READERS = ("erin", "rare", "max", "vera", "ann", "tara", "aude", "small", "olga")
PAGES = {
    "/requests": READERS,
    "/requests?text=nowhere": READERS,
    "/requests?state=denied": READERS,
    "/requests?from=2026-03-01&to=2026-03-02": READERS,
    "/waiting": ("ann", "tara", "small"),
    "/open": ("ann", "tara", "small", "max", "erin"),
    "/mine": ("erin", "rare"),
    "/review": ("max",),
    "/requests/{request}": ("erin", "max", "vera", "ann", "tara", "aude"),
    "/requests/{pending}": ("erin", "max", "ann"),
    "/requests/{request}/questions": ("ann",),
    "/audit-log": ("tara", "aude", "vera"),
    "/tenants": ("olga", "vera"),
    "/tenants/{slug}": ("tara", "ann", "aude"),
    "/tenants/{slug}/emergency-stop": ("tara",),
    "/tenants/{slug}/mode": ("tara",),
    "/tenants/{slug}/policy": ("tara",),
    "/tenants/{slug}/members": ("tara",),
    "/tenants/{slug}/delegates": ("tara",),
    "/tenants/{slug}/observers": ("tara",),
    "/tenants/{slug}/endpoints": ("tara",),
    "/tenants/{slug}/endpoints/{endpoint}": ("tara",),
    "/account": ("ann", "erin"),
    "/v1/me": ("ann",),
    "/v1/findings": ("ann",),
    "/v1/tenants": ("tara", "olga", "erin"),
    "/v1/tenants/{slug}": ("tara",),
    "/v1/tenants/{slug}/policy/versions": ("tara",),
    "/v1/tenants/{slug}/members": ("tara",),
    "/v1/endpoints/{endpoint}/deliveries": ("tara",),
    "/v1/vendor/data": ("olga", "vera"),
    "/v1/vendor/undelivered": ("olga",),
    "/v1/vendor/members": ("olga",),
    "/v1/requests/{request}": ("erin", "max", "ann"),
    "/v1/requests/{request}/events": ("erin", "max", "ann"),
    "/v1/requests/{request}/notifications": ("erin", "max", "ann"),
    "/v1/requests/{request}/activity": ("ann",),
    "/v1/audit/report?request={request}": ("aude",),
}
MANY_IDS = (("requests", "tenant_id"), ("requests", "requester_id"), ("events", "log_id"))
FOUND_NOWHERE: tuple[dict[str, str], ...] = ({}, {"state": "denied"}, {"text": "nowhere to be found"})
UNSEEN = 2_000
COSTS = ("random_page_cost = 8", "effective_cache_size = '8kB'", "cpu_operator_cost = 0.0001")
"""What makes it seem cheaper to read and sort all of a tenant's requests than to go back along an index."""
MOST_COUNTED = 30_000
"""What the operators' page may read in one statement: counts of what is open, unsent and dead, by indexes."""


@dataclass
class Archive:
    """A portal with all closed requests, a browser for each reader, and the query plans of what they read."""

    portal: Portal
    log: PlanLog
    growing: frozenset[str]
    browsers: dict[str, Browser]
    names: dict[str, object]

    def check(self, who: str, path: str, query: Mapping[str, str] | None = None, most_counted: int = 0) -> None:
        """Fail if an SQL statement of a call reads more as tables grow."""
        sought = query and {name: value.format(**self.names) for name, value in query.items()}
        with self.log.kept() as plans:
            answer = self.browsers[who].client.get(path.format(**self.names), params=sought)
            found = self.portal.runner.run(answer)
        assert found.status_code < 400, found.text
        assert plans
        if faults := [f"{said}: {plan}" for plan in plans for said in plan.faults(self.growing, most_counted)]:
            pytest.fail("\n\n".join(faults), pytrace=False)


@pytest.fixture(scope="module")
def archive(template: ServerAddresses) -> Iterator[Archive]:
    """A year of closed requests of three tenants, and a few thousand open ones."""
    with fresh_database(template) as urls, LoopThread.open() as runner:
        note_plans(urls.superuser)
        engine = make_engine(urls.api, role="test-lists")
        log, db = plans_of(engine), Database(engine, Schedule(urls.redis))
        world = World.make(db, Policy())
        second, third = (World.make(db) for _ in range(2))
        world.add("rare", Role.ENGINEER)
        for name, whose in (("small", "ann"), ("small-auditor", "aude")):
            world.people[name], world.tokens[name] = third.people[whose], third.tokens[whose]
        root = create_engine(urls.superuser, isolation_level="AUTOCOMMIT")
        worker = Database(make_engine(urls.worker, role="test-worker"), Schedule(urls.redis))
        pattern = _pattern(world, (second, third))
        history.write_history(urls.superuser, pattern, REQUESTS)
        history.write_open(urls.superuser, pattern, OPEN)
        portal = Portal(world, db, worker, root, runner)
        browsers = {name: portal.browser() for name in {*READERS, *AUDITORS}}
        for name, browser in browsers.items():
            browser.enter(name)
            browser.client.headers["authorization"] = f"Bearer {world.tokens[name]}"
        (closed,), (waiting,) = (portal.sql(query, tenant=world.tenant.id) for query in (CLOSED, WAITING))
        names = {"slug": world.tenant.slug, "endpoint": pattern.endpoint, "request": closed.id, "pending": waiting.id}
        yield Archive(portal, log, growing_tables(root), browsers, names)
        for one in (db, worker, root):
            one.dispose()


def _pattern(world: World, others: tuple[World, World]) -> HistoryPattern:
    request = world.submit()
    world.act("max", Action.ENDORSE, request.id)
    world.act("ann", Action.APPROVE, request.id)
    world.act("ann", Action.REVOKE, request.id, comment="It is over")
    with setting(world.db).transaction() as session:
        add_endpoint(session, "https://hooks.example.test/", world.tenant.id)
    with setting(world.db).transaction() as session:
        endpoint = session.execute(ENDPOINT).scalar_one()
    erin, eve, rare = (world.people[name].person_id for name in ("erin", "eve", "rare"))
    tenants = world.tenant.id, others[0].tenant.id, others[1].tenant.id
    return HistoryPattern(request.id, tenants, (erin, eve, rare), endpoint)


@pytest.mark.parametrize("who", READERS)
@pytest.mark.parametrize("query", [*FILTERS, *SINCE], ids=str)
def test_an_api_list_reads_only_rows_of_the_requested_page(archive: Archive, who: str, query: dict[str, str]) -> None:
    archive.check(who, "/v1/requests", query)


@pytest.mark.parametrize("who", AUDITORS)
@pytest.mark.parametrize("query", SEARCHES, ids=str)
def test_an_audit_log_search_reads_only_rows_of_the_requested_page(
    archive: Archive, who: str, query: dict[str, str]
) -> None:
    archive.check(who, "/v1/audit", query)


@pytest.mark.parametrize("who", READERS)
def test_a_later_page_of_a_list_reads_no_more_rows_than_the_first(archive: Archive, who: str) -> None:
    later = {"cursor": cursor_after(UUID(int=int(LATER.timestamp() * 1000) << 80)), "limit": "200"}

    archive.check(who, "/v1/requests", later)


@pytest.fixture
def many_tenants(archive: Archive) -> Iterator[Archive]:
    """Planner statistics by which there are 2,000 tenants, engineers and logs, one of which has most of the rows."""
    _expect(archive, "SET (n_distinct = 2000)")
    yield archive
    _expect(archive, "RESET (n_distinct)")


def _expect(archive: Archive, ids: str) -> None:
    with archive.portal.root.connect() as connection:
        for table, column in MANY_IDS:
            connection.execute(text(f"ALTER TABLE {table} ALTER {column} {ids}"))
        connection.execute(text("ANALYZE requests, events"))


@pytest.mark.parametrize("path", ["/v1/requests", "/v1/audit"])
def test_a_list_of_one_tenant_among_thousands_reads_only_rows_of_the_requested_page(
    many_tenants: Archive, path: str
) -> None:
    sought = SEARCHES if path == "/v1/audit" else FOUND_NOWHERE
    for who in ("tara", "vera") if path == "/v1/audit" else ("erin", "rare", "max", "ann", "tara"):
        for query in sought:
            many_tenants.check(who, path, query)


@pytest.mark.parametrize(("path", "who"), [(path, who) for path, people in PAGES.items() for who in people])
def test_a_portal_page_reads_only_the_rows_it_shows(archive: Archive, path: str, who: str) -> None:
    archive.check(who, path)


@pytest.mark.parametrize("who", AUDITORS)
@pytest.mark.parametrize("path", ["/statistics", "/v1/statistics", "/v1/statistics/export"])
def test_statistics_read_a_bounded_number_of_requests(archive: Archive, who: str, path: str) -> None:
    # An auditor of a customer does not see those that no manager has endorsed: they are read on the way, not counted.
    archive.check(who, path, most_counted=MOST_COUNTED_REQUESTS + UNSEEN)


@pytest.mark.parametrize("cost", COSTS)
def test_statistics_read_a_bounded_number_of_rows_even_if_another_query_plan_seems_cheaper(
    archive: Archive, cost: str
) -> None:
    db, tara = archive.portal.db, archive.portal.world.people["tara"]
    with db.transaction() as session, archive.log.kept() as plans:
        for setting_up in (f"SET LOCAL {cost}", "DISCARD PLANS"):
            session.execute(text(setting_up))
        assert statistics.read(session, tara, None).counted_from

    bounded = MOST_COUNTED_REQUESTS + UNSEEN
    assert [fault for plan in plans for fault in plan.faults(archive.growing, bounded)] == []


def test_the_operations_page_scans_no_table(archive: Archive) -> None:
    archive.check("olga", "/operations", most_counted=MOST_COUNTED)
