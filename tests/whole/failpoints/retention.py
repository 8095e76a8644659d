"""A retention process that ends at a failpoint: what is removed is removed fully, and the next run continues."""

from typing import Any
from uuid import UUID

from config.children import environment
from harness.wait import within
from lockbox.audit.log import merkle
from lockbox.audit.log.merkle import BadProof, check_inclusion, inclusion, leaf_hash
from lockbox.failpoints import KILLED, mark
from lockbox.requests.lifecycle import Action
from tests.whole.failpoints.hall import FailpointStage
from tests.whole.warm import warm

PATIENCE = 60.0
OLD_REQUESTS = 3
# The command itself, with steps that are small enough for a log of a few events.
COMMAND = """
from cli.app import app
from lockbox.admin import retention
retention.A_STEP, retention.A_LOOK = 2, 3
app(["operate", "retain", "--older-than", "30d", "--yes"])
"""
AGE = (
    "UPDATE events SET at = at - interval '100 days' WHERE tenant_id = :tenant",
    "UPDATE requests SET closed_at = closed_at - interval '100 days' WHERE tenant_id = :tenant",
)
UNSETTLED = """
SELECT id FROM notifications WHERE closed_at IS NULL AND tenant_id = :tenant
UNION ALL SELECT event_id FROM outbox WHERE tenant_id = :tenant
UNION ALL SELECT id FROM unsettled WHERE tenant_id = :tenant
UNION ALL SELECT u.event_id FROM unsealed u JOIN events e ON e.id = u.event_id WHERE e.tenant_id = :tenant
"""
LOG = "SELECT size, root, kept_from, cleared_to FROM logs WHERE id = :tenant"
SEALED = "SELECT event_id, number FROM seals WHERE log_id = :tenant ORDER BY number"
# Each row that belongs to an event, wherever it is, under the number of that event's seal.
ROWS = """
WITH sealed AS (SELECT event_id, number FROM seals WHERE log_id = :tenant)
SELECT 'event' AS kind, s.number, md5(e::text) AS said FROM sealed s JOIN events e ON e.id = s.event_id
UNION ALL SELECT 'detail', s.number, md5(d::text) FROM sealed s JOIN event_details d USING (event_id)
UNION ALL SELECT 'notification', s.number, md5(n::text) FROM sealed s JOIN notifications n USING (event_id)
UNION ALL SELECT 'delivery', s.number, md5(d::text) FROM sealed s JOIN notifications n USING (event_id)
    JOIN deliveries d ON d.notification_id = n.id
"""
ELSEWHERE = """
SELECT 'requests' AS kind, count(*) AS number FROM requests
UNION ALL SELECT 'decisions', count(*) FROM decisions
UNION ALL SELECT 'checkpoints', count(*) FROM checkpoints WHERE log_id = :tenant
UNION ALL SELECT 'seals', count(*) FROM seals WHERE log_id = :tenant
UNION ALL SELECT 'tiles', count(*) FROM tiles WHERE log_id = :tenant
"""
RECORDED = """
SELECT (convert_from(body, 'UTF8')::jsonb ->> 'removed_to')::bigint AS removed_to FROM events
WHERE action = 'audit_events_removed' AND convert_from(body, 'UTF8')::jsonb ->> 'tenant_id' = :tenant
"""
TILES = "SELECT level, number, hashes FROM tiles WHERE log_id = :tenant"
LEAVES = """
SELECT s.number, e.body FROM seals s JOIN events e ON e.id = s.event_id WHERE s.log_id = :tenant ORDER BY s.number
"""

RowSet = set[tuple[str, int, str]]


