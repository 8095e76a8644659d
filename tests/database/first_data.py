"""A database at the first migration with a row of everything in it, written in raw SQL as the code of then did."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, text

from lockbox.ids import new_id

CONTOSO, FABRIKAM, ADATUM = "contoso", "fabrikam", "adatum"
POLICIES: dict[str, dict[str, Any]] = {
    CONTOSO: {
        "vendor_review": True,
        "review_window": 600,
        "approval_window": 7200,
        "access_ceiling": 3600,
        "quorum": 1,
    },
    FABRIKAM: {},
    ADATUM: {"quorum": 2, "vendor_review": False},
}
MODES = {CONTOSO: "enforce", FABRIKAM: "observe", ADATUM: "off"}
# Name, role and where; nobody is on both sides.
ROLES: Sequence[tuple[str, str, str | None]] = (
    ("erin", "engineer", None),
    ("eve", "engineer", None),
    ("eve", "manager", None),
    ("max", "manager", None),
    ("olga", "operator", None),
    ("vera", "vendor_auditor", None),
    ("gate", "system", None),
    ("tara", "tenant_admin", CONTOSO),
    ("tara", "approver", CONTOSO),
    ("ann", "approver", CONTOSO),
    ("ann", "auditor", FABRIKAM),
    ("aude", "auditor", CONTOSO),
    ("zoe", "tenant_admin", FABRIKAM),
    ("ada", "tenant_admin", ADATUM),
)
# Nemo never had a role, Dora is disabled, and Cora, who approved once, is no longer of the customer.
PEOPLE = (*dict.fromkeys(name for name, _, _ in ROLES), "nemo", "dora", "cora")
VENDOR = {"erin", "eve", "max", "olga", "vera", "gate", "nemo", "dora"}
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
Move = tuple[str, str, str | None, str]
SUBMIT: Move = ("submit", "engineer", "erin", "reviewing")
ENDORSE: Move = ("endorse", "manager", "max", "pending")
APPROVE: Move = ("approve", "approver", "ann", "active")
# How a request came into each state: action, capacity, who, and what it became.
PATHS: dict[str, tuple[Move, ...]] = {
    "reviewing": (SUBMIT,),
    "pending": (SUBMIT, ENDORSE),
    "active": (SUBMIT, ENDORSE, APPROVE),
    "denied": (SUBMIT, ENDORSE, ("deny", "approver", "ann", "denied")),
    "cancelled": (SUBMIT, ("cancel", "requester", "erin", "cancelled")),
    "timed_out": (SUBMIT, ENDORSE, ("time_out", "clock", None, "timed_out")),
    "completed": (
        SUBMIT,
        ENDORSE,
        ("approve", "approver", "cora", "active"),
        ("complete", "requester", "erin", "completed"),
    ),
    "revoked": (SUBMIT, ENDORSE, APPROVE, ("revoke", "tenant_admin", "tara", "revoked")),
    "expired": (SUBMIT, ENDORSE, APPROVE, ("expire", "clock", None, "expired")),
}
OPEN = {"reviewing", "pending", "active"}
OPENED = {"active", "completed", "revoked", "expired"}

TENANT = text("""
INSERT INTO tenants (id, slug, name, mode, suspended, policy, created_at)
VALUES (:id, :slug, 'A customer', :mode, false, CAST(:policy AS jsonb), now() - interval '1 year')
""")
PERSON = text("""
INSERT INTO people (id, name, email, disabled_at, created_at)
VALUES (:id, :name, :email, :disabled_at, now())
""")
ROLE = text("INSERT INTO memberships (id, person_id, tenant_id, role) VALUES (uuidv7(), :person, :tenant, :role)")
TOKEN = text("""
INSERT INTO tokens (id, person_id, secret_hash, scopes, services, expires_at, revoked_at, created_at)
VALUES (uuidv7(), :person, sha256(uuid_send(:person)), '{access:check}', '{onedrive}', now() + interval '1 day', NULL,
    now())
""")
REQUEST = text("""
INSERT INTO requests (id, tenant_id, requester_id, service, resources, actions, reason_code, justification, case_ref,
    mode, quorum, approval_window, access_window, state, version, deadline_at, wake_at, created_at, asked_at,
    opened_at, closed_at)
VALUES (:id, :tenant, :erin, 'exchange-online', '{mailbox:anna@contoso.example}', '{read}', 'support_case',
    'The mailbox does not open', 'CASE-1', 'enforce', 1, 7200, 3600, :state, :version, :ends, :wakes, :began, :began,
    :opened, :closed)
