"""Shared transactions on the event loop: the statements of several calls share the round trips to Postgres.

Each use case runs in its own greenlet, which pauses whenever it needs rows; then the queries of the whole group are
sent in one pipeline. Each member's statements run with its own session variables, so row-level security applies as in
a separate transaction.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar, cast

import psycopg
from greenlet import GreenletExit, getcurrent, greenlet
from psycopg import AsyncConnection, AsyncCursor
from sqlalchemy import Connection, Executable, Result, TextClause, text
from sqlalchemy.exc import OperationalError

from lockbox import database
from lockbox.database import Database, Query, ReadAhead, UnitOfWork, Values, compiled, rows_of
from lockbox.failpoints import failpoint

Answer = TypeVar("Answer")

VARIABLES = (
    *("person", "tenants", "administers", "roles", "at", "invitation", "sign_in", "device_login"),
    *("leaving", "suspending", "owner_command", "closing", "directory"),
)
"""The session variables that row-level security and its functions read."""
BEGIN, COMMIT, ROLLBACK = "BEGIN", "COMMIT", "ROLLBACK"
LOCK_WAIT = "SELECT set_config('lock_timeout', '20ms', true)"
"""How long a group waits for a lock. A member that needs longer runs again alone and waits there."""
READ_CONTEXT = text(
    "SELECT ARRAY[" + ", ".join(f"current_setting('lockbox.{one}', true)" for one in VARIABLES) + "] AS context"
)
SET_CONTEXT = text(
    "SELECT "
    + ", ".join(
        f"set_config('lockbox.{one}', coalesce((CAST(:context AS text[]))[{number}], ''), true)"
        for number, one in enumerate(VARIABLES, 1)
    )
)


class AloneNeeded(Exception):  # noqa: N818 - a state of affairs
    """The use case may wait, takes long or needs the ORM: it has to run again in a thread, in its own transaction."""


class SharedWork(UnitOfWork):
    """A member's part of the shared transaction. Writes are sent with the next read, or with the commit.

    The rows of the last reads are put into `handed`. After `is_over` is set, no more rows come.
    """

    def __init__(self, db: Database) -> None:
        self.clock, self.keys, self.caller = db.clock, db.keys, None
        self.promises, self.news = {}, {}
        self.writes: list[Query] = []
        self.reads: list[Query] = []
        self.has_written = False
        self.handed: list[Sequence[Result[*tuple[Any, ...]]]] = []
        self.is_over = False
        self.read_ahead = ReadAhead()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - it only raises
        if name == "orm":
            raise AloneNeeded
        raise AttributeError(name)

    def connection(self) -> Connection:
        raise AloneNeeded

    def wait(self) -> None:
        raise AloneNeeded

    def write(self, statement: TextClause, values: Values) -> None:
        self.writes.append((statement, cast("Mapping[str, Any]", values or {})))

    def execute(self, statement: Executable, values: Values = None) -> Result[*tuple[Any, ...]]:
        if not isinstance(statement, TextClause):
            raise AloneNeeded
        return self.read_ahead.take((statement, cast("Mapping[str, Any]", values or {})), self._awaited)

    def _awaited(self, queries: list[Query]) -> Sequence[Result[*tuple[Any, ...]]]:
        self.reads = queries
        while not self.handed:
            if self.is_over:
                raise GreenletExit
            getcurrent().parent.switch()
        return self.handed.pop()

    def taken(self) -> tuple[list[Query], list[Query]]:
        writes, reads = self.writes, self.reads
        self.writes, self.reads = [], []
        self.has_written = self.has_written or bool(writes)
        return writes, reads


class GroupMember(Generic[Answer]):
    """One call in a group: the use case, its work in the current attempt, and the answer that its caller awaits.

    No two members of a group have the same `key`. A member with `needs_alone` has to leave the group. The use case
    runs in its caller's context, `called_in`, so that its log lines name the right call.
    """

    def __init__(self, use_case: Callable[[UnitOfWork], Answer], key: str | None) -> None:
        self.use_case = use_case
        self.key = key
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.needs_alone = False
        self.called_in = copy_context()

    def begin(self, db: Database) -> None:
        self.work = SharedWork(db)
        self.context: Sequence[str | None] = ()
        self._outcome: list[Answer] = []
        self._error: Exception | None = None
        self._fiber = greenlet(self._run)
        self._fiber.gr_context = self.called_in.copy()
        self._fiber.switch(self.work)

    def go_on(self, handed: Sequence[Result[*tuple[Any, ...]]]) -> None:
        self.work.handed.append(handed)
        self._fiber.switch()

    def drop(self) -> None:
        """End the current attempt at once.

        Otherwise, the garbage collector would end the greenlet during a switch of any other greenlet.
        """
        self.work.is_over = True
        if not self._fiber.dead:
            self._fiber.throw()

    def _run(self, work: SharedWork) -> None:
        """Store the outcome on the member, because a greenlet switch may return the value of another greenlet."""
        try:
            answer = self.use_case(work)
        except AloneNeeded:
            self.needs_alone = True
        except Exception as error:  # noqa: BLE001 - it is the caller's
            self._error = error
        else:
            self._outcome = [answer]

    @property
    def rests(self) -> bool:
        return not self._fiber.dead

    @property
    def is_refused(self) -> bool:
        return self.needs_alone or self._error is not None

    @property
    def changes_nothing(self) -> bool:
        """Whether the use case is done, wrote nothing and has no work after the commit: its answer is final."""
        work = self.work
        unwritten = self._error is not None or not (work.writes or work.promises or work.news)
        return not (self.rests or self.needs_alone or work.has_written) and unwritten

    def tell(self) -> None:
        if self._error is not None:
            self.fail(self._error)
        else:
            self.answered(*self._outcome)

    def answered(self, answer: Answer) -> None:
        if not self.answer.done():
            self.answer.set_result(answer)

    def fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class MemberFailed(Exception):  # noqa: N818 - it names what was found
    def __init__(self, member: GroupMember[Any] | None) -> None:
        super().__init__()
        self.member = member


@dataclass(frozen=True)
class Sent:
    member: GroupMember[Any] | None
    statement: TextClause | str
    values: Mapping[str, Any] = field(default_factory=dict)
    is_read: bool = False


class PlansOutdated(Exception):  # noqa: N818 - a state of affairs
    """A migration changed the columns of this connection's statements; the members need a new connection."""

    def __init__(self, members: Sequence[GroupMember[Any]]) -> None:
        super().__init__()
        self.members = members


