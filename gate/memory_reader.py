"""Keep the windows in memory as Postgres has them: read what changed every half second, drop what news name."""

import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from uuid import UUID

import structlog
from sqlalchemy.exc import SQLAlchemyError

from gate import change_feed, definition_records, enforcement
from gate.change_feed import ChangeBatch, WindowChange
from gate.enforcement_memory import EnforcementMemory
from gate.gate_definition import GateDefinition
from gate.window_memory import ChangeKind, RememberedWindow, WindowMemory
from lockbox.audit.log import witness
from lockbox.database import Database, UnitOfWork
from lockbox.identity import authentication
from lockbox.identity.roles import AuthMethod, Caller, Role, RoleGrant, Side
from lockbox.requests import access_check
from lockbox.requests.request_entry import RequestEntry
from lockbox.text_rules import UUID_FORM

log = structlog.get_logger(__name__)

READ_SECONDS = 0.5
PAUSE_SECONDS = 0.05
VERIFIED_AT_ONCE = 100
LOGS_AT_ONCE = 50
MOST_HEARD = 10_000
DIFFERS_SECONDS = 600.0
DEFINED_SECONDS = 300.0
NOBODY = UUID(int=0)
GATE = Caller(
    NOBODY,
    "gate",
    frozenset({RoleGrant(Role.SYSTEM, None)}),
    frozenset(),
    frozenset(),
    Side.VENDOR,
    AuthMethod.TOKEN,
)
"""As whom the gate reads: a system, which sees open windows and nothing else. Nobody can sign in as it."""