""")
EVENT = text("""
WITH told AS (
    INSERT INTO events (id, tenant_id, request_id, seq, at, action, actor_id, actor_role, from_state, to_state, body)
    VALUES (uuidv7(), :tenant, :request, :seq, now(), :action, :actor, :role, :from_state, :to_state, '{}')
    RETURNING id
), waiting AS (
    INSERT INTO unsealed (event_id) SELECT id FROM told
), notified AS (
    INSERT INTO notices (id, tenant_id, request_id, event_id, person_id, channel, template, run_at, until_at,
        attempts)
    SELECT uuidv7(), :tenant, :request, id, :ann, 'mail', :to_state, now(), now() + interval '1 day', 0 FROM told
), called AS (
    INSERT INTO notices (id, tenant_id, request_id, event_id, endpoint_id, channel, template, run_at, until_at,
        attempts, closed_at, outcome)
    SELECT uuidv7(), :tenant, :request, id, :endpoint, 'webhook', :to_state, now(), now(), 1, now(), 'sent' FROM told
)
INSERT INTO event_details (event_id, field, salt, value) SELECT id, 'name', 'salt', 'Somebody' FROM told
""")
DECISION = text("""
INSERT INTO decisions (id, request_id, person_id, verdict, comment, channel, address, user_agent, decided_at)
VALUES (uuidv7(), :request, :actor, :action, 'Go ahead', 'api', '192.0.2.1', 'curl', now())
""")
ENDPOINT = text("""
INSERT INTO endpoints (id, tenant_id, url, secret, event_types, created_at)
VALUES (:id, :tenant, 'https://hooks.example/', 'sealed', '{}', now())
""")
KEY = text("INSERT INTO idempotency_keys VALUES (:erin, 'key', 'hash', '{\"id\": 1}', now())")


class FirstData:
    """What was written, by name."""

    def __init__(self) -> None:
        self.tenants = {slug: new_id() for slug in POLICIES}
        self.people = {name: new_id() for name in PEOPLE}
        self.requests = {state: new_id() for state in PATHS}
        self.endpoints = {slug: new_id() for slug in (CONTOSO, None)}

    def write(self, engine: Engine) -> None:
        """Write everything in one transaction, so that all rules of then are held against it."""
        with engine.begin() as connection:
            self._write_people(connection)
            for slug, endpoint_id in self.endpoints.items():
                connection.execute(ENDPOINT, {"id": endpoint_id, "tenant": slug and self.tenants[slug]})
            for state in PATHS:
                self._write_request(connection, state)
            connection.execute(KEY, {"erin": self.people["erin"]})

    def _write_people(self, connection: Connection) -> None:
        for slug, policy in POLICIES.items():
            written = json.dumps(policy)
            connection.execute(
                TENANT, {"id": self.tenants[slug], "slug": slug, "mode": MODES[slug], "policy": written}
            )
        for name, person_id in self.people.items():
            facts = {"id": person_id, "name": name.capitalize(), "email": f"{name}@mail.example"}
            connection.execute(PERSON, facts | {"disabled_at": NOON if name == "dora" else None})
            connection.execute(TOKEN, {"person": person_id})
        for name, role, where in ROLES:
            facts = {"person": self.people[name], "role": role}
            connection.execute(ROLE, facts | {"tenant": self.tenants[where] if where else None})

    def _write_request(self, connection: Connection, state: str) -> None:
        request_id, moves = self.requests[state], PATHS[state]
        at = connection.execute(text("SELECT now()")).scalar_one()
        ends, is_open = at + timedelta(minutes=30), state in OPEN
        facts = {"id": request_id, "tenant": self.tenants[CONTOSO], "erin": self.people["erin"], "state": state}
        clocks = {"began": at - timedelta(hours=1), "ends": ends, "wakes": ends if is_open else None}
        ended = {"opened": at if state in OPENED else None, "closed": None if is_open else at}
        connection.execute(REQUEST, facts | clocks | ended | {"version": len(moves)})
        before: str | None = None
        for seq, (action, role, who, became) in enumerate(moves, 1):
            actor: UUID | None = self.people[who] if who else None
            told = {
                "tenant": self.tenants[CONTOSO],
                "request": request_id,
                "seq": seq,
                "action": action,
                "role": role,
            }
            named = {"actor": actor, "ann": self.people["ann"], "endpoint": self.endpoints[CONTOSO]}
            connection.execute(EVENT, {**told, **named, "from_state": before, "to_state": became})
            if action in {"endorse", "approve", "deny"}:
                connection.execute(DECISION, {"request": request_id, "actor": actor, "action": action})
            before = became
