"""A tenant with a row in every table: row-level security must hide these rows, and migrations must keep them."""

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from harness.outbox import fan_out_all
from harness.people import HERE, World
from harness.stage import as_sender, unbound
from lockbox.database import Database
from lockbox.identity.roles import Caller
from lockbox.requests import questions
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from tests.database.postbag import Postbag
from tests.database.scenes import as_caller

# What no call of the house makes on the way of a request, in the order of their foreign keys.
THE_REST = (
    """
    INSERT INTO eligible_delegates (tenant_id, person_id) VALUES (:tenant, :aude)
    """,
    """
    INSERT INTO delegations (id, tenant_id, principal_id, delegate_id, starts_at, ends_at, made_by, created_at)
    VALUES (uuidv7(), :tenant, :ann, :aude, now(), now() + interval '1 day', :ann, now())
    """,
    """
    INSERT INTO invitations (id, tenant_id, email, name, roles, is_recovery, invited_by, created_at, takes_effect_at,
        secret_hash, expires_at)
    VALUES (uuidv7(), :tenant, 'nora-' || CAST(:tenant AS text) || '@example.test', 'Nora', '{approver}', false,
        :tara, now(), now(), 'test'::bytea || sha256('code'), now() + interval '1 day')
    """,
    """
    INSERT INTO addresses (id, person_id, email, prompts, created_at, expires_at, confirmed_at)
    VALUES (uuidv7(), :ann, 'ann-' || CAST(:ann AS text) || '@home.test', true, now(), now() + interval '1 day',
        now())
    """,
    """
    INSERT INTO observers (id, tenant_id, name, email, added_by, created_at)
    VALUES (uuidv7(), :tenant, 'Desk', 'desk-' || CAST(:tenant AS text) || '@example.test', :tara, now())
    """,
    """
    INSERT INTO identities (issuer, subject, person_id, created_at, trusted_at)
    SELECT 'https://idp.example', p.id::text, p.id, now(), now() FROM unnest(CAST(:everybody AS uuid[])) AS p (id)
    """,
    """
    INSERT INTO gate_identities (id, issuer, subject, person_id, added_by, created_at)
    SELECT uuidv7(), 'https://idp.example', p.id::text, p.id, :olga, now()
    FROM unnest(CAST(:everybody AS uuid[])) AS p (id)
    """,
    """
    INSERT INTO directory_records (person_id, office_country, source, as_of)
    SELECT p.id, 'DE', 'https://idp.example', now() FROM people p
    WHERE p.id = ANY(CAST(:everybody AS uuid[])) AND p.side = 'vendor'
    """,
    """
    INSERT INTO enforcements (id, service, wanted, revision, enforced_at, changed_at)
    VALUES (uuidv7(), 'gate-' || CAST(:tenant AS text), 'report', 2, now(), now())
    """,
    """
    INSERT INTO enforcement_switches (id, enforcement_id, revision, wanted, was_enforced, switched_at)
    SELECT uuidv7(), e.id, e.revision, 'report', true, now() FROM enforcements e
    WHERE e.service = 'gate-' || CAST(:tenant AS text)
    """,
    """
    INSERT INTO gate_definitions (id, service, revision, digest, body, only_for)
    SELECT uuidv7(), 'gate-' || t.slug, 1, sha256(convert_to(b.body, 'UTF8')), b.body, ARRAY[t.slug]
    FROM tenants t, LATERAL (SELECT json_build_object('tenant', json_build_object('fixed', t.slug))::text) AS b (body)
    WHERE t.id = :tenant
    """,
    """
    INSERT INTO emergency_stops (id, tenant_id, stopped_by, stopped_at, ended_by, ended_at, ended_event)
    VALUES (uuidv7(), :tenant, :tara, now(), :tara, now(), uuidv7())
    """,
    """
    INSERT INTO report_consents (id, enforcement_id, tenant_id, revision, person_id, created_at)
    SELECT uuidv7(), e.id, :tenant, e.revision, :tara, now() FROM enforcements e
    WHERE e.service = 'gate-' || CAST(:tenant AS text)
    """,
    """
    INSERT INTO pre_approvals (id, tenant_id, service, resource, actions, reason_code, access_window, max_uses,
        ends_at, proposed_by, proposed_at)
    VALUES (uuidv7(), :tenant, 'exchange-online', 'mailbox:a*', '{read}', 'support_case', 3600, 3,
        now() + interval '1 day', :tara, now())
    """,
    """
    INSERT INTO pre_approval_votes (id, pre_approval_id, person_id, principals, means, decided_at)
    SELECT uuidv7(), p.id, :ann, '{}', 'passkey', now() FROM pre_approvals p WHERE p.tenant_id = :tenant
    """,
    """
    INSERT INTO exclusions (version, body, author_id, created_at)
    SELECT coalesce(max(version), 0) + 1, 'Demands by law are not covered.', :olga, now() FROM exclusions
    """,
    """
    INSERT INTO exclusion_acknowledgements (tenant_id, version, person_id, created_at)
    SELECT :tenant, max(version), :tara, now() FROM exclusions
    """,
    "INSERT INTO retentions (tenant_id, days) VALUES (:tenant, 90)",
    """
    INSERT INTO legal_holds (id, tenant_id, side, reason, set_by, set_at, released_by, released_at, mac)
    VALUES (uuidv7(), :tenant, 'customer', 'A dispute', :tara, now(), :tara, now(), '')
    """,
    """
    INSERT INTO offboardings (tenant_id, asked_by, asked_at) VALUES (:tenant, :tara, now())
    """,
    """
    INSERT INTO passkeys (id, person_id, credential_id, public_key, sign_count, name, created_at, trusted_at)
    SELECT uuidv7(), p.id, uuid_send(p.id), 'key', 0, 'laptop', now(), now()
    FROM unnest(CAST(:everybody AS uuid[])) AS p (id)
    """,
    """
    INSERT INTO sessions (id, person_id, secret_hash, means, signed_in_at, last_seen_at, expires_at)
    SELECT uuidv7(), p.id, 'test'::bytea || sha256(uuid_send(p.id)), 'passkey', now(), now(),
        now() + interval '1 hour'
    FROM unnest(CAST(:everybody AS uuid[])) AS p (id)
    """,
    """
    INSERT INTO sign_ins (id, browser_hash, means, email, code_nonce, created_at, expires_at)
    SELECT uuidv7(), 'test'::bytea || sha256(uuid_send(p.id)), 'mail', p.email, 'nonce', now(),
        now() + interval '10 minutes'
    FROM people p WHERE p.id = ANY(CAST(:everybody AS uuid[]))
    """,
    """
    INSERT INTO ended_powers (mac, ended_at) VALUES ('test'::bytea || sha256(uuid_send(:tenant)), now())
    """,
    """
    INSERT INTO device_logins (id, secret_hash, code_hash, created_at, expires_at)
    VALUES (uuidv7(), 'test'::bytea || sha256(uuid_send(:tenant)), 'test'::bytea || sha256(uuid_send(:tenant)), now(),
        now() + interval '10 minutes')
    """,
    """
    INSERT INTO sign_in_counts (key, since, count) VALUES (sha256(uuid_send(:tenant)), now(), 1)
    """,
    """
    INSERT INTO refused (key, minute, kind, person_id, facts, personal, count)
    VALUES (sha256(uuid_send(:tenant)), now() + interval '1 hour', 'sign_in_refused', :ann, '{}', '{}', 1)
    """,
    """
    INSERT INTO idempotency_keys (person_id, key, body_hash, answer, created_at)
    SELECT p.id, 'key', 'hash', '{}', now() FROM unnest(CAST(:everybody AS uuid[])) AS p (id)
    """,
    """
    INSERT INTO case_checks (id, tenant_id, engineer_id, asked_by, case_system, case_ref)
    SELECT uuidv7(), :tenant, p.id, p.id, 'helpdesk', 'CASE-7' FROM unnest(CAST(:everybody AS uuid[])) AS p (id)
    """,
    """
    INSERT INTO connections (id, request_id, tenant_id, kind, target, state, run_at, created_at)
    SELECT uuidv7(), r.id, r.tenant_id, 'webhook', 'target', 'opening', now(), now()
    FROM requests r WHERE r.tenant_id = :tenant
    """,
    """
    INSERT INTO used_calls (account_id, call, request_id, at)
    SELECT p.id, 'one', r.id, now() FROM unnest(CAST(:everybody AS uuid[])) AS p (id)
    CROSS JOIN LATERAL (SELECT id FROM requests WHERE tenant_id = :tenant ORDER BY id LIMIT 1) r
    """,
    """
    INSERT INTO request_reads (person_id, request_id, hour)
    SELECT p.id, r.id, date_trunc('hour', now()) FROM unnest(CAST(:everybody AS uuid[])) AS p (id)
    CROSS JOIN LATERAL (SELECT id FROM requests WHERE tenant_id = :tenant ORDER BY id LIMIT 1) r
    """,
    r"""
    WITH told AS (
        INSERT INTO events (id, tenant_id, at, action, actor_id, actor_role, body)
        VALUES (uuidv7(), :tenant, now(), 'policy_changed', :tara, 'tenant_admin', '{}'),
            (uuidv7(), NULL, now(), 'member_changed', :olga, 'operator', '{}')
        RETURNING id, tenant_id
    ), details AS (
        INSERT INTO event_details (event_id, fields) SELECT id, '{"member"\: ["c2FsdA==", "Somebody"]}' FROM told
    )
    INSERT INTO notifications (id, tenant_id, event_id, person_id, channel, template, run_at, until_at, attempts)
    SELECT uuidv7(), tenant_id, id, :ann, 'mail', 'policy_changed', now(), now() + interval '1 day', 0 FROM told
    WHERE tenant_id IS NOT NULL
    """,
    """
    INSERT INTO outbox (event_id, tenant_id, request_id, at, run_at, template, mode, asked)
    SELECT id, tenant_id, request_id, at, at, 'reviewing', 'enforce', '{}' FROM events
    WHERE tenant_id = :tenant AND seq = 1 ORDER BY id LIMIT 1
    """,
    """
    INSERT INTO deliveries (id, notification_id, endpoint_id, event_type, at, took_ms, status, answer)
    SELECT uuidv7(), n.id, n.endpoint_id, 'request.submitted', now(), 7, 204, 'thanks' FROM notifications n
    WHERE n.tenant_id = :tenant
    """,
    """
    INSERT INTO logs (id, tenant_id, origin, generation, size, root, unproven, note, noted_at, kept_at, digest_at)
    VALUES (:tenant, :tenant, 'lockbox.test/audit/' || CAST(:tenant AS text), 1, 1, sha256('root'), 0, 'note', now(),
        now(), now())
    """,
    """
    INSERT INTO seals (log_id, number, event_id)
    SELECT :tenant, 0, e.id FROM events e WHERE e.tenant_id = :tenant ORDER BY e.id LIMIT 1
    """,
    """
    INSERT INTO tiles (log_id, level, number, hashes) VALUES (:tenant, 0, 0, sha256('leaf'))
    """,
    """
    INSERT INTO checkpoints (id, log_id, size, at, note) VALUES (uuidv7(), :tenant, 1, now(), 'note')
    """,
    """
    INSERT INTO reports_due (event_id, due_at)
    SELECT id, now() + interval '1 hour' FROM events WHERE tenant_id = :tenant ORDER BY id LIMIT 1
    """,
    """
    INSERT INTO audit_keys (key, purpose, first_used_at)
    VALUES ('lockbox.test+' || CAST(:tenant AS text), 'log', now())
    """,
    "INSERT INTO heartbeats (role, id, node, skew, beat_at) VALUES ('core', :tenant, 'core@here', 0, now())",
    """
    INSERT INTO gate_answers (span, at, gateway_id, service, decision, reason, count)
    VALUES ('hour', now(), :tenant, 'exchange-online', 'allow', '', 1)
    """,
    """
    INSERT INTO reported_calls (service, reason, path, tenant, caller, count, first_at, last_at)
    SELECT 'exchange-online', 'no_window', 'GET /', t.slug, '', 1, now(), now() FROM tenants t WHERE t.id = :tenant
    """,
    """
    INSERT INTO window_refusals (request_id, count, last_at)
    SELECT id, 1, now() FROM requests WHERE tenant_id = :tenant AND opened_at IS NOT NULL
    """,
    "INSERT INTO gate_writers (process, batch, written_at) VALUES (:tenant, 1, now())",
    """
    INSERT INTO window_uses (request_id, count, first_at, first_gateway, first_action, first_resource, last_at,
        last_gateway, last_action, last_resource)
    SELECT id, 1, now(), :tenant, 'read', 1, now(), :tenant, 'read', 1 FROM requests
    WHERE tenant_id = :tenant AND opened_at IS NOT NULL
    """,
    "INSERT INTO counters (name, label, count, total) VALUES ('attempt', 'mail sent', 1, 0)",
    "INSERT INTO lag_samples (at, schedule_lag, seal_lag, ended, late) VALUES (clock_timestamp(), 0, 0, 0, 0)",
    "INSERT INTO alarms (key, raised_at) VALUES ('I1:' || CAST(:tenant AS text), now())",
)