def play(hall: FailpointStage, point: str) -> list[str]:
    """Let the command end at the point and run it again; return what is half removed, wrongly removed, or left."""
    hall.hook()
    for _ in range(OLD_REQUESTS):
        hall.world.act("erin", Action.CANCEL, hall.submit())
    _settle(hall)
    _age(hall)
    end = len(hall.stage.rows(SEALED, tenant=hall.tenant))
    hall.world.act("erin", Action.CANCEL, hall.submit())
    waiting = hall.submit()
    _settle(hall)
    before, beside = _rows(hall), _elsewhere(hall)

    ended = _retain(hall, point)
    if ended.returncode != KILLED or mark(point.partition(":")[0]) not in ended.stderr:
        return [f"{point} was never reached: {ended.returncode}\n{ended.stdout}{ended.stderr}"]
    wrong = [f"after the end at {point}: {line}" for line in _whole(hall, before, end)]
    again = _retain(hall, None)
    if again.returncode:
        wrong.append(f"the next run ends with {again.returncode}: {again.stderr}")
    (log,) = hall.stage.rows(LOG, tenant=hall.tenant)
    if (log.kept_from, log.cleared_to) != (end, end):
        wrong.append(f"the next run has got to {log.cleared_to} of {log.kept_from}, and has to get to {end}")
    wrong += [f"after the next run: {line}" for line in _whole(hall, before, end)]
    if "\n0 events were removed.\n" not in f"\n{_retain(hall, None).stdout}":
        wrong.append("a third run has removed something")
    if any(count < beside[kind] for kind, count in _elsewhere(hall).items()):
        wrong.append(f"beside the events there were {beside}, and now {_elsewhere(hall)}")
    hall.world.act("erin", Action.CANCEL, waiting)
    _settle(hall)
    return [*wrong, *_unproven(hall)]


def _retain(hall: FailpointStage, point: str | None) -> Any:
    variables = {
        "LOCKBOX_ENVIRONMENT": hall.stage.plan.environment,
        "LOCKBOX_OWNER_DATABASE_URL": hall.stage.urls.owner,
        **({"LOCKBOX_FAILPOINT": point} if point else {}),
    }
    return warm().run(environment(variables), script=COMMAND)


def _whole(hall: FailpointStage, before: RowSet, end: int) -> list[str]:
    """Return what is half removed: all before `cleared_to` must be gone and recorded, all after it unchanged."""
    (log,) = hall.stage.rows(LOG, tenant=hall.tenant)
    wrong, now = [], _rows(hall)
    stays = {row for row in before if row[1] >= log.cleared_to}
    wrong += [f"the {kind} of event {number} is gone or changed" for kind, number, _ in sorted(stays - now)]
    wrong += [f"the {kind} of event {number} is left" for kind, number, _ in sorted(now - stays) if number < end]
    recorded = [row.removed_to for row in hall.stage.rows(RECORDED, tenant=hall.tenant)]
    if recorded != ([log.kept_from] if log.kept_from else []):
        wrong.append(f"the log is kept from {log.kept_from}, and the events say {recorded}")
    if not log.cleared_to <= log.kept_from <= end:
        wrong.append(f"cleared to {log.cleared_to}, kept from {log.kept_from}, old to {end}")
    return wrong


def _unproven(hall: FailpointStage) -> list[str]:
    """Return the remaining events that the present tree does not prove."""
    (log,) = hall.stage.rows(LOG, tenant=hall.tenant)
    tiles = {(row.level, row.number): bytes(row.hashes) for row in hall.stage.rows(TILES, tenant=hall.tenant)}
    leaves = hall.stage.rows(LEAVES, tenant=hall.tenant)
    wrong = [] if len(leaves) == log.size - log.cleared_to else [f"{len(leaves)} events are left of {log.size}"]

    def subtree(level: int, number: int) -> bytes:
        return merkle.subtree(tiles, level, number)

    for row in leaves:
        try:
            path = inclusion(subtree, row.number, log.size)
            check_inclusion(leaf_hash(bytes(row.body)), row.number, log.size, path, bytes(log.root))
        except BadProof as error:
            wrong.append(f"event {row.number} is not proven: {error}")
    return wrong


def _rows(hall: FailpointStage) -> RowSet:
    return {(row.kind, row.number, row.said) for row in hall.stage.rows(ROWS, tenant=hall.tenant)}


def _elsewhere(hall: FailpointStage) -> dict[str, int]:
    return {row.kind: row.number for row in hall.stage.rows(ELSEWHERE, tenant=hall.tenant)}


def _settle(hall: FailpointStage) -> None:
    """Wait until everything is sent and sealed, including the events about sending."""
    assert within(PATIENCE, lambda: not hall.stage.rows(UNSETTLED, tenant=hall.tenant)), "not all is told and sealed"


def _age(hall: FailpointStage) -> None:
    """Date everything so far a hundred days back, with the triggers off."""
    with hall.stage.superuser.connect() as connection:
        connection.exec_driver_sql("SET session_replication_role = replica")
        for statement in AGE:
            connection.exec_driver_sql(statement.replace(":tenant", f"'{UUID(hall.tenant)}'"))
        connection.exec_driver_sql("RESET session_replication_role")