class SharedTransaction:
    """One transaction for several members. Their statements run in rounds, each round in one pipeline.

    With `in_one_round`, the commit is sent with the first round, for use cases that usually only read.
    """

    def __init__(self, db: Database, connection: AsyncConnection[Any], *, in_one_round: bool) -> None:
        self._db = db
        self._connection = connection
        self._in_one_round = in_one_round
        self._is_committing = False
        self._is_shared = False

    async def run(self, members: Sequence[GroupMember[Any]]) -> None:
        """Run the members to their end, and set `needs_alone` on members that have to run again by themselves.

        Raises:
            OperationalError: the connection was lost during the commit, whose outcome is unknown.
            PlansOutdated: nothing is committed, and the connection is closed.
        """
        left = members
        try:
            while left:
                try:
                    await self._attempt(left)
                except MemberFailed as failed:
                    left = await self._without(failed, [one for one in left if not one.changes_nothing])
                else:
                    return
        finally:
            for one in members:
                if one.changes_nothing:
                    one.tell()
                one.drop()

    async def _without(self, failed: MemberFailed, left: Sequence[GroupMember[Any]]) -> Sequence[GroupMember[Any]]:
        is_lost = self._connection.closed or not await self._is_rolled_back()
        if is_lost and self._is_committing:
            raise OperationalError("COMMIT", None, failed.__cause__ or failed) from failed
        if not is_lost and database.are_plans_outdated(failed.__cause__):
            await self._connection.close()
            raise PlansOutdated([one for one in left if not one.needs_alone])
        for one in left:
            one.drop()
        for one in left if is_lost or failed.member is None else [failed.member]:
            one.needs_alone = True
        return [one for one in left if not one.needs_alone]

    async def _is_rolled_back(self) -> bool:
        try:
            await self._connection.execute(ROLLBACK)
        except psycopg.Error:
            await self._connection.close()
            return False
        return True

    async def _attempt(self, members: Sequence[GroupMember[Any]]) -> None:
        self._is_committing, self._is_shared = False, len(members) > 1
        for one in members:
            one.begin(self._db)
        rounds = 0
        while (resting := _resting(members)) and not (rounds and self._in_one_round):
            await self._round(resting, is_first=not rounds)
            rounds += 1
        left = [member for member in members if not (member.needs_alone or member.changes_nothing)]
        if rounds and not self._in_one_round:
            await self._commit(left)
        for one in left:
            one.needs_alone = not one.answer.done()

    async def _round(self, members: Sequence[GroupMember[Any]], *, is_first: bool) -> None:
        sent = [Sent(None, BEGIN)] if is_first else []
        sent += [Sent(None, LOCK_WAIT)] if is_first and not self._in_one_round else []
        for one in members:
            writes, reads = one.work.taken()
            sent += [*self._own(one, writes), *(Sent(one, *query, is_read=True) for query in reads)]
            if self._is_shared and not self._in_one_round:
                sent.append(Sent(one, READ_CONTEXT))
        sent += [Sent(None, COMMIT)] if self._in_one_round else []
        found = await self.send(sent)
        for one in members:
            theirs = [(asked, cursor) for asked, cursor in found if asked.member is one]
            read = [(asked.statement, cursor) for asked, cursor in theirs if asked.is_read]
            results = [rows_of(statement, cursor, await cursor.fetchall()) for statement, cursor in read]
            if theirs[-1][0].statement is READ_CONTEXT:
                ((one.context,),) = await theirs[-1][1].fetchall()
            one.go_on(results)

    async def _commit(self, members: Sequence[GroupMember[Any]]) -> None:
        sent = [one for member in members for one in self._own(member, member.work.taken()[0])]
        self._is_committing = bool(members)
        warnings: list[str | None] = []
        collect = partial(database.note_warning, warnings=warnings)
        self._connection.add_notice_handler(collect)
        try:
            failpoint("pipeline.before_commit")
            await self.send([*sent, Sent(None, COMMIT)])
            failpoint("pipeline.after_commit")
        finally:
            self._connection.remove_notice_handler(collect)
        for one in members:
            if warnings:
                one.fail(database.not_replicated())
            one.tell()
            self._db.schedule.follow(one.work.promises, one.work.news)

    def _own(self, member: GroupMember[Any], queries: Sequence[Query]) -> list[Sent]:
        context = [Sent(member, SET_CONTEXT, {"context": list(member.context)})] if self._is_shared else []
        return [*context, *(Sent(member, *query) for query in queries)]

    async def send(self, sent: Sequence[Sent]) -> list[tuple[Sent, AsyncCursor[Any]]]:
        """Send the statements in one pipeline.

        Raises:
            MemberFailed: a statement failed, and with it all later statements and the transaction.
        """
        found: list[tuple[Sent, AsyncCursor[Any]]] = []
        try:
            async with self._connection.pipeline():
                for one in sent:
                    found.append((one, self._connection.cursor()))
                    await found[-1][1].execute(compiled(one.statement), one.values)
        except psycopg.Error as error:
            failed = next((one for one, cursor in found if cursor.pgresult is None), None)
            raise MemberFailed(failed.member if failed else None) from error
        return found


def _resting(members: Sequence[GroupMember[Any]]) -> list[GroupMember[Any]]:
    """Return the members that need rows. Raises MemberFailed if a member failed after it had written."""
    for one in members:
        if one.is_refused and one.work.has_written:
            raise MemberFailed(one)
    return [member for member in members if member.rests]
