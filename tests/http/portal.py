"""The pages as people find them: browsers with cookies, forms filled in, and the mails that bring the codes."""

import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urljoin, urlsplit
from uuid import UUID

import httpx
from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts
from httpx import Response
from sqlalchemy import Engine, text

from api import deps
from api.app import make_app
from config.settings import Settings
from harness.clocks import ShiftedClock
from harness.outbox import fan_out_all
from harness.people import World, sign_in, vouch_for
from harness.stage import as_sender
from lockbox.database import Database
from lockbox.facts.enumerations import AuthMethod
from lockbox.identity.oidc_providers import IdentityProviders
from lockbox.identity.sessions import ClientInfo
from lockbox.notifications.senders.protocol import OutgoingMail
from tests.database.postbag import Postbag
from tests.http.door import AS_PYDANTIC_SAYS, PATIENCE, LoopThread

HOME = "https://lockbox.example"
SETTINGS = Settings(environment="test", public_url=HOME, sign_ins_per_account=500, sign_ins_per_address=500)
SESSION, BEGUN = "__Host-lockbox", "__Host-lockbox-begun"
HOSTS = itertools.count(1)
# An app takes half a second to learn its routes: those with the usual settings share one, and its clock.
APPS: dict[Engine, tuple[FastAPI, ShiftedClock]] = {}
COUNT = """
SELECT (SELECT count(*) FROM requests) AS requests, (SELECT count(*) FROM decisions) AS decisions,
    (SELECT count(*) FROM events) AS events,
    (SELECT count(*) FROM notifications) + (SELECT count(*) FROM outbox) AS notifications,
    (SELECT count(*) FROM passkeys) AS passkeys, (SELECT count(*) FROM identities) AS identities,
    (SELECT count(*) FROM sessions) AS sessions, (SELECT count(*) FROM sign_ins) AS sign_ins,
    (SELECT count(*) FROM memberships) AS memberships, (SELECT count(*) FROM people) AS people
"""


Filled = Mapping[str, str | list[str]]
"""What a form holds: a field that is there several times, such as boxes to tick, has a list."""


@dataclass
class Form:
    """A form of a page: where it goes, and what it holds."""

    action: str
    method: str
    fields: dict[str, str] = field(default_factory=dict)
    data: dict[str, str] = field(default_factory=dict)
    ticked: dict[str, list[str]] = field(default_factory=dict)

    @property
    def filled(self) -> dict[str, Any]:
        """The fields that a browser sends for an unchanged form: of the boxes of one name, all ticked ones."""
        return self.fields | self.ticked


class PageParser(HTMLParser):
    """Reads forms, links and scripts, and refuses what a page of ours never has: inline script and style."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self.links: list[str] = []
        self.labels: set[str] = set()
        self.named: dict[str, str] = {}
        self.scripts: list[str] = []
        self.lang = ""
        self._select = self._textarea = ""
        self._elsewhere: list[str] = []
        self._is_first = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = {name: value or "" for name, value in attrs}
        assert not [name for name in told if name.startswith("on") or name == "style"], told
        self.lang = told.get("lang", self.lang)
        if "href" in told and tag == "a":
            self.links.append(told["href"])
        if tag == "script":
            self.scripts.append(told["src"])
        elif tag == "form":
            data = {name.removeprefix("data-"): value for name, value in told.items() if name.startswith("data-")}
            self.forms.append(Form(told["action"], told["method"], data=data))
        elif tag == "button" and "formaction" in told:
            self._elsewhere.append(told["formaction"])
        elif tag == "label":
            self.labels.add(told["for"])
        elif tag in {"input", "select", "textarea"} and told.get("type") != "hidden":
            self.named[told["id"]] = told["name"]
        self._note_field(tag, told)

    def _note_field(self, tag: str, told: dict[str, str]) -> None:
        left_empty = told.get("type") == "checkbox" and "checked" not in told
        if tag in {"input", "textarea", "select"} and self.forms and not left_empty:
            self.forms[-1].fields[told["name"]] = told.get("value", "")
        if tag == "input" and told.get("type") == "checkbox" and "checked" in told:
            self.forms[-1].ticked.setdefault(told["name"], []).append(told["value"])
        if tag == "select":
            self._select = told["name"]
        elif tag == "textarea":
            self._textarea = told["name"]
        elif tag == "option" and self._select and ("selected" in told or self._is_first):
            self.forms[-1].fields[self._select] = told["value"]
        self._is_first = tag == "select"

    def handle_data(self, data: str) -> None:
        if self._textarea:
            self.forms[-1].fields[self._textarea] += data

    def handle_endtag(self, tag: str) -> None:
        """Leave a text area, a select or a form; each button that leads elsewhere makes another form."""
        if tag == "textarea":
            self._textarea = ""
        elif tag == "form":
            last = self.forms[-1]
            self.forms += [replace(last, action=action) for action in self._elsewhere]
            self._elsewhere = []
        elif tag == "select":
            self._select = ""


@dataclass
class PortalPage:
    """A page that the portal returned."""

    answer: Response

    @property
    def status(self) -> int:
        return self.answer.status_code

    @property
    def text(self) -> str:
        return self.answer.text

    @property
    def path(self) -> str:
        """The browser's address: the answer to a form states its own."""
        stands = re.search(r' data-reload="([^"?]+)', self.text)
        return stands[1] if stands else self.answer.request.url.path

    @property
    def words(self) -> str:
        plain = re.sub(r"<(script|style)\b.*?</\1>|<[^>]+>", " ", self.text, flags=re.DOTALL)
        return re.sub(r"\s+", " ", plain).strip()

    @property
    def read(self) -> PageParser:
        return PageParser(self.text)

    def form(self, action: str) -> Form:
        (found,) = (form for form in self.read.forms if form.action.endswith(action))
        return found


