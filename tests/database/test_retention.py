"""Retention: the owner's command removes old events, the rest can still be proven, and open requests stay."""

from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Engine, text

from harness.people import World
from harness.stage import Urls
from lockbox.admin import retention, vendor_consent
from lockbox.admin.retention import RemovedRange
from lockbox.audit.log import merkle, sealer
from lockbox.audit.log.merkle import check_consistency, check_inclusion, consistency, inclusion, leaf_hash
from lockbox.audit.log.sealer import Signer
from lockbox.database import Database, UnitOfWork
from lockbox.monitoring import invariants
from lockbox.monitoring.invariants import ScanPosition
from lockbox.owner_transaction import as_owner
from lockbox.requests import queries
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from tests.database.audit_logs import recorded_changes
from tests.database.postbag import Postbag
from tests.database.scenes import read

SIGNER = Signer("lockbox.test", [Ed25519PrivateKey.generate()])
AGE = (
    "UPDATE events SET at = at - interval '100 days' WHERE request_id = :id",
    "UPDATE requests SET closed_at = closed_at - interval '100 days' WHERE id = :id",
)
CONSENTED = """
UPDATE policies SET created_at = now() - interval '200 days', body = body || jsonb_build_object('consent',
    jsonb_build_object('mode', 'observe', 'until', (now() - interval '90 days')::text))
"""
# A look for what stays, the record of what goes, the first and the second removal, and none.
NEAR = {2, 4, 6, 8, 13}
LEFT = "SELECT count(*) AS n FROM events WHERE request_id = :id"
SEALS = "SELECT s.number, e.body FROM seals s JOIN events e ON e.id = s.event_id WHERE s.log_id = :log"


def sealed(worker: Database) -> None:
    for _ in sealer.seal(worker, SIGNER):
        pass


def denied(world: World, superuser: Engine, *, long_ago: bool = True) -> UUID:
    """Make a request that was denied a hundred days ago, or now."""
    request_id = world.act("ann", Action.DENY, world.fresh().id).id
    if long_ago:
        age(superuser, request_id)
    return request_id


def age(superuser: Engine, request_id: UUID) -> None:
    """Date everything about a request a hundred days back."""
    as_long_ago(superuser, *AGE, id=request_id)


def as_long_ago(superuser: Engine, *statements: str, **values: object) -> None:
    """Run SQL statements that shift rows into the past, with the triggers off."""
    with superuser.connect() as connection:
        connection.execute(text("SET session_replication_role = replica"))
        for statement in statements:
            connection.execute(text(statement), values)


def retain(urls: Urls, days: int = 30) -> list[RemovedRange]:
    """Remove what is older than `days`, as the owner."""
    return list(retention.retain(partial(as_owner, urls.owner), timedelta(days=days)))


def left(world: World, request_id: UUID) -> int:
    (row,) = read(world.db, LEFT, id=request_id)
    return int(row.n)


@pytest.mark.far
def test_retention_removes_old_events_and_remaining_events_can_still_be_proven(
    world: World, worker: Database, urls: Urls, superuser: Engine
) -> None:
    old = [denied(world, superuser) for _ in range(3)]
    sealed(worker)
    (before,) = read(worker, "SELECT size, root FROM logs WHERE tenant_id IS NOT NULL")
    young = denied(world, superuser, long_ago=False)
    sealed(worker)

    (removed,) = retain(urls)
    sealed(worker)

    assert removed == RemovedRange(world.tenant.id, 0, 6)
    assert [left(world, one) for one in (*old, young)] == [0, 0, 0, 2]
    (log,) = read(worker, "SELECT size, root, kept_from FROM logs WHERE tenant_id IS NOT NULL")
    assert (log.kept_from, log.size) == (6, 9)
    rows = read(worker, "SELECT level, number, hashes FROM tiles WHERE log_id = :log", log=world.tenant.id)
    found = {(row.level, row.number): bytes(row.hashes) for row in rows}

    def subtree(level: int, number: int) -> bytes:
        return merkle.subtree(found, level, number)

    for row in read(worker, SEALS, log=world.tenant.id):
        path = inclusion(subtree, row.number, log.size)
        check_inclusion(leaf_hash(bytes(row.body)), row.number, log.size, path, bytes(log.root))
    path = consistency(subtree, before.size, log.size)
    check_consistency(before.size, log.size, bytes(before.root), bytes(log.root), path)


@pytest.mark.far
def test_a_retention_event_states_the_removed_range_and_tree_root(
    world: World, worker: Database, urls: Urls, superuser: Engine
) -> None:
    denied(world, superuser)
    sealed(worker)
    (first,) = read(worker, "SELECT root FROM logs WHERE tenant_id IS NOT NULL")
    retain(urls)
    denied(world, superuser)
    sealed(worker)

    retain(urls)

    one, other = [told for told in recorded_changes(worker) if told.action == "audit_events_removed"]
    assert (one.facts["removed_from"], one.facts["removed_to"]) == (0, 2)
    assert (other.facts["removed_from"], other.facts["removed_to"]) == (0, 4)
    assert b64decode(one.facts["removed_root"]) == bytes(first.root)
    assert (one.role, one.facts["tenant_id"]) == ("owner", str(world.tenant.id))


