"""`make trace`: the files, SQL statements and written rows of each trip through Lockbox, as one table.

A file counts when one of its functions is called. SQL statements are those of Lockbox itself; the second number also
has BEGIN, COMMIT and the settings that row-level security reads. Rows written are those that the trip inserts,
updates or deletes. Buffers, rows read and milliseconds are the results of EXPLAIN (ANALYZE, BUFFERS) for all that it
runs.
"""

import argparse
import asyncio
import json
import logging
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from types import FrameType
from typing import Any, Final, cast
from urllib.parse import urlencode
from uuid import UUID
from weakref import WeakSet

import httpx
import structlog
from cryptography.fernet import Fernet
from psycopg import AsyncCursor, Cursor
from psycopg.errors import Diagnostic
from psycopg.pq import PipelineStatus
from rich.console import Console
from rich.table import Table
from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import make_url

from api.app import make_app
from bench.lockbox_stack import Site, site
from devstack.signals import end_on_signals
from harness.authenticator import enrol
from harness.memory_senders import MemoryMail, MemoryWebhooks
from harness.people import SETTINGS, sign_in
from harness.stage import all_rights, run_as_superuser, setting, superuser_url
from lockbox.audit.log import sealer, signing_keys
from lockbox.audit.log.sealer import Signer
from lockbox.database import Database, ProcessKeys, UnitOfWork, make_engine, postgres_clock
from lockbox.identity import keyring
from lockbox.identity.keyring import Keyring
from lockbox.identity.passkeys import RelyingParty
from lockbox.notifications import delivery, queue
from lockbox.notifications.endpoints import SecretVault
from lockbox.notifications.send_job import Senders
from lockbox.requests import policy_store, timers
from lockbox.schedule import Schedule

HERE = Path(__file__).resolve().parent.parent
OURS: Final = tuple(
    str(HERE / name) + "/" for name in ("api", "worker", "catalogue", "cli", "config", "gate", "lockbox")
)
CONTEXT = ("set_config(", "current_setting(")
WRITTEN = "SELECT coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0)::int FROM pg_stat_xact_user_tables"
PLAN = re.compile(r"duration: (?P<ms>[0-9.]+) ms +plan:\n(?P<plan>\{.*\})", re.DOTALL)
NOTE_PLANS = {
    "session_preload_libraries": "'auto_explain'",
    "auto_explain.log_min_duration": "0",
    "auto_explain.log_analyze": "on",
    "auto_explain.log_buffers": "on",
    "auto_explain.log_timing": "off",
    "auto_explain.log_format": "'json'",
    "auto_explain.log_level": "'notice'",
}
BUFFERS = ("Shared Hit Blocks", "Shared Read Blocks", "Local Hit Blocks", "Local Read Blocks")
REMOVED = "Rows Removed by"
SESSION = "lockbox"
"""The cookie of a browser's session, over plain HTTP."""
LATER = timedelta(hours=5)
MAILS = 8
LINE = 150
OUT = Console()


@dataclass
class Trip:
    """What one trip touched, in the order of the first touch."""

    name: str
    files: dict[str, None] = field(default_factory=dict)
    statements: list[str] = field(default_factory=list)
    further: int = 0
    rows: int = 0
    buffers: int = 0
    rows_read: int = 0
    milliseconds: float = 0.0