@dataclass
class Portal:
    """One world's pages, with a clock that can be moved."""

    world: World
    db: Database
    worker: Database
    root: Engine
    runner: LoopThread
    settings: Settings = SETTINGS

    def __post_init__(self) -> None:
        kept = APPS.get(self.db.engine) if self.settings is SETTINGS else None
        self.clock = ShiftedClock() if kept is None else kept[1]
        self.clock.shift = timedelta(0)
        self.db = Database(self.db.engine, self.db.schedule, self.clock)
        self.worker = Database(self.worker.engine, self.worker.schedule, self.clock)
        self.app = make_app(self.settings, self.db) if kept is None else kept[0]
        if self.settings.issuers:
            # A new app has to fetch metadata and keys first; on a busy machine that may take long.
            self.app.state.issuers = IdentityProviders(self.settings.issuers, seconds=PATIENCE, wait_seconds=PATIENCE)
        if self.settings is SETTINGS:
            APPS[self.db.engine] = (self.app, self.clock)

    def wait(self, **shift: float) -> None:
        self.clock.shift += timedelta(**shift)

    def browser(self, **facts: Any) -> "Browser":
        return Browser(self, **facts)

    def entered(self, who: str, means: AuthMethod) -> "Browser":
        """Open a browser with a person who is signed in already, without a mail or passkey."""
        browser = self.browser()
        browser.enter(who, means)
        return browser

    def by_mail(self, who: str) -> "Browser":
        """Open a browser with a person who is signed in by a mailed code."""
        return self.entered(who, AuthMethod.MAIL)

    def by_passkey(self, who: str) -> "Browser":
        """Open a browser with a person who is signed in by a passkey."""
        return self.entered(who, AuthMethod.PASSKEY)

    def opened(
        self, who: str, request_id: object, means: AuthMethod = AuthMethod.MAIL
    ) -> tuple["Browser", PortalPage]:
        """Open a request in a browser with a person who is signed in."""
        browser = self.entered(who, means)
        return browser, browser.get(f"/requests/{request_id}")

    def here(self, tail: str = "") -> str:
        return f"/tenants/{self.world.tenant.slug}{tail}"

    def address(self, name: str) -> str:
        found = self.sql("SELECT email FROM people WHERE id = :id", id=self.world.people[name].person_id)
        return str(found[0].email)

    def filled(self, path: str, fields: Mapping[str, str]) -> dict[str, str]:
        """Return those of the fields that the form with this path has."""
        routes = [route for route in iter_route_contexts(self.app.routes) if "POST" in (route.methods or ())]
        there = next(route for route in routes if route.path_regex.match(path))
        assert isinstance(there.original_route, APIRoute)
        known = deps.parameters(there.original_route).fields
        return {name: value for name, value in fields.items() if name in known}

    def sql(self, statement: str, **values: Any) -> list[Any]:
        """Run a statement with every right, and return its rows.

        If the statement is about notifications, the outbox is fanned out first.
        """
        if "notifications" in statement and statement != COUNT:
            fan_out_all(as_sender(self.db))
        with self.root.connect() as connection:
            found = connection.execute(text(statement), values)
            rows = list(found.all()) if found.returns_rows else []
        vouch_for(self.root, statement)
        return rows

    def post(self, about_id: UUID | str | None) -> list[OutgoingMail]:
        """Send the pending notifications about an invitation or a begun sign-in, and return the mails."""
        rows = self.sql("SELECT id FROM notifications WHERE about_id = :id AND closed_at IS NULL", id=about_id)
        bag = Postbag(public_url=self.settings.public_url)
        bag.deliver(self.worker, [row.id for row in rows])
        return bag.mail.sent

    def count(self) -> Any:
        """Count the rows that only a decision or a change may add."""
        return self.sql(COUNT)[0]

    def states(self) -> list[Any]:
        return self.sql("SELECT id, state, version, deadline_at FROM requests ORDER BY id")


