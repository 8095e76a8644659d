"""The API in process, and the people of a small world who call it."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, ParamSpec, Self, TypeVar
from uuid import UUID

import httpx
from anyio.from_thread import BlockingPortal, start_blocking_portal
from fastapi import FastAPI
from httpx import Response
from sqlalchemy import Engine, text

from api.app import make_app
from config.settings import Settings
from harness.clocks import ShiftedClock
from harness.outbox import fan_out_all
from harness.people import SETTINGS, World, vouch, vouch_for
from harness.stage import as_sender
from lockbox.database import Database
from lockbox.identity.roles import Role
from lockbox.requests.lifecycle import Action

COUNT = text("""
SELECT (SELECT count(*) FROM requests) AS requests, (SELECT count(*) FROM decisions) AS decisions,
    (SELECT count(*) FROM events) AS events, (SELECT count(*) FROM event_details) AS details,
    (SELECT count(*) FROM unsealed) AS unsealed,
    (SELECT count(*) FROM notifications) + (SELECT count(*) FROM outbox) AS notifications,
    (SELECT count(*) FROM idempotency_keys) AS keys
""")
BACK = "INSERT INTO memberships (id, person_id, tenant_id, role) VALUES (uuidv7(), :p, :t, :r)"
ELSEWHERE = "203.0.113.7"
PATIENCE = 60.0
AS_PYDANTIC_SAYS = re.compile(
    r"\b(?:Input|String|List|Value|Tuple|Set|Dictionary|Datetime) should\b|Value error|Extra inputs"
)
"""Pydantic's wording for programmers, which must be in no answer and on no page."""


Result = TypeVar("Result")
Parts = ParamSpec("Parts")


@dataclass(frozen=True)
class LoopThread:
    """An event loop in a thread of its own, which keeps its helper threads between calls, as a server's loop does.

    `asyncio.Runner` ends them with each call, and starting new ones takes as long as the call itself.
    """

    portal: BlockingPortal

    @classmethod
    @contextmanager
    def open(cls) -> Iterator[Self]:
        """Start the loop, and end it on the way out."""
        with start_blocking_portal() as portal:
            yield cls(portal)

    def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """Wait for a coroutine, and return what it returns."""

        async def awaited() -> Result:
            return await coroutine

        return self.portal.call(awaited)


def client(app: FastAPI) -> httpx.AsyncClient:
    """Return a client of the app in process; an uncaught error becomes an answer, as on a server."""
    way = httpx.ASGITransport(app, raise_app_exceptions=False, client=(ELSEWHERE, 40000))
    return httpx.AsyncClient(transport=way, base_url="http://lockbox.test")


def facts(answer: Response, status: int, code: str) -> dict[str, Any]:
    """Check that an answer is a problem of this status and code, and return its members."""
    assert (answer.status_code, answer.json().get("code")) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    body: dict[str, Any] = answer.json()
    assert body["status"] == status
    assert body["type"] == f"urn:lockbox:problem:{code}"
    assert body["title"]
    assert body["detail"]
    assert not AS_PYDANTIC_SAYS.search(answer.text), answer.text
    return body


async def until_served(
    call: Callable[Parts, Awaitable[Response]], *args: Parts.args, **parts: Parts.kwargs
) -> Response:
    """Make a call, and repeat it while its answer is 503: on a busy machine it may wait too long for its turn."""
    until = time.monotonic() + PATIENCE
    answer = await call(*args, **parts)
    while answer.status_code == 503 and time.monotonic() < until:
        await asyncio.sleep(0.1)
        answer = await call(*args, **parts)
    return answer


