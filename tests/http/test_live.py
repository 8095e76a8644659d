"""Live pages over a real server: which news goes to whom, since when, for how long, and to how many listeners."""

import asyncio
import os
import queue
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import httpx
import pytest
from starlette.types import Message

from api.__main__ import SHUTDOWN_SECONDS
from api.live import PAUSES_OF_OPERATIONS, LiveUpdates, Subscription
from api.portal import live as door
from config.settings import Settings
from harness.ports import own_port
from harness.stage import Urls, hang_up_on_listeners
from harness.wait import wait_for
from lockbox.database import Database
from lockbox.errors import TooMany
from lockbox.identity.roles import Role
from lockbox.pubsub import OPERATORS
from lockbox.requests import inbox
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from lockbox.schedule import Schedule
from lockbox.sql import new_id
from tests.database.test_extensions import extended, opened
from tests.http.door import LoopThread
from tests.http.portal import HOME, SESSION, OpenPortal, Portal
from tests.http.streams import Live, LiveStream, serving

SETTINGS = Settings(environment="test", public_url=HOME, live_streams=12)
BY_ITSELF = {"x-lockbox-by-itself": "yes"}
PATIENCE = 15.0
SINCE = re.compile(r'data-since="[^"]*"')
TOPICS = re.compile(r'data-topics="([^"]*)"')
PAUSE = 0.2
IN_TRANSACTION = (
    "SELECT 1 FROM pg_stat_activity WHERE state LIKE 'idle in transaction%' AND datname = current_database()"
)


@pytest.fixture(scope="module")
def stage(open_portal: OpenPortal) -> Iterator[Live]:
    """A world's pages on a real server that checks its live streams five times a second."""
    with serving(open_portal(settings=SETTINGS), own_port(), beat=0.2, pause=PAUSE) as live:
        yield live


@pytest.fixture
def live(stage: Live) -> Iterator[Live]:
    yield stage
    for stream in stage.streams:
        stream.close()
    until = time.monotonic() + 5
    while stage.room.count and time.monotonic() < until:
        time.sleep(0.02)
    stage.streams.clear()


def _topic(request: object) -> str:
    return f"request:{request.id}"  # type: ignore[attr-defined]


@pytest.mark.far
def test_a_request_page_gets_live_news_of_its_own_request_only(live: Live) -> None:
    world = live.portal.world
    request, other = world.fresh(), world.fresh()
    stream = live.settled(live.secret("ann"), _topic(request))

    world.act("amir", Action.DENY, other.id)
    quiet = stream.quiet()
    world.act("amir", Action.DENY, request.id)

    assert quiet
    assert stream.until("news").topics == {_topic(request)}


def test_a_live_stream_has_its_content_type_and_is_not_cached(live: Live) -> None:
    stream = live.open(live.secret("ann"), "list")

    ready = stream.next()

    assert ready
    assert ready.name == "ready"
    assert ready.id
    assert stream.headers["content-type"].startswith("text/event-stream")
    assert stream.headers["cache-control"] == "no-store"
    assert "frame-ancestors 'none'" in stream.headers["content-security-policy"]
    assert 3000 <= stream.retry < 7000


def test_the_page_of_an_extension_gets_news_that_the_extended_window_ended(live: Live) -> None:
    world = live.portal.world
    first = opened(world)
    second = extended(world, first.id)
    browser = live.portal.by_mail("ann")
    (topics,) = TOPICS.findall(browser.get(f"/requests/{second.id}").text)
    stream = live.settled(str(browser.session), topics)

    world.act("amir", Action.REVOKE, first.id)

    assert stream.until("news").topics == {_topic(first)}
    assert "Nothing to decide: the window was revoked" in browser.get(f"/requests/{second.id}").words


@pytest.mark.far
@pytest.mark.parametrize("who", ["ann", "aude", "erin", "max", "vera"])
def test_a_list_gets_live_news_of_requests_its_reader_may_see(live: Live, who: str) -> None:
    stream = live.settled(live.secret(who), "list")

    live.portal.world.fresh("erin")

    assert stream.until("news").topics == {"list"}


@pytest.mark.parametrize("who", ["eve", "olga", "zoe"])
def test_a_list_gets_no_live_news_of_requests_its_reader_may_not_see(
    live: Live, open_portal: OpenPortal, who: str
) -> None:
    world = live.portal.world
    if who == "zoe":
        world.add("zoe", Role.APPROVER, open_portal().world.tenant.id)
    stream = live.settled(live.secret(who), "list")

    request = world.fresh("erin")
    world.act("ann", Action.APPROVE, request.id)
    world.act("erin", Action.COMPLETE, request.id)

    assert stream.quiet()


