"""Groups of API calls that run on the event loop: what arrived while the groups before it ran is one transaction."""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Annotated, Any, TypeVar
from weakref import WeakKeyDictionary

import psycopg
from anyio import CapacityLimiter, to_thread
from fastapi import Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from psycopg import AsyncConnection
from psycopg.pq import TransactionStatus
from sqlalchemy import Engine, event

from api.deps import caller, without_thread
from lockbox import database
from lockbox.database import CONNECT_ARGS, Database, UnitOfWork
from lockbox.pipelines import GroupMember, SharedTransaction

Answer = TypeVar("Answer")

MOST_TOGETHER = 16
"""How many calls one transaction takes: all of them wait for its commit."""
GROUPS = 2
"""How many groups of one kind run at once: while one waits for Postgres, the other one judges."""


class LoopConnections:
    """Connections for the event loop, beside those of an engine, closed with them."""

    def __init__(self, engine: Engine) -> None:
        self._url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
        self._free: list[AsyncConnection[Any]] = []
        event.listen(engine, "engine_disposed", lambda _: self._close())

    async def take(self) -> AsyncConnection[Any]:
        """Return a connection that nobody uses.

        Raises:
            psycopg.Error: there is none, and none can be made.
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
        """Take a connection back; one in the middle of a transaction is closed."""
        if connection.closed or connection.info.transaction_status is not TransactionStatus.IDLE:
            await connection.close()
        else:
            self._free.append(connection)

    def _close(self) -> None:
        for connection in self._free:
            connection.pgconn.finish()
        self._free.clear()


class CallGroups:
    """Runs calls of one kind in groups of at most sixteen, two groups at once.

    Whoever would wait, or needs more than a group offers, runs alone in a thread, in one of a few places.
    """

    def __init__(self, db: Database, *, places_alone: int, in_one_round: bool = False) -> None:
        self._db = db
        self._in_one_round = in_one_round
        self._arrived: deque[GroupMember[Any]] = deque()
        self._groups: set[asyncio.Task[None]] = set()
        self._alone: set[asyncio.Task[None]] = set()
        self._places_alone = asyncio.Semaphore(places_alone)

    async def run(self, use_case: Callable[[UnitOfWork], Answer], *, key: str | None = None) -> Answer:
        """Run a use case and return its answer once what it wrote is committed.

        Who is cancelled while waiting gets no answer; the use case goes on. No two calls with one key share a group.
        """
        member = GroupMember(use_case, key)
        self._arrived.append(member)
        if len(self._groups) < GROUPS:
            _keep(self._groups, self._run_groups())
        return await member.answer

    async def _run_groups(self) -> None:
        while members := self._next_group():
            try:
                await self._run_group(members)
            except Exception as error:  # noqa: BLE001 - each caller raises it
                for one in members:
                    one.fail(error)

    def _next_group(self) -> list[GroupMember[Any]]:
        """Take those who have arrived, in their order; who shares a key with one before them is for another group."""
        taken: list[GroupMember[Any]] = []
        left: list[GroupMember[Any]] = []
        keys: set[str] = set()
        while self._arrived and len(taken) < MOST_TOGETHER:
            one = self._arrived.popleft()
            (left if one.key in keys else taken).append(one)
            keys |= {one.key} if one.key else set()
        self._arrived.extendleft(reversed(left))
        return taken

    async def _run_group(self, members: Sequence[GroupMember[Any]]) -> None:
        pool = _pool(self._db.engine)
        try:
            connection = await pool.take()
        except psycopg.Error:
            for one in members:
                one.needs_alone = True
        else:
            try:
                await SharedTransaction(self._db, connection, in_one_round=self._in_one_round).run(members)
            finally:
                await pool.give(connection)
        for one in members:
            if one.needs_alone:
                _keep(self._alone, self._run_alone(one))

    async def _run_alone(self, member: GroupMember[Any]) -> None:
        async with self._places_alone:
            try:
                member.answered(await to_thread.run_sync(self._in_thread, member, limiter=CapacityLimiter(1)))
            except Exception as error:  # noqa: BLE001 - its caller raises it
                member.fail(error)

    def _in_thread(self, member: GroupMember[Answer]) -> Answer:
        with self._db.transaction() as session:
            return member.use_case(session)


def _keep(tasks: set[asyncio.Task[None]], work: Coroutine[Any, Any, None]) -> None:
    """Run it in a task that lives until it is done."""
    task = asyncio.create_task(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)


def _pool(engine: Engine) -> LoopConnections:
    found = POOLS.get(engine)
    if found is None:
        found = POOLS[engine] = LoopConnections(engine)
    return found


POOLS: WeakKeyDictionary[Engine, LoopConnections] = WeakKeyDictionary()


def checks(request: Request) -> CallGroups:
    """Return what runs access checks together."""
    found: CallGroups = request.app.state.checks
    return found


ChecksDep = Annotated[CallGroups, Depends(without_thread(checks))]


class GroupedRoute(APIRoute):
    """A route whose calls run in groups: it looks who calls only when it knows what is asked.

    Whoever shows no good credential is told that, and not what else is wrong.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler that looks first at the credential of a call that is not valid."""
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError:
                await checks(request).run(partial(caller, request))
                raise

        return handled
