"""Forms of the pages: all that exist, found by following every link, and those sent with valid and invalid input."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Locator, Page, Request, expect

from harness.people import World
from lockbox.database import now
from tests.oidc_issuer import LocalIssuer
from tests.whole.conftest import RunningStack
from tests.whole.people import BrowserDesk

ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
SLUG = re.compile(r"tenant-[0-9a-f]+")
LETTER = re.compile(r"(?<=/inbox/)\w+")
HANDED_ON = re.compile("passkey|identities/new")
REFUSAL = "[role=alert][autofocus]"

Way = tuple[str, str]
"""A form: its method and where it goes, ids replaced."""

WAYS = """(page) => [...page.forms].flatMap((form) => {
  const fields = [...form.querySelectorAll("input:not([type=hidden], [type=checkbox], [readonly]), textarea")];
  const to = [...form.querySelectorAll("button")].map((one) => one.getAttribute("formaction"));
  return [...new Set(to.length ? to : [null])].map((one) => [
    (form.getAttribute("method") ?? "get").toLowerCase(),
    new URL(one ?? form.getAttribute("action") ?? location.pathname, location.href).pathname,
    fields.length > 0,
  ]);
})"""

SAME_FOR_ALL = "/docs/"
"""How pages of the API's reference begin, hundreds that are the same for every reader."""
CRAWL = f"""async ([first, most, read]) => {{
  const ways = {WAYS};
  const queue = [first], known = new Set([first, ...read]), shapes = new Map(), found = [], dead = [];
  const shape = (path) => path.replace(/[0-9a-f]{{8}}-[0-9a-f-]{{27}}|(?<=inbox[/]).*|=[^&]*/g, "");
  while (queue.length) {{
    const path = queue.shift(), kind = shape(path), times = (shapes.get(kind) ?? 0) + 1;
    shapes.set(kind, times);
    if (times > most) continue;
    const answer = await fetch(path, {{ headers: {{ "X-Lockbox-By-Itself": "yes" }} }});
    if (!answer.ok) dead.push(`${{answer.status}} ${{path}}`);
    if (!(answer.headers.get("content-type") ?? "").startsWith("text/html")) continue;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    found.push(...ways(page));
    if (path.startsWith("/inbox/")) continue;
    for (const link of page.querySelectorAll("a[href]:not([download])")) {{
      const to = new URL(link.getAttribute("href"), new URL(answer.url)), next = to.pathname + to.search;
      if (to.origin === location.origin && !known.has(next) && !to.pathname.startsWith("/sign-in/oidc")) {{
        known.add(next);
        queue.push(next);
      }}
    }}
  }}
  return [found, dead, [...known].filter((path) => path.startsWith("{SAME_FOR_ALL}"))];
}}"""

WRITTEN = """(form) => {
  const none = "[type=hidden], [type=checkbox], [type=radio], [type=file]";
  const typed = form.querySelectorAll(`input:not(${none}), textarea`);
  return {
    texts: [...typed].filter((one) => one.value !== one.defaultValue).map((one) => one.value),
    boxes: [...form.querySelectorAll("input[type=checkbox], input[type=radio]")].map((one) => [one.id, one.checked]),
    chosen: [...form.querySelectorAll("select")].map((one) => [one.id, one.value]),
  };
}"""
HELD = """() => [...document.querySelectorAll("input, textarea")].map((one) => one.value)"""


def way(method: str, path: str) -> Way:
    return method, LETTER.sub("{letter}", SLUG.sub("{slug}", ID.sub("{id}", path)))


