"""A browser for the tests of one file, over the server that the file's own fixture `live` starts."""

from collections.abc import Iterator

import pytest

from tests.http.streams import Live
from tests.whole.people import BrowserDesk, desk_at


@pytest.fixture(scope="module")
def browser(live: Live) -> Iterator[BrowserDesk]:
    with desk_at(live.url) as found:
        yield found


@pytest.fixture
def desk(browser: BrowserDesk) -> Iterator[BrowserDesk]:
    """That browser, without traces of earlier tests."""
    yield browser
    browser.leave()