@dataclass(frozen=True)
class FurnishedRows:
    """A furnished world, and its rows by table as Postgres copies them."""

    world: World
    rows: Mapping[str, bytes]
    sequences: Mapping[str, int]


FURNISHED: list[FurnishedRows] = []
NAMES = (
    "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename NOT IN ('alembic_version', 'turns')"
)
SEQUENCES = "SELECT sequencename, last_value FROM pg_sequences WHERE schemaname = 'public' AND last_value IS NOT NULL"
COPY_OUT = sql.SQL("COPY {} TO STDOUT (FORMAT binary)")
COPY_IN = sql.SQL("COPY {} FROM STDIN (FORMAT binary)")


def furnish(db: Database) -> World:
    """Fill an empty database with the usual world: requests in review, pending and open, and a row in every table.

    Lockbox makes these rows once per process; later tests copy them, which is ten times faster.
    """
    with _as_it_is(db) as connection:
        if FURNISHED:
            _put(connection, FURNISHED[0])
    if not FURNISHED:
        world = _furnish(db)
        with _as_it_is(db) as connection:
            FURNISHED.append(_taken(connection, world))
    kept = FURNISHED[0].world
    return replace(kept, db=db, people=dict(kept.people), tokens=dict(kept.tokens))


@contextmanager
def _as_it_is(db: Database) -> Iterator[psycopg.Cursor[Any]]:
    """Yield a cursor that reads and writes rows without rules or triggers."""
    with unbound(db).begin() as connection:
        driver = connection.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        with driver.cursor() as cursor:
            cursor.execute("SET LOCAL session_replication_role = replica")
            yield cursor