@pytest.mark.far
def test_an_approver_gets_live_news_of_their_own_tenant_only(live: Live, open_portal: OpenPortal) -> None:
    other = open_portal().world
    stream = live.settled(live.secret("ann"), "list")

    for _ in range(5):
        other.fresh()
    quiet = stream.quiet()
    live.portal.world.fresh()

    assert quiet
    assert stream.until("news").topics == {"list"}


@pytest.mark.far
def test_the_customer_gets_no_live_news_of_a_request_in_review(open_portal: OpenPortal) -> None:
    with serving(open_portal(Policy(mail_suffices=True), settings=SETTINGS), own_port(), pause=0.2) as live:
        world = live.portal.world
        customer, vendor = (live.settled(live.secret(name), "list") for name in ("ann", "max"))

        request = world.fresh()
        early = (customer.quiet(), live.open(live.secret("ann"), _topic(request)).status)
        told = vendor.until("news")
        world.act("max", Action.ENDORSE, request.id)

        assert early == (True, 404)
        assert told.topics == {"list"}
        assert customer.until("news").topics == {"list"}


@pytest.mark.far
def test_operators_get_live_news_at_most_once_per_interval(live: Live) -> None:
    world = live.portal.world
    stream = live.settled(live.secret("olga"), "operations")

    began = time.monotonic()
    world.fresh("erin")
    first = stream.until("news")
    for _ in range(5):
        world.fresh("erin")
    later = 0
    while not stream.quiet(1.0):
        later += 1
    took = time.monotonic() - 1.0 - began

    assert first.topics == {"operations"}
    assert 1 <= later <= took / (PAUSES_OF_OPERATIONS * PAUSE)


@pytest.mark.far
def test_only_operators_get_live_news_of_changed_figures(live: Live) -> None:
    schedule = live.portal.db.schedule
    operator, manager = live.settled(live.secret("olga"), "operations"), live.settled(live.secret("max"), "list")

    schedule.tell([str(new_id())], OPERATORS)

    assert operator.until("news").topics == {"operations"}
    assert manager.quiet()


@pytest.mark.parametrize("who", ["max", "vera", "ann", "tara"])
def test_only_operators_can_open_the_live_stream_of_operations(live: Live, who: str) -> None:
    assert live.open(live.secret(who), "operations").status == 403


@pytest.mark.far
def test_presence_on_a_request_is_sent_to_the_same_side_only(live: Live) -> None:
    world, db = live.portal.world, live.portal.db
    request = world.fresh()
    colleague, engineer = (live.settled(live.secret(name), _topic(request)) for name in ("amir", "erin"))

    with db.transaction() as session:
        inbox.begin(session, db.schedule, world.people["ann"], request.id)

    assert colleague.until("news").topics == {_topic(request)}
    assert engineer.quiet()


def test_a_live_subscription_to_a_hidden_request_is_not_found(live: Live, open_portal: OpenPortal) -> None:
    request = live.portal.world.fresh()
    theirs = open_portal().world.fresh()

    ann = live.secret("ann")
    foreign = live.open(ann, f"list {_topic(theirs)}")
    nobodys = live.open(ann, f"list request:{new_id()}")
    eves = live.open(live.secret("eve"), _topic(request))

    assert [one.status for one in (foreign, nobodys, eves)] == [404] * 3
    assert SINCE.sub("", foreign.body) == SINCE.sub("", nobodys.body)


@pytest.mark.far
@pytest.mark.parametrize(
    "topics",
    ["", "list list list list list list list list list", "request:", "request:x", "x", "request:list", "\x00"],
)
def test_an_invalid_live_topic_is_refused(live: Live, topics: str) -> None:
    assert live.open(live.secret("ann"), topics).status == 422


def test_a_live_stream_opens_only_with_a_session_and_only_from_lockboxs_own_site(live: Live) -> None:
    secret = live.secret("ann")
    cookies = {SESSION: secret}

    answers = [
        live.open(None, "list").status,
        live.open("x" * 43, "list").status,
        *(
            httpx.get(f"{live.url}/live?topics=list", cookies=cookies, headers={"sec-fetch-site": site}).status_code
            for site in ("cross-site", "same-site", "none")
        ),
        httpx.get(f"{live.url}/live?topics=list", headers={"authorization": "Bearer lbx_x"}).status_code,
    ]

    assert answers == [401, 401, 403, 403, 403, 401]


@pytest.mark.far
def test_a_reconnecting_live_stream_gets_the_news_missed_since_its_last_event(live: Live) -> None:
    world, secret = live.portal.world, live.secret("ann")
    request, other = world.fresh(), world.fresh()
    first = live.settled(secret, _topic(request))
    world.act("amir", Action.DENY, other.id)
    world.act("amir", Action.APPROVE, request.id)
    seen = first.until("news")
    first.close()
    stays = live.settled(live.secret("amir"), "list")

    nothing = live.open(secret, _topic(request), seen.id)
    first_word, is_quiet = nothing.next(), nothing.quiet()
    nothing.close()
    world.act("erin", Action.COMPLETE, request.id)
    stays.until("news")
    missed = live.open(secret, f"{_topic(request)} list", seen.id)

    assert (first_word and first_word.name, is_quiet) == ("ready", True)
    ready = missed.next()
    assert ready
    assert ready.name == "ready"
    assert missed.until("news").topics >= {_topic(request)}


