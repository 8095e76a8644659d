"""Requests and tenants in special states: axe finds nothing on their pages, and no page is wider than its window."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from devstack.embedded import ServerAddresses
from gate import definition_records, enforcement, gate_definition
from gate.enforcement import ENFORCE
from gate.memory_reader import GATE
from harness.people import World
from lockbox.identity import authentication
from tests.database.test_definition_records import SERVICE, A, B
from tests.whole import people, special_states
from tests.whole.conftest import RunningStack, stage_of
from tests.whole.people import BrowserDesk, desk_of, swept

pytestmark = [
    pytest.mark.far,
    pytest.mark.skipif(people.PROGRAM is None, reason=people.MISSING),
    pytest.mark.timeout(300),
]

SLOW: dict[str, Any] = {"approval_window": 3600, "review_window": 3600}
Place = tuple[World, str]
"""A world, and the page in it."""
Scenery = Callable[[RunningStack], Place]


@pytest.fixture(scope="module")
def stage(template: ServerAddresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    folder = tmp_path_factory.mktemp("logs")
    catalogue = folder / "catalogue.yaml"
    catalogue.write_text(special_states.declared(Path("catalogue/catalogue.yaml").read_text()))
    names = ("api", "worker", "notifications")
    with stage_of(template, folder, names=names, settings={"LOCKBOX_CATALOGUE": str(catalogue)}) as found:
        yield found


@pytest.fixture(scope="module")
def desk(stage: RunningStack) -> Iterator[BrowserDesk]:
    with desk_of(stage) as found:
        yield found


def of_request(make: Callable[..., Any], then: Callable[[World, Any], Any] | None = None, **policy: Any) -> Scenery:
    """Return a function that makes a request in a new world, and returns the path of its page."""

    def made(stage: RunningStack) -> Place:
        world = stage.world(**SLOW | policy)
        request = make(world)
        return world, f"/requests/{(then(world, request) if then else request).id}"

    return made


def of_tenant(page: str, make: Callable[[World], Any]) -> Scenery:
    """Return a function that sets a tenant up, and returns the path of a page of it."""

    def made(stage: RunningStack) -> Place:
        world = stage.world(**SLOW)
        make(world)
        return world, f"/tenants/{world.tenant.slug}/{page}"

    return made


def of_list(path: str) -> Scenery:
    """Return a function that fills the lists, and returns the path of one of them."""

    def made(stage: RunningStack) -> Place:
        world = stage.world(**SLOW | special_states.GLASS)
        special_states.everything(world)
        return world, path

    return made


GLASS = special_states.GLASS
EVERYBODY = ("erin", "max", "ann", "tara")
STATES: dict[str, tuple[Scenery, tuple[str, ...]]] = {
    "more time is asked for": (of_request(special_states.extension), ("erin", "ann")),
    "a window of which more time is asked": (
        of_request(special_states.extension, special_states.extended),
        EVERYBODY,
    ),
    "more time is approved": (of_request(special_states.extension, special_states.approved), ("erin", "ann")),
    "a later start is asked for": (of_request(special_states.later), ("erin", "ann")),
    "a window that begins later": (of_request(special_states.later, special_states.approved), EVERYBODY),
    "a window that is held back": (of_request(special_states.later, special_states.held_back), EVERYBODY),
    "break-glass is asked for": (of_request(special_states.emergency, **GLASS), ("erin", "max")),
    "break-glass is open": (of_request(special_states.by_break_glass, **GLASS), (*EVERYBODY, "aude")),
    "a finding is due": (of_request(special_states.awaiting_finding, **GLASS), EVERYBODY),
    "a finding is overdue": (of_request(special_states.overdue, **GLASS), EVERYBODY),
    "a finding is given": (of_request(special_states.found_unjustified, **GLASS), EVERYBODY),
    "the first of two steps": (of_request(special_states.stepwise), ("erin", "abe", "ann")),
    "the second of two steps": (of_request(special_states.stepwise, special_states.first_step), ("erin", "ann")),
    "parameters, level, severity and location": (of_request(special_states.described), ("erin", "ann")),
    "opened by a pre-approval": (of_request(special_states.pre_approved), ("erin", "ann")),
    "pre-approvals": (of_tenant("pre-approvals", special_states.pre_approvals_of_each_kind), ("tara", "ann", "aude")),
    "a held tenant": (of_tenant("data", special_states.held), ("tara", "aude")),
    "a tenant that leaves": (of_tenant("data", special_states.leaving), ("tara", "aude")),
    "exclusions to acknowledge": (
        of_tenant("exclusions", special_states.exclusions_stated),
        ("tara", "aude", "olga"),
    ),
    "exclusions acknowledged": (of_tenant("exclusions", special_states.exclusions_acknowledged), ("tara",)),
    "the access review": (of_tenant("access-review", special_states.nothing), ("tara", "aude")),
    "findings among the approvals": (of_list("/waiting"), ("ann", "tara")),
    "break-glass among the reviews": (of_list("/review"), ("max",)),
    "break-glass among open windows": (of_list("/open"), ("ann", "max")),
    "break-glass among one's requests": (of_list("/mine"), ("erin",)),
    "break-glass in the history": (of_list("/requests"), ("ann",)),
}


@pytest.mark.parametrize("state", STATES)
def test_a_page_in_a_special_state_fits_the_screen_of_every_reader(
    stage: RunningStack, desk: BrowserDesk, state: str
) -> None:
    make, readers = STATES[state]
    world, path = make(stage)
    wrong: list[str] = []

    for who in readers:
        page = desk.person(world, who)
        answer = page.goto("/exclusions" if who == "olga" else path)
        assert answer is not None
        assert answer.status == 200, who
        wrong += swept(page, f"{state}, {who}")
        page.context.close()

    assert wrong == []


def test_a_changed_gate_is_shown_on_a_page_as_one_sentence(stage: RunningStack, desk: BrowserDesk) -> None:
    world = stage.world(**SLOW)
    for one in (A, B):
        with stage.db.transaction() as session:
            authentication.enter(session, GATE)
            enforcement.record(session, {SERVICE: ENFORCE})
            definition_records.record(session, gate_definition.definitions(one))
    page = desk.person(world, "tara")

    page.goto(f"/tenants/{world.tenant.slug}/gates")

    assert swept(page, "a changed gate") == []
    change = page.get_by_role("listitem").filter(has_text=re.compile("^Since .*, paths changed"))
    assert change.evaluate("(one) => getComputedStyle(one).display") == "list-item"


def test_the_form_of_a_service_with_parameters_fits_every_readers_screen(
    stage: RunningStack, desk: BrowserDesk
) -> None:
    world = stage.world(**SLOW)
    page = desk.person(world, "erin")
    page.goto("/ask")
    page.get_by_label("Customer", exact=True).select_option(world.tenant.slug)
    page.get_by_label("Service", exact=True).select_option(special_states.DECLARING)
    page.get_by_label("Resources").fill("drive:carla@contoso.example")
    page.get_by_label("Justification").fill("Two folders do not sync")
    wrong = swept(page, "parameters, empty")
    page.get_by_role("button", name="Preview").click()
    expect(page.get_by_role("alert")).to_be_focused()
    wrong += swept(page, "parameters, wrong")
    page.get_by_label("Environment").select_option("production")
    page.get_by_label("Rows").fill("5000")

    page.get_by_role("button", name="Preview").click()

    expect(page.get_by_role("heading", name="Preview")).to_be_visible()
    assert wrong + swept(page, "parameters, previewed") == []
