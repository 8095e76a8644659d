"""The operators' page: the figures of the status, charts with the same numbers in a table, and no contents."""

import re
from collections.abc import Iterator
from dataclasses import replace
from uuid import UUID

import pytest

from gate import enforcement
from gate.memory_reader import GATE
from harness.outbox import fan_out_all
from harness.stage import as_sender, unbound
from lockbox.database import Database
from lockbox.identity import authentication
from lockbox.monitoring import operations, status
from lockbox.monitoring.status import MOST_UNSENT_AGE
from lockbox.notifications.senders.protocol import SendFailed
from lockbox.requests.lifecycle import Action
from lockbox.schedule import Schedule
from lockbox.sql import new_id
from tests.database.postbag import Postbag, open_notifications
from tests.database.scenes import write
from tests.http.portal import SETTINGS, Portal, PortalPage

URL = "https://hooks.contoso.example/"
AGED = """
UPDATE notifications SET id = uuidv7(interval '-10 minutes') WHERE request_id = :request_id AND channel = :channel
"""
OVER = """
UPDATE notifications SET outcome = 'sent', closed_at = coalesce(closed_at, now())
WHERE closed_at IS NULL OR outcome = 'dead'
"""
DIE = """
UPDATE notifications SET outcome = 'dead', closed_at = now()
WHERE id = (SELECT id FROM notifications WHERE channel = 'mail' LIMIT 1)
"""
ANSWERED = """
INSERT INTO gate_answers VALUES ('hour', now(), :gateway, 'exchange-online', 'would-deny', 'unmapped', 1207)
"""
FORGET = (
    "DELETE FROM reported_calls",
    "DELETE FROM gate_answers",
    "DELETE FROM enforcement_switches",
    "DELETE FROM enforcements",
)
JUSTIFICATION = "Nobody must read this sentence"


@pytest.fixture
def without_redis(portal: Portal) -> Iterator[Portal]:
    away = Database(portal.db.engine, Schedule("redis://:x@127.0.0.1:1/0"))
    settings = SETTINGS.model_copy(update={"flower_url": None})
    yield replace(portal, db=away, settings=settings)
    away.schedule.close()


def seen(portal: Portal, who: str = "olga") -> PortalPage:
    browser = portal.by_mail(who)
    return browser.get("/operations")


def test_the_operations_page_shows_how_many_windows_are_open_and_if_workers_are_alive(portal: Portal) -> None:
    request = portal.world.submit(justification=JUSTIFICATION)
    portal.world.act("ann", Action.APPROVE, request.id)

    page = seen(portal)

    assert page.status == 200
    for name in (
        "Windows open",
        "Overdue steps",
        "Schedule lag",
        "Last reconcile",
        "Mails not delivered",
        "Seal lag",
    ):
        assert name in page.words
    assert "Core workers alive 0, check this" in page.words
    assert "core: no heartbeat yet" in page.words


def test_an_operator_reads_no_contents_of_requests_on_the_operations_page(portal: Portal) -> None:
    request = portal.world.submit(justification=JUSTIFICATION, case_ref="CASE-SECRET")

    page = seen(portal)

    for content in (JUSTIFICATION, "CASE-SECRET", str(request.id), portal.world.tenant.slug, "mailbox:"):
        assert content not in page.text


def test_each_operations_chart_has_a_title_a_description_and_a_data_table(portal: Portal) -> None:
    portal.world.submit()

    page = seen(portal)

    assert page.text.count('<svg viewBox="0 0 360 150" role="img"') == 4
    for name in ("requests", "notifications", "schedule", "seal"):
        assert f'<title id="{name}-title">' in page.text
        assert f'<desc id="{name}-words">' in page.text
    assert page.text.count('<tr><th scope="row">') == 4 * 24
    assert 'class="submitted"' in page.text
    assert re.search(r"Submitted: at most [\d,]+, in the hour from \d\d:00 UTC", page.words)


def test_without_redis_the_operations_page_says_so_and_shows_other_figures(without_redis: Portal) -> None:
    page = seen(without_redis)

    assert page.status == 200
    assert "Redis: away" in page.words
    assert "Without Redis everything goes on from Postgres" in page.words
    assert "Unacknowledged messages Redis is away" in page.words
    assert re.search(r"Overdue steps \d", page.words)


