"""Statistics: each request counts once, in its month and for its own tenant; the number of rows read is limited."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine

from harness.people import World
from lockbox.admin import statistics
from lockbox.admin.statistics import MONTHS, NO_REQUESTS, TOTAL, Statistics
from lockbox.database import Database, now
from lockbox.errors import Invalid, NotFound, NotYours
from lockbox.facts.enumerations import Mode, Severity, State
from lockbox.identity import authentication
from lockbox.identity.roles import Role, RoleGrant
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from tests.database.scenes import write_unchecked
from tests.database.test_pre_approvals import in_force
from tests.each import each

MOVED = """
UPDATE requests SET created_at = created_at - :by, asked_at = asked_at - :by, opened_at = opened_at - :by,
    closed_at = closed_at - :by, deadline_at = deadline_at - :by, wake_at = wake_at - :by
WHERE id = :id
"""
TIMED = """
UPDATE requests SET opened_at = asked_at + :answer, closed_at = asked_at + :answer + :length,
    deadline_at = asked_at + :answer + :window
WHERE id = :id
"""
LAPSED = "UPDATE requests SET state = 'timed_out', wake_at = NULL, closed_at = deadline_at WHERE id = :id"
RENAMED = "UPDATE people SET name = :name WHERE id = :id"


def read(world: World, who: str = "aude", slug: str | None = None) -> Statistics:
    with world.db.transaction() as session:
        return statistics.read(session, world.people[who], slug)


def opened(world: World, who: str = "erin", **changes: Any) -> UUID:
    request = world.submit(who, **changes)
    world.act("ann", Action.APPROVE, request.id)
    return request.id


def lasting(world: World, root: Engine, answer: timedelta, length: timedelta, **changes: Any) -> UUID:
    """Return a window that was approved `answer` after its submission, and completed `length` later."""
    request_id = opened(world, **changes)
    world.act("erin", Action.COMPLETE, request_id)
    window = length + timedelta(minutes=1)
    write_unchecked(root, TIMED, id=request_id, answer=answer, length=length, window=window)
    return request_id


def test_statistics_count_each_request_by_outcome(world: World, superuser: Engine) -> None:
    opened(world)
    world.act("ann", Action.REVOKE, opened(world), comment="Enough")
    world.act("erin", Action.COMPLETE, opened(world))
    world.act("erin", Action.CANCEL, world.submit().id)
    write_unchecked(superuser, LAPSED, id=world.submit().id)
    world.submit()
    world.act("ann", Action.DENY, world.submit().id)

    found = read(world)

    total = found.total
    assert (total.requests, total.approved, total.denied, total.timed_out) == (7, 3, 1, 1)
    assert (total.cancelled, total.pending, total.opened_without_approval) == (1, 1, 0)
    assert (total.active, total.revoked, total.completed, total.expired) == (1, 1, 1, 0)
    assert found.months[-1][1] == total
    assert (found.tenant and found.tenant.id, found.counted_from) == (world.tenant.id, None)


def test_statistics_take_the_median_of_answer_times_and_the_sum_of_open_times(
    world: World, superuser: Engine
) -> None:
    for minutes, hours in ((10, 1), (20, 2), (90, 3)):
        lasting(world, superuser, timedelta(minutes=minutes), timedelta(hours=hours))
    world.submit()  # nobody has answered: it has no part in the median

    total = read(world).total

    assert total.median_answer_seconds == 20 * 60
    assert total.open_seconds == 6 * 3600


def test_a_window_closed_late_counts_as_open_only_until_its_deadline(world: World, superuser: Engine) -> None:
    request_id = opened(world)
    world.act("erin", Action.COMPLETE, request_id)
    minute, hour = timedelta(minutes=1), timedelta(hours=1)
    write_unchecked(superuser, TIMED, id=request_id, answer=minute, length=hour, window=minute)

    assert read(world).total.open_seconds == 60


def test_statistics_count_requests_by_month_and_cover_one_year(world: World, superuser: Engine) -> None:
    this, last, old = (opened(world) for _ in range(3))
    begin = read(world).months[-1][0]
    with world.db.transaction() as session:
        at = now(session)
    write_unchecked(superuser, MOVED, id=last, by=at - begin + timedelta(hours=1))
    write_unchecked(superuser, MOVED, id=old, by=timedelta(days=370))

    found = read(world)

    assert this
    assert [month for month, _ in found.months] == sorted({month for month, _ in found.months})
    assert (len(found.months), found.months[0][0]) == (MONTHS, found.since)
    assert all(month.day == 1 and month.tzinfo is UTC for month, _ in found.months)
    assert [figures.requests for _, figures in found.months] == [0] * 10 + [1, 1]
    assert found.total.requests == 2


def test_statistics_sort_services_and_engineers_and_reasons_by_frequency(world: World) -> None:
    for _ in range(2):
        opened(world, "eve", service="onedrive", reason_code="vendor_alert")
    opened(world)

    found = read(world)

    assert [(service.name, service.figures.requests) for service in found.services] == [
        ("onedrive", 2),
        ("exchange-online", 1),
    ]
    assert [(engineer.name, engineer.figures.requests) for engineer in found.engineers] == [("Eve", 2), ("Erin", 1)]
    assert [engineer.id for engineer in found.engineers] == [world.people[name].person_id for name in ("eve", "erin")]
    assert [(reason.name, reason.figures.approved) for reason in found.reasons] == [
        ("vendor_alert", 2),
        ("support_case", 1),
    ]


def test_statistics_list_severities_and_levels_in_order_with_missing_values_last(world: World) -> None:
    for severity, action in ((None, "read"), (Severity.S3, "export"), (Severity.S1, "read"), (Severity.S3, "read")):
        opened(world, severity=severity, actions=[action])

    found = read(world)

    assert [(one.name, one.figures.requests) for one in found.severities] == [("S1", 1), ("S3", 2), ("", 1)]
    assert [(level.name, level.figures.approved) for level in found.levels] == [("read", 3), ("export", 1)]


def test_statistics_do_not_count_a_window_opened_by_the_vendor_as_approved(api: Database) -> None:
    world = World.make(api, Policy(), Mode.OBSERVE)
    world.act("max", Action.ENDORSE, world.submit().id)

    total = read(world).total

    assert (total.requests, total.approved, total.opened_without_approval) == (1, 0, 1)
    assert total.median_answer_seconds is None


def test_a_pre_approved_request_counts_as_approved_without_an_answer(world: World, superuser: Engine) -> None:
    lasting(world, superuser, timedelta(minutes=10), timedelta(hours=1))
    in_force(world)
    for _ in range(2):
        assert world.submit().state is State.ACTIVE

    total = read(world).total

    assert (total.approved, total.median_answer_seconds) == (3, 600)
    assert total.pre_approved == 2


def test_statistics_count_break_glass_windows_separately(api: Database) -> None:
    world = World.make(api, Policy(vendor_review=False, break_glass_services=("exchange-online",)))
    opened(world)
    asked = world.submit(break_glass=True, access_window=900)
    world.act("max", Action.BREAK_GLASS, asked.id, comment="Mail is down")

    found = read(world)

    total = found.total
    assert (total.requests, total.approved, total.opened_by_break_glass) == (2, 1, 1)
    assert total.opened_without_approval == 1
    assert [service.figures.opened_by_break_glass for service in found.services] == [1]


def test_statistics_omit_requests_that_never_reached_the_customer(api: Database) -> None:
    world = World.make(api, Policy())
    world.act("max", Action.DENY, world.submit().id)
    world.submit()

    for who in ("aude", "tara", "vera"):
        assert read(world, who, world.tenant.slug).total == NO_REQUESTS


@each("who", ["erin", "max", "olga", "gate", "ann"])
def test_only_admins_and_auditors_read_statistics(world: World, who: str) -> None:
    for slug in (None, world.tenant.slug):
        with pytest.raises(NotYours):
            read(world, who, slug)


def test_the_statistics_of_a_tenant_contain_only_its_own_requests(world: World) -> None:
    other = World.make(world.db)
    opened(world)
    opened(other)
    opened(other)

    with pytest.raises(NotFound):
        read(world, "aude", other.tenant.slug)
    assert (read(world).total.requests, read(other, "tara").total.requests) == (1, 2)
    assert read(world, "vera").total.requests == 3
    assert read(world, "vera").tenant is None
    assert read(world, "vera", other.tenant.slug).total.requests == 2


def test_row_security_hides_statistics_of_other_tenants(world: World) -> None:
    other = World.make(world.db)
    opened(other)
    at = datetime.now(UTC)
    values = {"tenant_id": other.tenant.id, "since": at - timedelta(days=1), "at": at, "most": 10}

    counts = []
    for reader in (world.people["aude"], world.people["tara"], other.people["aude"]):
        with world.db.transaction() as session:
            authentication.enter(session, reader)
            counts += [one.requests for one in session.execute(statistics.OF_TENANT, values) if one.kind == TOTAL]

    assert counts == [0, 0, 1]


def test_a_reader_of_several_tenants_chooses_one_tenant_for_statistics(world: World) -> None:
    other = World.make(world.db)
    aude = world.people["aude"]
    world.put_on_both_sides("aude", Role.AUDITOR, other.tenant.id)
    both = {RoleGrant(Role.AUDITOR, one.tenant.id) for one in (world, other)}
    world.people["aude"] = type(aude)(aude.person_id, aude.name, frozenset(both), side=aude.side)

    with pytest.raises(Invalid, match="Name one"):
        read(world)
    assert read(world, "aude", other.tenant.slug).tenant


def test_only_the_newest_requests_are_counted_and_the_statistics_page_says_so(
    world: World, superuser: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    oldest, *_ = (opened(world) for _ in range(4))
    write_unchecked(superuser, MOVED, id=oldest, by=timedelta(days=200))
    monkeypatch.setattr(statistics, "MOST_COUNTED", 3)

    found = read(world)

    assert found.total.requests == 3
    assert found.counted_from
    assert found.counted_from > datetime.now(UTC) - timedelta(days=1)
    assert [figures.requests for _, figures in found.months] == [3]


def test_the_statistics_csv_has_the_same_figures_and_no_formula(world: World, superuser: Engine) -> None:
    opened(world)
    write_unchecked(superuser, RENAMED, id=world.people["erin"].person_id, name="=HYPERLINK(1)")

    lines = b"".join(statistics.table(read(world))).decode().splitlines()

    head, total, *rest = (line.split(",") for line in lines)
    assert head[:4] == ["group", "name", "requests", "approved"]
    assert total[:4] == ["total", "", "1", "1"]
    assert [line[0] for line in rest[MONTHS - 1 :]] == [
        *("month", "service", "engineer", "reason", "severity", "level")
    ]
    assert all(len(line) == len(head) for line in rest)
    assert rest[-4][1] == "'=HYPERLINK(1)"