@pytest.mark.far
@pytest.mark.parametrize("last", ["0", "abc-1", "x" * 3000, "-", "0123456789ab-999999999999999999"])
def test_an_unknown_last_event_id_makes_the_page_reload(live: Live, last: str) -> None:
    stays = live.settled(live.secret("amir"), "list")

    stream = live.open(live.secret("ann"), "list", last)

    assert stays.status == 200
    assert [told.name for told in (stream.next(), stream.next()) if told] == ["ready", "again"]


@pytest.mark.far
def test_a_newly_loaded_page_gets_no_message_to_reload(live: Live) -> None:
    stays = live.settled(live.secret("amir"), "list")
    secret = live.secret("ann")
    page = httpx.get(f"{live.url}/requests", cookies={SESSION: secret}).text
    since = page.partition('data-since="')[2].partition('"')[0]

    stream = live.open(secret, "list", since=since)

    ready = stream.next()
    assert stays.status == 200
    assert ready
    assert ready.name == "ready"
    assert "again" not in _names(stream, 1.5)


def _names(stream: LiveStream, seconds: float) -> list[str]:
    found, until = [], time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        try:
            told = stream.next(left)
        except queue.Empty:
            break
        if told is None:
            break
        found.append(told.name)
    return found


@pytest.mark.far
def test_a_live_stream_without_news_sends_heartbeats(live: Live) -> None:
    stream = live.settled(live.secret("ann"), "list")

    time.sleep(1)

    assert len(stream.comments) >= 2


@pytest.mark.far
def test_a_live_stream_ends_with_its_session(live: Live) -> None:
    secret = live.secret("ann")
    stream = live.settled(secret, "list")

    live.portal.sql(
        "UPDATE sessions SET revoked_at = now() WHERE person_id = :p", p=live.portal.world.people["ann"].person_id
    )

    stream.until("ended")
    assert stream.next() is None
    assert live.open(secret, "list").status == 401


@pytest.mark.far
def test_a_live_stream_ends_when_its_reader_loses_the_role(live: Live) -> None:
    world = live.portal.world
    world.add("art", Role.APPROVER, world.tenant.id)
    request = world.fresh()
    stream = live.settled(live.secret("art"), _topic(request))

    live.portal.sql("DELETE FROM memberships WHERE person_id = :p", p=world.people["art"].person_id)

    stream.until("ended")
    assert stream.next() is None


@pytest.mark.far
def test_a_page_left_open_does_not_prolong_the_readers_session(live: Live) -> None:
    secret, ann = live.secret("ann"), live.portal.world.people["ann"].person_id
    stream = live.settled(secret, "list")
    live.portal.sql("UPDATE sessions SET last_seen_at = now() - interval '10 minutes' WHERE person_id = :p", p=ann)

    time.sleep(0.6)
    httpx.get(f"{live.url}/requests", cookies={SESSION: secret}, headers=BY_ITSELF)
    seen = "SELECT max(last_seen_at) < now() - interval '9 minutes' AS long_ago FROM sessions WHERE person_id = :p"
    by_itself = live.portal.sql(seen, p=ann)[0].long_ago
    httpx.get(f"{live.url}/requests", cookies={SESSION: secret})

    assert stream.quiet(0.1)
    assert (by_itself, live.portal.sql(seen, p=ann)[0].long_ago) == (True, False)


def test_live_streams_are_limited_by_session_and_in_total(live: Live) -> None:
    first = live.secret("ann")
    four = [live.open(first, "list") for _ in range(4)]
    fifth = live.open(first, "list")
    others = [live.open(secret, "list") for secret in (live.secret("amir"), live.secret("erin")) for _ in range(4)]
    too_many = live.open(live.secret("max"), "list")
    four[0].close()
    wait_for("one has gone", lambda: live.room.count == 11, PATIENCE)

    assert {one.status for one in (*four, *others)} == {200}
    assert (fifth.status, too_many.status) == (429, 503)
    assert fifth.headers["retry-after"] == too_many.headers["retry-after"] == "60"
    assert live.open(first, "list").status == 200


