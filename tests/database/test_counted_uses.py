"""Windows with a limited number of uses: each allowed check counts as exactly one, and the last writes an event."""

import asyncio
import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from gate import window_checks
from gate.answers import GateReason, GrantedAccess
from harness.people import HERE, World
from harness.stage import unbound
from lockbox import failpoints
from lockbox.admin import tenants
from lockbox.call_groups import groups
from lockbox.database import Database
from lockbox.errors import NoOpenWindow, PolicyNotMet, WindowUsedUp
from lockbox.identity.roles import Role, Scope
from lockbox.requests import access_check, decide
from lockbox.requests.access_check import AccessCheck, UsingCaller
from lockbox.requests.decision_context import DecisionInput
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from tests.database.scenes import MAILBOX, as_caller, at_once, read, write
from tests.database.test_window_checks import Checked
from tests.database.verified_log import check_log_of_one_window
from tests.each import each
from tests.policy_setup import lay_down

pytestmark = pytest.mark.usefixtures("patient_gate")
OTHER = "mailbox:bob@contoso.example"
LATER = "UPDATE used_calls SET at = at - interval '5 seconds'"


def opened(world: World, max_uses: int | None = 3, **changes: Any) -> UUID:
    return world.act("ann", Action.APPROVE, world.submit(max_uses=max_uses, **changes).id).id


def question(world: World, resource: str = MAILBOX) -> AccessCheck:
    return AccessCheck(world.tenant.slug, "exchange-online", resource, "read", world.people["erin"].person_id)


def check(world: World, call: str | None = None, who: str = "gate", resource: str = MAILBOX) -> int | None:
    """Check access as the API does; return how many uses are left."""
    with world.db.transaction() as session:
        return access_check.check(session, world.people[who], question(world, resource), call).uses_left


def used(world: World, request_id: UUID) -> int:
    (row,) = read(world.db, "SELECT used FROM requests WHERE id = :id", id=request_id)
    return int(row.used)


def last_uses(world: World, request_id: UUID) -> list[dict[str, Any]]:
    rows = read(world.db, "SELECT body FROM events WHERE request_id = :id AND action = 'used_up'", id=request_id)
    return [json.loads(row.body) for row in rows]


def test_each_allow_answer_counts_one_use_and_the_last_allowed_use_writes_an_event(world: World) -> None:
    request_id = opened(world)

    assert [check(world) for _ in range(3)] == [2, 1, 0]
    for _ in range(2):
        with pytest.raises(WindowUsedUp):
            check(world)

    assert used(world, request_id) == 3
    (event,) = last_uses(world, request_id)
    gate = world.people["gate"].person_id
    assert (event["max_uses"], event["actor_id"], event["log"]) == (3, str(gate), str(world.tenant.id))
    assert event["on_behalf_of"] == str(world.people["erin"].person_id)


def test_a_check_prefers_a_window_without_a_use_limit_and_counts_no_use(world: World) -> None:
    counted, free = opened(world, 1), opened(world, None)

    assert [check(world) for _ in range(3)] == [None, None, None]
    assert (used(world, counted), used(world, free)) == (0, 0)


def test_after_a_window_is_used_up_another_window_grants_access(world: World) -> None:
    first, second = opened(world, 1), opened(world, 1)

    assert [check(world), check(world)] == [0, 0]
    assert (used(world, first), used(world, second)) == (1, 1)
    with pytest.raises(WindowUsedUp):
        check(world)


def test_of_sixty_four_concurrent_checks_exactly_the_approved_number_is_allowed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "LONGEST_WAIT", 20.0)
    request_id = opened(world, 5)
    checked = Checked(world)

    assert len(checked.memory) == 0
    answers = checked.at_once(*[MAILBOX] * 64)

    said = Counter(answer if isinstance(answer, GateReason) else "yes" for answer in answers)
    assert said == {"yes": 5, GateReason.USED_UP: 59}
    assert sorted(answer.uses_left or 0 for answer in answers if isinstance(answer, GrantedAccess)) == [0, 1, 2, 3, 4]
    assert used(world, request_id) == 5
    assert len(last_uses(world, request_id)) == 1


def test_calls_at_the_api_and_calls_at_the_gate_count_as_uses_of_the_same_window(world: World) -> None:
    request_id = opened(world, 8)

    with ThreadPoolExecutor(16) as pool:
        found = at_once(pool, *[lambda: check(world)] * 16)

    assert sum(isinstance(one, WindowUsedUp) for one in found) == 8
    assert used(world, request_id) == 8
    assert len(last_uses(world, request_id)) == 1


