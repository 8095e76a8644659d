"""Write a year of closed requests with events and deliveries in SQL, within seconds, to test lists and their plans.

Each closed request is a copy of one real request's rows, moved into the past. Triggers and foreign keys are off, and
no audit log proves the copies.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection, create_engine, text
from sqlalchemy.pool import NullPool

from harness.stage import NO_TRIGGERS, run_as_superuser

COLUMNS = text("""
SELECT column_name FROM information_schema.columns
WHERE table_schema = 'public' AND table_name = :name AND is_generated = 'NEVER'
""")
# From a year ago to an hour ago, one after the other, so that ids and instants have the same order.
AGO = "(interval '1 hour' + interval '365 days' * (1 - n / CAST(:count AS double precision)))"
ID, AT = f"uuidv7(-{AGO})", f"(now() - {AGO})"
STATE = """CASE WHEN n % 50 = 0 THEN 'denied' WHEN n % 50 IN (1, 2) THEN 'timed_out' ELSE 'expired' END"""
WAS_OPEN = "n % 50 > 2"
REQUESTS = {
    "id": ID,
    "tenant_id": "(CAST(:tenants AS uuid[]))[CASE WHEN n <= 20 THEN 3 WHEN n % 4 = 0 THEN 2 ELSE 1 END]",
    "requester_id": "(CAST(:requesters AS uuid[]))[CASE WHEN n <= 20 THEN 3 WHEN n % 4 = 1 THEN 2 ELSE 1 END]",
    "submitted_by": "NULL",
    "follows": "NULL",
    "case_ref": "'CASE-' || lpad(n::text, 8, '0')",
    "state": STATE,
    "wake_at": "NULL",
    "created_at": AT,
    "asked_at": f"CASE WHEN n % 50 <> 1 THEN {AT} END",
    "opened_at": f"CASE WHEN {WAS_OPEN} THEN {AT} END",
    "granted_resources": "NULL",
    "granted_actions": "NULL",
    "closed_at": f"{AT} + interval '30 minutes'",
    "deadline_at": f"{AT} + interval '30 minutes'",
}
EVENTS = {
    "id": ID,
    "tenant_id": "r.tenant_id",
    "request_id": "r.id",
    "seq": "r.version",
    "at": AT,
    "action": "CASE r.state WHEN 'denied' THEN 'deny' WHEN 'timed_out' THEN 'time_out' ELSE 'expire' END",
    "actor_id": "p.actor_id",
    "from_state": "CASE r.state WHEN 'expired' THEN 'active' ELSE 'pending' END",
    "to_state": "r.state",
    "internal": "false",
}
# Reads by the vendor's people go into the vendor's own log.
READS = {
    "id": ID,
    "tenant_id": "NULL",
    "request_id": "NULL",
    "seq": "NULL",
    "at": AT,
    "action": "'request_read'",
    "from_state": "NULL",
    "to_state": "NULL",
    "internal": "true",
}
NOTIFICATIONS = {
    "id": ID,
    "tenant_id": "e.tenant_id",
    "request_id": "e.request_id",
    "event_id": "e.id",
    "endpoint_id": "CASE WHEN n % 2 = 0 THEN CAST(:endpoint AS uuid) END",
    "person_id": "CASE WHEN n % 2 = 1 THEN p.person_id END",
    "address_id": "NULL",
    "channel": "CASE WHEN n % 2 = 0 THEN 'webhook' ELSE 'mail' END",
    "template": "CASE WHEN n % 2 = 0 THEN 'event' ELSE p.template END",
    "run_at": "e.at",
    "until_at": "e.at",
    "attempts": "1",
    "closed_at": "e.at",
    "outcome": "CASE WHEN n % 500 = 1 THEN 'dead' ELSE 'sent' END",
}
DELIVERIES = """
INSERT INTO deliveries (id, notification_id, endpoint_id, event_type, at, took_ms, status, answer, error)
SELECT uuidv7(n.closed_at - now()), n.id, n.endpoint_id, 'request.expired', n.closed_at, 5, 200, '',
    CASE n.outcome WHEN 'dead' THEN 'refused' END
FROM notifications n WHERE n.closed_at < now() - interval '1 hour' AND n.request_id IS NOT NULL ORDER BY n.id
"""
LOGS = """
INSERT INTO logs (id, tenant_id, origin, generation, size, root, unproven, note, noted_at, kept_at, digest_at)
SELECT e.log_id, t.id, 'history/' || e.log_id, 1, count(*), decode(repeat('00', 32), 'hex'), 0, '', now(), now(),
    now()