@dataclass
class Browser:
    """A browser with cookies at an address of its own, that says where its forms come from."""

    portal: Portal
    agent: str = "Testfox 1"
    address: str = ""

    def __post_init__(self) -> None:
        number = next(HOSTS)
        self.address = self.address or f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
        way = httpx.ASGITransport(self.portal.app, raise_app_exceptions=False, client=(self.address, 40000))
        self.client = httpx.AsyncClient(transport=way, base_url=self.portal.settings.public_url)
        self.client.headers["user-agent"] = self.agent

    def call(self, method: str, path: str, **parts: Any) -> Response:
        return self.portal.runner.run(self.client.request(method, path, **parts))

    def get(self, path: str, **parts: Any) -> PortalPage:
        """Open a page, and follow redirects."""
        return self._follow(self.call("GET", path, **parts))

    def post(self, path: str, fields: Filled, **parts: Any) -> PortalPage:
        """Send a form from a page of ours, and follow redirects."""
        return self._follow(self.send(path, fields, **parts))

    def send(self, path: str, fields: Filled, headers: Mapping[str, str] | None = None) -> Response:
        """Send a form from a page of ours, and follow no redirect."""
        ours = {"origin": self.portal.settings.origin, "sec-fetch-site": "same-origin"}
        return self.call("POST", path, data=dict(fields), headers=ours if headers is None else headers)

    def submit(self, page: PortalPage, action: str, **changes: str) -> PortalPage:
        """Fill in a form of a page and send it."""
        form = page.form(action)
        assert form.method == "post"
        return self.post(form.action, form.filled | changes)

    def approve_anyway(self, request_id: object) -> PortalPage:
        """Approve a request on its page, even if the page offers no form for that."""
        page = self.get(f"/requests/{request_id}")
        return self.post(f"/requests/{request_id}/approve", page.form("/deny").fields)

    def submit_first(self, page: PortalPage, action: str, **changes: str) -> PortalPage:
        """Fill in and send the first of several forms with this action."""
        form = next(form for form in page.read.forms if form.action.endswith(action))
        return self.post(form.action, form.fields | changes)

    def _follow(self, answer: Response) -> PortalPage:
        hops = 0
        while answer.is_redirect and _is_ours(answer, self.portal):
            hops += 1
            assert hops < 5, "too many hops"
            answer = self.call("GET", urljoin(str(answer.request.url), answer.headers["location"]))
        if answer.headers.get("content-type", "").startswith("text/html"):
            assert not AS_PYDANTIC_SAYS.search(answer.text), answer.text
        return PortalPage(answer)

    def put(self, name: str, value: str) -> None:
        """Set a cookie in place of all others with its name."""
        jar = self.client.cookies.jar
        for cookie in [one for one in jar if one.name == name]:
            jar.clear(cookie.domain, cookie.path, cookie.name)
        self.client.cookies.set(name, value, domain=urlsplit(self.portal.settings.public_url).hostname or "")

    @property
    def session(self) -> str | None:
        return self.client.cookies.get(SESSION) or None

    @property
    def begun(self) -> UUID | None:
        """The id of the sign-in that this browser has begun."""
        value = self.client.cookies.get(BEGUN)
        return UUID(hex=value.split(".")[1]) if value else None

    def ask_for_code(self, address: str, next_: str = "/requests") -> PortalPage:
        return self.submit(self.get(f"/sign-in?next={next_}"), "/sign-in", address=address)

    def code(self) -> str:
        """Return the code that is mailed for the sign-in that this browser has begun."""
        (mail,) = self.portal.post(self.begun)
        return code_in(mail)

    def sign_in(self, name: str, next_: str = "/requests") -> PortalPage:
        page = self.ask_for_code(self.portal.address(name), next_)
        return self.submit(page, "/sign-in/code", code=self.code())

    def enter(self, name: str, means: AuthMethod = AuthMethod.MAIL) -> None:
        """Sign a person in directly, without the pages."""
        place = ClientInfo(self.address, self.agent)
        self.put(SESSION, sign_in(self.portal.db, self.portal.world.people[name], means, place))


def code_in(mail: OutgoingMail) -> str:
    """Return the code that a mail has on a line of its own."""
    (line,) = re.findall(r"^ {4}(\S.*)$", mail.text, re.MULTILINE)
    return str(line)


def crawl(browser: Browser, *starts: str, but: str = "none") -> Iterator[PortalPage]:
    """Open every page that links of ours reach, once, except paths that begin with `but`."""
    seen, waiting = set[str](), [*starts]
    while waiting:
        path = waiting.pop()
        if path in seen or path.startswith(but):
            continue
        seen.add(path)
        page = browser.get(path)
        yield page
        if page.answer.headers.get("content-type", "").startswith("text/html"):
            waiting += [urljoin(path, link) for link in page.read.links if link.startswith("/")]


def _is_ours(answer: Response, portal: Portal) -> bool:
    where = urlsplit(urljoin(str(answer.request.url), answer.headers["location"]))
    return f"{where.scheme}://{where.netloc}" == portal.settings.origin


OpenPortal = Callable[..., Portal]
