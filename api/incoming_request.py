"""An incoming request: its budget, the group that it runs in, whether its credential is known, its client."""

import asyncio
import hashlib
import os
import re
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Coroutine, Sequence
from contextvars import Context
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import psycopg
import structlog
from anyio import CapacityLimiter, to_thread
from psycopg import AsyncConnection
from psycopg.pq import TransactionStatus
from sqlalchemy import Engine, event
from starlette.requests import HTTPConnection

from config.server_urls import libpq_url
from lockbox import database
from lockbox.database import CONNECT_ARGS, Database, UnitOfWork
from lockbox.errors import Busy
from lockbox.pipelines import GroupMember, PlansOutdated, SharedTransaction
from lockbox.use_cases import run_alone

log = structlog.get_logger(__name__)

Answer = TypeVar("Answer")

SHORT, LONG = 2.0, 5.0
ENTRY = "lockbox.entry"
MOST_KNOWN, KNOWN_SECONDS = 20_000, 900.0
Networks = Sequence[IPv4Network | IPv6Network]
READING = frozenset({"GET", "HEAD", "OPTIONS"})
ACCESS_PATHS = frozenset({"/v1/access", "/access/v1/evaluation", "/access/v1/evaluations"})
HEALTH_PATHS = frozenset({"/readyz", "/metrics"})
MOST_TOGETHER = 16
"""How many calls share a transaction: all of them wait for its commit."""
GROUPS = 2
"""How many groups of one kind run at once: while one waits for Postgres, the other one evaluates."""
MOVES = re.compile(r"/v1/requests/[^/]+/(?:(?P<opens>approve|endorse|break-glass)|revoke|deny|cancel|complete)")
"""The paths of the API's calls that move a request."""
CLOSES = re.compile(
    r"/(?:requests|mine|review)/[^/]+/(?:revoke|deny|cancel|complete)"
    r"|(?:/v1)?/tenants/[^/]+/emergency-stop"
    r"|/v1/tenants/[^/]+/suspend"
    r"|/v1/vendor/members/[^/]+/disable"
    r"|/v1/cases/[^/]+/[^/]+/closed"
)
"""The paths of other calls that only end access: those of the API, and those that the portal's forms post to."""


@dataclass(frozen=True)
class Budget:
    """How many requests of one kind are worked on at once, and how many seconds another one queues.

    A `vital` request has a database connection of a pool of its own. `alone` is how many requests may have a thread
    and a connection at once where not every one does: those that run outside their group, and uploads, which need one
    only for moments.
    """

    name: str
    most: int
    seconds: float = SHORT
    vital: bool = False
    alone: int = 0

    @property
    def connections(self) -> int:
        """How many threads and pooled database connections it uses at most."""
        return self.alone or self.most


CHECKS = Budget("checks", 32, LONG, vital=True, alone=3)
CLOSING_MOVES = Budget("closing moves", 16, LONG, vital=True, alone=2)
CLOSINGS = Budget("closings", 2, LONG, vital=True)
HEALTH = Budget("health", 2, LONG, vital=True)
OPENING_MOVES = Budget("opening moves", 16, alone=2)
READS = Budget("reads", 10)
SUBMITS = Budget("submits", 24, alone=2)
WRITES = Budget("writes", 3)
UPLOADS = Budget("uploads", 8, alone=4)
KNOWN = (CHECKS, CLOSING_MOVES, CLOSINGS, HEALTH, OPENING_MOVES, READS, SUBMITS, WRITES, UPLOADS)
POSTED = {"/v1/requests": SUBMITS, "/ask": SUBMITS, "/audit-log/verify": UPLOADS}
STRANGERS = Budget("strangers", 6)
VITAL_STRANGERS = Budget("vital strangers", 4, LONG, vital=True)
"""For requests without a credential, or with one not found valid by this process; they use no other budget."""
MOST_VITAL = sum(budget.connections for budget in (*KNOWN, VITAL_STRANGERS) if budget.vital)
MOST_COMMON = sum(budget.connections for budget in (*KNOWN, STRANGERS) if not budget.vital)


@dataclass
class IncomingRequest:
    """The budget of a request, and whether its credential is valid, which the code that authenticates it sets.

    `found_valid` is called, from whatever thread, as soon as that is so.
    """

    budget: Budget
    is_known: bool = False
    found_valid: Callable[[], object] = lambda: None