class Recorder:
    """Records the calls, statements and rows of one trip at a time, in all threads of this process."""

    def __init__(self) -> None:
        self._trip: Trip | None = None
        self._before = 0
        self._counts: list[AsyncCursor[Any]] = []
        event.listen(Engine, "before_cursor_execute", self._statement)
        event.listen(Engine, "begin", self._begin)
        event.listen(Engine, "commit", self._commit)
        event.listen(Engine, "connect", lambda connection, _: connection.add_notice_handler(self._plan))
        self._heard = WeakSet[object]()
        self._execute, self._execute_here = AsyncCursor.execute, Cursor.execute
        # psycopg reports no statements, so these methods are replaced.
        AsyncCursor.execute = self._pipelined()  # type: ignore[method-assign]
        Cursor.execute = self._pipelined_here()  # type: ignore[method-assign]
        threading.setprofile(self._call)
        sys.setprofile(self._call)

    @contextmanager
    def trip(self, name: str) -> Iterator[Trip]:
        """Record what happens inside."""
        self._trip = trip = Trip(name)
        try:
            yield trip
        finally:
            self._trip = None
        for before, after in zip(self._counts[::2], self._counts[1::2], strict=True):
            trip.rows += _count(after) - _count(before)
        self._counts.clear()

    def _call(self, frame: FrameType, what: str, _: object) -> None:
        if self._trip is not None and what == "call" and frame.f_code.co_filename.startswith(OURS):
            self._trip.files.setdefault(str(Path(frame.f_code.co_filename).relative_to(HERE)))

    def _statement(self, _connection: Connection, _cursor: object, statement: str, *_: object) -> None:
        if self._trip is not None and statement.startswith("SELECT") and any(one in statement for one in CONTEXT):
            self._trip.further += 1
        elif self._trip is not None:
            self._trip.statements.append(" ".join(statement.split()))

    def _plan(self, said: Diagnostic) -> None:
        """Add what Postgres says about an SQL statement that has run."""
        found = PLAN.search(said.message_primary or "")
        if self._trip is None or found is None:
            return
        plan = json.loads(found["plan"])
        if "pg_stat_xact" in plan["Query Text"]:
            return
        self._trip.milliseconds += float(found["ms"])
        self._trip.buffers += _buffers(plan["Plan"])
        self._trip.rows_read += _rows_read(plan["Plan"])

    def _pipelined_here(self) -> Callable[..., Any]:
        """Return psycopg's function for SQL statements in a thread's pipeline, extended to record them."""

        def execute(cursor: Cursor[Any], query: Any, values: Any = None, **more: Any) -> Cursor[Any]:  # noqa: ANN401 - as psycopg declares it
            if self._trip is not None and cursor.connection.pgconn.pipeline_status != PipelineStatus.OFF:
                self._statement(cast("Connection", None), None, query.decode())
            return self._execute_here(cursor, query, values, **more)

        return execute

    def _pipelined(self) -> Callable[..., Any]:
        """Return psycopg's function for SQL statements in the event loop's pipelines, extended to record them."""

        async def execute(cursor: AsyncCursor[Any], query: bytes, values: Mapping[str, Any]) -> AsyncCursor[Any]:
            if cursor.connection not in self._heard:
                self._heard.add(cursor.connection)
                cursor.connection.add_notice_handler(self._plan)
            if self._trip is None:
                return await self._execute(cursor, query, values)
            if query == b"COMMIT":
                self._counts.append(await self._execute(cursor.connection.cursor(), WRITTEN))
            if query in {b"BEGIN", b"COMMIT"}:
                self._trip.further += 1
            else:
                self._statement(cast("Connection", None), None, query.decode())
            done = await self._execute(cursor, query, values)
            if query == b"BEGIN":
                self._counts.append(await self._execute(cursor.connection.cursor(), WRITTEN))
            return done

        return execute

    def _begin(self, connection: Connection) -> None:
        if self._trip is not None:
            self._trip.further += 1
            self._before = _written(connection)

    def _commit(self, connection: Connection) -> None:
        if self._trip is not None:
            self._trip.further += 1
            self._trip.rows += _written(connection) - self._before


def _written(connection: Connection) -> int:
    """Return how many rows this connection has written, without those of Postgres' own statistics."""
    cursor = connection.connection.cursor()
    cursor.execute(WRITTEN)
    (rows,) = cursor.fetchone() or (0,)
    cursor.close()
    return int(rows)


def _buffers(node: Mapping[str, Any]) -> int:
    """Return how many buffers a plan read: a node's count includes its parts, unless a part writes by itself."""
    parts = node.get("Plans", ())
    own: int = sum(node.get(name, 0) - sum(part.get(name, 0) for part in parts) for name in BUFFERS)
    return max(own, 0) + sum(_buffers(part) for part in parts)


def _rows_read(node: Mapping[str, Any]) -> int:
    """Return how many rows the scans of a plan read, including those that a filter removed."""
    removed = sum(value for name, value in node.items() if name.startswith(REMOVED))
    own = (node.get("Actual Rows", 0) + removed) * node.get("Actual Loops", 1) if "Relation Name" in node else 0
    return round(own) + sum(_rows_read(part) for part in node.get("Plans", ()))


def _count(cursor: AsyncCursor[Any]) -> int:
    result = cursor.pgresult
    return int((result.get_value(0, 0) if result else None) or 0)


