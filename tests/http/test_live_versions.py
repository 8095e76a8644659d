"""A page loaded while another person decides shows no move newer than the version in its forms."""

from typing import Any

import psycopg
import pytest

from lockbox.audit.event_search import EVENTS
from lockbox.database import compiled
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from tests.http.portal import OpenPortal


def test_a_page_shows_no_move_newer_than_the_version_in_its_forms(
    open_portal: OpenPortal, monkeypatch: pytest.MonkeyPatch
) -> None:
    portal = open_portal(Policy(vendor_review=False, quorum=2))
    request = portal.world.fresh()
    browser = portal.by_mail("ann")
    acted: list[object] = []
    execute = psycopg.Cursor.execute

    def act_between(cursor: psycopg.Cursor[Any], query: Any, *values: Any, **more: Any) -> psycopg.Cursor[Any]:
        if query == compiled(EVENTS) and not acted:
            acted.append(query)
            with cursor.connection.pipeline():
                """The end of the pipeline waits until all earlier statements have run."""
            portal.world.act("amir", Action.APPROVE, request.id)
        return execute(cursor, query, *values, **more)

    monkeypatch.setattr(psycopg.Cursor, "execute", act_between)
    during = browser.get(f"/requests/{request.id}")
    after = browser.get(f"/requests/{request.id}")

    assert acted
    assert [page.form("/deny").fields["version"] for page in (during, after)] == ["1", "2"]
    assert ["Amir approved it" in page.text for page in (during, after)] == [False, True]