@dataclass
class Book:
    """What is known about forms so far: all that were `seen`, whether they take input, and which were sent.

    `issuer` is the vendor's identity provider, `samples` the world of the demo users, `reference` the links of the
    API's reference that were followed.
    """

    stage: RunningStack
    desk: BrowserDesk
    issuer: LocalIssuer
    samples: World
    seen: dict[Way, bool] = field(default_factory=dict)
    sent: set[Way] = field(default_factory=set)
    refused: set[Way] = field(default_factory=set)
    dead: list[str] = field(default_factory=list)
    played: set[str] = field(default_factory=set)
    reference: list[str] = field(default_factory=list)

    def play(self, scene: Callable[["Book"], None]) -> None:
        """Play a scene, unless it was played already."""
        if scene.__name__ not in self.played:
            scene(self)
            self.desk.leave()
            self.played.add(scene.__name__)

    def at(self, path: str, world: World | None = None, name: str = "", **options: Any) -> Page:
        """Open a page as a person of a world, or without a sign-in, in a separate browser."""
        page = self.desk.person(world, name, **options)
        page.on("request", self._note)
        self.open(page, path)
        return page

    def open(self, page: Page, path: str) -> None:
        page.goto(path)
        self.look(page)

    def look(self, page: Page) -> None:
        self._see(page.evaluate(f"() => ({WAYS})(document)"))

    def crawl(self, page: Page, most: int = 12) -> None:
        """Follow every link from the current page, except those in mails, which may be addressed to others.

        At most `most` pages of one kind are visited, and each page of the API reference only once.
        """
        found, dead, self.reference = page.evaluate(CRAWL, [urlsplit(page.url).path, most, self.reference])
        self._see(found)
        self.dead += dead

    def rightly(self, button: Locator, says: str = "") -> Page:
        """Press the button of a form, and check that the next page shows a text and no refusal."""
        page = self._press(button)
        expect(page.locator("main")).to_contain_text(says)
        expect(page.locator(REFUSAL)).to_have_count(0)
        return page

    def wrongly(self, button: Locator, says: str, *, keeps: bool = True) -> None:
        """Press the button of a form, and check that the refusal says why, has the focus, and keeps the input.

        With `keeps` false, the input need not be kept.
        """
        form = _form(button)
        written = form.evaluate(WRITTEN)
        page = self._press(button, is_right=False)
        told = page.locator(REFUSAL).first
        expect(told).to_contain_text(says)
        expect(told).to_be_focused()
        expect(told).to_be_in_viewport()
        held = page.evaluate(HELD)
        lost = [text for text in written["texts"] if text not in held]
        assert not (keeps and lost), lost
        for name, is_checked in written["boxes"]:
            box = page.locator(f"[id='{name}']")
            assert not box.count() or box.is_checked() == is_checked, name
        for name, value in written["chosen"]:
            choice = page.locator(f"[id='{name}']")
            assert not choice.count() or choice.input_value() == value, name

    def unsendable(self, button: Locator, where: Locator) -> None:
        """Press the button of a form that the browser itself does not send: it focuses the field and says why."""
        page, before = button.page, button.page.url
        self.look(page)
        self.refused.add(self._way(button))
        button.click()
        expect(where).to_be_focused()
        assert where.evaluate("(one) => one.validationMessage")
        assert page.url == before

    def downloads(self, button: Locator) -> bytes:
        """Press the button of a form that is answered with a file, and return the file's content."""
        self.look(button.page)
        with button.page.expect_download() as begun:
            button.click()
        self.sent.add(self._way(button))
        return begun.value.path().read_bytes()

    def sees(self, page: Page, says: str, at: str) -> None:
        """Wait for a page to which the browser is already going by itself."""
        page.wait_for_url(f"**{at}")
        expect(page.locator("main")).to_contain_text(says)
        self.look(page)

    def clock(self) -> datetime:
        with self.stage.db.transaction() as session:
            return now(session)

    def _press(self, button: Locator, *, is_right: bool = True) -> Page:
        page, this = button.page, self._way(button)
        self.look(page)
        with page.expect_navigation(wait_until="load"):
            button.click()
        self.look(page)
        (self.sent if is_right else self.refused).add(this)
        return page

    def _way(self, button: Locator) -> Way:
        form = _form(button)
        to = button.get_attribute("formaction") or form.get_attribute("action") or urlsplit(button.page.url).path
        return way((form.get_attribute("method") or "get").lower(), to)

    def _see(self, found: Iterable[tuple[str, str, bool]]) -> None:
        for method, path, is_written_in in found:
            this = way(method, path)
            self.seen[this] = self.seen.get(this, False) or is_written_in

    def _note(self, request: Request) -> None:
        """Record forms that a page's script sends in a passkey ceremony, and those whose answer redirects at once."""
        path = urlsplit(request.url).path
        if request.is_navigation_request() and request.method == "POST" and HANDED_ON.search(path):
            self.sent.add(way("post", path))


def _form(button: Locator) -> Locator:
    return button.locator("xpath=ancestor::form")
