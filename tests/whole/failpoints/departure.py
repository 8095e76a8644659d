"""An off-boarding process that ends at a failpoint: each step is done fully or not, and the next run continues."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from config.children import environment
from harness.wait import within
from lockbox.admin import tenant_data, tenants
from lockbox.audit.verifier.verify import GOOD, verify
from lockbox.failpoints import KILLED, mark
from lockbox.requests.lifecycle import Action
from tests.database.tenancy import does
from tests.whole.failpoints.hall import FailpointStage
from tests.whole.failpoints.retention import PATIENCE, UNSETTLED
from tests.whole.warm import warm

REQUESTS = 2
COMMAND = "from cli.app import app\napp(['operate', 'off-board', {tenant!r}, '--folder', {folder!r}, *{options!r}])\n"
WHILE_EXPORTING = frozenset({"departure.before_close", "departure.before_export", "departure.before_exported"})
ERASE = ("--erase", "--yes")
# An hour has to be over since the last request has ended.
AGE = "UPDATE requests SET closed_at = closed_at - interval '2 hours' WHERE tenant_id = :tenant RETURNING id"
STEPS = "SELECT closed_at, digest, erased_at FROM offboardings WHERE tenant_id = :tenant"
MEMBERS = "SELECT person_id FROM memberships WHERE tenant_id = :tenant"
BEGUN = "SELECT id FROM events WHERE tenant_id = :tenant AND action = 'offboarding_begun'"
ERASED = "SELECT id FROM events WHERE tenant_id = :tenant AND action = 'tenant_erased'"
CLEARED = "SELECT id FROM logs WHERE id = :tenant AND cleared_to > 0"
NAMED = "SELECT id FROM tenants WHERE id = :tenant AND slug NOT LIKE 'erased-%'"
TEXTS = "SELECT id FROM requests WHERE tenant_id = :tenant AND justification <> 'erased'"


def play(hall: FailpointStage, point: str) -> list[str]:
    """Let the command end at the point and run it again; return what is half done, done twice, or not proven."""
    for _ in range(REQUESTS):
        hall.world.act("erin", Action.CANCEL, hall.submit())
    assert within(PATIENCE, lambda: not hall.stage.rows(UNSETTLED, tenant=hall.tenant)), "not all is told and sealed"
    does(hall.world, "tara", tenant_data.ask_to_leave)
    does(hall.world, "olga", tenants.suspend)
    _age(hall)
    with TemporaryDirectory() as folder:
        return _played(hall, point, Path(folder))


def _played(hall: FailpointStage, point: str, folder: Path) -> list[str]:
    options: tuple[str, ...] = () if point in WHILE_EXPORTING else ERASE
    if options:
        _run(hall, folder)
    ended = _run(hall, folder, *options, point=point)
    if ended.returncode != KILLED or mark(point.partition(":")[0]) not in ended.stderr:
        return [f"{point} was never reached: {ended.returncode}\n{ended.stdout}{ended.stderr}"]
    wrong = [f"after the end at {point}: {line}" for line in _halves(hall)]
    runs = [_run(hall, folder, *again) for again in ([options] if options else [(), ERASE])]
    wrong += [f"the next run ends with {run.returncode}: {run.stdout}{run.stderr}" for run in runs if run.returncode]
    wrong += [f"after the next run: {line}" for line in _halves(hall)]
    (steps,) = hall.stage.rows(STEPS, tenant=hall.tenant)
    if steps.erased_at is None or hall.stage.rows(TEXTS, tenant=hall.tenant):
        wrong.append("not all is erased")
    return wrong + _unproven(hall, folder)


def _halves(hall: FailpointStage) -> list[str]:
    """Return what is half done: each recorded step must be done, and have exactly one event."""
    (steps,) = hall.stage.rows(STEPS, tenant=hall.tenant)
    closed, erased = steps.closed_at is not None, steps.erased_at is not None
    facts = {
        "a closed tenant has no members, and any other has": closed is not bool(_count(hall, MEMBERS)),
        "one event says that it was closed": _count(hall, BEGUN) == closed or bool(_count(hall, CLEARED)),
        "it was exported after it was closed": closed or steps.digest is None,
        "one event says that it was erased": _count(hall, ERASED) == erased,
        "an erased tenant has no name, and any other has": erased is not bool(_count(hall, NAMED)),
    }
    return [f"it is not so that {what}" for what, holds in facts.items() if not holds]


def _unproven(hall: FailpointStage, folder: Path) -> list[str]:
    trusted = [hall.stage.plan.audit_key, hall.stage.plan.approval_key]
    note = (folder / "checkpoint.txt").read_text()
    wrong = []
    for name in ("audit.ndjson", "statement.ndjson"):
        with (folder / name).open("rb") as lines:
            found = verify(lines, trusted, [note])
        if found.exit_code != GOOD:
            wrong += [f"{name}: {one.kind}: {one.message}" for one in found.findings.first]
    return wrong


def _run(hall: FailpointStage, folder: Path, *options: str, point: str | None = None) -> Any:
    variables = {
        "LOCKBOX_ENVIRONMENT": hall.stage.plan.environment,
        "LOCKBOX_OWNER_DATABASE_URL": hall.stage.urls.owner,
        **({"LOCKBOX_FAILPOINT": point} if point else {}),
    }
    script = COMMAND.format(tenant=hall.tenant, folder=str(folder), options=list(options))
    return warm().run(environment(variables), script=script)


def _count(hall: FailpointStage, query: str) -> int:
    return len(hall.stage.rows(query, tenant=hall.tenant))


def _age(hall: FailpointStage) -> None:
    with hall.stage.superuser.connect() as connection:
        connection.exec_driver_sql("SET session_replication_role = replica")
        connection.exec_driver_sql(AGE.replace(":tenant", f"'{hall.world.tenant.id}'"))
        connection.exec_driver_sql("RESET session_replication_role")
