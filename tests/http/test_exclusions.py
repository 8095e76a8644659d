"""The exclusions over HTTP and on their pages: published by an operator, acknowledged by an admin."""

import pytest

from lockbox.admin import exclusions
from lockbox.sql import new_id
from tests.database.tenancy import manages
from tests.http.door import Door, facts
from tests.http.portal import Portal

TEXT = "Demands by law are not covered."


def stated(door: Door) -> int:
    """Publish a text, and return its version: other tests of this installation publish texts too."""
    answer = door.call(
        "olga", "PUT", "/v1/exclusions", json={"text": f"{TEXT} {new_id()}"}, headers={"if-match": "*"}
    )
    return int(answer.json()["version"])


@pytest.mark.parametrize("text", ["", " \n", "x" * 20_001, "a\u202eb"])
def test_an_exclusions_text_that_is_blank_too_long_or_has_hidden_characters_is_refused(door: Door, text: str) -> None:
    answer = door.call("olga", "PUT", "/v1/exclusions", json={"text": text}, headers={"if-match": "*"})

    facts(answer, 422, "invalid-request")


def test_the_pages_publish_show_and_acknowledge_exclusions(portal: Portal) -> None:
    slug, admin, text = portal.world.tenant.slug, portal.by_passkey("tara"), f"{TEXT} {new_id()}"
    operator = portal.by_passkey("olga")
    operator.submit(operator.get("/exclusions"), "/exclusions", text=text)

    overview = admin.get(f"/tenants/{slug}")
    page = admin.get(f"/tenants/{slug}/exclusions")
    approver = portal.by_passkey("ann").get(f"/tenants/{slug}/exclusions")
    admin.submit(page, f"/tenants/{slug}/exclusions")

    assert "is to be acknowledged" in overview.words
    assert text in page.words
    assert text in approver.words
    assert "Acknowledge version" not in approver.words
    assert "Tara acknowledged version" in admin.get(f"/tenants/{slug}/exclusions").words
    assert text in operator.get("/exclusions").words


def test_an_exclusions_form_keeps_its_text_if_a_colleague_published_a_new_version(portal: Portal) -> None:
    operator = portal.by_passkey("olga")
    form = operator.get("/exclusions")
    manages(portal.world, "olga", exclusions.state, "By a colleague")

    page = operator.submit(form, "/exclusions", text=TEXT)

    assert "The exclusions have changed since you read them" in page.words
    assert TEXT in page.text
