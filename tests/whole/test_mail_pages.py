"""Mails as pages in a real browser: none is wider than the window, whatever long words it contains."""

import pytest
from playwright.sync_api import ViewportSize

from devstack.mails.specimens import specimens
from tests.whole import people
from tests.whole.people import desk_at, overflow

pytestmark = [
    pytest.mark.far,
    pytest.mark.skipif(people.PROGRAM is None, reason=people.MISSING),
    pytest.mark.timeout(240),
]

SIZES = (ViewportSize(width=1280, height=800), ViewportSize(width=390, height=844))


def test_no_mail_is_wider_than_the_browser_window() -> None:
    wider: dict[str, int] = {}

    with desk_at("http://localhost") as desk:
        page = desk.person()
        for size in SIZES:
            page.set_viewport_size(size)
            for specimen in specimens():
                page.set_content(specimen.mail.html)
                wider[f"{specimen.name} at {size['width']}"] = overflow(page)

    assert {where: much for where, much in wider.items() if much > 0} == {}
