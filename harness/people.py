"""A small world of people and a tenant, and requests in any state."""

import json
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Self
from uuid import UUID

import httpx
from sqlalchemy import Engine, text
from sqlmodel import col, select

from config.settings import Settings
from devstack.stack import StackPlan
from harness.stage import setting, unbound, without_triggers
from lockbox.audit.events import Origin
from lockbox.database import NO_KEYS, Database, UnitOfWork, WarnedSession, now, postgres_clock
from lockbox.facts.enumerations import AuthMethod, Mode
from lockbox.identity import api_tokens, keyring, row_macs, sessions, tenants, time_zones
from lockbox.identity.api_tokens import TokenTerms
from lockbox.identity.credentials import BrowserSession, GateIdentity, Identity, Passkey, Token
from lockbox.identity.models import (
    Delegation,
    DirectoryRecord,
    EligibleDelegate,
    Invitation,
    LegalHold,
    Membership,
    Offboarding,
    PolicyVersion,
    ReportConsent,
    Retention,
    Tenant,
)
from lockbox.identity.roles import Caller, Role, RoleGrant, Scope, Side
from lockbox.identity.sessions import ClientInfo, SessionLifetime
from lockbox.notifications import endpoints
from lockbox.notifications.endpoints import SecretVault
from lockbox.requests import decide, submit
from lockbox.requests.decision_context import DecisionInput
from lockbox.requests.lifecycle import Action
from lockbox.requests.models import AccessRequest, PreApproval, PreApprovalVote
from lockbox.requests.policy_rules import Policy
from lockbox.requests.quorum import NO_LIMITS, ApprovalLimits
from lockbox.requests.request_input import RequestInput
from lockbox.requests.submit import SubmittedRequest
from lockbox.sql import new_id

SETTINGS = Settings(
    environment="test",
    submissions_per_person=1_000_000,
    submissions_per_tenant=1_000_000,
    invitations_a_day=100_000,
    gate_compare_every=1,
)
HERE = Origin("api", "127.0.0.1", "pytest")
WITHOUT_REVIEW = Policy(vendor_review=False)
ANSWER_SECONDS = 20
AN_HOUR = timedelta(hours=1)
CHROMIUM = ClientInfo("127.0.0.1", "Chromium")
SERVICE = "exchange-online"
MAILBOX = "mailbox:anna@contoso.example"


def submission(tenant: str, /, **changes: Any) -> dict[str, Any]:
    facts = {
        "tenant": tenant,
        "service": SERVICE,
        "resources": [MAILBOX],
        "actions": ["read"],
        "reason_code": "support_case",
        "justification": "The mailbox does not open",
        "case_ref": "CASE-1",
        "duplicate_reason": "The first one is not enough",
        "access_window": 3600,
    }
    return facts | changes


def question(tenant: str, engineer: UUID, resource: str = MAILBOX) -> dict[str, str]:
    return {
        "tenant": tenant,
        "service": SERVICE,
        "resource": resource,
        "action": "read",
        "engineer": str(engineer),
    }


def add_endpoint(session: UnitOfWork, url: str, tenant_id: UUID | None, event_types: Iterable[str] = ()) -> str:
    """Return the secret; `tenant_id` is None for a webhook of the vendor."""
    vault = SecretVault([key.get_secret_value() for key in SETTINGS.secret_keys])
    return endpoints.add(session, vault, url, tenant_id=tenant_id, event_types=event_types)


def sign_in(
    db: Database, caller: Caller, means: AuthMethod = AuthMethod.PASSKEY, browser: ClientInfo = CHROMIUM
) -> str:
    """Sign a person in, as the API does, and return the browser's secret."""
    with db.transaction() as session:
        signed_in = replace(caller, means=means, signed_in_at=now(session), key_id=None)
        lasting = SessionLifetime(idle=timedelta(minutes=30), absolute=timedelta(hours=12))
        return sessions.begin(session, signed_in, browser, lasting)


