"""Keep the windows in memory equal to the windows in Postgres."""

import threading
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from uuid import UUID

import structlog
from sqlalchemy.exc import SQLAlchemyError

from gate import definition_records, enforcement, window_verification
from gate.enforcement import EnforcementMemory
from gate.gate_definition import GateDefinition
from gate.window_memory import MICROSECOND, RememberedWindow, WindowMemory
from gate.window_verification import NOBODY, WindowVerification
from lockbox.audit.log import checkpoint_folder
from lockbox.database import Database, UnitOfWork
from lockbox.facts.enumerations import AuthMethod
from lockbox.identity import authentication
from lockbox.identity.roles import Caller, Role, RoleGrant, Side
from lockbox.requests import access_check
from lockbox.requests.models import RequestEntry
from lockbox.text_rules import UUID_FORM

log = structlog.get_logger(__name__)

READ_SECONDS = 0.5
PAUSE_SECONDS = 0.05
LOGS_AT_ONCE = 50
MOST_SUSPECTED = 10_000
DIFFERS_SECONDS = 600.0
DEFINED_SECONDS = 300.0
GATE = Caller(
    NOBODY,
    "gate",
    frozenset({RoleGrant(Role.SYSTEM, None)}),
    frozenset(),
    frozenset(),
    Side.VENDOR,
    AuthMethod.TOKEN,
)
"""The identity by which the gate reads: a system, which sees only open windows. No one can sign in as it."""


class SessionJudge:
    def __init__(self, session: UnitOfWork) -> None:
        self._session = session

    def windows(self, ids: Collection[UUID]) -> Sequence[RequestEntry]:
        return access_check.windows(self._session, ids)

    def windows_after(self, after: UUID, most: int) -> Sequence[RequestEntry]:
        return access_check.windows_after(self._session, after, most)


class MemoryReader(threading.Thread):
    """Reads on its own connection until stopped.

    Without Postgres it keeps trying, and the memory ages. When another server answers, the memory is filled again.
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
        self._windows = WindowVerification(memory)
        self._logs_from = 0
        self._suspected = deque[tuple[float, RememberedWindow]](maxlen=MOST_SUSPECTED)
        self._differed_at = float("-inf")

    def differs(self) -> bool:
        """Return whether, in the last ten minutes, memory had a window that Postgres did not have."""
        return self._memory.clock() - self._differed_at < DIFFERS_SECONDS

    def run(self) -> None:
        while not self._stopping.is_set():
            began = self._memory.clock()
            has_more = False
            try:
                has_more = self.read()
            except SQLAlchemyError as error:
                log.warning("gate.postgres_away", error=type(error).__name__)
            except Exception:
                log.exception("gate.read_failed")
                self._windows.begin_anew()
            if not has_more:
                self._stopping.wait(PAUSE_SECONDS)
                self._woken.wait(self._seconds_left(began))
            self._woken.clear()

    def _seconds_left(self, began: float) -> float:
        left = self._every - (self._memory.clock() - began)
        begins = self._windows.next_begin
        if begins is not None and self._memory.was_read:
            left = min(left, (begins - self._memory.now()) / MICROSECOND / 1e6)
        return max(0.0, left)

    def stop(self) -> None:
        self._stopping.set()
        self._woken.set()
        if self.is_alive():
            self.join(1)

    def hear(self, ids: Iterable[str]) -> None:
        """Verify the windows of requests among `ids` at once. Gates among `ids` enforce until the next read."""
        ids = frozenset(ids)
        is_mode = self._modes.forget(ids)
        if self._windows.hear(_ids(ids)) or is_mode:
            self._woken.set()

    def hear_ended(self, ids: Iterable[str]) -> None:
        """Drop the windows of these requests at once."""
        self._windows.hear(_ids(ids), end=True)

    def suspect(self, window: RememberedWindow) -> None:
        """Note a window for which Postgres refused access: if the next read leaves it in memory, memory is wrong."""
        self._suspected.append((self._memory.clock(), window))
        self._woken.set()

    def read(self) -> bool:
        """Return whether more windows are to be verified. Raises SQLAlchemyError if Postgres is away."""
        # Record the definition of the gate first: no call may be judged by a definition that is not on record.
        self._define()
        began = self._memory.clock()
        with self._database.transaction() as session:
            authentication.enter(session, GATE)
            batch = window_verification.read_changes(session, self._windows.last)
            self._windows.apply(batch)
            if batch.is_standby:
                return False
            judge = SessionJudge(session)
            # Settle before `note_read`: memory is only as new as this read once each window that may have ended is
            # verified, or known to be in doubt.
            self._windows.settle(judge, batch.at)
            self._memory.note_read(began, batch.at, self._windows.in_doubt)
            self._modes.read(session, began)
            self._judge_suspected(began)
            self._check_logs(session)
            self._windows.go_on(judge, batch.at)
        if not self._is_recorded:
            self._record()
        return self._windows.has_more

    def _record(self) -> None:
        with self._database.transaction() as session:
            authentication.enter(session, GATE)
            enforcement.record(session, self._modes.wanted)
        self._is_recorded = True
        self._woken.set()

    def _define(self) -> None:
        at = self._memory.clock()
        if not self._definitions or at - self._defined_at < DEFINED_SECONDS:
            return
        with self._database.transaction() as session:
            authentication.enter(session, GATE)
            definition_records.record(session, self._definitions)
        self._defined_at = at

    def _judge_suspected(self, began: float) -> None:
        if self._windows.in_doubt:
            return
        while self._suspected and self._suspected[0][0] < began:
            window = self._suspected.popleft()[1]
            if self._memory.holds(window):
                self._differed_at = self._memory.clock()
                log.critical("gate.memory_differs", request=str(window.request_id))
                self._windows.verify_again(window.request_id)

    def _check_logs(self, session: UnitOfWork) -> None:
        """If a log is behind its shipped checkpoints, its tenant's windows grant nothing."""
        shipped = checkpoint_folder.of(session)
        if shipped is None:
            return
        tenants = self._memory.tenants()
        some = tenants[self._logs_from : self._logs_from + LOGS_AT_ONCE]
        self._logs_from = self._logs_from + LOGS_AT_ONCE if len(some) == LOGS_AT_ONCE else 0
        self._memory.doubt(some, shipped.rolled_back(session, some))


def _ids(said: Iterable[str]) -> list[UUID]:
    return [UUID(one) for one in said if UUID_FORM.fullmatch(one)]
