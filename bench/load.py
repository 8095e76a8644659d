"""Loading many requests at once: the rows that real submits and approvals would leave, written in bulk."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import URL, Engine, create_engine, text
from sqlalchemy.pool import NullPool

from cli.sample import Sample
from lockbox.database import Database
from lockbox.schedule import CLOCK, MOST_A_CALL, Promise

LOAD = text("""
WITH new_requests AS (
    INSERT INTO requests (id, tenant_id, requester_id, service, resources, actions, reason_code, justification, mode,
        policy_version, quorum, approval_window, access_window, state, version, deadline_at, wake_at, created_at,
        asked_at, opened_at)
    SELECT uuidv7(), :tenant, :requester, 'exchange-online', ARRAY['mailbox:' || n || '@contoso.example'],
        ARRAY['read'], 'support_case', 'The mailbox does not open on the phone', 'enforce', 1, 1, 43200, 14400,
        CAST(:state AS text), :version, :deadline, :deadline, now(), now(),
        CASE CAST(:state AS text) WHEN 'active' THEN now() END
    FROM generate_series(1, :count) AS n RETURNING id
), new_decisions AS (
    INSERT INTO decisions (id, request_id, person_id, stands_for, verdict, means, channel, decided_at)
    SELECT uuidv7(), id, :approver, '{}', 'approve', 'oidc', 'api', now() FROM new_requests
    WHERE CAST(:state AS text) = 'active'
), new_events AS (
    INSERT INTO events (id, tenant_id, request_id, seq, at, action, actor_id, actor_role, to_state, body)
    SELECT uuidv7(), :tenant, id, seq, now(), 'submit', :requester, 'engineer',
        CASE seq WHEN :version THEN CAST(:state AS text) ELSE 'pending' END, '{}'
    FROM new_requests, generate_series(1, :version) AS seq RETURNING id, request_id, to_state
), new_notices AS (
    INSERT INTO notices (id, tenant_id, request_id, event_id, person_id, channel, template, run_at, until_at,
        attempts, closed_at, outcome)
    SELECT uuidv7(), :tenant, request_id, id, person, 'mail', to_state, now(), now(), 1, now(), 'sent'
    FROM new_events, unnest(CAST(:told AS uuid[])) AS person
)
SELECT id FROM new_requests
""")


@dataclass(frozen=True)
class Loaded:
    """The ids of what was loaded, and the one instant at which all of it is due."""

    ids: list[UUID]
    due: datetime


@contextmanager
def observer(url: URL) -> Iterator[Engine]:
    """Connect with every right, outside the house, to load and to look."""
    engine = create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    try:
        yield engine
    finally:
        engine.dispose()


def load(engine: Engine, house: Database, sample: Sample, *, state: str, count: int, due_in: timedelta) -> Loaded:
    """Write that many requests in a state, all due at one instant, and arm them."""
    with engine.connect() as connection:
        due: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one() + due_in
        values = {
            "tenant": sample.tenant_id,
            "requester": sample.people["erin"],
            "approver": sample.people["ann"],
            "told": [sample.people["ann"], sample.people["amir"]],
            "state": state,
            "version": 2 if state == "active" else 1,
            "deadline": due,
            "count": count,
        }
        ids = list(connection.execute(LOAD, values).scalars())
        connection.execute(text("ANALYZE requests, events, notices"))
        connection.execute(text("CHECKPOINT"))
    kind = "expire" if state == "active" else "time_out"
    for start in range(0, len(ids), MOST_A_CALL):
        part = ids[start : start + MOST_A_CALL]
        if not house.schedule.arm(CLOCK, [Promise(str(one), kind, due) for one in part]):
            raise RuntimeError("Redis did not take the load")
    return Loaded(ids, due)