def vouch(engine: Engine) -> None:
    """Add the MACs that the API would have added to rows that grant rights and that a test wrote by hand."""
    with WarnedSession(engine.execution_options(isolation_level="READ COMMITTED")) as orm, orm.begin():
        session = UnitOfWork(orm, postgres_clock, NO_KEYS)
        # The triggers need not check rows to which only a MAC is added.
        session.execute(text("SET LOCAL session_replication_role = replica"))
        mark = keyring.of(session).powers.mark
        for one in session.orm.exec(select(Membership).where(col(Membership.mac).is_(None))):
            one.mac = mark(*row_macs.membership(one.id, one.person_id, one.tenant_id, one.role))
        for passkey in session.orm.exec(select(Passkey).where(col(Passkey.mac).is_(None))):
            passkey.mac = mark(*row_macs.passkey(passkey))
        for identity in session.orm.exec(select(Identity).where(col(Identity.mac).is_(None))):
            identity.mac = mark(*row_macs.identity(identity))
        for mapped in session.orm.exec(select(GateIdentity).where(col(GateIdentity.mac).is_(None))):
            mapped.mac = mark(*row_macs.gate_identity(mapped))
        for record in session.orm.exec(select(DirectoryRecord).where(col(DirectoryRecord.mac).is_(None))):
            record.mac = mark(*row_macs.directory_record(record))
        for token in session.orm.exec(select(Token).where(col(Token.mac).is_(None))):
            token.mac = mark(*row_macs.token(token))
        for opened in session.orm.exec(select(BrowserSession).where(col(BrowserSession.mac).is_(None))):
            opened.mac = mark(*row_macs.browser_session(opened))
        for offer in session.orm.exec(select(Invitation).where(col(Invitation.mac).is_(None))):
            offer.mac = mark(*row_macs.invitation(offer))
        _vouch_for_tenants(session)


def _vouch_for_tenants(session: UnitOfWork) -> None:
    ours = keyring.of(session).powers
    for tenant in session.orm.exec(select(Tenant)):
        if not ours.is_mark(tenant.mac, *row_macs.tenant(tenant)):
            tenants.mark(session, tenant)
    for policy in session.orm.exec(select(PolicyVersion)):
        parts = row_macs.policy(policy.tenant_id, policy.version, policy.body)
        if not ours.is_mark(policy.mac, *parts):
            policy.mac = ours.mark(*parts)
    for delegation in session.orm.exec(select(Delegation)):
        if not ours.is_mark(delegation.mac, *row_macs.delegation(delegation)):
            delegation.mac = ours.mark(*row_macs.delegation(delegation))
    for eligible in session.orm.exec(select(EligibleDelegate).where(col(EligibleDelegate.mac).is_(None))):
        eligible.mac = ours.mark(*row_macs.eligible_delegate(eligible))
    for consent in session.orm.exec(select(ReportConsent).where(col(ReportConsent.mac).is_(None))):
        consent.mac = ours.mark(*row_macs.report_consent(consent))
    _vouch_for_what_was_said(session)


def _vouch_for_what_was_said(session: UnitOfWork) -> None:
    ours = keyring.of(session).powers
    for approved in session.orm.exec(select(PreApproval).where(col(PreApproval.mac).is_(None))):
        approved.mac = ours.mark(*row_macs.pre_approval(approved))
    for vote in session.orm.exec(select(PreApprovalVote).where(col(PreApprovalVote.mac).is_(None))):
        vote.mac = ours.mark(*row_macs.pre_approval_vote(vote))
    for kept in session.orm.exec(select(Retention).where(col(Retention.mac).is_(None))):
        row_macs.mark_data(session, kept)
    for hold in session.orm.exec(select(LegalHold).where(col(LegalHold.mac).is_(None))):
        row_macs.mark_data(session, hold)
    for asked in session.orm.exec(select(Offboarding).where(col(Offboarding.mac).is_(None))):
        row_macs.mark_data(session, asked)


GIVES_POWER = re.compile(
    r"INSERT INTO (memberships|passkeys|identities|gate_identities|directory_records|tokens|sessions|invitations)\b"
    r"|INSERT INTO (policies|delegations|eligible_delegates)\b|UPDATE (tenants|delegations)\b"
)