def budget_of(method: str, path: str) -> Budget:
    """Return the budget of a request."""
    if path in ACCESS_PATHS:
        return CHECKS
    if path in HEALTH_PATHS:
        return HEALTH
    if method in READING:
        return READS
    return _budget_of_post(path) if method == "POST" else WRITES


def _budget_of_post(path: str) -> Budget:
    if path in POSTED:
        return POSTED[path]
    if move := MOVES.fullmatch(path):
        return OPENING_MOVES if move["opens"] else CLOSING_MOVES
    return CLOSINGS if CLOSES.fullmatch(path) else WRITES


def vouch(connection: HTTPConnection) -> None:
    """Record that the credential of this request is valid."""
    entry: IncomingRequest | None = connection.scope.get(ENTRY)
    if entry is not None and not entry.is_known:
        entry.is_known = True
        entry.found_valid()


def is_vital(connection: HTTPConnection) -> bool:
    """Whether this request uses the database connections that are kept for access checks and closing moves."""
    entry: IncomingRequest | None = connection.scope.get(ENTRY)
    return entry is not None and entry.budget.vital


class KnownCredentials:
    """Digests, under a key of this process, of the credentials that were good within the last quarter of an hour."""

    def __init__(self) -> None:
        self._key = os.urandom(32)
        self._until: OrderedDict[bytes, float] = OrderedDict()

    def __contains__(self, shown: bytes | None) -> bool:
        return shown is not None and self._until.get(shown, 0.0) > time.monotonic()

    def digest(self, credential: str | None) -> bytes | None:
        """Return what a credential is known by; None for none."""
        if credential is None:
            return None
        return hashlib.blake2b(credential.encode(), key=self._key, digest_size=16).digest()

    def note(self, shown: bytes | None, *, is_good: bool, is_bad: bool) -> None:
        """Remember a good credential, and forget one that is good no more."""
        if shown is None:
            return
        if is_good:
            self._until[shown] = time.monotonic() + KNOWN_SECONDS
            self._until.move_to_end(shown)
            if len(self._until) > MOST_KNOWN:
                self._until.popitem(last=False)
        elif is_bad:
            self._until.pop(shown, None)


def client_address(connection: HTTPConnection, trusted: Networks) -> str | None:
    """Return the address of the client; X-Forwarded-For counts only from trusted proxies."""
    found = connection.client.host if connection.client else None
    lines = connection.headers.getlist("x-forwarded-for") if trusted else []
    hops = [hop.strip() for line in lines for hop in line.split(",")]
    while found and trusted and hops:
        try:
            if not any(ip_address(found) in network for network in trusted):
                break
            found = str(ip_address(hops.pop()))
        except ValueError:
            break
    return found.partition("%")[0] if found else None


class LoopConnections:
    """Connections for the event loop to the database of an engine, closed when the engine is disposed."""

    def __init__(self, engine: Engine) -> None:
        self._url = libpq_url(engine.url).render_as_string(hide_password=False)
        self._free: list[AsyncConnection[Any]] = []
        event.listen(engine, "engine_disposed", lambda _: self.close())

    async def take(self) -> AsyncConnection[Any]:
        """Return a free connection, or a new one.

        Raises:
            psycopg.Error: Postgres gives no connection.
        """
        while self._free:
            found = self._free.pop()
            if not found.closed:
                return found
        made: AsyncConnection[Any] = await AsyncConnection.connect(
            self._url, autocommit=True, application_name="lockbox-loop", **CONNECT_ARGS
        )
        database.keep_prepared(made)
        return made

    async def give(self, connection: AsyncConnection[Any]) -> None:
        """Return a connection to the pool; one that is inside a transaction is closed."""
        if connection.closed or connection.info.transaction_status is not TransactionStatus.IDLE:
            await connection.close()
        else:
            self._free.append(connection)

    def close(self) -> None:
        """Close the free connections."""
        for connection in self._free:
            connection.pgconn.finish()
        self._free.clear()