def _taken(cursor: psycopg.Cursor[Any], world: World) -> FurnishedRows:
    rows = dict[str, bytes]()
    for (name,) in cursor.execute(NAMES).fetchall():
        with cursor.copy(COPY_OUT.format(sql.Identifier(name))) as copy:
            rows[name] = b"".join(copy)
    return FurnishedRows(world, rows, dict(cursor.execute(SEQUENCES).fetchall()))


def _put(cursor: psycopg.Cursor[Any], furnished: FurnishedRows) -> None:
    for name, rows in furnished.rows.items():
        with cursor.copy(COPY_IN.format(sql.Identifier(name))) as copy:
            copy.write(rows)
    for name, last in furnished.sequences.items():
        at_least = "SELECT setval({name}, greatest({last}, last_value)) FROM {sequence}"
        names = {"name": sql.Literal(name), "last": sql.Literal(last), "sequence": sql.Identifier(name)}
        cursor.execute(sql.SQL(at_least).format(**names))


def _furnish(db: Database) -> World:
    world = World.make(db, Policy(break_glass_services=("exchange-online",)))
    post = Postbag()
    post.endpoint(world, f"https://tenant.example/{world.tenant.slug}", tenant_id=world.tenant.id)
    post.endpoint(world, f"https://vendor.example/{world.tenant.slug}", tenant_id=None)
    world.submit()
    for answer in (None, Action.APPROVE):
        request = world.submit(case_ref="CASE-7")
        world.act("max", Action.ENDORSE, request.id, comment="A real fault")
        if answer:
            world.act("ann", answer, request.id, comment="Go ahead")
        with db.transaction() as session:
            questions.ask(session, world.people["ann"], HERE, request.id, "Which mails?")
    emergency = world.submit(break_glass=True)
    world.act("max", Action.BREAK_GLASS, emergency.id, comment="Mail is down")
    fan_out_all(as_sender(db))
    values: dict[str, UUID | list[UUID]] = {name: caller.person_id for name, caller in world.people.items()}
    values |= {"tenant": world.tenant.id, "everybody": [caller.person_id for caller in world.people.values()]}
    with unbound(db).begin() as connection:
        for statement in THE_REST:
            connection.execute(text(statement), values)
    return world