def vouch_for(engine: Engine, statement: str) -> None:
    """Add MACs if this SQL statement may have written rows that grant rights."""
    if GIVES_POWER.search(statement):
        vouch(engine)


class Enrolment:
    """Collects people, each with a role and a token, and writes them all at once: tests make thousands of worlds."""

    def __init__(self, session: UnitOfWork, lifetime: timedelta = AN_HOUR) -> None:
        self._session = session
        self._lifetime = lifetime
        self._at = now(session)
        self._people: list[dict[str, Any]] = []
        self._memberships: list[dict[str, Any]] = []
        self._tokens: list[dict[str, Any]] = []

    def enter(
        self,
        name: str,
        role: Role,
        tenant_id: UUID | None = None,
        *,
        email: str = "",
        scopes: set[Scope] | None = None,
        services: set[str] | None = None,
    ) -> tuple[Caller, str]:
        """Return the person as a caller, and their token; the rows are written by a later `write`."""
        email = email or f"{name}-{new_id().hex[-8:]}@example.test"
        side = Side.CUSTOMER if tenant_id else Side.VENDOR
        person_id, row_id = new_id(), new_id()
        ours = keyring.of(self._session)
        terms = TokenTerms(
            environment=SETTINGS.environment,
            lifetime=self._lifetime,
            is_sample=True,
            scopes=scopes or (),
            services=services or (),
        )
        issued = api_tokens.draft(person_id, self._at, ours, terms)
        mac = ours.powers.mark(*row_macs.membership(row_id, person_id, tenant_id, role))
        # Plain dictionaries: making rows of SQLModel takes as long as everything else.
        self._people.append(
            {
                "id": person_id,
                "name": name.capitalize(),
                "email": email,
                "side": side,
                "time_zone": time_zones.DEFAULT,
                "wants_prompts": True,
                "created_at": self._at,
            }
        )
        self._memberships.append(
            {
                "id": row_id,
                "person_id": person_id,
                "tenant_id": tenant_id,
                "role": role,
                "review_tier": 1,
                "mac": mac,
            }
        )
        self._tokens.append(issued.token.model_dump(exclude_none=True))
        limits = (frozenset(scopes or ()), frozenset(services or ()))
        standings = frozenset({RoleGrant(role, tenant_id)})
        caller = Caller(person_id, name.capitalize(), standings, *limits, side, AuthMethod.SAMPLE, issued.token.id)
        return caller, issued.text

    def write(self) -> None:
        """Write all rows with one SQL statement per table."""
        # People come first, because the other rows refer to them.
        for table, rows in (("people", self._people), ("memberships", self._memberships), ("tokens", self._tokens)):
            names = ", ".join(dict.fromkeys(name for row in rows for name in row))
            # All names come from our own code.
            written = f"INSERT INTO {table} ({names}) SELECT {names} FROM jsonb_populate_recordset(NULL::{table}, %s)"  # noqa: S608
            self._session.connection().exec_driver_sql(written, (json.dumps(rows, default=_plain),))


def _plain(value: object) -> str:
    return f"\\x{value.hex()}" if isinstance(value, bytes) else str(value)


VENDORS = (
    ("erin", Role.ENGINEER),
    ("eve", Role.ENGINEER),
    ("max", Role.MANAGER),
    ("mia", Role.MANAGER),
    ("olga", Role.OPERATOR),
    ("vera", Role.VENDOR_AUDITOR),
)
CUSTOMERS = (
    ("tara", Role.TENANT_ADMIN),
    ("ann", Role.APPROVER),
    ("amir", Role.APPROVER),
    ("abe", Role.APPROVER),
    ("aude", Role.AUDITOR),
)


