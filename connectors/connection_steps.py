"""Drive connections: open them while their window allows it, close them afterwards, and record each outcome.

A step claims the row in one transaction, calls the target outside of any transaction, and records the outcome in
another transaction. Each part may be lost, late or repeated. The target is called until it confirms.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Row, text

from catalogue.service_catalogue import Catalogue
from connectors.connection_outcomes import done, failed, record
from connectors.models import LATER, Connection, ConnectionState, ConnectorKind
from connectors.protocol import ConnectedWindow, Connector, ConnectorFailed, NotWanted
from connectors.target_slots import TargetSlots
from lockbox import database as database_
from lockbox.database import Database, UnitOfWork, now
from lockbox.facts.enumerations import AuthMethod
from lockbox.failpoints import failpoint
from lockbox.identity import authentication, row_macs
from lockbox.identity.roles import Caller, Role, RoleGrant, Side
from lockbox.pubsub import PAGES
from lockbox.requests import access_check
from lockbox.requests.access_check import GRANTED
from lockbox.requests.models import RequestEntry
from lockbox.schedule import CONNECTIONS, IndexEntry
from lockbox.sql import columns, insert, new_id

log = structlog.get_logger(__name__)

KIND = "connect"
LEASE = timedelta(seconds=45)
"""How long a step that has begun is not started again. The connector's own limits end a step sooner."""
MOST_OF_A_TARGET = 10
"""How many connections of one target are looked up at once."""
NO_SLOT = timedelta(seconds=1)
"""The pause before the next try, if a connection got no slot although its target is idle."""
MOST_SLOTS = 32
OPENS = frozenset({ConnectionState.OPENING, ConnectionState.OPEN, ConnectionState.OPEN_FAILED})
CLOSES = frozenset({ConnectionState.CLOSING, ConnectionState.CLOSE_FAILED})
CONNECTOR = Caller(
    UUID(int=0),
    "connector",
    frozenset({RoleGrant(Role.SYSTEM, None)}),
    frozenset(),
    frozenset(),
    Side.VENDOR,
    AuthMethod.TOKEN,
)
"""The identity under which windows are checked: a system account, which sees what passkeys signed. No one can sign in
as it."""

LOCK = text(
    f"SELECT {columns(Connection, 'connections')} FROM connections WHERE id = :id FOR UPDATE"  # noqa: S608 - ours
)
CLAIM = text("""
UPDATE connections SET state = :state, run_at = :run_at, attempts = :attempts, failures = :failures WHERE id = :id
""")
IS_CURRENT = text(
    "SELECT FROM connections WHERE id = :id AND attempts = :attempts AND state IN ('opening', 'open_failed')"
)
# The statement limits the connections of each target, so that a target that hangs leaves room for other targets.
DUE = text("""
SELECT id FROM (SELECT id, run_at, row_number() OVER (PARTITION BY target ORDER BY run_at) AS place
    FROM connections WHERE run_at <= (SELECT clock_timestamp()) - CAST(:grace AS interval)) d
WHERE place <= :most_a_target ORDER BY run_at LIMIT :most
""")
TARGET = text("SELECT kind, target FROM connections WHERE id = :id")
# Finds connections whose window ended unannounced. Few connections are open at a time, so the look-up costs little.
ENDED = text(f"""
SELECT id FROM (SELECT c.id, row_number() OVER (PARTITION BY c.target ORDER BY c.id) AS place
    FROM connections c JOIN requests ON requests.id = c.request_id
    JOIN tenants ON tenants.id = requests.tenant_id JOIN people ON people.id = requests.requester_id
    WHERE c.state IN ('opening', 'open', 'open_failed')
        AND NOT ({GRANTED} AND requests.deadline_at > (SELECT clock_timestamp()))) e
WHERE place <= :most_a_target ORDER BY id LIMIT :most
""")  # noqa: S608 - our own SQL