class MemoryReader(threading.Thread):
    """Reads on one connection of its own until stopped; without Postgres it keeps trying, and memory gets old.

    At the start, and when another server answers, memory is filled anew, in the order of the ids. What changed is
    dropped with each read first, and then verified again, a hundred windows a read, so that no read waits for long.
    """

    def __init__(
        self,
        database: Database,
        memory: WindowMemory,
        modes: EnforcementMemory | None = None,
        *,
        definitions: Mapping[str, GateDefinition] | None = None,
        every: float = READ_SECONDS,
    ) -> None:
        super().__init__(name="gate-memory", daemon=True)
        self._database = database
        self._memory = memory
        self._modes = modes or EnforcementMemory({}, memory.clock)
        self._definitions = definitions or {}
        self._is_recorded = not self._modes.wanted
        self._defined_at = float("-inf")
        self._every = every
        self._stopping = threading.Event()
        self._woken = threading.Event()
        self._last: ChangeBatch | None = None
        self._unverified: dict[UUID, None] = {}
        self._heard = deque[UUID](maxlen=MOST_HEARD)
        self._loaded_to: UUID | None = NOBODY
        self._logs_from = 0
        self._suspected = deque[tuple[float, RememberedWindow]](maxlen=MOST_HEARD)
        self._differed_at = float("-inf")
        # Windows that were approved and have not begun, in the order of their beginning.
        self._scheduled: dict[UUID, datetime] = {}

    def differs(self) -> bool:
        """Return whether within the last ten minutes memory held a window that Postgres had not."""
        return self._memory.clock() - self._differed_at < DIFFERS_SECONDS

    def run(self) -> None:
        """Read, then sleep until the next read is due, or until a window is suspected."""
        while not self._stopping.is_set():
            began = self._memory.clock()
            has_more = False
            try:
                has_more = self.read()
            except SQLAlchemyError as error:
                log.warning("gate.postgres_away", error=type(error).__name__)
            except Exception:
                log.exception("gate.read_failed")
                self._begin_anew()
            if not has_more:
                self._stopping.wait(PAUSE_SECONDS)
                self._woken.wait(max(0.0, self._every - (self._memory.clock() - began)))
            self._woken.clear()

    def stop(self) -> None:
        """Ask the thread to end, and wait briefly for it."""
        self._stopping.set()
        self._woken.set()
        if self.is_alive():
            self.join(1)

    def hear(self, ids: Iterable[str]) -> None:
        """Drop the windows of these requests at once; what are no ids is ignored.

        The next read verifies those that were dropped. It comes when it is due: there is news of every move. One that
        says what gates do comes at once, and until then they enforce.
        """
        ids = frozenset(ids)
        if self._modes.forget(ids):
            self._woken.set()
        self._heard.extend(self._memory.forget([UUID(one) for one in ids if UUID_FORM.fullmatch(one)]))

    def suspect(self, window: RememberedWindow) -> None:
        """Look into it that Postgres says no where this window in memory said yes.

        That is as it should be where it has ended just now: the next read says so, and otherwise memory is wrong.
        """
        self._suspected.append((self._memory.clock(), window))
        self._woken.set()

    def read(self) -> bool:
        """Read once; return whether more waits to be verified.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: Postgres is away.
        """
        # First: no call is judged by what is not on record.
        self._define()
        began = self._memory.clock()
        with self._database.transaction() as session:
            authentication.enter(session, GATE)
            batch = change_feed.read(session, self._last)
            self._apply(batch)
            if batch.is_standby:
                return False
            self._memory.note_read(began, batch.at)
            self._modes.read(session, began)
            self._judge_suspected(began)
            self._begin_windows(batch.at)
            self._check_logs(session)
            self._verify(session, batch.at)
        if not self._is_recorded:
            self._record()
        return bool(self._unverified or self._loaded_to is not None)

    def _record(self) -> None:
        """Record what this process' catalogue says of gates; the next read finds it."""
        with self._database.transaction() as session:
            authentication.enter(session, GATE)
            enforcement.record(session, self._modes.wanted)
        self._is_recorded = True
        self._woken.set()

    def _define(self) -> None:
        """Record what this process' gates mean, and every few minutes that it still has it."""
        at = self._memory.clock()
        if not self._definitions or at - self._defined_at < DEFINED_SECONDS:
            return
        with self._database.transaction() as session:
            authentication.enter(session, GATE)
            definition_records.record(session, self._definitions)
        self._defined_at = at

    def _apply(self, batch: ChangeBatch) -> None:
        if batch.is_standby or not batch.follows(self._last):
            self._begin_anew()
        self._drop(batch.changes)
        self._last = batch

    def _judge_suspected(self, began: float) -> None:
        """Raise an alarm for each window that this read has left in memory, though it was suspected before."""
        while self._suspected and self._suspected[0][0] < began:
            window = self._suspected.popleft()[1]
            if self._memory.holds(window):
                self._differed_at = self._memory.clock()
                log.critical("gate.memory_differs", request=str(window.request_id))
                self._memory.forget([window.request_id])
                self._unverified[window.request_id] = None

    def _begin_anew(self) -> None:
        self._memory.clear()
        self._last = None
        self._unverified, self._loaded_to = {}, NOBODY
        self._scheduled = {}

    def _drop(self, changes: Sequence[WindowChange]) -> None:
        """Drop what changed, to be verified again unless it has ended."""
        changed = {one.request_id for one in changes if one.request_id}
        ended = {one.request_id for one in changes if one.request_id and one.ends}
        wider = [one for one in changes if one.request_id is None]
        if wider:
            self._memory.announce(ChangeKind.FORGET)
        if any(one.tenant_id is None and one.person_id is None for one in wider):
            self._loaded_to = NOBODY
            changed |= set(self._memory.requests())
        tenants = {one.tenant_id for one in wider if one.tenant_id}
        people = {one.person_id for one in wider if one.person_id}
        if tenants or people:
            changed |= set(self._memory.of(tenants=tenants, people=people))
        self._memory.forget(changed)
        while self._heard:
            changed.add(self._heard.popleft())
        for one in changed:
            self._scheduled.pop(one, None)
        self._unverified |= dict.fromkeys(changed - ended)

    def _begin_windows(self, at: datetime) -> None:
        """Have the windows verified that begin now: they open by themselves, as Postgres judges them then."""
        due = [one for one, begins in self._scheduled.items() if begins <= at]
        for one in due:
            del self._scheduled[one]
        self._unverified |= dict.fromkeys(due)

    def _put(self, entries: Sequence[RequestEntry], at: datetime) -> None:
        """Take in windows as they were judged; those that have not begun are looked at again when they do."""
        self._memory.put(entries)
        for entry in entries:
            begins = entry.request.opens_at
            if begins is not None and begins > at:
                self._scheduled[entry.request.id] = begins

    def _verify(self, session: UnitOfWork, at: datetime) -> None:
        """Verify some of the windows that changed, or else the next ones of those that were never loaded."""
        self._memory.begin_round()
        some = list(self._unverified)[:VERIFIED_AT_ONCE]
        if some:
            self._put(access_check.windows(session, some), at)
            for one in some:
                self._unverified.pop(one, None)
        elif self._loaded_to is not None:
            found = access_check.windows_after(session, self._loaded_to, VERIFIED_AT_ONCE)
            self._put(found, at)
            self._loaded_to = found[-1].request.id if len(found) == VERIFIED_AT_ONCE else None

    def _check_logs(self, session: UnitOfWork) -> None:
        """Check in turn whether tenants' logs are behind what was shipped of them: such a database grants nothing."""
        shipped = witness.of(session)
        if shipped is None:
            return
        tenants = self._memory.tenants()
        some = tenants[self._logs_from : self._logs_from + LOGS_AT_ONCE]
        self._logs_from = self._logs_from + LOGS_AT_ONCE if len(some) == LOGS_AT_ONCE else 0
        self._memory.doubt(some, shipped.rolled_back(session, some))
