"""Make the FastAPI app."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, Depends, FastAPI
from fastapi.telemetry import TelemetryConfig
from starlette.routing import BaseRoute

from api import playground, portal, problems
from api.client_counts import ClientCounts
from api.deps import RouteTable, known_alone
from api.gateway import GateRuntime
from api.heartbeat import HeartbeatThread
from api.incoming_request import (
    CHECKS,
    CLOSING_MOVES,
    MOST_COMMON,
    MOST_VITAL,
    OPENING_MOVES,
    SUBMITS,
)
from api.live import LiveUpdates
from api.middleware import HttpGuard
from api.routes import (
    access,
    access_review,
    activity,
    addresses,
    after_reviews,
    approval_challenges,
    audit,
    authzen,
    cases,
    connections,
    decisions,
    device_login,
    exclusions,
    further_requests,
    gate_enforcement,
    gate_identities,
    gate_probes,
    health,
    me,
    members,
    metrics,
    observers,
    openapi_document,
    outside_access,
    pre_approvals,
    questions,
    requests,
    statistics,
    tenant_data,
    tenants,
    timeline,
    tokens,
    unapproved_access,
    vendor,
    webhooks,
)
from catalogue.unsafe_settings import UnsafeSettings
from config.settings import Settings
from lockbox.audit.log import signing_keys
from lockbox.audit.log.checkpoint_folder import WitnessCheck, WitnessFolder
from lockbox.audit.log.signing_keys import BadKey
from lockbox.call_groups.groups import GROUPS, CallGroups
from lockbox.database import Database, ProcessKeys, make_engine
from lockbox.identity import keyring
from lockbox.identity.keyring import ApprovalKeys, Keyring
from lockbox.identity.oidc_providers import IdentityProviders
from lockbox.monitoring.write_trial import WriteTrial
from lockbox.notifications.endpoints import SecretVault
from lockbox.schedule import Schedule

OVERFLOW, VITAL_OVERFLOW = 7, 2
"""Some requests need a second connection for a moment. Exports, live pages and heartbeats use their own."""
NO_TELEMETRY = TelemetryConfig(tracing=False, metrics=False, logs=False, operation_spans=False, auto_configure=False)
"""FastAPI's own telemetry would export paths, queries and invalid body values, whatever the environment says."""
KINDS_ON_LOOP = 4
"""How many kinds of calls run on the event loop, each with its own connections: submissions, checks, moves."""
READING = 1
"""The gate reads changes on a connection of its own."""
CONNECTIONS = sum((MOST_COMMON, OVERFLOW, MOST_VITAL, VITAL_OVERFLOW, KINDS_ON_LOOP * GROUPS, READING))
"""How many connections a process opens at most, over all of its pools and groups."""


def make_database(settings: Settings) -> Database:
    """Return the database without connecting to Postgres.

    Raises:
        UnsafeSettings: a setting, or a key that this process needs, is missing.
    """
    engine = make_engine(settings.require("database_url"), role="api", pool_size=MOST_COMMON, overflow=OVERFLOW)
    return Database(
        engine,
        Schedule(settings.require("redis_url")),
        keys=ProcessKeys(_approvals(settings), _shipped(settings), _keyring(settings)),
    )


def make_vital(settings: Settings, database: Database) -> Database:
    """Return the database with connections reserved for access checks, health checks and calls that end access."""
    url = settings.require("database_url")
    return database.beside(make_engine(url, role="api-vital", pool_size=MOST_VITAL, overflow=VITAL_OVERFLOW))


def make_reading(settings: Settings, database: Database) -> Database:
    """Return the database with one connection, for the gate's memory of open windows."""
    url = settings.require("database_url")
    return database.beside(make_engine(url, role="api-gate", pool_size=READING, overflow=0))


def _shipped(settings: Settings) -> WitnessCheck | None:
    if settings.checkpoint_folder is None:
        return None
    if not settings.audit_public_keys:
        raise UnsafeSettings(
            "LOCKBOX_AUDIT_PUBLIC_KEYS is not set; the API needs it to verify the checkpoints in "
            "LOCKBOX_CHECKPOINT_FOLDER"
        )
    return WitnessCheck(WitnessFolder(settings.checkpoint_folder), signing_keys.trusted(settings.audit_public_keys))