Row = dict[str, Any]

# Tables whose new rows are anybody's to write: to begin a sign-in there is nobody yet, and what is more to an event
# cannot be held against the event while one statement writes both.
# The key that signs approvals is listed by whoever opens the first window, and a window that closes by who closes it.
FREE = frozenset({"sign_ins", "sign_in_counts", "device_logins", "event_details", "audit_keys", "reports_due"})
# Rows that everybody with a context may see: the vendor's own people and what they hear of.
PUBLIC = {"people": "side = 'vendor'", "memberships": "tenant_id IS NULL", "endpoints": "tenant_id IS NULL"}
PUBLIC["exclusions"] = "true"
# What the vendor says to all is everybody's to read, and nobody's private row.
EVERYBODYS = frozenset({"exclusions"})
PUBLIC["deliveries"] = "endpoint_id IN (SELECT id FROM endpoints WHERE tenant_id IS NULL)"

TABLES = text("""
SELECT c.relname AS name,
    (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) FROM pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
        AND a.attidentity = '' AND (has_column_privilege('lockbox_api', c.oid, a.attnum, 'INSERT')
            OR NOT has_any_column_privilege('lockbox_api', c.oid, 'INSERT'))) AS columns,
    (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) FROM pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum = ANY(i.indkey)) AS key,
    (SELECT coalesce(array_agg(a.attname::text ORDER BY a.attnum), '{}') FROM pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        AND has_column_privilege('lockbox_api', c.oid, a.attnum, 'UPDATE')) AS changeable,
    has_any_column_privilege('lockbox_api', c.oid, 'SELECT') AS readable,
    has_any_column_privilege('lockbox_api', c.oid, 'INSERT') AS writable,
    has_table_privilege('lockbox_api', c.oid, 'DELETE') AS deletable
FROM pg_class c JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND c.relname <> 'alembic_version'
ORDER BY c.relname
""")
SELECT_KEYS = "SELECT {key} FROM {name} WHERE {where}"
SELECT_ROWS = "SELECT to_jsonb(t) FROM {name} t WHERE {where}"
SELECT_VERSIONS = "SELECT t.xmin || ' ' || t::text FROM {name} t"
INSERT_ROW = """
INSERT INTO {name} ({columns}) SELECT {columns} FROM jsonb_populate_record(NULL::{name}, CAST(:row AS jsonb))
"""
SET_COLUMN = "UPDATE {name} SET {column} = (jsonb_populate_record(NULL::{name}, CAST(:row AS jsonb))).{column}"
KEEP_COLUMN = "UPDATE {name} SET {column} = {column}"
CLEAR = "DELETE FROM {name}"


