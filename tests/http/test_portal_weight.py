"""What a browser without a cache gets for its first page: little enough for a telephone with bad reception."""

import gzip
import re

import pytest

from lockbox.requests.policy_rules import Policy
from tests.http.portal import Browser, OpenPortal, PortalPage

MOST_BYTES = 60_000
PATHS = ("/requests", "/requests/{id}", "/waiting", "/account", "/sign-in")


def _sent(browser: Browser, page: PortalPage) -> int:
    """Count the bytes, as sent, of the page and of all files that it names."""
    parts = set(re.findall(r'(?:src|href)="(/static/[^"]+)"', page.text))
    assert {"/static/portal.js", "/static/portal.css"} <= parts
    total = len(gzip.compress(page.answer.content))
    for part in parts:
        answer = browser.call("GET", part, headers={"accept-encoding": "gzip"})
        assert answer.headers["content-encoding"] == "gzip"
        total += int(answer.headers["content-length"])
    return total


@pytest.mark.far
@pytest.mark.parametrize("path", PATHS)
def test_the_first_portal_page_has_a_small_size(open_portal: OpenPortal, path: str) -> None:
    portal = open_portal(Policy(vendor_review=False, mail_suffices=True))
    requests = [portal.world.submit() for _ in range(50)]
    browser = portal.by_mail("ann")

    page = browser.get(path.format(id=requests[-1].id))

    assert page.status == 200
    assert _sent(browser, page) < MOST_BYTES