FROM events e LEFT JOIN tenants t ON t.id = e.log_id GROUP BY e.log_id, t.id ON CONFLICT DO NOTHING
"""
SEALS = """
INSERT INTO seals (log_id, number, event_id)
SELECT log_id, row_number() OVER (PARTITION BY log_id ORDER BY id) - 1, id FROM events ORDER BY id
ON CONFLICT DO NOTHING
"""
SEALED = "DELETE FROM unsealed"
# Open requests of each state, for the indexes of open requests. They are due in an hour, one millisecond apart.
OPEN_STATES = ("reviewing", "pending", "active")
DUE = "now() + interval '1 hour' + n * interval '1 millisecond'"
OPEN = {
    "id": "uuidv7()",
    "submitted_by": "NULL",
    "follows": "NULL",
    "case_ref": "NULL",
    "state": "CAST(:state AS text)",
    "wake_at": DUE,
    "created_at": "now()",
    "asked_at": "CASE WHEN :state <> 'reviewing' THEN now() END",
    "opened_at": "CASE WHEN :state = 'active' THEN now() END",
    "granted_resources": "NULL",
    "granted_actions": "NULL",
    "closed_at": "NULL",
    "deadline_at": DUE,
    "access_window": "604800",
}


@dataclass(frozen=True)
class HistoryPattern:
    """A real request, its rows, and three tenants and requesters.

    The first tenant and requester have most of the history, the second have a quarter, and the third have twenty
    requests of a year ago.
    """

    request: UUID
    tenants: tuple[UUID, UUID, UUID]
    requesters: tuple[UUID, UUID, UUID]
    endpoint: UUID


def write_history(url: str, pattern: HistoryPattern, requests: int) -> None:
    """Write this many closed requests with an event each, and a tenth as many mails and calls.

    `url` has a database login with every right; the pattern's request has ended.
    """
    given = {
        "count": requests,
        "tenants": list(pattern.tenants),
        "requesters": list(pattern.requesters),
        "pattern": pattern.request,
        "endpoint": pattern.endpoint,
    }
    of_pattern = "requests p, generate_series(1, :count) AS n WHERE p.id = :pattern"
    numbered = "SELECT o.*, row_number() OVER (ORDER BY o.id) AS n FROM"
    event = "(SELECT * FROM events WHERE request_id = :pattern AND seq IS NOT NULL ORDER BY seq DESC LIMIT 1) p"
    mail = "(SELECT * FROM notifications WHERE request_id = :pattern AND person_id IS NOT NULL LIMIT 1) p"
    moved = f"{event}, ({numbered} requests o WHERE o.closed_at IS NOT NULL AND o.id <> :pattern) r"
    told = f"{mail}, ({numbered} events o WHERE o.seq IS NOT NULL AND o.request_id <> :pattern) e WHERE n % 10 < 2"
    with _unchecked(url) as connection:
        _copy(connection, "requests", REQUESTS, of_pattern, given)
        _copy(connection, "events", EVENTS, moved, given)
        _copy(connection, "events", READS, f"{event}, generate_series(1, :count / 5) AS n", given)
        _copy(connection, "notifications", NOTIFICATIONS, told, given)
        for statement in (DELIVERIES, LOGS, SEALS, SEALED):
            connection.execute(text(statement))
    run_as_superuser(url, "VACUUM ANALYZE")


def write_open(url: str, pattern: HistoryPattern, each: int) -> None:
    """Write this many requests in each open state, due in an hour, of the pattern's tenant and requester."""
    source = "requests p, generate_series(1, :count) AS n WHERE p.id = :pattern"
    with _unchecked(url) as connection:
        for state in OPEN_STATES:
            values = {"count": each, "pattern": pattern.request, "state": state}
            _copy(connection, "requests", OPEN, source, values)
    run_as_superuser(url, "VACUUM ANALYZE")


def _copy(
    connection: Connection, table: str, changed: Mapping[str, str], source: str, values: Mapping[str, object]
) -> None:
    columns = connection.execute(COLUMNS, {"name": table}).scalars().all()
    written = ", ".join(changed.get(name, f"p.{name}") for name in columns)
    # All parts of the statement come from our own code and schema.
    statement = f"INSERT INTO {table} ({', '.join(columns)}) SELECT {written} FROM {source} ON CONFLICT DO NOTHING"  # noqa: S608
    named = {name: value for name, value in values.items() if f":{name}" in statement}
    connection.execute(text(statement), named)


@contextmanager
def _unchecked(url: str) -> Iterator[Connection]:
    engine = create_engine(url, poolclass=NullPool, connect_args={"options": NO_TRIGGERS})
    with engine.begin() as connection:
        yield connection
    engine.dispose()