@dataclass(frozen=True)
class Table:
    """A table of the schema, and what the API's database role may do to it."""

    name: str
    columns: str
    key: str
    changeable: tuple[str, ...]
    readable: bool
    writable: bool
    deletable: bool

    def keys(self, connection: Connection, where: str = "true") -> set[tuple[Any, ...]]:
        """Return the keys of the rows that are visible to this transaction."""
        query = SELECT_KEYS.format(key=self.key, name=self.name, where=where)
        return {tuple(row) for row in connection.execute(text(query))}

    def insert(self, connection: Connection, row: Row) -> None:
        statement = INSERT_ROW.format(name=self.name, columns=self.columns)
        connection.execute(text(statement), {"row": json.dumps(row)})

    def overwrite(self, connection: Connection, column: str, row: Row) -> None:
        """Set one column of every row that may be changed to the value in `row`; the statement reads no row."""
        connection.execute(text(SET_COLUMN.format(name=self.name, column=column)), {"row": json.dumps(row)})

    def touch(self, connection: Connection, column: str) -> int:
        """Set one column of every visible row to its own value; return the number of rows."""
        return connection.execute(text(KEEP_COLUMN.format(name=self.name, column=column))).rowcount

    def clear(self, connection: Connection) -> int:
        """Delete every row that may be deleted; return the number of rows."""
        return connection.execute(text(CLEAR.format(name=self.name))).rowcount