def test_a_person_with_many_sessions_leaves_live_streams_for_other_people(portal: Portal, runner: LoopThread) -> None:
    room = LiveUpdates(portal.db, portal.settings)
    ann, amir = portal.world.people["ann"], portal.world.people["amir"]
    hers = [Subscription(ann, f"secret {number % 3}", lists=True) for number in range(12)]
    one_more, his = Subscription(ann, "another secret", lists=True), Subscription(amir, "his secret", lists=True)

    async def sit() -> int:
        for seat in hers:
            room.sit(seat, None)
        with pytest.raises(TooMany):
            room.sit(one_more, None)
        room.sit(his, None)
        found = room.count
        for seat in (*hers, his):
            room.leave(seat)
        return found

    assert runner.run(sit()) == 13
    room.stop()


def test_live_streams_occupy_no_database_connection_and_no_admission_slot(live: Live) -> None:
    streams = [live.open(live.secret(name), "list") for name in ("ann", "amir", "abe", "erin") for _ in range(3)]
    for stream in streams:
        stream.until("ready")
    # A look at what a stream shows is a transaction for a moment; what a stream held would stay.
    until = time.monotonic() + PATIENCE
    while (busy := live.portal.sql(IN_TRANSACTION)) and time.monotonic() < until:
        time.sleep(0.1)
    answer = httpx.get(f"{live.url}/sign-in")

    assert busy == []
    assert live.portal.db.engine.pool.checkedout() <= 1  # type: ignore[attr-defined]
    assert answer.status_code == 200


def test_a_browser_that_does_not_read_its_live_stream_is_dropped(
    portal: Portal, runner: LoopThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "SLOW_SECONDS", 0.2)
    room = LiveUpdates(portal.db, SETTINGS)
    seat = Subscription(portal.world.people["ann"], "secret", lists=True)

    async def never() -> Message:
        await asyncio.sleep(60)
        return {"type": "http.disconnect"}

    async def stuck(message: Message) -> None:
        if message["type"] == "http.response.body":
            await asyncio.sleep(60)

    runner.run(door.EventStream(room, seat, None)({}, never, stuck))

    assert room.count == 0
    room.stop()


@pytest.mark.far
def test_open_pages_are_notified_if_redis_is_lost_and_reload_once_it_is_back(live: Live, urls: Urls) -> None:
    stream = live.settled(live.secret("ann"), "list")

    hang_up_on_listeners(urls.redis)

    stream.until("away")
    stream.until("again")
    live.portal.world.fresh()
    assert stream.until("news").topics == {"list"}


@pytest.mark.far
def test_live_streams_report_that_redis_is_unavailable_if_redis_never_answered(open_portal: OpenPortal) -> None:
    portal = open_portal(settings=SETTINGS)
    portal.db = Database(portal.db.engine, Schedule("redis://127.0.0.1:1"), portal.clock)
    with serving(portal, own_port()) as live:
        first, second = live.open(live.secret("ann"), "list"), None
        first.until("away")
        second = live.open(live.secret("amir"), "list")

        second.until("away")


@pytest.mark.far
def test_a_stopping_server_ends_its_live_streams_at_once(open_portal: OpenPortal) -> None:
    with serving(open_portal(settings=SETTINGS), own_port()) as live:
        streams = [live.open(live.secret(name), "list") for name in ("ann", "amir")]
        for stream in streams:
            stream.until("again")

        seconds = live.stop()

        assert seconds < SHUTDOWN_SECONDS
        for stream in streams:
            while stream.next():
                pass


@pytest.mark.far
def test_the_api_stops_within_seconds_with_open_live_streams(open_portal: OpenPortal, urls: Urls) -> None:
    port = own_port()
    portal = open_portal()
    variables = {
        "LOCKBOX_ENVIRONMENT": "test",
        "LOCKBOX_DATABASE_URL": urls.api.replace("postgresql+psycopg", "postgresql"),
        "LOCKBOX_REDIS_URL": urls.redis,
        "LOCKBOX_PUBLIC_URL": HOME,
    }
    command = [sys.executable, "-m", "api", "--port", str(port)]
    browser = portal.by_mail("ann")
    with subprocess.Popen(command, env={"PATH": os.environ["PATH"], **variables}, stdout=subprocess.DEVNULL) as api:
        try:
            _wait_for(port)
            stream = LiveStream.open(f"http://127.0.0.1:{port}", browser.session, topics="list")
            stream.until("again")

            began = time.monotonic()
            api.send_signal(signal.SIGTERM)
            api.wait(20)
            seconds = time.monotonic() - began
        finally:
            api.kill()

    assert seconds < SHUTDOWN_SECONDS
    while stream.next():
        pass
    stream.close()


def _wait_for(port: int) -> None:
    until = time.monotonic() + 90
    while True:
        try:
            httpx.get(f"http://127.0.0.1:{port}/livez").raise_for_status()
        except httpx.HTTPError:
            assert time.monotonic() < until
            time.sleep(0.1)
        else:
            return