class PageForms(HTMLParser):
    """The forms of a page: the contents of their fields by the form's address, and the last passkey's options."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.fields: dict[str, list[tuple[str, str]]] = {}
        self.options = ""
        self._open: list[tuple[str, str]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a form, and its fields that are hidden or ticked."""
        told = {name: value or "" for name, value in attrs}
        if tag == "form":
            self._open = []
            self.fields.setdefault(told["action"], self._open)
            self.options = told.get("data-options", self.options)
        elif tag == "input" and (told.get("type") == "hidden" or "checked" in told):
            self._open.append((told["name"], told["value"]))


class Tracer:
    """Makes the trips one after the other, each first once unrecorded, so that no one-time work is counted."""

    def __init__(self, place: Site) -> None:
        plan = place.plan
        self._world = place.world
        note = (
            f"ALTER DATABASE {make_url(plan.database_url).database} SET {key} = {value}"
            for key, value in NOTE_PLANS.items()
        )
        run_as_superuser(superuser_url(plan), *note)
        self._api = Database(make_engine(plan.database_url, role="trace"), Schedule(plan.redis_url))
        self._core = _worker(plan.worker_database_url, plan.redis_url)
        self._notifications = _worker(plan.notifications_database_url, plan.redis_url)
        settings = SETTINGS.model_copy(update={"public_url": plan.public_url})
        way = httpx.ASGITransport(make_app(settings, self._api), client=("127.0.0.1", 40_000))
        self._client = httpx.AsyncClient(transport=way, base_url=plan.public_url)
        self._runner = asyncio.Runner()
        ann = self._world.people["ann"]
        with all_rights(superuser_url(plan)):
            party = RelyingParty(settings.passkey_domain or "", settings.origin)
            self._passkey = enrol(setting(self._world.db), ann.person_id, party)
        self._cookies = {SESSION: sign_in(self._api, ann)}
        self._origin = settings.origin
        key = signing_keys.read([plan.keys / "audit.pem"])
        self._signer = Signer(plan.audit_key.name, key)
        self._senders = Senders(
            mail=MemoryMail(),
            hooks=MemoryWebhooks(),
            vault=SecretVault([Fernet.generate_key().decode()]),
            public_url=plan.public_url,
            services=settings.catalogue.titles,
            wordings=policy_store.wordings,
            sender=settings.mail_from,
            audit_keys={},
            codes=keyring.development_codes(),
        )

    def close(self) -> None:
        """Release what the tracer holds open."""
        self._senders.sending_pool.stop(10)
        self._runner.run(self._api.schedule.followed())
        self._runner.close()
        for one in (self._api, self._core, self._notifications):
            one.dispose()

    def trips(self, recorder: Recorder) -> Iterator[Trip]:
        """Make each trip twice, and yield what the second one touched."""
        self._approved()
        list(sealer.seal(self._core, self._signer))
        with recorder.trip("submit") as trip:
            request = self._submit()
        yield trip
        with recorder.trip("approve") as trip:
            self._approve(request)
        yield trip
        self._checked(request)
        with recorder.trip("access check") as trip:
            self._checked(request)
        yield trip
        yield from self._by_page(recorder)
        yield self._notified(recorder)
        yield self._expired(recorder, self._approved(), self._approved())
        list(sealer.seal(self._core, self._signer))
        self._submit()
        with recorder.trip("seal one submit") as trip:
            list(sealer.seal(self._core, self._signer))
        yield trip

    def _by_page(self, recorder: Recorder) -> Iterator[Trip]:
        for path in (f"/requests/{self._submit()}", "/waiting"):
            self._page(path)
            with recorder.trip("inbox" if path == "/waiting" else "page") as trip:
                self._page(path)
            yield trip
        self._approve_by_page(self._submit())
        request = self._submit()
        page = self._page(f"/requests/{request}")
        with recorder.trip("approve by page") as trip:
            self._approve_by_page(request, page)
        yield trip

    def _approve_by_page(self, request: UUID, page: PageForms | None = None) -> None:
        path = f"/requests/{request}"
        action = f"{path}/approve"
        fields = (page or self._page(path)).fields[action]
        asked = self._page(action, fields)
        credential = self._passkey.get(json.loads(asked.options))
        fields = [field for field in asked.fields[action] if field[0] != "credential"]
        approved = self._page(action, [*fields, ("credential", credential)])
        if action in approved.fields:
            raise RuntimeError(f"{request} was not approved")

    def _page(self, path: str, form: Sequence[tuple[str, str]] | None = None) -> PageForms:
        """Return what a browser gets at an address, or after it has sent a form there."""
        headers = {
            "accept": "text/html",
            "cookie": "; ".join(f"{name}={value}" for name, value in self._cookies.items()),
        }
        if form is None:
            answer = self._runner.run(self._client.get(path, headers=headers))
        else:
            headers |= {"origin": self._origin, "content-type": "application/x-www-form-urlencoded"}
            answer = self._runner.run(self._client.post(path, headers=headers, content=urlencode(form)))
        begun = dict(answer.cookies)
        self._cookies |= {name: value for name, value in begun.items() if value}
        if answer.is_redirect:
            return self._page(answer.headers["location"])
        if answer.status_code != httpx.codes.OK:
            raise RuntimeError(f"{path} was answered {answer.status_code}: {answer.text}")
        return PageForms(answer.text)

    def _notified(self, recorder: Recorder) -> Trip:
        self._notify()
        for _ in range(MAILS):
            self._submit()
        with recorder.trip(f"notify of {MAILS} submits") as trip:
            self._notify()
        return trip

    def _expired(self, recorder: Recorder, first: UUID, second: UUID) -> Trip:
        later = replace_clock(self._core, lambda session: postgres_clock(session) + LATER)
        timers.run(later, [first])
        with recorder.trip("expire") as trip:
            timers.run(later, [second])
        return trip

    def _notify(self) -> None:
        with self._notifications.transaction() as session:
            ids = queue.due(session, grace=timedelta(0), most=100)
        delivery.deliver(self._notifications, ids, self._senders)

    def _approved(self) -> UUID:
        request = self._submit()
        self._approve(request)
        return request

    def _submit(self) -> UUID:
        return UUID(self._call("erin", "POST", "/v1/requests", 201, json=self._world.body())["id"])

    def _approve(self, request: UUID) -> None:
        self._call("ann", "POST", f"/v1/requests/{request}/approve", 200)

    def _checked(self, request: UUID) -> None:
        answer = self._call("gate", "GET", "/v1/access", 200, params=self._world.question())
        if not answer["open"]:
            raise RuntimeError(f"the window of {request} is not open: {answer}")

    def _call(
        self,
        who: str,
        method: str,
        path: str,
        status: int,
        *,
        json: Mapping[str, object] | None = None,
        params: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        headers = {"authorization": f"Bearer {self._world.tokens[who]}"}
        answer = self._runner.run(self._client.request(method, path, headers=headers, json=json, params=params))
        if answer.status_code != status:
            raise RuntimeError(f"{method} {path} was answered {answer.status_code}: {answer.text}")
        found: dict[str, Any] = answer.json()
        return found


def replace_clock(db: Database, clock: Callable[[UnitOfWork], datetime]) -> Database:
    """Return the same database with another clock."""
    return Database(db.engine, db.schedule, clock, keys=ProcessKeys(Keyring([])))


def _worker(url: str, redis_url: str) -> Database:
    return Database(make_engine(url, role="trace"), Schedule(redis_url), keys=ProcessKeys(Keyring([])))


def main() -> int:
    """Make the trips and print them; with `--files` and `--statements`, also the files and SQL statements of each."""
    parser = argparse.ArgumentParser(prog="python -m bench.trace", description=__doc__)
    parser.add_argument("--files", action="store_true", help="list the files of each trip, in the order of calls")
    parser.add_argument("--statements", action="store_true", help="list the statements of each trip")
    asked = parser.parse_args()
    end_on_signals()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    recorder = Recorder()
    with site() as place:
        tracer = Tracer(place)
        try:
            trips = list(tracer.trips(recorder))
        finally:
            tracer.close()
    _print(trips, files=asked.files, statements=asked.statements)
    return 0


def _print(trips: list[Trip], *, files: bool, statements: bool) -> None:
    table = Table(
        "Trip", "Files", "Statements", "With BEGIN, COMMIT, context", "Rows written", "Buffers", "Rows read", "ms"
    )
    for one in trips:
        total = len(one.statements) + one.further
        numbers = len(one.files), len(one.statements), total, one.rows, one.buffers, one.rows_read
        table.add_row(one.name, *map(str, numbers), f"{one.milliseconds:.1f}")
    OUT.print(table)
    for one in trips:
        if files:
            OUT.print(one.name, *one.files, sep="\n  ", markup=False)
        if statements:
            OUT.print(one.name, *(said[:LINE] for said in one.statements), sep="\n  ", markup=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