def tables(db: Database) -> list[Table]:
    with unbound(db).connect() as connection:
        rows = connection.execute(TABLES).all()
    return [Table(r.name, r.columns, r.key, tuple(r.changeable), r.readable, r.writable, r.deletable) for r in rows]


def private_rows(db: Database) -> dict[str, list[Row]]:
    """Return all current rows, by table, except those that everyone may read."""
    return {name: _column(db, SELECT_ROWS, name, f"NOT ({PUBLIC.get(name, 'false')})") for name in _names(db)}


def private_keys(db: Database) -> dict[str, set[tuple[Any, ...]]]:
    """Return the keys of all current rows, by table, except those that everyone may read."""
    with unbound(db).connect() as connection:
        return {
            table.name: table.keys(connection, f"NOT ({PUBLIC.get(table.name, 'false')})") for table in tables(db)
        }


def versions(db: Database) -> dict[str, set[str]]:
    """Return the version of every row: a rewritten row has another version, even if no value changed."""
    return {name: set(_column(db, SELECT_VERSIONS, name)) for name in _names(db)}


def _names(db: Database) -> list[str]:
    return [table.name for table in tables(db)]


def _column(db: Database, query: str, name: str, where: str = "true") -> list[Any]:
    with unbound(db).connect() as connection:
        return list(connection.execute(text(query.format(name=name, where=where))).scalars())


@contextmanager
def in_context(db: Database, caller: Caller | None, at: UUID | None = None) -> Iterator[Connection]:
    """Open a transaction in a caller's context, or without a context for None; commit it at the end."""
    with db.engine.begin() if caller is None else as_caller(db, caller, at=at) as connection:
        yield connection


def insert_refused(db: Database, caller: Caller | None, rows: Mapping[str, Collection[Row]]) -> set[str]:
    """Check that a caller, or no one for None, may insert none of these rows; return the tables.

    Either row-level security refuses, or the API's database role has no right on the table.

    The rows already exist: if they passed, Postgres would refuse their keys with another message. Rows of `events`
    and `notifications` without a tenant are skipped.
    """
    tried = set()
    for table in tables(db):
        for row in () if table.name in FREE else rows[table.name]:
            if table.name in {"events", "notifications"} and row["tenant_id"] is None:
                continue
            said = _said(db, caller, partial(table.insert, row=row))
            barred = f'new row violates row-level security policy for table "{table.name}"'
            assert said == (barred if table.writable else f"permission denied for table {table.name}"), said
            tried.add(table.name)
    return tried


def attempt_everything(
    db: Database, caller: Caller | None, rows: Mapping[str, Collection[Row]], leave: Collection[str] = ()
) -> None:
    """Try to change every changeable column and delete every deletable row, visible or not; ignore refusals."""
    for table in tables(db):
        if table.name in leave:
            continue
        for column in table.changeable:
            _said(db, caller, partial(table.touch, column=column))
            # Of a row only this column is used: rows that have the same in it make the same statement.
            for row in {json.dumps(row[column]): row for row in rows[table.name]}.values():
                _said(db, caller, partial(table.overwrite, column=column, row=row))
        if table.deletable:
            _said(db, caller, table.clear)


def _said(db: Database, caller: Caller | None, change: Callable[[Connection], object]) -> str:
    """Make the change and commit; return the error, or `done`."""
    try:
        with in_context(db, caller) as connection:
            change(connection)
    except DBAPIError as refused:
        return str(refused.orig)
    return "done"