@pytest.mark.far
def test_retention_stops_before_the_events_of_an_open_or_recent_request(
    world: World, worker: Database, urls: Urls, superuser: Engine
) -> None:
    gone = denied(world, superuser)
    waiting = world.fresh()
    age(superuser, waiting.id)
    behind = denied(world, superuser)
    sealed(worker)

    (removed,) = retain(urls)

    assert (removed.start, removed.end) == (0, 2)
    assert [left(world, one) for one in (gone, waiting.id, behind)] == [0, 1, 2]


@pytest.mark.far
def test_retention_removes_notifications_with_the_event_and_the_request_stays_readable(
    world: World, worker: Database, urls: Urls, superuser: Engine, post: Postbag
) -> None:
    request_id = denied(world, superuser)
    post.deliver(worker, [row.id for row in read(worker, "SELECT id FROM notifications WHERE closed_at IS NULL")])
    as_long_ago(superuser, "UPDATE events SET at = at - interval '100 days'")
    sealed(worker)

    retain(urls)

    assert read(worker, "SELECT FROM notifications") == []
    with world.db.transaction() as session:
        entry = queries.find(session, world.people["aude"], request_id)
    assert entry.request.state == "denied"


def test_retention_keeps_unsealed_and_recent_events(
    world: World, worker: Database, urls: Urls, superuser: Engine
) -> None:
    young = denied(world, superuser, long_ago=False)
    sealed(worker)
    unsealed = denied(world, superuser)

    assert retain(urls) == []
    assert (left(world, young), left(world, unsealed)) == (2, 2)


@pytest.mark.usefixtures("world")
def test_the_end_of_a_consent_is_not_announced_again_after_retention_removes_the_event(
    worker: Database, urls: Urls, superuser: Engine
) -> None:
    as_long_ago(superuser, CONSENTED)
    told = list(vendor_consent.record_expired_consents(worker))
    as_long_ago(superuser, "UPDATE events SET at = at - interval '89 days'")
    sealed(worker)
    (removed,) = retain(urls)

    again = list(vendor_consent.record_expired_consents(worker))

    assert len(told) == 1
    assert removed.end == 1
    assert again == []


@pytest.fixture
def _small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "A_STEP", 2)
    monkeypatch.setattr(retention, "A_LOOK", 3)


@pytest.mark.far
@pytest.mark.usefixtures("_small_steps")
@pytest.mark.parametrize(
    "ended_at", [one if one in NEAR else pytest.param(one, marks=pytest.mark.far) for one in range(1, 14)]
)
def test_interrupted_retention_resumes_and_records_each_removal_before_deleting_events(
    world: World, worker: Database, urls: Urls, superuser: Engine, ended_at: int
) -> None:
    old = [denied(world, superuser) for _ in range(3)]
    sealed(worker)
    opened = 0

    @contextmanager
    def interrupted() -> Iterator[UnitOfWork]:
        nonlocal opened
        opened += 1
        with as_owner(urls.owner) as session:
            yield session
            if opened == ended_at:
                raise KeyboardInterrupt

    try:
        list(retention.retain(interrupted, timedelta(days=30)))
    except KeyboardInterrupt:
        (log,) = read(worker, "SELECT kept_from, cleared_to FROM logs WHERE tenant_id IS NOT NULL")
        gone = 6 - sum(left(world, one) for one in old)
        told = [change for change in recorded_changes(worker) if change.action == "audit_events_removed"]
        assert gone == log.cleared_to <= log.kept_from
        assert len(told) == (log.kept_from > 0)
    retain(urls)

    assert [left(world, one) for one in old] == [0, 0, 0]
    assert [change.action for change in recorded_changes(worker)].count("audit_events_removed") == 1
    assert retain(urls) == []


@pytest.mark.far
def test_retention_waits_between_steps_while_deadlines_are_overdue(
    world: World, worker: Database, urls: Urls, superuser: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "A_STEP", 1)
    slept = list[float]()
    monkeypatch.setattr("lockbox.admin.retention.time.sleep", slept.append)
    denied(world, superuser)
    sealed(worker)
    waiting = world.fresh()
    overdue = "UPDATE requests SET wake_at = now() - interval '2 seconds' WHERE id = :id"
    as_long_ago(superuser, overdue, id=waiting.id)

    (removed,) = retain(urls)

    assert (removed.end, slept) == (2, [retention.YIELDED, retention.YIELDED])


@pytest.mark.far
def test_a_review_recorded_only_in_the_vendors_log_is_no_gap_in_the_customers_log(
    api: Database, worker: Database, urls: Urls, superuser: Engine
) -> None:
    world = World.make(api, Policy())
    waiting = world.fresh()
    sealed(worker)
    request = world.fresh()
    world.act("max", Action.ENDORSE, request.id)
    world.act("ann", Action.DENY, request.id)
    age(superuser, request.id)
    sealed(worker)

    (removed,) = retain(urls)

    assert removed.log_id == world.tenant.id
    assert [left(world, one) for one in (waiting.id, request.id)] == [1, 1]
    with worker.transaction() as session:
        assert invariants.scan(session, ScanPosition()) == set()