@dataclass
class Door:
    """One world's way to the API. `root` may do everything in its database, for setting scenes."""

    world: World
    db: Database
    root: Engine
    runner: LoopThread
    settings: Settings = SETTINGS

    def __post_init__(self) -> None:
        self.client = client(make_app(self.settings, self.db))

    def with_settings(self, **changes: Any) -> Self:
        """Return this door with changed settings."""
        return replace(self, settings=self.settings.model_copy(update=changes))

    def call(self, who: str | None, method: str, path: str, **parts: Any) -> Response:
        """Call the API as a person; None calls it anonymously."""
        return self.runner.run(self.coming(who, method, path, **parts))

    async def coming(self, who: str | None, method: str, path: str, **parts: Any) -> Response:
        headers = {"authorization": f"Bearer {self.world.tokens[who]}"} if who else {}
        return await self.client.request(method, path, headers=headers | parts.pop("headers", {}), **parts)

    def together(self, *calls: Awaitable[Response]) -> list[Response]:
        async def all_of_them() -> list[Response]:
            return list(await asyncio.gather(*calls))

        return self.runner.run(all_of_them())

    def path(self, tail: str = "") -> str:
        return f"/v1/tenants/{self.world.tenant.slug}{tail}"

    def get(self, who: str | None, path: str, **query: Any) -> Response:
        return self.call(who, "GET", path, params=query)

    def file(self, who: str | None = "erin", headers: dict[str, Any] | None = None, **changes: Any) -> Response:
        """Submit a request over HTTP; a change to None leaves the field out."""
        body = {name: value for name, value in self.world.body(**changes).items() if value is not None}
        return self.call(who, "POST", "/v1/requests", json=body, headers=headers or {})

    def act(
        self, who: str | None, action: str, request_id: UUID | str, headers: dict[str, Any] | None = None, **body: Any
    ) -> Response:
        body = {"comment": "No"} | body if action == "deny" else body
        parts: dict[str, Any] = {"json": body} if body else {}
        return self.call(who, "POST", f"/v1/requests/{request_id}/{action}", headers=headers or {}, **parts)

    def pending(self, who: str = "erin", **changes: Any) -> str:
        """Submit a request without HTTP and return its id."""
        return str(self.world.fresh(who, **changes).id)

    def active(self, who: str = "erin", by: str = "ann", **changes: Any) -> str:
        """Submit and approve a request without HTTP and return its id."""
        request = self.world.submit(who, **changes)
        return str(self.world.act(by, Action.APPROVE, request.id).id)

    def ask(self, who: str | None, engineer: str = "erin", **changes: str) -> Response:
        return self.get(who, "/v1/access", **(self.question(engineer) | changes))

    def question(self, engineer: str = "erin") -> dict[str, Any]:
        return self.world.question(engineer)

    def later(self, **shift: float) -> Self:
        """Return this door as it will be when that much time has passed."""
        clock = ShiftedClock()
        clock.shift = timedelta(**shift)
        return replace(self, db=Database(self.db.engine, self.db.schedule, clock))

    def at(self, moment: datetime) -> Self:
        """Return this door as it is at that moment."""
        return replace(self, db=Database(self.db.engine, self.db.schedule, lambda _: moment))

    def rows(self) -> dict[str, int]:
        with self.root.connect() as connection:
            return dict(connection.execute(COUNT).one()._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it

    def add_outsider(self, elsewhere: "Door") -> None:
        """Add Zoe, who is an approver, an admin and an auditor of another tenant."""
        zoe = self.world.add("zoe", Role.APPROVER, elsewhere.world.tenant.id)
        for role in (Role.TENANT_ADMIN, Role.AUDITOR):
            self.run_sql(BACK, p=zoe.person_id, t=elsewhere.world.tenant.id, r=role.value)

    def run_sql(self, statement: str, **values: Any) -> None:
        """Run a statement as the superuser, to whom no rule of the database applies but triggers.

        If the statement is about notifications, the outbox is fanned out first.
        """
        if "notifications" in statement:
            self.fan_out()
        with self.root.connect() as connection:
            connection.execute(text(statement), values)
        vouch_for(self.root, statement)

    def fan_out(self) -> None:
        fan_out_all(as_sender(self.world.db))

    def prolong_tokens(self, **more: Any) -> None:
        """Prolong all tokens except those of device logins, and give them the MACs that fit."""
        longer = "UPDATE tokens SET expires_at = expires_at + :more, mac = NULL WHERE means IS NULL"
        self.run_sql(longer, more=timedelta(**more))
        vouch(self.root)


OpenDoor = Callable[..., Door]
