"""'I'm reviewing this': others on the same side see it for five minutes, and it blocks no one."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from redis import Redis

from harness.stage import Urls
from lockbox.identity.roles import Role
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from lockbox.schedule import Schedule
from lockbox.sql import new_id
from tests.http.portal import Browser, OpenPortal, Portal, PortalPage

BY_MAIL = Policy(vendor_review=False, mail_suffices=True)
LOOK = "I'm reviewing this"
LOOKED_AT = "reviewing this, since"


@pytest.fixture(scope="module")
def shared(open_portal: OpenPortal) -> Portal:
    """The pages of a world whose tenant lets a mailed code approve."""
    return open_portal(BY_MAIL)


@pytest.fixture
def portal(shared: Portal) -> Portal:
    """The same world with a clock of the test's own."""
    return replace(shared)


@pytest.fixture
def redis(urls: Urls) -> Iterator[Redis]:
    with Redis.from_url(urls.redis, protocol=2) as redis:
        yield redis


def _open(portal: Portal, name: str, request: object) -> tuple[Browser, PortalPage]:
    browser = portal.by_mail(name)
    return browser, browser.get(f"/requests/{request.id}")  # type: ignore[attr-defined]


def _look(portal: Portal, name: str, request: object) -> PortalPage:
    browser, page = _open(portal, name, request)
    return browser.submit(page, "/look")


def test_colleagues_see_who_is_reviewing_a_request_and_since_when(portal: Portal) -> None:
    request = portal.world.fresh()

    own = _look(portal, "ann", request)

    _, others = _open(portal, "amir", request)
    assert "You are reviewing this, since" in own.words
    assert "I'm no longer reviewing this" in own.words
    assert "Ann is reviewing this, since" in others.words
    assert LOOK in others.words


def test_presence_on_a_request_blocks_no_one_and_is_no_move(portal: Portal) -> None:
    request = portal.world.fresh()
    browser, page = _open(portal, "ann", request)
    other, theirs = _open(portal, "amir", request)
    before = portal.count()

    browser.submit(page, "/look")
    meanwhile = portal.count()
    after = other.submit(theirs, "/deny", comment="No need")

    assert meanwhile == before
    assert "Denied" in after.words
    assert "reviewing this" not in after.words


def test_presence_on_a_request_is_hidden_from_the_other_side(portal: Portal) -> None:
    request = portal.world.fresh()
    _look(portal, "ann", request)

    seen = {who: _open(portal, who, request)[1] for who in ("amir", "erin", "max", "vera")}

    assert {page.status for page in seen.values()} == {200}
    assert {who for who, page in seen.items() if LOOKED_AT in page.words} == {"amir"}


def test_managers_see_each_others_presence_and_the_customer_does_not(open_portal: OpenPortal) -> None:
    portal = open_portal(Policy(mail_suffices=True))
    request = portal.world.fresh()
    _look(portal, "max", request)

    _, colleague = _open(portal, "mia", request)
    portal.world.act("mia", Action.ENDORSE, request.id)
    _, customer = _open(portal, "ann", request)
    _, later = _open(portal, "mia", request)

    assert "Max is reviewing this" in colleague.words
    assert "Max is reviewing this" not in customer.words
    assert "reviewing this" not in later.words


def test_presence_on_another_persons_request_is_refused(portal: Portal, open_portal: OpenPortal) -> None:
    theirs = open_portal().world.fresh()
    browser = portal.by_mail("ann")
    fields = browser.get("/account").form("/sign-out").fields

    answers = [browser.post(f"/requests/{one}/look", fields) for one in (theirs.id, new_id(), "x")]

    assert [answer.status for answer in answers] == [404] * 3
    assert len({answer.text for answer in answers[:2]}) <= 2


def test_presence_on_a_request_can_be_ended(portal: Portal) -> None:
    request = portal.world.fresh()
    browser, page = _open(portal, "ann", request)
    looking = browser.submit(page, "/look")

    after = browser.submit(looking, "/look")

    assert LOOKED_AT not in after.words
    assert LOOK in after.words


def test_presence_ends_after_five_minutes_and_renewing_it_keeps_its_start(portal: Portal, redis: "Redis") -> None:
    request = portal.world.fresh()
    key = f"{{lockbox}}:look:{request.id}:{portal.world.people['ann'].person_id}"
    browser, page = _open(portal, "ann", request)
    fields = page.form("/look").fields
    browser.submit(page, "/look")
    since, left = redis.get(key), int(redis.ttl(key))
    redis.expire(key, 60)

    browser.send(f"/requests/{request.id}/look", fields)

    assert 290 <= left <= 300
    assert (redis.get(key), int(redis.ttl(key)) > 290) == (since, True)
    redis.delete(key)
    assert LOOKED_AT not in browser.get(f"/requests/{request.id}").words


@pytest.mark.parametrize(
    "gone", ["DELETE FROM memberships WHERE person_id = :p", "UPDATE people SET disabled_at = now() WHERE id = :p"]
)
def test_presence_ends_when_the_person_loses_the_role(portal: Portal, gone: str) -> None:
    world = portal.world
    world.add("art", Role.APPROVER, world.tenant.id)
    request = world.fresh()
    _look(portal, "art", request)
    before = _open(portal, "ann", request)[1].words

    portal.sql(gone, p=world.people["art"].person_id)

    assert "Art is reviewing this" in before
    assert LOOKED_AT not in _open(portal, "ann", request)[1].words


def test_without_redis_there_is_no_presence_and_the_page_works(portal: Portal) -> None:
    request = portal.world.fresh()
    browser, page = _open(portal, "ann", request)
    kept, portal.db.schedule = portal.db.schedule, Schedule("redis://127.0.0.1:1")
    portal.app.state.database.schedule, before = portal.db.schedule, portal.app.state.database.schedule

    answer = browser.submit(page, "/look")

    portal.db.schedule, portal.app.state.database.schedule = kept, before
    assert answer.status == 200
    assert LOOKED_AT not in answer.words


def test_an_erased_or_hostile_name_shown_as_present_is_escaped(open_portal: OpenPortal) -> None:
    portal = open_portal(BY_MAIL)
    portal.sql("UPDATE people SET name = '<img src=x>' WHERE id = :p", p=portal.world.people["ann"].person_id)
    request = portal.world.fresh()

    _look(portal, "ann", request)

    assert "&lt;img src=x&gt; is reviewing this" in _open(portal, "amir", request)[1].text
