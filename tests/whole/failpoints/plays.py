"""What happens while a process ends at a failpoint: one play for each code path with such points."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx

from harness.wait import within
from lockbox.identity.roles import BOUND_TO, Role, Scope
from lockbox.requests.lifecycle import Action
from lockbox.sql import new_id
from tests.whole.failpoints.hall import FailpointStage

# Longer than a play takes, and shorter than its end waits for the index: what Redis was too busy to drop stays there
# until its time.
LONG = 90
# Twice as long as it may take to find what was not armed: who is not told before the time is over never is.
FOUND = 12
REMINDED_WITHIN = 40.0
BY_BREAK_GLASS: dict[str, Any] = {"break_glass_services": ("exchange-online",)}
REMIND_NOW = "UPDATE after_reviews SET remind_at = clock_timestamp() WHERE tenant_id = :tenant RETURNING request_id"

Step = Callable[[FailpointStage], None]


def nothing(_: FailpointStage) -> None:
    """Do nothing."""


@dataclass(frozen=True, eq=False)
class FailpointPlay:
    """One path through the code.

    `before` runs while the process is down. `meanwhile` runs when the process is up and must end, and again after its
    restart. `after` ends what would otherwise take long. With `alone`, the other workers are down, as they would do
    the same work.
    """

    process: str
    expected: str
    before: Step
    meanwhile: Step = nothing
    after: Step = nothing
    policy: dict[str, Any] = field(default_factory=dict)
    alone: bool = False


def _file(hall: FailpointStage) -> None:
    body = hall.world.body(resources=[f"mailbox:{hall.key}"])
    answer = hall.post("erin", "/v1/requests", body, **{"idempotency-key": hall.key})
    if answer is not None and answer.status_code == httpx.codes.CREATED:
        hall.acknowledged.append(answer.json()["id"])
        hall.asked = list({*hall.asked, UUID(answer.json()["id"])})


def _decide(hall: FailpointStage) -> None:
    for request in hall.asked:
        hall.post("ann", f"/v1/requests/{request}/approve", {})


def _submit(hall: FailpointStage) -> None:
    hall.submit()


def _ask(hall: FailpointStage) -> None:
    hall.submit(access_window=1)


def _open(hall: FailpointStage) -> None:
    hall.approve(hall.submit(access_window=4))


def _flushed(hall: FailpointStage) -> None:
    hall.submit()
    with hall.stage.redis() as redis:
        redis.flushdb()


def _hooked(hall: FailpointStage) -> None:
    hall.hook()
    hall.submit()


def _overdue(hall: FailpointStage) -> None:
    hall.submit()
    hall.settle_now()


def _cancel(hall: FailpointStage) -> None:
    for request in hall.asked:
        hall.world.act("erin", Action.CANCEL, request)


def _open_for_one_use(hall: FailpointStage) -> None:
    hall.approve(hall.submit(max_uses=1, access_window=LONG))


def _use(hall: FailpointStage) -> None:
    for request in hall.asked:
        with suppress(httpx.TransportError):
            hall.is_let_in(request)


def _of_a_case(hall: FailpointStage) -> None:
    bounds = {Scope.CASE_CLOSE.value, f"{BOUND_TO}{hall.world.tenant.slug}"}
    hall.world.add("desk", Role.SYSTEM, scopes=bounds)
    for _ in range(2):
        hall.submit(case_ref=hall.key, case_system="helpdesk")


def _of_a_case_that_is_checked(hall: FailpointStage) -> None:
    for _ in range(3):
        _submitted_for_a_case(hall)


def _submitted_for_a_case(hall: FailpointStage) -> str:
    one = str(new_id())
    body = hall.world.body(resources=[f"mailbox:{one}"], case_ref=one, case_system="helpdesk")
    answer = hall.post("erin", "/v1/requests", body)
    assert answer is not None
    assert answer.status_code == httpx.codes.CREATED
    hall.acknowledged.append(answer.json()["id"])
    hall.asked.append(UUID(answer.json()["id"]))
    return str(answer.json()["case_check"])


def _is_confirmed_again(hall: FailpointStage) -> None:
    assert within(REMINDED_WITHIN, lambda: _submitted_for_a_case(hall) == "confirmed")


def _close_the_case(hall: FailpointStage) -> None:
    hall.post("desk", f"/v1/cases/helpdesk/{hall.key}/closed", {})


def _broken_glass(hall: FailpointStage) -> None:
    request = hall.submit(break_glass=True, access_window=LONG)
    hall.world.act("max", Action.BREAK_GLASS, request, comment="Mail is down for everybody")
    hall.world.act("ann", Action.REVOKE, request)


def _for_break_glass(hall: FailpointStage) -> None:
    hall.submit(break_glass=True, access_window=LONG)


def _break_the_glass(hall: FailpointStage) -> None:
    for request in hall.asked:
        hall.post("max", f"/v1/requests/{request}/break-glass", {"comment": "Mail is down for everybody"})


def _one_finding_is_due(hall: FailpointStage) -> None:
    rows = hall.stage.rows("SELECT finding FROM after_reviews WHERE tenant_id = :tenant", tenant=hall.tenant)
    assert [row.finding for row in rows] == [None] * len(hall.asked)
    for request in hall.asked:
        assert hall.is_let_in(request)
        hall.world.act("ann", Action.REVOKE, request)


def _find(hall: FailpointStage) -> None:
    for request in hall.asked:
        hall.post("ann", f"/v1/requests/{request}/finding", {"finding": "justified", "comment": "As agreed"})


def _finding_is_there(hall: FailpointStage) -> None:
    rows = hall.stage.rows("SELECT finding FROM after_reviews WHERE tenant_id = :tenant", tenant=hall.tenant)
    assert [row.finding for row in rows] == ["justified"] * len(hall.asked)


def _finding_due_soon(hall: FailpointStage) -> None:
    _broken_glass(hall)
    hall.stage.rows(REMIND_NOW, tenant=hall.tenant)


def _reminded_once(hall: FailpointStage) -> None:
    def reminders() -> list[int]:
        rows = hall.stage.rows("SELECT reminders FROM after_reviews WHERE tenant_id = :tenant", tenant=hall.tenant)
        return [row.reminders for row in rows]

    within(REMINDED_WITHIN, lambda: 0 not in reminders())
    assert reminders() == [1] * len(hall.asked)


def _post_extension(hall: FailpointStage) -> None:
    """Submit an extension, whether or not an earlier call already did."""
    answer = hall.post("erin", f"/v1/requests/{hall.asked[0]}/extend", {"access_window": 2})
    if answer is not None:
        said = answer.json()
        hall.asked = [*hall.asked[:1], UUID(said.get("id") or said["request_id"])]


def _extend(hall: FailpointStage) -> None:
    hall.extend(hall.asked[0])


def _extended(hall: FailpointStage) -> None:
    hall.approve(hall.submit(access_window=LONG))
    _extend(hall)


def _extended_for_long(hall: FailpointStage) -> None:
    _extended(hall)
    hall.approve(hall.asked[1])


def _open_for_long(hall: FailpointStage) -> None:
    hall.approve(hall.submit(access_window=LONG))


def _approve_extension(hall: FailpointStage) -> None:
    hall.post("ann", f"/v1/requests/{hall.asked[1]}/approve", {})


def _revoke_the_first(hall: FailpointStage) -> None:
    hall.post("ann", f"/v1/requests/{hall.asked[0]}/revoke", {})


def _revoke_both(hall: FailpointStage) -> None:
    """Revoke the extended window, and with it the extension."""
    if hall.stage.state(hall.asked[1]) == "pending":
        hall.approve(hall.asked[1])
    hall.world.act("ann", Action.REVOKE, hall.asked[0])


def _opens_soon(hall: FailpointStage) -> None:
    begins = datetime.now(UTC) + timedelta(seconds=4)
    hall.approve(hall.submit(not_before=begins, access_window=LONG))


def _begun_once(hall: FailpointStage) -> None:
    query = "SELECT id FROM events WHERE tenant_id = :tenant AND action = 'begin'"
    within(REMINDED_WITHIN, lambda: hall.stage.rows(query, tenant=hall.tenant))
    assert len(hall.stage.rows(query, tenant=hall.tenant)) == len(hall.asked)
    for request in hall.asked:
        assert hall.is_let_in(request)
        hall.world.act("ann", Action.REVOKE, request)


def _approved_beforehand(hall: FailpointStage) -> None:
    hall.pre_approve(max_uses=2, access_window=LONG)


def _submit_covered(hall: FailpointStage) -> None:
    body = hall.world.body(resources=[f"mailbox:{hall.key}@contoso.example"], access_window=LONG)
    answer = hall.post("erin", "/v1/requests", body, **{"idempotency-key": hall.key})
    if answer is not None and answer.status_code == httpx.codes.CREATED:
        hall.acknowledged.append(answer.json()["id"])
        hall.asked = list({*hall.asked, UUID(answer.json()["id"])})


def _used_once(hall: FailpointStage) -> None:
    (row,) = hall.stage.rows("SELECT used FROM pre_approvals WHERE id = :id", id=str(hall.pre_approval))
    assert row.used == len(hall.asked) == 1
    assert hall.is_let_in(hall.asked[0])
    _revoke_pre_approval(hall)


def _used_twice(hall: FailpointStage) -> None:
    _approved_beforehand(hall)
    for number in range(2):
        request = hall.submit(resources=[f"mailbox:{hall.key}-{number}@contoso.example"], access_window=LONG)
        assert hall.stage.state(request) == "active"


def _revoke_pre_approval(hall: FailpointStage) -> None:
    hall.post("amir", f"/v1/tenants/{hall.world.tenant.slug}/pre-approvals/{hall.pre_approval}/revoke", {})


def _revoke_what_was_used_once(hall: FailpointStage) -> None:
    for request in hall.asked:
        (row,) = hall.stage.rows("SELECT used FROM requests WHERE id = :id", id=str(request))
        assert row.used == 1
        assert not hall.is_let_in(request)
        hall.world.act("ann", Action.REVOKE, request)


FILE = FailpointPlay("api", "timed_out", nothing, _file, policy={"approval_window": FOUND})
DECIDE = FailpointPlay("api", "expired", _ask, _decide, policy={"approval_window": LONG})
USE = FailpointPlay("api", "revoked", _open_for_one_use, _use, _revoke_what_was_used_once)
UNHURRIED: dict[str, Any] = {"approval_window": LONG}
EXTEND = FailpointPlay("api", "revoked", _open_for_long, _post_extension, _revoke_both, policy=UNHURRIED)
APPROVE_EXTENSION = FailpointPlay("api", "revoked", _extended, _approve_extension, _revoke_both, policy=UNHURRIED)
END_EXTENSION = FailpointPlay("api", "revoked", _extended_for_long, _revoke_the_first)
BEGIN = FailpointPlay("worker", "revoked", _opens_soon, after=_begun_once)
USE_PRE_APPROVAL = FailpointPlay("api", "revoked", _approved_beforehand, _submit_covered, _used_once)
REVOKE_PRE_APPROVAL = FailpointPlay("api", "revoked", _used_twice, _revoke_pre_approval)
LEAVE = FailpointPlay("off-board", "cancelled", nothing, policy={"approval_window": LONG})
CLOSE = FailpointPlay("api", "cancelled", _of_a_case, _close_the_case, policy={"approval_window": LONG})
CHECK = FailpointPlay(
    "notifications",
    "timed_out",
    nothing,
    _of_a_case_that_is_checked,
    _is_confirmed_again,
    policy={"approval_window": FOUND, "unconfirmed_case": "flag"},
)
BREAK_GLASS = FailpointPlay(
    "api",
    "revoked",
    _for_break_glass,
    _break_the_glass,
    _one_finding_is_due,
    policy=BY_BREAK_GLASS | UNHURRIED,
)
FIND = FailpointPlay("api", "revoked", _broken_glass, _find, _finding_is_there, policy=BY_BREAK_GLASS)
AWAIT = FailpointPlay("worker", "revoked", _finding_due_soon, after=_reminded_once, policy=BY_BREAK_GLASS)
TIME_OUT = FailpointPlay("worker", "timed_out", _submit, policy={"approval_window": 4})
EXPIRE = FailpointPlay("worker", "expired", _open)
REMIND = FailpointPlay("worker", "timed_out", _submit, policy={"approval_window": 12, "approval_reminders": (10,)})
REBUILD = FailpointPlay("worker", "cancelled", _flushed, after=_cancel, policy={"approval_window": LONG}, alone=True)
SEAL = FailpointPlay("worker", "cancelled", _submit, after=_cancel, policy={"approval_window": LONG})
MAIL = FailpointPlay("notifications", "cancelled", _submit, after=_cancel, policy={"approval_window": LONG})
HOOK = FailpointPlay("notifications", "cancelled", _hooked, after=_cancel, policy={"approval_window": LONG})
SETTLE = FailpointPlay(
    "notifications", "cancelled", _overdue, after=_cancel, policy={"approval_window": LONG}, alone=True
)
RETAIN = FailpointPlay("retain", "cancelled", nothing, policy={"approval_window": LONG})