def _approvals(settings: Settings) -> ApprovalKeys:
    if not settings.approval_key_files:
        return keyring.ephemeral()
    try:
        return ApprovalKeys(signing_keys.read(settings.approval_key_files))
    except BadKey as bad:
        raise UnsafeSettings(f"LOCKBOX_APPROVAL_KEY_FILES: {bad}") from None


def _keyring(settings: Settings) -> Keyring:
    if not settings.credential_key_files:
        return keyring.development()
    try:
        return keyring.read(settings.credential_key_files)
    except BadKey as bad:
        raise UnsafeSettings(f"LOCKBOX_CREDENTIAL_KEY_FILES: {bad}") from None


def _routes() -> list[BaseRoute]:
    every = APIRouter(dependencies=[Depends(known_alone)])
    for router in (
        access.router,
        authzen.router,
        decisions.router,
        requests.grouped,
        requests.router,
        approval_challenges.router,
        further_requests.router,
        activity.router,
        connections.router,
        cases.router,
        questions.router,
        timeline.router,
        tenants.router,
        members.router,
        pre_approvals.router,
        vendor.router,
        access_review.router,
        unapproved_access.router,
        after_reviews.router,
        exclusions.router,
        tenant_data.router,
        gate_enforcement.router,
        gate_identities.router,
        gate_probes.router,
        outside_access.router,
        webhooks.router,
        observers.router,
        observers.what_if_router,
        me.router,
        addresses.router,
        tokens.router,
        audit.router,
        audit.known,
        statistics.router,
        device_login.router,
        health.router,
        metrics.router,
        openapi_document.router,
        *portal.ROUTERS,
    ):
        every.include_router(router)
    return every.routes


ROUTES = _routes()
"""Made once for all apps: FastAPI prepares a route at its first call, which takes longer than the call."""


def make_app(
    settings: Settings,
    database: Database,
    vital: Database | None = None,
    counts: ClientCounts | None = None,
    reading: Database | None = None,
) -> FastAPI:
    """`vital` and `reading` are the same database with connections of their own. The app closes all three.

    The caller runs the gate in front of the app: `app.state.gateway.before(app)`. `counts` is None if there is only
    one process.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        needs = any(service.connector for service in settings.catalogue.services.values())
        heart = HeartbeatThread(database, CONNECTIONS, gateway.reader.differs, needs_connectors=needs)
        heart.start()
        gateway.start()
        yield
        gateway.stop()
        heart.stop()
        app.state.live_updates.stop()
        await database.schedule.followed()
        database.dispose()
        app.state.vital.engine.dispose()
        (reading or database).engine.dispose()

    app = FastAPI(
        title="Lockbox",
        version="1",
        summary="An open Customer Lockbox: no access for the vendor without the customer's approval.",
        lifespan=lifespan,
        dependencies=[Depends(known_alone)],
        openapi_url=None,
        redirect_slashes=False,
        telemetry=NO_TELEMETRY,
    )
    app.state.settings = settings
    app.state.database = database
    app.state.vital = vital or database
    app.state.counts = counts or ClientCounts()
    app.state.live_updates = LiveUpdates(database, settings, app.state.counts)
    app.state.groups = {
        SUBMITS: CallGroups(database, places_alone=SUBMITS.alone),
        OPENING_MOVES: CallGroups(database, places_alone=OPENING_MOVES.alone, most_together=1),
        CHECKS: CallGroups(app.state.vital, places_alone=CHECKS.alone, in_one_round=True),
        CLOSING_MOVES: CallGroups(app.state.vital, places_alone=CLOSING_MOVES.alone, most_together=1),
    }
    gateway = GateRuntime(settings, database, reading or database, app.state.groups[CHECKS])
    app.state.gateway = gateway
    app.state.issuers = IdentityProviders(settings.issuers, route=settings.outbound)
    app.state.write_trial = WriteTrial()
    app.state.vault = SecretVault([key.get_secret_value() for key in settings.secret_keys])
    problems.install(app)
    app.router.routes += ROUTES
    portal.install(app)
    playground.install(app, settings)
    app.state.addresses = RouteTable(app.routes)
    app.add_middleware(HttpGuard, settings=settings)
    return app
