"""Calls that a gate would have refused: a limited number of rows keeps those that matter; operators read them."""

from datetime import timedelta

import pytest
from sqlalchemy import Engine

from gate import enforcement, gate_report
from gate.answers import REPORTABLE, GateReason
from gate.call_counts import CallCounts, CountedCall, CountWriter, GateDecision, ReportedCall
from gate.enforcement import ENFORCE, REPORT
from gate.gate_report import GateReport
from gate.memory_reader import GATE
from harness.people import World
from lockbox import reconcile
from lockbox.database import Database
from lockbox.errors import NotFound, NotYours
from lockbox.identity import authentication
from lockbox.monitoring import status
from lockbox.monitoring.metrics import MetricName
from tests.database.scenes import as_caller, read, write
from tests.database.tenancy import id_of

SERVICE = "exchange-online"
ROWS = "SELECT path, count AS calls FROM reported_calls ORDER BY count DESC, path"
GET = "GET /mailboxes/{address}"


class Reporting:
    """One API process whose gate only reports."""

    def __init__(self, db: Database) -> None:
        self.counts = CallCounts()
        self.writer = CountWriter(db, self.counts)

    def let_in(self, path: str, reason: GateReason = GateReason.UNMAPPED, times: int = 1, **of: str) -> None:
        for _ in range(times):
            call = CountedCall(None, SERVICE, reported=ReportedCall(path, **of))
            self.counts.count(call, GateDecision.WOULD_DENY, reason)

    def write(self) -> None:
        assert self.writer.round()


def says(db: Database, wanted: str, service: str = SERVICE) -> None:
    with db.transaction() as session:
        authentication.enter(session, GATE)
        enforcement.record(session, {service: wanted})


def report(world: World, who: str = "olga", days: int = 30) -> GateReport:
    with world.db.transaction() as session:
        return gate_report.of_service(session, world.people[who], SERVICE, days=days)


def test_the_gate_report_lists_calls_with_an_unmapped_path_or_unknown_engineer_or_no_window(
    world: World, api: Database
) -> None:
    says(world.db, REPORT)
    process, again = Reporting(api), Reporting(api)
    process.let_in("GET /admin/{}", times=3)
    process.let_in(GET, GateReason.UNKNOWN_ENGINEER, caller="https://sso.example erin@vendor")
    process.let_in(GET, GateReason.NO_WINDOW, tenant="contoso", caller=str(id_of(world, "erin")))
    process.write()
    again.let_in("GET /admin/{}", times=2)
    again.write()

    found = report(world)

    assert (found.gate.wanted, found.gate.reporting, found.gate.tenants) == (REPORT, 1, 1)
    assert [(reason.reason.value, reason.calls) for reason in found.reasons] == [
        ("unmapped", 5),
        ("no_window", 1),
        ("unknown_engineer", 1),
    ]
    unmapped, no_window, unknown = (reason.kinds[0] for reason in found.reasons)
    assert (unmapped.path, unmapped.calls, unmapped.engineer, unmapped.identity) == ("GET /admin/{}", 5, None, None)
    assert unmapped.first_at < unmapped.last_at
    assert (no_window.path, no_window.tenant, no_window.engineer) == (GET, "contoso", "Erin")
    assert no_window.engineer_id == id_of(world, "erin")
    assert (unknown.identity, unknown.engineer) == ("https://sso.example erin@vendor", None)


def test_each_reason_in_the_gate_report_has_advice(world: World, api: Database) -> None:
    says(world.db, REPORT)
    process = Reporting(api)
    for reason in REPORTABLE:
        process.let_in(GET, reason)
    process.write()

    assert {one.reason for one in report(world).reasons if one.remedy} == REPORTABLE


def test_a_flood_of_reported_calls_is_stored_in_few_rows_and_frequent_calls_are_kept(
    world: World, api: Database
) -> None:
    says(world.db, REPORT)
    process = Reporting(api)
    process.let_in("GET /real", times=3)
    process.write()
    for batch in range(4):
        for number in range(90):
            process.let_in(f"GET /{'{}' if batch else 'x'}/{batch}-{number}")
        process.write()
    process.let_in("GET /new", times=2)
    process.write()

    rows = read(api, ROWS)

    assert len(rows) == 101
    assert [(row.path, row.calls) for row in rows[:3]] == [("", 360 - 98), ("GET /real", 3), ("GET /new", 2)]
    (found,) = report(world).reasons
    assert found.calls == sum(kind.calls for kind in found.kinds) == 365
    assert found.kinds[-1].path is None


