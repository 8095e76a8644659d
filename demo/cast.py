"""The cast: a fresh tenant with short windows, its people and the vendor's, and where webhooks go."""

import secrets
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit
from uuid import UUID

from sqlmodel import col, select

from config.settings import Settings
from demo.arrivals import PATH, DemoReceiver
from demo.story import APPROVAL_SECONDS, DESK, REVOKED_SECONDS
from devstack import sample
from devstack.stack import StackPlan
from harness.people import SERVICE, add_endpoint
from lockbox import migrations
from lockbox.database import Database, UnitOfWork, make_engine, now
from lockbox.identity import api_tokens, tenants
from lockbox.identity.api_tokens import TokenTerms
from lockbox.identity.roles import BOUND_TO, Role, Scope, Side
from lockbox.notifications.models import Endpoint
from lockbox.requests.policy_rules import Match, Overrides, Policy, Rule
from lockbox.schedule import Schedule

GUARDED = Rule(
    name="Anna's mailbox", match=Match(resources=("mailbox:anna*",)), terms=Overrides(vendor_review=True, quorum=2)
)
ASKED_IN_TURN = Overrides(tiers=(("first",), ("second",)), escalation=(60,), approval_reminders=(40,))
IN_TURN = Rule(name="Carla's mailbox", match=Match(resources=("mailbox:carla*",)), terms=ASKED_IN_TURN)
POLICY = Policy(
    vendor_review=False,
    approval_window=APPROVAL_SECONDS,
    access_ceiling=REVOKED_SECONDS,
    approval_reminders=(),
    review_reminders=(),
    report_on_close=False,
    break_glass_services=(SERVICE,),
    rules=(GUARDED,),
)


@dataclass(frozen=True)
class DemoCast:
    """Everyone who takes part. The database's clock is at least `ahead` seconds ahead of ours."""

    tenant: str
    people: Mapping[str, UUID]
    tokens: Mapping[str, str]
    ahead: float
    db: Database
    urls: tuple[str, ...]
    gateway_token: str

    @classmethod
    def gather(cls, plan: StackPlan, settings: Settings, receivers: Iterable[DemoReceiver]) -> Self:
        """Write the cast into the database, and give the receivers the secrets of their endpoints."""
        db = Database(make_engine(plan.owner_database_url, role="demo"), Schedule(plan.redis_url))
        slug = f"demo-{secrets.token_hex(3)}"
        with db.transaction() as session:
            _retire_abandoned(session)
            seeded = sample.seed(
                session,
                tenant=slug,
                policy=POLICY,
                environment=plan.environment,
                services=settings.catalogue.services,
            )
            groups = {"first": (seeded.people["ann"],), "second": (seeded.people["amir"],)}
            policy = Policy.model_validate({**dict(POLICY), "rules": (GUARDED, IN_TURN), "groups": groups})
            sample.lay_down(session, seeded.tenant_id, policy)
            for one in receivers:
                whose = None if one.endpoint == "vendor" else seeded.tenant_id
                one.secret = add_endpoint(session, one.url, whose)
            terms = TokenTerms(
                environment=plan.environment,
                lifetime=sample.LIFETIME,
                name="gateway",
                scopes=[Scope.GATE_CADDY],
                services=[SERVICE],
            )
            gateway_token = api_tokens.issue(session, seeded.people["gate"], terms).text
            desk = tenants.add_person(session, "Helpdesk", f"desk@{slug}.vendor.example", Side.VENDOR)
            tenants.give_role(session, desk.id, Role.SYSTEM)
            bounds = [Scope.CASE_CLOSE.value, f"{BOUND_TO}{slug}"]
            terms = TokenTerms(environment=plan.environment, lifetime=sample.LIFETIME, name=DESK, scopes=bounds)
            tokens = {**seeded.tokens, DESK: api_tokens.issue(session, desk.id, terms).text}
            ahead = now(session).timestamp() - time.time()
        migrations.analyze(plan.owner_database_url)
        return cls(
            slug, seeded.people, tokens, ahead, db, tuple(receiver.url for receiver in receivers), gateway_token
        )

    def dismiss(self) -> None:
        """Disable the endpoints: nobody listens there from now on."""
        with self.db.transaction() as session:
            _disable(session, *session.orm.exec(select(Endpoint).where(col(Endpoint.url).in_(self.urls))))
        self.db.dispose()


def _retire_abandoned(session: UnitOfWork) -> None:
    """Disable endpoints of demos that were killed: one of the vendor would be called for every tenant forever."""
    ours = col(Endpoint.url).like(f"http://127.0.0.1:%{PATH}%")
    query = select(Endpoint).where(ours, col(Endpoint.disabled_at).is_(None))
    _disable(session, *(endpoint for endpoint in session.orm.exec(query) if not _listens(endpoint.url)))


def _disable(session: UnitOfWork, *endpoints: Endpoint) -> None:
    for endpoint in endpoints:
        endpoint.disabled_at = now(session)
        session.orm.add(endpoint)


def _listens(url: str) -> bool:
    try:
        socket.create_connection(("127.0.0.1", urlsplit(url).port or 0), timeout=1).close()
    except OSError:
        return False
    return True
