"""Limits of signing in: by account and by address, counted in Postgres, stated in Retry-After."""

import asyncio
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest
from redis import Redis

from config.settings import Settings
from harness.stage import Urls
from tests.http.door import until_served
from tests.http.portal import SETTINGS, Browser, OpenPortal, Portal, PortalPage


def ask(browser: Browser, address: str) -> PortalPage:
    return browser.post("/sign-in", {"address": address})


@pytest.fixture
def strict(open_portal: OpenPortal) -> Portal:
    """Pages that allow three attempts for each account and five for each address."""
    few = {"sign_ins_per_account": 3, "sign_ins_per_address": 5}
    return open_portal(settings=SETTINGS.model_copy(update=few))


def rests(portal: Portal, seconds: int) -> None:
    """Make the counted attempts so much older: Postgres counts by its own clock."""
    older = "UPDATE sign_in_counts SET since = since - make_interval(secs => :seconds) RETURNING since"
    assert portal.sql(older, seconds=seconds)


def asked_until_refused(portal: Portal, most: int, **facts: Any) -> list[int]:
    """Ask for different accounts from one address; return the statuses."""
    browser = portal.browser(**facts)
    return [ask(browser, f"{number}@{browser.address}.example").status for number in range(most)]


def test_sign_in_attempts_on_an_account_are_limited_across_networks(strict: Portal) -> None:
    address = strict.address("ann")

    answers = [ask(strict.browser(), address.upper() if number % 2 else address) for number in range(4)]

    assert [page.status for page in answers] == [200, 200, 200, 429]
    wait = int(answers[-1].answer.headers["retry-after"])
    assert 590 <= wait <= 600
    assert "try again in 10 minutes" in answers[-1].words
    assert ask(strict.browser(), strict.address("amir")).status == 200


def test_the_sign_in_limit_is_the_same_for_an_unknown_account(strict: Portal) -> None:
    address = f"nobody-{strict.world.tenant.slug}@contoso.example"

    assert [ask(strict.browser(), address).status for _ in range(4)] == [200, 200, 200, 429]


def test_sign_in_attempts_on_an_account_have_a_lower_limit_for_one_network(open_portal: OpenPortal) -> None:
    few = {"sign_ins_per_account_and_network": 2, "sign_ins_per_account": 4, "sign_ins_per_address": 100}
    portal = open_portal(settings=SETTINGS.model_copy(update=few))
    address, guesser, ann = portal.address("ann"), portal.browser(), portal.browser()

    at_one = [ask(guesser, address).status for _ in range(3)]

    assert at_one == [200, 200, 429]
    assert ask(ann, address).status == 200
    assert ask(portal.browser(), address).status == 429


def test_code_attempts_on_an_account_have_a_lower_limit_for_one_network(open_portal: OpenPortal) -> None:
    few = {"sign_ins_per_account_and_network": 2, "sign_ins_per_account": 100, "sign_ins_per_address": 100}
    portal = open_portal(settings=SETTINGS.model_copy(update=few))
    guesser, ann = portal.browser(), portal.browser()
    for browser in (guesser, ann):
        ask(browser, portal.address("ann"))

    tries = [guesser.post("/sign-in/code", {"code": "00000000"}).status for _ in range(3)]

    assert tries == [401, 401, 429]
    assert ann.post("/sign-in/code", {"code": "00000000"}).status == 401


@pytest.mark.far
def test_a_hundred_people_behind_one_ip_address_can_sign_in_within_ten_minutes(open_portal: OpenPortal) -> None:
    usual = {
        name: Settings.model_fields[name].default for name in Settings.model_fields if name.startswith("sign_ins_")
    }
    portal = open_portal(settings=SETTINGS.model_copy(update=usual))
    office = portal.browser().address

    statuses = set()
    for number in range(100):
        browser = portal.browser(address=office)
        statuses.add(ask(browser, f"{number}@{office}.office.example").status)
        statuses |= {browser.post("/sign-in/code", {"code": "00000000"}).status for _ in range(2)}

    assert statuses == {200, 401}
    assert ask(portal.browser(address=office), "one-more@office.example").status == 429


def test_sign_in_attempts_from_one_ip_address_are_limited(strict: Portal) -> None:
    assert asked_until_refused(strict, 7) == [200] * 5 + [429] * 2
    assert asked_until_refused(strict, 1) == [200]


def test_sign_in_attempts_are_allowed_again_after_ten_minutes(strict: Portal) -> None:
    address = strict.address("ann")
    for _ in range(4):
        ask(strict.browser(), address)

    rests(strict, 590)
    early = ask(strict.browser(), address).status
    rests(strict, 11)

    assert (early, ask(strict.browser(), address).status) == (429, 200)