def test_the_operations_page_shows_an_invariant_finding_by_id(portal: Portal) -> None:
    before, one = seen(portal), new_id()
    portal.sql("INSERT INTO alarms (key, raised_at) VALUES (:key, now())", key=f"I1:{one}")

    page = seen(portal)
    portal.sql("DELETE FROM alarms")

    assert "nothing found in the last 24 hours" in before.words
    assert "Open without the approval that it needs" in page.words
    assert str(one) in page.text


def test_the_operations_page_links_to_flower_where_configured(portal: Portal) -> None:
    known = replace(portal, settings=SETTINGS.model_copy(update={"flower_url": "https://flower.example"}))

    assert "https://flower.example" in seen(known).read.links
    assert "Flower" not in seen(portal).words


def test_the_operations_page_is_small_enough_for_a_slow_line(portal: Portal) -> None:
    assert len(seen(portal).text.encode()) < 45_000


def test_an_unreachable_webhook_is_listed_without_secrets_and_raises_no_alarm(
    portal: Portal,
) -> None:
    post, world = Postbag(), portal.world
    calm_down(portal)
    before = status.read(portal.db, with_redis=True).as_facts()["webhooks_failing"] or 0
    url = "https://user:passw0rd@hooks.contoso.example:8443/services/T0K3N?key=K3Y"
    endpoint = post.endpoint(world, url, tenant_id=world.tenant.id)
    post.hooks.refused[url] = SendFailed("down", kind="connection")
    request = world.submit()
    post.deliver(unbound_db(portal), open_notifications(portal.db))

    page = seen(portal)
    age(portal, request.id, "webhook")

    assert f"{world.tenant.name} https://hooks.contoso.example:8443" in page.words
    assert "(no connection), 1 call to send" in page.words
    assert str(endpoint) in page.text
    assert all(secret not in page.text for secret in ("passw0rd", "T0K3N", "K3Y"))
    facts = status.read(portal.db, with_redis=True).as_facts()
    assert facts["notifications"]["webhook"]["oldest_unsent_seconds"] > MOST_UNSENT_AGE
    assert facts["notifications"]["mail"]["unsent"] == 0
    assert facts["webhooks_failing"] == before + 1
    assert not [one for one in facts["troubles"] if "unsent" in one or "delivered" in one]


@pytest.mark.far
def test_failing_webhooks_are_counted_and_listed_fifty_to_a_page(portal: Portal) -> None:
    post, world = Postbag(), portal.world
    calm_down(portal)
    ids = [post.endpoint(world, f"{URL}/{number}", tenant_id=world.tenant.id) for number in range(52)]
    write(
        unbound(portal.db),
        "UPDATE endpoints SET failing_since = now() - interval '1 hour' + array_position(:ids, id) * interval '1 s' "
        "WHERE id = ANY(:ids)",
        ids=ids,
    )
    browser = portal.by_mail("olga")

    first, second, behind = (browser.get(f"/operations{query}") for query in ("", "?failing=2", "?failing=3"))

    assert "1 to 50 of 52 failing webhooks" in first.words
    assert "51 to 52 of 52 failing webhooks" in second.words
    assert [str(one) in first.text for one in ids] == [True] * 50 + [False] * 2
    assert [str(one) in second.text for one in ids] == [False] * 50 + [True] * 2
    assert "/operations?failing=2#webhooks" in first.read.links
    assert "/operations?failing=1#webhooks" in second.read.links
    assert "/operations?failing=3#webhooks" not in second.read.links
    assert "There are no more." in behind.words
    assert browser.get("/operations?failing=0").status == 422


def test_a_few_failing_webhooks_are_listed_without_a_count_or_page_links(portal: Portal) -> None:
    calm_down(portal)
    endpoint = Postbag().endpoint(portal.world, URL, tenant_id=portal.world.tenant.id)
    write(unbound(portal.db), "UPDATE endpoints SET failing_since = now() WHERE id = :id", id=endpoint)

    page = seen(portal)

    assert str(endpoint) in page.text
    assert "failing webhooks;" not in page.words


def test_an_overdue_or_dead_mail_raises_the_alarm(portal: Portal) -> None:
    request = portal.world.submit()
    age(portal, request.id, "mail")
    write(unbound(portal.db), DIE)

    found = status.read(portal.db, with_redis=True)

    assert [one for one in found.troubles if one.startswith("the oldest unsent mail has waited for 6")]
    assert [one for one in found.troubles if one.startswith("1 mails were not delivered within a day")]


