"""People at real browsers: Playwright drives the system's Chromium, each person in a separate context."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Browser, BrowserContext, CDPSession, Page, ViewportSize, expect, sync_playwright

from harness.people import World, sign_in
from tests.programs import absent
from tests.whole.conftest import RunningStack

# The shell is the same engine without the windows and menus that nobody sees, of which each context has its own.
PROGRAM = shutil.which("chromium-headless-shell") or shutil.which("chromium")
MISSING = absent("chromium-headless-shell")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync"]
PATIENCE_MS = 20_000
SEEN_MS = 40_000
# A page that may not listen looks again every fifteen seconds, but not where tests wait for what is live.
NO_POLL = "window.setInterval = (every => (act, ms) => every(act, ms === 15000 ? 1e9 : ms))(setInterval)"
WIDE, PHONE = ViewportSize(width=1200, height=800), ViewportSize(width=360, height=740)
AUTHENTICATOR = {
    "protocol": "ctap2",
    "transport": "internal",
    "hasResidentKey": True,
    "hasUserVerification": True,
    "isUserVerified": True,
    "automaticPresenceSimulation": True,
}
# By which rules of axe-core, if not by all: beside the light page a dark one can be wrong in its colours alone.
LOOKS: tuple[tuple[Literal["light", "dark"], ViewportSize, *tuple[str, ...]], ...] = (
    ("light", WIDE),
    ("dark", WIDE, "color-contrast", "link-in-text-block"),
    ("dark", PHONE),
)
# Only what is wrong is handed over: what is right of a page is a hundred times as much.
FAULTS = "options => axe.run(options).then(found => found.violations)"
SCREENS = os.environ.get("SCREENS")


@dataclass
class BrowserDesk:
    """A browser, and the stack whose pages it opens."""

    browser: Browser
    home: str
    stage: RunningStack | None = None
    contexts: list[BrowserContext] = field(default_factory=list)

    def person(
        self, world: World | None = None, name: str = "", *, secret: str = "", polls: bool = False, **options: Any
    ) -> Page:
        """Open a tab of a new browser, signed in as a person of a world or by a session secret, or not signed in."""
        context = self.browser.new_context(base_url=self.home, viewport=options.pop("viewport", WIDE), **options)
        context.set_default_timeout(PATIENCE_MS)
        if not polls:
            context.add_init_script(NO_POLL)
        self.contexts.append(context)
        if world is not None and self.stage is not None:
            secret = sign_in(self.stage.db, world.people[name])
        if secret:
            context.add_cookies([{"name": "lockbox", "value": secret, "url": self.home, "httpOnly": True}])
        page = context.new_page()
        page.on("console", lambda said: _quiet(said.type, said.text))
        return page

    def leave(self) -> None:
        """Close all browsers: a page that stays open gets live messages and reloads."""
        while self.contexts:
            self.contexts.pop().close()


@contextmanager
def desk_of(stage: RunningStack) -> Iterator[BrowserDesk]:
    """Run a browser for the people of a stack, until the end of the block."""
    with desk_at(stage.plan.public_url) as desk:
        desk.stage = stage
        yield desk


@contextmanager
def desk_at(home: str) -> Iterator[BrowserDesk]:
    """Run a browser for the pages at an address, until the end of the block."""
    expect.set_options(timeout=SEEN_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=PROGRAM, args=FLAGS)
        desk = BrowserDesk(browser, home)
        try:
            yield desk
        finally:
            desk.leave()
            browser.close()


def with_authenticator(page: Page) -> CDPSession:
    """Plug in an authenticator that verifies its user; it stays until the returned session is detached."""
    devices = page.context.new_cdp_session(page)
    devices.send("WebAuthn.enable")
    devices.send("WebAuthn.addVirtualAuthenticator", {"options": AUTHENTICATOR})
    return devices


def violations(page: Page, *rules: str) -> list[str]:
    """Return axe-core's findings about a page, one line each; by all of its rules, or by these."""
    if page.evaluate("typeof axe === 'undefined'"):
        page.evaluate(AXE_SCRIPT)
    options = {"resultTypes": ["violations"]} | ({"runOnly": list(rules)} if rules else {})
    found = page.evaluate(FAULTS, options)
    return [f"{page.url}: {one['id']}: {one['nodes'][0]['html'][:200]}" for one in found]


def overflow(page: Page) -> int:
    """Return by how many pixels a page is wider than its window."""
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


def choose(page: Page, count: int, *, checked: bool = True) -> None:
    """Check or uncheck all boxes when the page has `count` of them: a click returns before the page is complete."""
    boxes = page.get_by_role("checkbox")
    expect(boxes).to_have_count(count)
    for box in boxes.all():
        box.set_checked(checked)


def picture(page: Page, name: str) -> None:
    """Write a picture of a page into the folder that SCREENS names, if it is set."""
    if SCREENS:
        page.screenshot(path=Path(SCREENS) / f"{name}.png", full_page=True)


def swept(page: Page, name: str = "") -> list[str]:
    """Return what is wrong with an open page on a desktop, light and dark, and on a dark phone."""
    wrong = []
    page.wait_for_load_state()
    for scheme, size, *rules in LOOKS:
        page.set_viewport_size(size)
        page.emulate_media(color_scheme=scheme)
        wrong += violations(page, *rules)
        wrong += [f"{page.url} is {wider} px too wide" for wider in [overflow(page)] if wider > 0]
        if name:
            picture(page, f"{name}, {scheme}, {size['width']}")
    page.set_viewport_size(WIDE)
    return wrong


def _quiet(kind: str, said: str) -> None:
    # What is refused on purpose is said by the browser too; what breaks the content policy or a script is a fault.
    if kind == "error" and "Failed to load resource" not in said:
        raise AssertionError(said)
