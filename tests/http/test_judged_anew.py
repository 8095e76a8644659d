"""A move whose policy becomes another one between its judgement and its commit is judged by that, and answered so."""

from collections.abc import Callable
from typing import Any

import pytest

from harness.people import World
from harness.stage import setting
from lockbox.identity import tenants
from lockbox.identity.models import Tenant
from lockbox.identity.roles import AuthMethod, Mode
from lockbox.pipelines import AloneNeeded
from lockbox.requests import decide
from lockbox.requests.policy_rules import Policy
from tests.database.scenes import read
from tests.http.door import OpenDoor, facts
from tests.http.portal import OpenPortal
from tests.policy_setup import lay_down

ON = Policy(vendor_review=False, break_glass_services=("exchange-online",))
ASK: dict[str, Any] = {"break_glass": True, "access_window": 900}
REFUSED = "This customer does not allow break-glass for this."
JUDGED = "decide.after_evaluation"
Between = Callable[..., None]


@pytest.fixture
def between(monkeypatch: pytest.MonkeyPatch) -> Between:
    """Have these happen, one after each judgement of a move, before anything of it is written."""

    def arranged(*happens: Callable[[], object]) -> None:
        left = list(happens)

        def reach(name: str) -> None:
            if name == JUDGED and left:
                left.pop(0)()

        monkeypatch.setattr(decide, "failpoint", reach)

    return arranged


def _needs_a_thread() -> None:
    raise AloneNeeded


def _let_the_customer_decide(world: World) -> None:
    with setting(world.db).transaction() as session:
        tenant = session.orm.get_one(Tenant, world.tenant.id)
        tenant.mode = Mode.ENFORCE
        tenants.mark(session, tenant)


@pytest.mark.parametrize("before", [(), (_needs_a_thread,)], ids=["in a group", "in a thread"])
def test_break_glass_that_the_customer_has_just_switched_off_is_refused_in_its_own_words(
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


def test_the_page_says_so_too(open_portal: OpenPortal, between: Between) -> None:
    portal = open_portal(ON)
    request = portal.world.submit(**ASK)
    manager = portal.browser()
    manager.enter("max", AuthMethod.PASSKEY)
    page = manager.get(f"/requests/{request.id}")
    between(lambda: lay_down(portal.world))

    refused = manager.submit(page, "/break_glass", comment="Mail is down")

    assert (refused.status, REFUSED in refused.words) == (422, True)


def test_what_managers_endorse_goes_to_the_customer_who_has_just_taken_over(
    open_door: OpenDoor, between: Between
) -> None:
    door = open_door(mode=Mode.OBSERVE)
    request = door.world.submit()
    between(lambda: _let_the_customer_decide(door.world))
    body = {"action": "endorse", "requests": [{"id": str(request.id)}]}

    (item,) = door.call("max", "POST", "/v1/requests/decisions", json=body).json()["items"]

    assert (item["problem"], item["request"]["state"]) == (None, "pending")