def test_a_flood_of_calls_reported_for_one_reason_displaces_no_calls_reported_for_another(api: Database) -> None:
    process = Reporting(api)
    process.let_in(GET, GateReason.NO_WINDOW)
    process.write()
    for number in range(150):
        process.let_in(f"GET /{number}")
    process.write()

    assert read(api, "SELECT path FROM reported_calls WHERE reason = 'no_window' AND path <> ''")[0].path == GET


def test_the_subject_of_an_unmapped_caller_is_kept_unchanged_in_a_reported_call(world: World, api: Database) -> None:
    says(world.db, REPORT)
    process = Reporting(api)
    process.let_in("GET /" + "x" * 195, GateReason.UNKNOWN_ENGINEER, caller="\U0001f600" * 300, tenant="t" * 63)
    process.write()

    assert report(world).reasons[0].kinds[0].identity == "\U0001f600" * 300


def test_a_repeated_batch_of_reported_calls_counts_once(api: Database) -> None:
    twice = """
    SELECT add_gate_counts('0197f3a0-a0a0-7a0a-8a0a-0a0a0a0a0a0a', 1, '[]', '[]', '[]',
        '[{"service": "x", "reason": "unmapped", "path": "GET /a", "tenant": "", "caller": "", "count": 1}]', 0)
    """
    for _ in range(2):
        write(api.engine, twice)

    assert [(row.path, row.calls) for row in read(api, ROWS)] == [("GET /a", 1), ("", 0)]


def test_reported_calls_not_seen_for_long_are_hidden_and_then_deleted(
    world: World, api: Database, worker: Database, superuser: Engine
) -> None:
    says(world.db, REPORT)
    process = Reporting(api)
    for path in ("GET /old", "GET /older", "GET /new"):
        process.let_in(path)
    process.write()
    for path, ago in (("GET /old", 8), ("GET /older", 31)):
        write(
            superuser,
            "UPDATE reported_calls SET last_at = now() - :ago WHERE path = :path",
            path=path,
            ago=timedelta(days=ago),
        )

    assert [kind.path for kind in report(world, days=7).reasons[0].kinds] == ["GET /new"]
    list(reconcile.reconcile(worker, None))
    assert {row.path for row in read(api, ROWS)} == {"", "GET /old", "GET /new"}
    write(worker.engine, "DELETE FROM reported_calls")
    assert {row.path for row in read(api, ROWS)} == {"", "GET /old", "GET /new"}


def test_an_enforced_gate_has_a_report_but_a_service_without_a_gate_has_no_report(world: World) -> None:
    with pytest.raises(NotFound):
        report(world)
    says(world.db, ENFORCE)

    assert report(world).reasons == []


@pytest.mark.parametrize("who", ["erin", "max", "gate", "tara", "ann", "aude"])
def test_only_operators_and_vendor_auditors_read_the_gate_report(world: World, api: Database, who: str) -> None:
    says(world.db, REPORT)
    process = Reporting(api)
    process.let_in("GET /a")
    process.write()

    assert report(world, "vera").reasons
    with pytest.raises(NotYours):
        report(world, who)
    with as_caller(world.db, world.people[who]) as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM reported_calls").scalar_one() == 0


def test_the_status_command_lists_gates_in_report_mode_with_their_tenant_counts(world: World, api: Database) -> None:
    says(world.db, REPORT)
    says(world.db, ENFORCE, "safe")
    says(world.db, ENFORCE, "asked-back")
    says(world.db, REPORT, "asked-back")

    found = status.read(api, with_redis=False)

    assert found.figures.labelled(MetricName.GATE_REPORTS) == {SERVICE: 1, "asked-back": 0}
    shown = {line.name: line.value for line in status.lines(found)}
    assert shown[status.GATES_REPORTING] == f"asked-back for 0 tenants, {SERVICE} for 1 tenant"
    assert found.as_facts()["gates_reporting"] == {SERVICE: 1, "asked-back": 0}