@dataclass
class World:
    """A vendor and one tenant. `people` are callers by name; `tokens` their bearer tokens."""

    db: Database
    tenant: Tenant
    people: dict[str, Caller] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)

    @classmethod
    def make(
        cls,
        db: Database,
        policy: Policy = WITHOUT_REVIEW,
        mode: Mode = Mode.ENFORCE,
        *,
        without: Collection[str] = (),
        lifetime: timedelta = AN_HOUR,
    ) -> Self:
        """The usual world: engineers erin and eve, managers max and mia, approvers ann, amir and abe, a gate.

        `without` names people to leave out; `lifetime` is how long each token lasts.
        """
        with without_triggers(db).transaction() as session:
            slug = f"tenant-{new_id().hex[-12:]}"
            tenant = tenants.add(session, slug, "Contoso", policy=policy.model_dump(mode="json"), mode=mode)
            world, enrolment = cls(db, tenant), Enrolment(session, lifetime)
            for name, role in VENDORS:
                if name not in without:
                    world._enter(enrolment, name, role)
            world._enter(
                enrolment, "gate", Role.SYSTEM, scopes={Scope.ACCESS_CHECK}, services=set(SETTINGS.catalogue.services)
            )
            for name, role in CUSTOMERS:
                if name not in without:
                    world._enter(enrolment, name, role, tenant.id)
            enrolment.write()
        return world

    def add(self, name: str, role: Role, tenant_id: UUID | None = None, **limits: Any) -> Caller:
        """Add a person with one role and a token that lasts an hour."""
        with setting(self.db).transaction() as session:
            enrolment = Enrolment(session)
            caller = self._enter(enrolment, name, role, tenant_id, **limits)
            enrolment.write()
        return caller

    def _enter(
        self, enrolment: Enrolment, name: str, role: Role, tenant_id: UUID | None = None, **limits: Any
    ) -> Caller:
        self.people[name], self.tokens[name] = enrolment.enter(name, role, tenant_id, **limits)
        return self.people[name]

    def put_on_both_sides(self, name: str, role: Role, tenant_id: UUID | None = None) -> None:
        """Give a person a role of the other side, or a system a further role, past the rules that bind all logins."""
        with unbound(self.db).begin() as connection:
            connection.execute(text("SET LOCAL session_replication_role = replica"))
            connection.execute(
                text("INSERT INTO memberships (id, person_id, tenant_id, role) VALUES (uuidv7(), :p, :t, :r)"),
                {"p": self.people[name].person_id, "t": tenant_id, "r": role.value},
            )
        vouch(unbound(self.db))

    def submission(self, **changes: Any) -> RequestInput:
        return RequestInput(**submission(self.tenant.slug, **changes))

    def body(self, **changes: Any) -> dict[str, Any]:
        return submission(self.tenant.slug, **changes)

    def question(self, engineer: str = "erin", resource: str = MAILBOX) -> dict[str, str]:
        return question(self.tenant.slug, self.people[engineer].person_id, resource)

    def submit(self, who: str = "erin", db: Database | None = None, **changes: Any) -> AccessRequest:
        return self.submitted(who, db, **changes).request

    def fresh(self, who: str = "erin", **changes: Any) -> AccessRequest:
        """Submit a request about a new resource: no earlier denial routes it to a manager."""
        return self.submit(who, **({"resources": [f"mailbox:{new_id()}@contoso.example"]} | changes))

    def submitted(self, who: str = "erin", db: Database | None = None, **changes: Any) -> SubmittedRequest:
        with (db or self.db).transaction() as session:
            return submit.submit(
                session, self.people[who], HERE, self.submission(**changes), SETTINGS.catalogue.services
            )

    def act(
        self, who: str, action: Action, request_id: UUID, db: Database | None = None, **changes: Any
    ) -> AccessRequest:
        """Act on a request and return its row after the action; a denial gets a comment."""
        changes = {"comment": "No"} | changes if action is Action.DENY else changes
        with (db or self.db).transaction() as session:
            return decide.act(session, self.people[who], HERE, request_id, decision_input(action, **changes))


def decision_input(action: Action, **changes: Any) -> DecisionInput:
    """Return a decision input; its limits are keyword arguments."""
    limits = ApprovalLimits(**{name: changes.pop(name) for name in vars(NO_LIMITS) if name in changes})
    return DecisionInput(action, limits=limits, **changes)


def client_of(plan: StackPlan, token: str) -> httpx.Client:
    headers = {"authorization": f"Bearer {token}"}
    return httpx.Client(base_url=plan.public_url, headers=headers, timeout=ANSWER_SECONDS, trust_env=False)
