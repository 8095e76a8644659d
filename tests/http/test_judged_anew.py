"""If the policy changes between a call's evaluation and its commit, the call is evaluated again by the new policy."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI, Request
from sqlalchemy import text

from api import call_routes, problems
from api.call_routes import CallRouter
from lockbox.call_groups.pipelines import AloneNeeded
from lockbox.database import Database
from lockbox.facts.enumerations import Mode
from lockbox.requests import decide, submit
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from tests.database.scenes import read
from tests.http.door import Door, LoopThread, OpenDoor, client, facts
from tests.http.portal import OpenPortal
from tests.policy_setup import lay_down, set_mode

ON = Policy(vendor_review=False, break_glass_services=("exchange-online",))
ASK: dict[str, Any] = {"break_glass": True, "access_window": 900}
REFUSED = "This customer does not allow break-glass for this."
ONE = text("SELECT 1")
JUDGED = {"decide.after_evaluation", "intake.after_evaluation"}
Between = Callable[..., None]


@pytest.fixture
def between(monkeypatch: pytest.MonkeyPatch) -> Between:
    """Return a function that makes these happen, one after each evaluation of a move, before anything is written."""

    def arranged(*happens: Callable[[], object]) -> None:
        left = list(happens)

        def reach(name: str) -> None:
            if name in JUDGED and left:
                left.pop(0)()

        for one in (decide, submit):
            monkeypatch.setattr(one, "failpoint", reach)

    return arranged


def _needs_a_thread() -> None:
    raise AloneNeeded


@pytest.mark.parametrize("before", [(), (_needs_a_thread,)], ids=["in a group", "in a thread"])
def test_break_glass_that_was_just_switched_off_is_refused_with_a_specific_message(
    open_door: OpenDoor, between: Between, *, before: tuple[Callable[[], object], ...]
) -> None:
    door = open_door(ON)
    request = door.world.submit(**ASK)
    between(*before, lambda: lay_down(door.world))

    refused = facts(door.act("max", "break-glass", request.id, comment="Mail is down"), 422, "policy-not-met")

    assert REFUSED in refused["detail"]
    assert [row.state for row in read(door.db, "SELECT state FROM requests WHERE id = :id", id=request.id)] == [
        "reviewing"
    ]


def test_the_page_says_that_break_glass_was_just_switched_off(open_portal: OpenPortal, between: Between) -> None:
    portal = open_portal(ON)
    request = portal.world.submit(**ASK)
    manager = portal.by_passkey("max")
    page = manager.get(f"/requests/{request.id}")
    between(lambda: lay_down(portal.world))

    refused = manager.submit(page, "/break_glass", comment="Mail is down")

    assert (refused.status, REFUSED in refused.words) == (422, True)


def test_a_request_endorsed_after_a_switch_to_mode_enforce_waits_for_the_customer(
    open_door: OpenDoor, between: Between
) -> None:
    door = open_door(mode=Mode.OBSERVE)
    request = door.world.submit()
    between(lambda: set_mode(door.world, Mode.ENFORCE))
    body = {"action": "endorse", "requests": [{"id": str(request.id)}]}

    (item,) = door.call("max", "POST", "/v1/requests/decisions", json=body).json()["items"]

    assert (item["problem"], item["request"]["state"]) == (None, "pending")


@pytest.mark.parametrize(
    "is_form", [False, pytest.param(True, marks=pytest.mark.far)], ids=["by the API", "by a form"]
)
def test_an_extension_requested_after_a_switch_to_mode_enforce_is_for_the_customer_to_decide(
    open_portal: OpenPortal, between: Between, *, is_form: bool
) -> None:
    portal = open_portal()
    set_mode(portal.world, Mode.OBSERVE)
    first = portal.world.submit()
    portal.world.act("max", Action.ENDORSE, first.id)
    engineer = portal.by_passkey("erin")
    page = engineer.get(f"/requests/{first.id}")
    between(lambda: set_mode(portal.world, Mode.ENFORCE))

    if is_form:
        assert engineer.submit(page, f"/requests/{first.id}/extend", more="900", why="Longer").status == 200
    else:
        door = Door(portal.world, portal.db, portal.root, portal.runner)
        assert door.call("erin", "POST", f"/v1/requests/{first.id}/extend", json={"access_window": 900}).is_success

    rows = read(portal.db, "SELECT mode FROM requests WHERE extends = :id", id=first.id)
    assert [row.mode for row in rows] == ["enforce"]


ADMINISTERED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "mode_switched": ("PUT", "mode", {"mode": "observe"}),
    "emergency_stop": ("POST", "emergency-stop", {}),
}


@pytest.mark.parametrize("action", ADMINISTERED)
def test_an_admins_change_is_made_once_if_the_database_refuses_the_first_commit(
    open_door: OpenDoor, refuse_commit: Callable[..., None], action: str
) -> None:
    door = open_door()
    method, path, body = ADMINISTERED[action]
    refuse_commit()

    answer = door.call("tara", method, f"/v1/tenants/{door.world.tenant.slug}/{path}", json=body)

    ask = "SELECT FROM events WHERE action = :action AND tenant_id = :id"
    assert answer.is_success, answer.text
    assert len(read(door.db, ask, action=action, id=door.world.tenant.id)) == 1


@pytest.mark.parametrize("is_form", [False, True], ids=["by the API", "by a form"])
def test_a_break_glass_finding_is_recorded_once_if_the_database_refuses_the_first_commit(
    open_portal: OpenPortal, refuse_commit: Callable[..., None], *, is_form: bool
) -> None:
    portal = open_portal(ON)
    request = portal.world.submit(**ASK)
    portal.world.act("max", Action.BREAK_GLASS, request.id, comment="Mail is down")
    portal.world.act("ann", Action.REVOKE, request.id)
    approver = portal.by_passkey("ann")
    page = approver.get(f"/requests/{request.id}")
    refuse_commit()

    if is_form:
        assert approver.submit(page, "/finding", finding="justified", comment="As agreed").status == 200
    else:
        door = Door(portal.world, portal.db, portal.root, portal.runner)
        said = {"finding": "justified", "comment": "As agreed"}
        assert door.call("ann", "POST", f"/v1/requests/{request.id}/finding", json=said).is_success

    ask = "SELECT FROM events WHERE action = 'after_review' AND request_id = :id"
    assert len(read(portal.db, ask, id=request.id)) == 1


@pytest.mark.parametrize(("after", "times"), [(0, 2), (1, 1)])
def test_a_partly_committed_call_is_not_repeated(
    api: Database, runner: LoopThread, refuse_commit: Callable[..., None], after: int, times: int
) -> None:
    app, router, called = FastAPI(), CallRouter(), []

    @router.post("/twice")
    def twice(request: Request) -> None:
        called.append(request)
        for _ in "ab":
            with call_routes.transaction(request, api) as session:
                session.execute(ONE)

    app.include_router(router)
    problems.install(app)
    refuse_commit(after=after)

    answer = runner.run(client(app).post("/twice"))

    assert (answer.status_code, len(called)) == (200 if times > 1 else 500, times)