UNCONNECTED = text("""
SELECT r.id, r.tenant_id, r.service, t.slug FROM requests r JOIN tenants t ON t.id = r.tenant_id
JOIN unnest(CAST(:services AS text[]), CAST(:targets AS text[]), CAST(:tenants AS text[])) AS s (name, target, tenant)
    ON s.name = r.service AND coalesce(s.tenant, t.slug) = t.slug
    AND length(replace(s.target, '{tenant}', t.slug)) <= 63
WHERE r.state = 'active' AND r.deadline_at > (SELECT clock_timestamp())
    AND coalesce(r.opens_at <= (SELECT clock_timestamp()), true)
    AND r.max_uses IS NULL AND NOT t.suspended
    AND NOT EXISTS (SELECT FROM connections c WHERE c.request_id = r.id)
ORDER BY r.id LIMIT :most
""")
CALLED = insert(
    Connection, but={"verifier", "mac", *LATER}, kind="'webhook'", state="'opening'", run_at=":at", created_at=":at"
)
BEGIN = text(f"{CALLED} ON CONFLICT DO NOTHING")


def due(session: UnitOfWork, *, grace: timedelta, most: int) -> list[UUID]:
    values = {"grace": grace, "most": most, "most_a_target": MOST_OF_A_TARGET}
    return list(session.execute(DUE, values).scalars())


def ended(session: UnitOfWork, *, most: int) -> list[UUID]:
    return list(session.execute(ENDED, {"most": most, "most_a_target": MOST_OF_A_TARGET}).scalars())


@dataclass(frozen=True)
class ClaimedStep:
    """A step to do: open access for `window`, or close the access if `window` is None."""

    row: Row[Any]
    attempt: int
    window: ConnectedWindow | None


