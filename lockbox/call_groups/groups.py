"""Groups of calls on the event loop, and the connections that the groups use in turn."""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Sequence
from contextvars import Context
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import psycopg
import structlog
from anyio import CapacityLimiter, to_thread
from psycopg import AsyncConnection
from psycopg.pq import TransactionStatus
from sqlalchemy import Engine, event

from config.server_urls import libpq_url
from lockbox.call_groups.pipelines import GroupMember, PlansOutdated, SharedTransaction
from lockbox.database import CONNECT_ARGS, Database, UnitOfWork
from lockbox.driver.prepared_statements import keep_prepared
from lockbox.errors import Busy
from lockbox.use_cases import run_alone

log = structlog.get_logger(__name__)

Answer = TypeVar("Answer")

MOST_TOGETHER = 16
"""How many calls share a transaction; each of them waits for its commit."""
GROUPS = 2
"""How many groups of one kind run at once: one group evaluates while the other waits for Postgres."""
LONGEST_WAIT = 5.0
"""How many seconds a call waits for a place to run alone."""


class LoopConnections:
    """The event loop's connections, closed when the engine is disposed."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._url = libpq_url(engine.url).render_as_string(hide_password=False)
        self._free: list[AsyncConnection[Any]] = []
        event.listen(engine, "engine_disposed", lambda _: self.close())

    async def take(self) -> AsyncConnection[Any]:
        """Raises psycopg.Error if Postgres gives no connection."""
        while self._free:
            found = self._free.pop()
            if not found.closed:
                return found
        made: AsyncConnection[Any] = await AsyncConnection.connect(
            self._url, autocommit=True, application_name="lockbox-loop", **CONNECT_ARGS
        )
        keep_prepared(made)
        return made

    async def give(self, connection: AsyncConnection[Any]) -> None:
        if connection.closed:
            # The idle connections, those of threads too, are probably lost as well, or hold the same outdated
            # statements.
            self._engine.dispose()
        elif connection.info.transaction_status is not TransactionStatus.IDLE:
            await connection.close()
        else:
            self._free.append(connection)

    def close(self) -> None:
        for connection in self._free:
            connection.pgconn.finish()
        self._free.clear()


class CallGroups:
    """Runs calls of one kind in groups of limited size, two groups at once.

    A call that would wait, or needs more than a group offers, runs by itself in one of a few threads. Meanwhile,
    other calls with the same key go straight to a thread, too.
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
        """Run a use case and return its answer after its writes are committed.

        If the caller is cancelled, the use case still runs to its end. No two calls with the same key share a group.
        Raises Busy if the call has to run by itself and gets no thread within five seconds.
        """
        member = GroupMember(use_case, key)
        self._arrived.append(member)
        if self._running < GROUPS:
            self._running += 1
            # The task runs in an empty context, because it also serves calls that come later.
            _keep(self._groups, self._run_groups(), Context())
        return await member.answer

    async def _run_groups(self) -> None:
        try:
            while members := self._next_group():
                try:
                    await self._run_group(members)
                except Exception as error:  # noqa: BLE001 - each caller raises it
                    for member in members:
                        member.fail(error)
        finally:
            # No other code runs between the last look at the queue and this line, so a call that arrives later begins
            # another group.
            self._running -= 1

    def _next_group(self) -> list[GroupMember[Any]]:
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
        for member in members:
            if member.needs_alone:
                self._leave(member)

    async def _share_again(self, members: Sequence[GroupMember[Any]]) -> None:
        try:
            await self._share(members)
        except PlansOutdated as outdated:
            for member in outdated.members:
                member.needs_alone = True

    async def _share(self, members: Sequence[GroupMember[Any]]) -> None:
        pool = _pool(self._db.engine)
        try:
            connection = await pool.take()
        except psycopg.Error:
            for member in members:
                member.needs_alone = True
            return
        try:
            await SharedTransaction(self._db, connection, in_one_round=self._in_one_round).run(members)
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
            async with asyncio.timeout(LONGEST_WAIT):
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
    task = asyncio.create_task(work, context=context)
    tasks.add(task)
    task.add_done_callback(tasks.discard)


def _pool(engine: Engine) -> LoopConnections:
    found = POOLS.get(engine)
    if found is None:
        found = POOLS[engine] = LoopConnections(engine)
    return found


POOLS: WeakKeyDictionary[Engine, LoopConnections] = WeakKeyDictionary()