def test_a_call_repeated_within_five_seconds_counts_as_one_use(world: World, superuser: Engine) -> None:
    request_id = opened(world, 2)
    world.add("other", Role.SYSTEM, scopes={Scope.ACCESS_CHECK}, services={"exchange-online"})

    assert [check(world, "a"), check(world, "a"), check(world, "b"), check(world, "a"), check(world, "b")] == [
        1,
        1,
        0,
        0,
        0,
    ]
    assert used(world, request_id) == 2
    for call, who in ((None, "gate"), ("c", "gate"), ("a", "other")):
        with pytest.raises(WindowUsedUp):
            check(world, call, who)
    write(superuser, LATER)
    with pytest.raises(WindowUsedUp):
        check(world, "a")
    assert len(last_uses(world, request_id)) == 1


def test_a_call_id_is_counted_as_a_use_of_only_one_window(world: World) -> None:
    first, second = opened(world, 1), opened(world, 1, resources=[OTHER])

    assert [check(world, "a"), check(world, "a", resource=OTHER)] == [0, 0]
    assert (used(world, first), used(world, second)) == (1, 1)


def test_concurrent_repeats_of_a_call_count_as_one_use(world: World) -> None:
    request_id = opened(world, 3)

    with ThreadPoolExecutor(8) as pool:
        found = at_once(pool, *[lambda: check(world, "a")] * 8)

    assert found == [2] * 8
    assert used(world, request_id) == 1


def test_the_gate_refuses_new_calls_once_all_uses_are_spent_but_allows_a_repeated_call(world: World) -> None:
    opened(world, 1)
    checked = Checked(world)
    caller = world.people["gate"].person_id

    async def asked(*calls: str | None) -> list[GrantedAccess | GateReason]:
        return [await checked.checks.check(question(world), UsingCaller(caller, call)) for call in calls]

    first, again, other, unnamed, late = checked.run(asked("a", "a", "b", None, "a"))

    assert isinstance(first, GrantedAccess)
    assert not first.is_same_use
    assert first._replace(is_same_use=True) == again == late
    assert (other, unnamed) == (GateReason.USED_UP, GateReason.USED_UP)


