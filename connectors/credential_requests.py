"""Let the engineer of an open window open access at the target, with a password that only the engineer sees."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from catalogue.connector_document import ServiceConnector
from catalogue.service_catalogue import Catalogue
from connectors.connection_steps import KIND
from connectors.models import LATER, Connection, ConnectionState, ConnectorKind
from connectors.postgres_roles import role_name
from connectors.scram import is_verifier
from lockbox import database
from lockbox.audit import events
from lockbox.audit.events import AuditEvent, Origin
from lockbox.database import Query, UnitOfWork, now
from lockbox.errors import Conflict, Invalid, NoOpenWindow, NotYours
from lockbox.identity import authentication, row_macs
from lockbox.identity.roles import Caller
from lockbox.pubsub import PAGES
from lockbox.requests import queries
from lockbox.requests.lifecycle import Party
from lockbox.requests.models import RequestEntry
from lockbox.schedule import CONNECTIONS, IndexEntry
from lockbox.sql import insert

REQUESTED = "connection_requested"
REPLACE = text("""
UPDATE connections SET state = 'closing', run_at = clock_timestamp(), failures = 0
WHERE request_id = :request_id AND state IN ('opening', 'open', 'open_failed') RETURNING id
""")
INSERT = text(f"""
WITH {events.APPEND}
{insert(Connection, but=LATER)}
""")
READ = text("""
SELECT id, request_id, kind, target, state, last_error, created_at, opened_at, closed_at FROM connections
WHERE request_id = :request_id ORDER BY closed_at IS NOT NULL, id DESC LIMIT :most
""")
UNCLOSED = text("SELECT count(*) FROM connections WHERE request_id = :request_id AND state <> 'closed'")
MOST_LISTED = 100
MOST_UNCLOSED = 3
TOO_MANY = (
    f"{MOST_UNCLOSED} credentials of this request are not closed yet. Wait until the target has closed one, or ask "
    "your operators why it does not."
)


@dataclass(frozen=True)
class ConnectionStatus:
    """The state of access at a target. The engineer signs in as `role` at `address`.

    `failing` is why the last try failed, if it did; the step is tried again.
    """

    id: UUID
    kind: ConnectorKind
    target: str
    state: ConnectionState
    failing: str | None
    created_at: datetime
    opened_at: datetime | None
    closed_at: datetime | None
    until: datetime
    role: str | None
    address: str | None


def request_credential(
    session: UnitOfWork, caller: Caller, origin: Origin, request_id: UUID, *, verifier: str, catalogue: Catalogue
) -> ConnectionStatus:
    """Open a window at its target, for the holder of the password that belongs to this verifier.

    Earlier credentials of the request are closed. While `MOST_UNCLOSED` of them are not closed yet, no new credential
    is issued.

    Raises:
        Invalid: there is no such connector, the request does not cover the connector's resource, the number of uses
            is limited (a credential has no such limit), or the verifier is malformed.
    """
    entry = queries.find(session, caller, request_id)
    if entry.request.requester_id != caller.person_id:
        raise NotYours("Only the engineer of this request can have a credential for it.")
    if not entry.open:
        raise NoOpenWindow("This request grants no access now, so there is nothing to open.")
    if entry.uses_left is not None:
        raise Invalid("A credential can be used any number of times, and this access is for a number of uses.")
    connector, target = _connector(entry, catalogue)
    if not is_verifier(verifier):
        raise Invalid("Send a SCRAM-SHA-256 verifier as Postgres writes it, never a password.")
    authentication.turn_to(session, entry.request.tenant_id)
    replaced = session.execute(REPLACE, {"request_id": request_id}).scalars().all()
    if session.execute(UNCLOSED, {"request_id": request_id}).scalar_one() >= MOST_UNCLOSED:
        raise Conflict(TOO_MANY)
    at = now(session)
    row = Connection(
        request_id=request_id,
        tenant_id=entry.request.tenant_id,
        kind=ConnectorKind.POSTGRES,
        target=target,
        verifier=verifier,
        state=ConnectionState.OPENING,
        run_at=at,
        created_at=at,
    )
    row.mac = row_macs.mark(session, row_macs.connection(row))
    session.execute(INSERT, row.model_dump() | events.append([_event(caller, origin, row)]))
    armed = [IndexEntry(str(one), KIND, timedelta(0)) for one in (*replaced, row.id)]
    database.arm_after_commit(session, CONNECTIONS, armed)
    database.publish_after_commit(session, [request_id], PAGES)
    return _status(row, entry, connector)


def connections(
    session: UnitOfWork, caller: Caller, request_id: UUID, catalogue: Catalogue
) -> Sequence[ConnectionStatus]:
    return connections_of(session, queries.find(session, caller, request_id), catalogue)


def ahead_of_connections(request_id: UUID) -> Query:
    return READ, {"request_id": request_id, "most": MOST_LISTED}


def connections_of(session: UnitOfWork, entry: RequestEntry, catalogue: Catalogue) -> Sequence[ConnectionStatus]:
    service = catalogue.services.get(entry.request.service)
    rows = session.execute(*ahead_of_connections(entry.request.id))
    return [_status(row, entry, service.connector if service else None) for row in rows]


def _connector(entry: RequestEntry, catalogue: Catalogue) -> tuple[ServiceConnector, str]:
    service = catalogue.services.get(entry.request.service)
    connector = service.connector if service else None
    target = connector.target_of(entry.tenant) if connector else None
    if connector is None or target is None or connector.kind != ConnectorKind.POSTGRES.value:
        raise Invalid("This service has no connector for credentials of this tenant.")
    if connector.resource not in entry.request.open_resources:
        raise Invalid(f"A credential opens {connector.resource} as a whole, which this request does not cover.")
    if not any(action in connector.actions for action in entry.request.open_actions):
        raise Invalid("No action of this request opens anything at the target.")
    return connector, target


def _event(caller: Caller, origin: Origin, row: Connection) -> AuditEvent:
    return AuditEvent(
        at=row.created_at,
        action=REQUESTED,
        actor=origin.actor(caller, Party.REQUESTER),
        tenant_id=row.tenant_id,
        request_id=row.request_id,
        facts={"connection": row.id, "connector": row.kind.value, "target": row.target},
    )


def _status(row: Connection | Row[Any], entry: RequestEntry, connector: ServiceConnector | None) -> ConnectionStatus:
    is_role = row.kind == ConnectorKind.POSTGRES
    return ConnectionStatus(
        id=row.id,
        kind=ConnectorKind(row.kind),
        target=row.target,
        state=ConnectionState(row.state),
        failing=row.last_error,
        created_at=row.created_at,
        opened_at=row.opened_at,
        closed_at=row.closed_at,
        until=entry.request.deadline_at,
        role=role_name(row.id) if is_role else None,
        address=connector.address if connector and is_role else None,
    )