class CallGroups:
    """Runs calls of one kind in groups of limited size, two groups at once.

    A call that would wait, or needs more than a group offers, runs alone in one of a few threads; so does, at once, a
    call with the same key as one that does.
    """

    def __init__(
        self, db: Database, *, places_alone: int, most_together: int = MOST_TOGETHER, in_one_round: bool = False
    ) -> None:
        self._db = db
        self._most_together = most_together
        self._in_one_round = in_one_round
        self._keys_alone = Counter[str | None]()
        self._arrived: deque[GroupMember[Any]] = deque()
        self._groups: set[asyncio.Task[None]] = set()
        self._running = 0
        self._alone: set[asyncio.Task[None]] = set()
        self._places_alone = asyncio.Semaphore(places_alone)

    async def run(self, use_case: Callable[[UnitOfWork], Answer], *, key: str | None = None) -> Answer:
        """Run a use case and return its answer once its writes are committed.

        If the caller is cancelled, the use case still runs to its end. No two calls with the same key share a group.

        Raises:
            Busy: the call has to run alone, and no place for that came free within five seconds.
        """
        member = GroupMember(use_case, key)
        self._arrived.append(member)
        if self._running < GROUPS:
            self._running += 1
            # Of no call's context: the same task goes on with those that come later.
            _keep(self._groups, self._run_groups(), Context())
        return await member.answer

    async def _run_groups(self) -> None:
        try:
            while members := self._next_group():
                try:
                    await self._run_group(members)
                except Exception as error:  # noqa: BLE001 - each caller raises it
                    for one in members:
                        one.fail(error)
        finally:
            # In the same turn of the loop as the last look: who comes now begins another group.
            self._running -= 1

    def _next_group(self) -> list[GroupMember[Any]]:
        """Take the calls that have arrived, in order; of those with the same key, only the first."""
        taken: list[GroupMember[Any]] = []
        left: list[GroupMember[Any]] = []
        keys: set[str] = set()
        while self._arrived and len(taken) < self._most_together:
            one = self._arrived.popleft()
            if one.key and self._keys_alone[one.key]:
                self._leave(one)
                continue
            (left if one.key in keys else taken).append(one)
            keys |= {one.key} if one.key else set()
        self._arrived.extendleft(reversed(left))
        return taken

    async def _run_group(self, members: Sequence[GroupMember[Any]]) -> None:
        try:
            await self._share(members)
        except PlansOutdated as outdated:
            log.info("group.plans_outdated")
            await self._share_again(outdated.members)
        for one in members:
            if one.needs_alone:
                self._leave(one)

    async def _share_again(self, members: Sequence[GroupMember[Any]]) -> None:
        """Run these once more on a new connection, and alone if the schema changes once more meanwhile."""
        try:
            await self._share(members)
        except PlansOutdated as outdated:
            for one in outdated.members:
                one.needs_alone = True

    async def _share(self, members: Sequence[GroupMember[Any]]) -> None:
        pool = _pool(self._db.engine)
        try:
            connection = await pool.take()
        except psycopg.Error:
            for one in members:
                one.needs_alone = True
            return
        try:
            await SharedTransaction(self._db, connection, in_one_round=self._in_one_round).run(members)
        except PlansOutdated:
            # The others hold the same statements.
            pool.close()
            raise
        finally:
            await pool.give(connection)

    def _leave(self, member: GroupMember[Any]) -> None:
        self._keys_alone[member.key] += 1
        _keep(self._alone, self._run_alone(member), member.called_in.copy())

    async def _run_alone(self, member: GroupMember[Any]) -> None:
        try:
            member.answered(await self._alone_in_turn(member))
        except Exception as error:  # noqa: BLE001 - its caller raises it
            member.fail(error)
        finally:
            self._keys_alone -= Counter([member.key])

    async def _alone_in_turn(self, member: GroupMember[Answer]) -> Answer:
        try:
            async with asyncio.timeout(LONG):
                await self._places_alone.acquire()
        except TimeoutError:
            raise Busy("Others wait for the same. Try again.") from None
        try:
            return await to_thread.run_sync(self._in_thread, member, limiter=CapacityLimiter(1))
        finally:
            self._places_alone.release()

    def _in_thread(self, member: GroupMember[Answer]) -> Answer:
        return run_alone(self._db, member.use_case)


def _keep(tasks: set[asyncio.Task[None]], work: Coroutine[Any, Any, None], context: Context) -> None:
    """Start a task in a context, and keep a reference to it until it is done."""
    task = asyncio.create_task(work, context=context)
    tasks.add(task)
    task.add_done_callback(tasks.discard)


def _pool(engine: Engine) -> LoopConnections:
    found = POOLS.get(engine)
    if found is None:
        found = POOLS[engine] = LoopConnections(engine)
    return found


POOLS: WeakKeyDictionary[Engine, LoopConnections] = WeakKeyDictionary()
