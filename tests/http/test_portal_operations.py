"""The operators' page: the figures of the status, plots with the same numbers in a table, and nobody's content."""

import re
from collections.abc import Iterator
from dataclasses import replace

import pytest

from lockbox.database import Database
from lockbox.ids import new_id
from lockbox.requests.lifecycle import Action
from lockbox.schedule import Schedule
from tests.http.portal import SETTINGS, OpenPortal, Page, Portal

JUSTIFICATION = "Nobody must read this sentence"


@pytest.fixture
def portal(open_portal: OpenPortal) -> Portal:
    """A world of the test's own."""
    return open_portal()


@pytest.fixture
def without_redis(portal: Portal) -> Iterator[Portal]:
    """The same with Redis away."""
    away = Database(portal.house.engine, Schedule("redis://:x@127.0.0.1:1/0"))
    settings = SETTINGS.model_copy(update={"flower_url": None})
    yield replace(portal, house=away, settings=settings)
    away.schedule.close()


def seen(portal: Portal, who: str = "olga") -> Page:
    """Open the page as somebody."""
    browser = portal.browser()
    browser.enter(who)
    return browser.get("/operations")


def test_it_shows_counts_ages_and_who_lives(portal: Portal) -> None:
    request = portal.world.submit(justification=JUSTIFICATION)
    portal.world.act("ann", Action.APPROVE, request.id)

    page = seen(portal)

    assert page.status == 200
    for name in ("Windows open", "Steps overdue", "Schedule lag", "Last reconcile", "Dead notices", "Seal lag"):
        assert name in page.words
    assert "Core workers alive 0, look at it" in page.words
    assert "core: nobody" in page.words


def test_an_operator_reads_nothing_of_what_is_asked(portal: Portal) -> None:
    request = portal.world.submit(justification=JUSTIFICATION, case_ref="CASE-SECRET")

    page = seen(portal)

    for content in (JUSTIFICATION, "CASE-SECRET", str(request.id), portal.world.tenant.slug, "mailbox:"):
        assert content not in page.text


def test_each_plot_has_a_name_words_and_the_same_numbers_in_a_table(portal: Portal) -> None:
    portal.world.submit()

    page = seen(portal)

    assert page.text.count('<svg viewBox="0 0 360 150" role="img"') == 4
    for name in ("requests", "notices", "schedule", "seal"):
        assert f'<title id="{name}-title">' in page.text
        assert f'<desc id="{name}-words">' in page.text
    assert page.text.count('<tr><th scope="row">') == 4 * 24
    assert 'class="filed"' in page.text
    assert re.search(r"Filed: at most [\d,]+, in the hour from \d\d:00 UTC", page.words)


def test_with_redis_away_it_says_so_and_shows_the_rest(without_redis: Portal) -> None:
    page = seen(without_redis)

    assert page.status == 200
    assert "Redis: away" in page.words
    assert "Without Redis all goes on from Postgres" in page.words
    assert "Hints without an answer Redis is away" in page.words
    assert re.search(r"Steps overdue \d", page.words)


def test_what_was_found_that_must_never_be_is_named_by_its_id(portal: Portal) -> None:
    before, one = seen(portal), new_id()
    portal.sql("INSERT INTO alarms (key, raised_at) VALUES (:key, now())", key=f"I1:{one}")

    page = seen(portal)
    portal.sql("DELETE FROM alarms")

    assert "and not found within a day" in before.words
    assert "Open without the approval that it needs" in page.words
    assert str(one) in page.text


def test_it_leads_to_flower_where_that_is_known(portal: Portal) -> None:
    known = replace(portal, settings=SETTINGS.model_copy(update={"flower_url": "https://flower.example"}))

    assert "https://flower.example" in seen(known).read.links
    assert "Flower" not in seen(portal).words


def test_it_is_small_enough_for_a_slow_line(portal: Portal) -> None:
    assert len(seen(portal).text.encode()) < 40_000