class ConnectionDriver:
    def __init__(
        self,
        database: Database,
        catalogue: Catalogue,
        connectors: Mapping[ConnectorKind, Connector],
        slots: TargetSlots | None = None,
    ) -> None:
        self._database = database
        self._catalogue = catalogue
        self._connectors = connectors
        self._slots = slots or TargetSlots(MOST_SLOTS)

    def run(self, ids: Iterable[UUID]) -> Counter[str]:
        """Take the next step of each connection that is due, and count the connections by their new state.

        Without a free slot, a connection counts as `put_off`: it runs after another step at its target, or is due in
        a second.
        """
        counts = Counter[str]()
        for one in ids:
            counts += self._run_at_target(one)
        return counts

    def _run_at_target(self, first: UUID) -> Counter[str]:
        target = self._target(first)
        slot = self._slots.take(target)
        if slot is None:
            if not self._slots.wait(target, first):
                self._arm_now([first], NO_SLOT)
            return Counter(put_off=1)
        counts = Counter[str]()
        try:
            one: UUID | None = first
            while one is not None:
                with self._database.transaction() as session:
                    step = self._claim(session, one)
                if step is not None:
                    failpoint("connector.after_claim")
                    counts[self._take(step)] += 1
                one = self._slots.next(slot)
        finally:
            self._arm_now(self._slots.give_back(slot))
        return counts

    def _target(self, connection_id: UUID) -> str:
        with self._database.transaction() as session:
            row = session.execute(TARGET, {"id": connection_id}).one_or_none()
        return f"{row.kind} {row.target}" if row else ""

    def begin(self, *, most: int) -> int:
        """For open windows, add the connections that need no credential (webhooks); return their number."""
        connectors = {
            name: service.connector
            for name, service in self._catalogue.services.items()
            if service.connector and service.connector.kind == ConnectorKind.WEBHOOK.value
        }
        if not connectors:
            return 0
        with self._database.transaction() as session:
            values = {
                "services": list(connectors),
                "targets": [connector.target for connector in connectors.values()],
                "tenants": [connector.tenant for connector in connectors.values()],
                "most": most,
            }
            found = session.execute(UNCONNECTED, values).all()
            at = now(session)
            targets = [(row, connectors[row.service].target_of(row.slug)) for row in found]
            begun = [(new_id(), row, target) for row, target in targets if target is not None]
            for one, row, target in begun:
                promised = {"id": one, "request_id": row.id, "tenant_id": row.tenant_id, "target": target, "at": at}
                session.execute(BEGIN, promised)
                _arm(session, one, timedelta(0))
        return len(begun)

    def _claim(self, session: UnitOfWork, connection_id: UUID) -> ClaimedStep | None:
        row = session.execute(LOCK, {"id": connection_id}).one_or_none()
        if row is None or row.run_at is None:
            _arm(session, connection_id, None)
            return None
        state = ConnectionState(row.state)
        entry = _open_window(session, row.request_id) if state in OPENS else None
        at = now(session)
        goes_on = state in CLOSES or entry is not None
        if goes_on and (row.run_at > at or state is ConnectionState.OPEN):
            _arm(session, connection_id, row.run_at)
            return None
        is_new_close = state in OPENS and entry is None
        values = {
            "id": connection_id,
            "state": ConnectionState.CLOSING if is_new_close else state,
            "run_at": at + LEASE,
            "attempts": row.attempts + 1,
            "failures": 0 if is_new_close else row.failures,
        }
        session.execute(CLAIM, values)
        _arm(session, connection_id, LEASE)
        window = self._window(session, row, entry) if entry is not None else None
        return ClaimedStep(row, row.attempts + 1, window)

    def _window(self, session: UnitOfWork, row: Row[Any], entry: RequestEntry) -> ConnectedWindow:
        """Return the window to open. The connection's row provides only the verifier, if the row's MAC is valid."""
        request = entry.request
        service = self._catalogue.services.get(request.service)
        connector = service.connector if service else None
        is_marked = row.verifier is None or row_macs.is_held(session, row.mac, row_macs.connection(row), row.id)
        fits = connector is not None and (connector.kind, connector.target_of(entry.tenant)) == (row.kind, row.target)
        roles: dict[str, None] = {}
        if connector is not None and fits and connector.resource in request.open_resources:
            roles = dict.fromkeys(
                role for action in request.open_actions for role in connector.actions.get(action, ())
            )
        return ConnectedWindow(
            id=row.id,
            request_id=request.id,
            tenant=entry.tenant,
            service=request.service,
            target=row.target if fits else "",
            engineer=request.requester_id,
            resources=request.open_resources,
            actions=request.open_actions,
            until=request.deadline_at,
            verifier=row.verifier if is_marked else None,
            roles=tuple(roles),
            connections=connector.connections if connector else 1,
        )

    def _take(self, step: ClaimedStep) -> str:
        reason = None
        try:
            connector = self._connectors[ConnectorKind(step.row.kind)]
            if step.window is not None:
                connector.open(step.window, lambda: self._is_wanted(step))
            else:
                _close(connector, step)
        except NotWanted:
            self._arm_now([step.row.id])
            return "overtaken"
        except ConnectorFailed as failed:
            reason = failed.reason
        except Exception:
            log.exception("connector.failed", connection=str(step.row.id))
            reason = "internal"
        return self._record(step, reason)

    def _is_wanted(self, step: ClaimedStep) -> bool:
        with self._database.transaction() as session:
            current = session.execute(IS_CURRENT, {"id": step.row.id, "attempts": step.attempt}).one_or_none()
            return current is not None and _open_window(session, step.row.request_id) is not None

    def _arm_now(self, ids: Iterable[UUID], after: timedelta = timedelta(0)) -> None:
        if entries := [IndexEntry(str(one), KIND, after) for one in ids]:
            self._database.schedule.arm(CONNECTIONS, entries)

    def _record(self, step: ClaimedStep, reason: str | None) -> str:
        with self._database.transaction() as session:
            row = session.execute(LOCK, {"id": step.row.id}).one()
            at = now(session)
            is_open = step.window is not None
            is_ours = ConnectionState(row.state) in (OPENS if is_open else CLOSES) and row.attempts == step.attempt
            if not is_ours:
                return "overtaken"
            until = step.window.until if step.window else None
            outcome = failed(row, at, reason, is_open=is_open) if reason else done(row, at, until)
            record(session, row, outcome, at, until)
            _arm(session, row.id, outcome["run_at"])
            database_.publish_after_commit(session, [row.request_id], PAGES)
            failpoint("connector.before_record")
        failpoint("connector.after_record")
        return "failed" if reason else str(outcome["state"])


def _close(connector: Connector, step: ClaimedStep) -> None:
    connector.close(step.row.id, step.row.target)
    if not connector.is_closed(step.row.id, step.row.target):
        raise ConnectorFailed("still_open")


def _open_window(session: UnitOfWork, request_id: UUID) -> RequestEntry | None:
    authentication.enter(session, CONNECTOR)
    return next((entry for entry in access_check.windows(session, [request_id]) if entry.open), None)


def _arm(session: UnitOfWork, connection_id: UUID, due_at: datetime | timedelta | None) -> None:
    database_.arm_after_commit(session, CONNECTIONS, [IndexEntry(str(connection_id), KIND, due_at)])