def test_only_operators_see_failing_webhooks(portal: Portal) -> None:
    post, world = Postbag(), portal.world
    post.endpoint(world, URL, tenant_id=world.tenant.id)
    write(unbound(portal.db), "UPDATE endpoints SET failing_since = now() WHERE removed_at IS NULL")

    found = {}
    for who, caller in world.people.items():
        with portal.db.transaction() as session:
            authentication.enter(session, caller)
            found[who] = len(session.execute(operations.FAILING, {"most": 50, "skipped": 0}).all())

    assert {who for who, number in found.items() if number} == {"olga"}


def calm_down(portal: Portal) -> None:
    """Settle all waiting, dead and failing deliveries of other tests, which share the database."""
    write(unbound(portal.db), OVER)
    write(unbound(portal.db), "UPDATE endpoints SET failing_since = NULL WHERE removed_at IS NULL")


def age(portal: Portal, request_id: UUID, channel: str) -> None:
    """Make the notifications of a request by one channel ten minutes old."""
    fan_out_all(as_sender(portal.db))
    write(unbound(portal.db), "DELETE FROM deliveries")
    write(unbound(portal.db), AGED, request_id=request_id, channel=channel)


def unbound_db(portal: Portal) -> Database:
    """Return the database nearly as a worker sees it."""
    return Database(unbound(portal.db), portal.db.schedule)


def test_gate_answers_are_listed_by_gateway_service_and_reason(portal: Portal) -> None:
    assert "No gateway has asked yet." in seen(portal).words
    gateway = portal.world.people["gate"]
    for span, decision, reason, count in (
        ("hour", "allow", "", 1200),
        ("minute", "allow", "", 30),
        ("hour", "deny", "no_window", 7),
        ("hour", "not-applicable", "", 2),
    ):
        portal.sql(
            "INSERT INTO gate_answers VALUES (:span, now(), :gateway, 'exchange-online', :decision, :reason, :count)",
            span=span,
            gateway=gateway.person_id,
            decision=decision,
            reason=reason,
            count=count,
        )

    words = seen(portal).words

    assert f"{gateway.name} exchange-online yes 30 1,200" in words
    assert f"{gateway.name} exchange-online no: no window 0 7" in words
    assert f"{gateway.name} exchange-online not applicable 0 2" in words


def records(portal: Portal, says: dict[str, str]) -> None:
    """Record a catalogue's modes of gates, as a starting process does."""
    with portal.db.transaction() as session:
        authentication.enter(session, GATE)
        enforcement.record(session, says)


def test_gates_in_report_mode_are_named_and_linked_to_their_reports(portal: Portal) -> None:
    records(portal, {"exchange-online": "report", "onedrive": "enforce"})
    for path, count in (("GET /mailboxes/{address}/rules", 1200), ("", 7)):
        portal.sql(
            "INSERT INTO reported_calls VALUES ('exchange-online', 'unmapped', :path, '', '', :count, now(), now())",
            path=path,
            count=count,
        )
    portal.sql(ANSWERED, gateway=new_id())
    browser = portal.by_mail("olga")

    page = browser.get("/operations")
    gates = browser.get("/gates")
    report = browser.get("/gates/exchange-online")
    other = browser.get("/gates/onedrive")
    unknown = browser.get("/gates/none")
    for forget in FORGET:
        portal.sql(forget)

    assert re.search(r'<a href="/gates">exchange-online for [0-9]+ tenants?</a>', page.text)
    assert "Access around Lockbox, 30 days 0" in page.words
    assert re.search(r"Exchange Online : not enforced for ([0-9]+) of \1 tenants?", gates.words)
    assert "OneDrive : enforced for all tenants" in gates.words
    assert "Unmapped 1,207 calls. Add these paths" in report.words
    assert re.search(r"GET /mailboxes/{address}/rules first [^.]*? last [^.]*? 1,200 calls", report.words)
    assert re.search(r"All others first [^.]*? 7 calls", report.words)
    assert "It is enforced for all tenants. In the last 30 days it let in no call" in other.words
    assert unknown.status == 404
    assert "Gates that only report none" in seen(portal).words