def test_failed_attempts_at_sign_in_codes_are_counted_for_each_account(strict: Portal) -> None:
    browsers = [strict.browser(), strict.browser()]
    for browser in browsers:
        ask(browser, strict.address("ann"))

    tries = [browsers[number % 2].post("/sign-in/code", {"code": "00000000"}).status for number in range(4)]

    assert tries == [401, 401, 401, 429]


def test_requesting_codes_for_another_person_does_not_block_their_existing_code(strict: Portal) -> None:
    ann = strict.browser()
    ask(ann, strict.address("ann"))
    wanting = [ask(strict.browser(), strict.address("ann")).status for _ in range(3)]

    tried = ann.post("/sign-in/code", {"code": "00000000"}).status

    assert (wanting, tried) == ([200, 200, 429], 401)


@pytest.mark.parametrize("path", ["/sign-in/passkey", "/sign-in/passkey/answer", "/sign-in/code"])
def test_every_sign_in_method_counts_against_the_limit_of_an_ip_address(strict: Portal, path: str) -> None:
    browser = strict.browser()

    statuses = [browser.post(path, {}).status for _ in range(6)]

    assert statuses[-1] == 429
    assert 429 not in statuses[:-1]


def test_invitations_count_against_the_limit_of_an_ip_address(strict: Portal) -> None:
    browser = strict.browser()
    path = f"/invitations/{strict.world.tenant.id}"

    assert [browser.post(path, {"code": "x"}).status for _ in range(6)] == [403] * 5 + [429]


def test_flushing_redis_resets_no_sign_in_limit(strict: Portal, urls: Urls) -> None:
    address = strict.address("ann")
    for _ in range(3):
        ask(strict.browser(), address)

    with Redis.from_url(urls.redis) as redis:
        redis.flushdb()

    assert ask(strict.browser(), address).status == 429


def test_counters_of_sign_in_attempts_contain_no_names(strict: Portal) -> None:
    browser = strict.browser()
    ask(browser, strict.address("ann"))

    kept = str(strict.sql("SELECT c::text FROM sign_in_counts c"))

    assert strict.address("ann") not in kept
    assert browser.address not in kept


def test_concurrent_sign_in_attempts_are_all_counted(strict: Portal) -> None:
    browsers = [strict.browser() for _ in range(8)]
    ours = {"origin": SETTINGS.origin, "sec-fetch-site": "same-origin"}

    async def all_at_once() -> list[int]:
        calls = (
            until_served(browser.client.post, "/sign-in", data={"address": strict.address("ann")}, headers=ours)
            for browser in browsers
        )
        return [answer.status_code for answer in await asyncio.gather(*calls)]

    statuses = strict.runner.run(all_at_once())

    assert sorted(statuses) == [303] * 3 + [429] * 5


def test_an_ipv6_network_counts_as_one_address_in_sign_in_limits(strict: Portal) -> None:
    browsers = [strict.browser(address=f"2001:db8:77:1::{number:x}") for number in range(1, 7)]
    beside = strict.browser(address="2001:db8:77:2::1")

    statuses = [ask(browser, f"{number}@six.example").status for number, browser in enumerate(browsers)]

    assert statuses == [200] * 5 + [429]
    assert ask(beside, "7@six.example").status == 200


@pytest.mark.parametrize(
    ("trusted", "shown", "counted"),
    [
        ((), "198.51.100.7", False),
        (("10.0.0.0/8",), "198.51.100.7", True),
        (("10.0.0.0/8",), "192.0.2.1, 198.51.100.7", True),
        (("10.0.0.0/8",), "198.51.100.7, 10.9.9.9", True),
        (("10.0.0.0/8",), "198.51.100.7, nonsense", False),
        (("172.16.0.0/12",), "198.51.100.7", False),
    ],
)
def test_only_trusted_proxies_may_set_the_client_address(
    open_portal: OpenPortal, trusted: tuple[str, ...], shown: str, *, counted: bool
) -> None:
    portal = open_portal()
    chosen = SETTINGS.model_copy(update={"trusted_proxies": tuple(map(ip_network, trusted))})
    portal = replace(portal, settings=chosen)
    browser = portal.browser()
    browser.client.headers["x-forwarded-for"] = shown

    browser.sign_in("ann")

    (session,) = portal.sql(
        "SELECT address FROM sessions WHERE person_id = :p", p=portal.world.people["ann"].person_id
    )
    assert (session.address == "198.51.100.7") is counted
    assert counted or session.address == browser.address