class UsedUp:
    """A gate that knows a window to be used up, and the queries that it then sends to Postgres."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.request_id = opened(world, 1)
        check(world, "a")
        self.checked = Checked(world)
        self.checked.ask(MAILBOX)
        self.checks = self.checked.checks

    def later(self, seconds: float) -> None:
        self.checked.later += seconds
        self.checked.settle()

    def asks(self, *calls: str | None) -> tuple[list[Any], int]:
        """Check access for calls with these ids; return the answers and how often Postgres was asked."""
        caller, before = self.world.people["gate"].person_id, self.checked.calls.count

        async def asked() -> list[Any]:
            found = [await self.checks.check(question(self.world), UsingCaller(caller, call)) for call in calls]
            await self.world.db.schedule.followed()
            return found

        said = [one if isinstance(one, GateReason) else one.request_id for one in asyncio.run(asked())]
        return said, self.checked.calls.count - before


def test_the_gate_remembers_a_used_up_window(world: World) -> None:
    gate = UsedUp(world)
    assert gate.asks("a", None, "b") == ([gate.request_id, GateReason.USED_UP, GateReason.USED_UP], 2)

    gate.later(window_checks.SAME_USE_SECONDS)

    assert gate.asks("a", None, "b", *[None] * 20) == ([GateReason.USED_UP] * 23, 0)
    gate.checked.later += 1
    assert gate.asks(None, "b") == ([GateReason.USED_UP] * 2, 2)


def test_the_gate_checks_a_used_up_window_again_after_five_minutes(world: World) -> None:
    gate = UsedUp(world)
    gate.later(window_checks.USED_UP_SECONDS)

    assert gate.asks(None) == ([GateReason.USED_UP], 1)


@pytest.mark.parametrize("max_uses", [1, None])
def test_a_window_opened_later_grants_access_after_an_earlier_window_is_used_up(
    world: World, max_uses: int | None
) -> None:
    gate = UsedUp(world)
    gate.later(window_checks.SAME_USE_SECONDS)
    assert gate.asks(None, "b") == ([GateReason.USED_UP] * 2, 0)

    second = opened(world, max_uses)
    gate.checked.settle()

    assert gate.asks("b", "b")[0] == [second, second]


def test_a_window_opened_later_grants_access_even_while_the_gate_verifies_that_window(world: World) -> None:
    gate = UsedUp(world)
    second = opened(world, None)
    gate.later(window_checks.REFUSED_SECONDS)
    assert gate.asks(None) == ([second], 0)

    gate.checked.memory.forget([second])

    assert gate.asks(None) == ([second], 1)


def test_the_gate_reports_a_suspended_tenant_rather_than_a_used_up_window(world: World) -> None:
    gate = UsedUp(world)
    with world.db.transaction() as session:
        tenants.suspend(session, world.people["olga"], HERE, world.tenant.slug)
    gate.later(window_checks.REFUSED_SECONDS)

    assert gate.asks(None)[0] == [GateReason.SUSPENDED]


@pytest.mark.far
def test_a_use_waits_for_an_uncommitted_revocation_and_is_then_refused(world: World) -> None:
    request_id = opened(world)
    erin = world.people["erin"]

    with ThreadPoolExecutor(1) as pool:
        with world.db.transaction() as session:
            revoke = DecisionInput(Action.REVOKE, "Enough")
            decide.act(session, world.people["ann"], HERE, request_id, revoke)
            waiting = pool.submit(check, world)
            asyncio.run(asyncio.sleep(0.3))
            assert not waiting.done()
        with pytest.raises(NoOpenWindow):
            waiting.result(20)

    assert used(world, request_id) == 0
    assert erin.person_id


def test_a_process_killed_before_the_commit_counts_no_use(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    request_id = opened(world, 1)

    def die(name: str) -> None:
        if name == "window.after_use":
            raise RuntimeError(name)

    with monkeypatch.context() as patched:
        patched.setattr(access_check, "failpoint", die)
        with pytest.raises(RuntimeError):
            check(world, "a")
    assert failpoints.failpoint is not die
    assert (used(world, request_id), last_uses(world, request_id)) == (0, [])

    assert check(world, "a") == 0


def test_an_engineers_query_about_their_own_access_counts_no_use(world: World) -> None:
    request_id = opened(world)

    assert check(world, who="erin") == 3
    assert used(world, request_id) == 0


def test_the_lowest_use_limit_of_request_and_policy_applies_even_if_the_policy_changes(
    world: World, api: Database
) -> None:
    strict = World.make(api, Policy(vendor_review=False, max_uses=5))

    assert [strict.submit(max_uses=one).max_uses for one in (None, 3, 5)] == [5, 3, 5]
    with pytest.raises(PolicyNotMet, match="at most 5 uses") as refused:
        strict.submit(max_uses=9)
    assert refused.value.facts["errors"][0]["field"] == "max_uses"
    assert [world.submit(max_uses=one).max_uses for one in (None, 3)] == [None, 3]
    pending = strict.submit(max_uses=4)
    lay_down(strict, max_uses=2)
    assert strict.act("ann", Action.APPROVE, pending.id).max_uses == 2
    lay_down(strict, max_uses=1)
    assert strict.act("ann", Action.REVOKE, pending.id, comment="Enough").max_uses == 2


@each("change", ["max_uses = NULL", "max_uses = 4", "max_uses = 2", "used = 0", "used = used - 1", "used = used + 1"])
def test_no_database_role_raises_the_number_of_uses(world: World, change: str) -> None:
    request_id = opened(world)
    check(world)

    with pytest.raises(DBAPIError), as_caller(world.db, world.people["ann"]) as connection:
        connection.execute(text(f"UPDATE requests SET {change} WHERE id = :id"), {"id": request_id})  # noqa: S608

    assert used(world, request_id) == 1


def test_the_signature_of_a_window_covers_the_number_of_uses(world: World) -> None:
    request_id = opened(world)

    with unbound(world.db).begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text("UPDATE requests SET max_uses = 9 WHERE id = :id"), {"id": request_id})

    with pytest.raises(NoOpenWindow, match="No window is open"):
        check(world)


def test_both_verifiers_accept_the_audit_log_of_counted_uses(world: World, worker: Database) -> None:
    opened(world, 1)
    check(world)
    check_log_of_one_window(world, worker)
