"""Every page in a browser, wide and narrow, light and dark: axe finds nothing, and all fit the window's width."""

import re
from collections.abc import Iterator
from uuid import UUID

import pytest
from playwright.sync_api import expect

from config.setting_fields import DEVELOPMENT_KEY
from harness.people import World, sign_in
from lockbox.admin import webhooks
from lockbox.admin.webhooks import WebhookInput, WebhookUrlPolicy
from lockbox.facts.enumerations import AuthMethod, State
from lockbox.notifications.endpoints import SecretVault
from lockbox.requests.lifecycle import Action
from tests.database.tenancy import does, invites
from tests.http.test_portal_routes import MATRIX
from tests.whole import people
from tests.whole.conftest import RunningStack
from tests.whole.people import BrowserDesk, choose, desk_of, swept

pytestmark = [
    pytest.mark.far,
    pytest.mark.skipif(people.PROGRAM is None, reason=people.MISSING),
    pytest.mark.timeout(300),
]

REACH = WebhookUrlPolicy(SecretVault([DEVELOPMENT_KEY.get_secret_value()]), allow_http=True)
OF_THE_TENANT = (
    *("policy", "tiers", "members", "delegates", "endpoints", "endpoints/{endpoint}", "observers", "mode"),
    *(
        "emergency-stop",
        "gates",
        "approver-keys",
        "pre-approvals",
        "exclusions",
        "data",
        "access-review",
        "unapproved-access",
        "members/{member}",
    ),
)
PAGES = {
    "erin": (
        *("/ask", "/mine", "/mine/cancel", "/account", "/device", "/sign-in", "/welcome", "/requests/{request}"),
        *("/docs", "/docs/requests", "/docs/problems", "/docs/schemas", "/docs/schemas/Problem", "/docs?q=approve"),
    ),
    "max": ("/review", "/review/deny", "/open", "/requests", "/requests/{request}", "/welcome"),
    "ann": (
        *("/waiting", "/waiting/deny", "/open", "/requests", "/requests?text=nothing", "/welcome", "/proposals"),
        *("/requests/{request}", "/requests/{denied}", "/requests/{request}/questions", "/tenants", "/account"),
        "/invitations/{invitation}",
    ),
    "tara": ("/tenants/{slug}", *(f"/tenants/{{slug}}/{name}" for name in OF_THE_TENANT), "/welcome"),
    "aude": (
        "/tenants/{slug}/members/{member}",
        "/statistics",
        "/audit-log",
        "/audit-log?text=nothing",
        "/audit-log/checkpoint",
        "/audit-log/verify",
    ),
    "olga": ("/operations", "/gates", "/exclusions", "/access-review", "/data", "/data/{slug}"),
}
NO_PAGE = {
    *("/access-review/export", "/tenants/{slug}/access-review/export"),
    *("/", "/requests.csv", "/statistics/export", "/audit-log/export", "/tenants/{slug}/approver-keys/file"),
    *("/static/{name}", "/live", "/sign-in/oidc/callback", "/sign-in/oidc/{number}"),
}
# Those that come only after a form was sent, or where a gate has been asked.
ELSEWHERE = {"/sign-in/code", "/gates/{service}"}


@pytest.fixture(scope="module")
def desk(stage: RunningStack) -> Iterator[BrowserDesk]:
    with desk_of(stage) as found:
        yield found


@pytest.fixture(scope="module")
def furnished(stage: RunningStack) -> tuple[World, dict[str, str]]:
    """A world with something of everything, and the ids of its objects."""
    world = stage.world(approval_window=3600, review_window=3600)
    request, denied, opened = (world.fresh() for _ in range(3))
    world.act("ann", Action.DENY, denied.id)
    world.act("ann", Action.APPROVE, opened.id)
    called = WebhookInput("http://127.0.0.1:9/", description="The desk")
    endpoint = does(world, "tara", webhooks.add, called, reach=REACH).endpoint
    invitation = invites(world)
    ids = {"request": request.id, "denied": denied.id, "invitation": invitation.id, "endpoint": endpoint.id}
    ids["member"] = world.people["ann"].person_id
    return world, {name: str(one) for name, one in ids.items()} | {"slug": world.tenant.slug}


@pytest.mark.parametrize("who", PAGES)
def test_portal_pages_fit_wide_and_narrow_screens_in_light_and_dark_colours_for_every_reader(
    desk: BrowserDesk, furnished: tuple[World, dict[str, str]], who: str
) -> None:
    world, places = furnished
    page = desk.person(world, who)
    wrong: list[str] = []

    for path in PAGES[who]:
        answer = page.goto(path.format(**places))
        assert answer is not None
        assert answer.status == 200, path
        wrong += swept(page)

    assert wrong == []


def test_no_portal_page_is_missing_from_the_layout_sweep() -> None:
    swept_paths = {path.partition("?")[0] for paths in PAGES.values() for path in paths}
    pages = {route.removeprefix("GET ") for route in MATRIX if route.startswith("GET ")} - NO_PAGE - ELSEWHERE
    shapes = {path: re.compile(re.sub(r"\{\w+\}", "[^/]+", path)) for path in pages}

    assert {path for path, shape in shapes.items() if not any(map(shape.fullmatch, swept_paths))} == set()


@pytest.mark.parametrize(("path", "status"), [("/nowhere", 404), ("/operations", 403), ("/requests?state=odd", 422)])
def test_error_pages_fit_the_screen_of_every_reader(
    desk: BrowserDesk, furnished: tuple[World, dict[str, str]], path: str, status: int
) -> None:
    page = desk.person(furnished[0], "ann")

    answer = page.goto(path)

    assert answer is not None
    assert answer.status == status
    assert swept(page) == []


def test_a_person_without_a_session_is_asked_to_sign_in_and_returns_to_the_page(desk: BrowserDesk) -> None:
    page = desk.person()

    page.goto("/waiting")

    assert page.url.startswith(f"{desk.home}/sign-in?next=")
    assert swept(page) == []
    page.get_by_label("Mail address").fill("nobody@contoso.example")
    page.get_by_role("button", name="Mail me a code").click()
    expect(page.get_by_label("Code from the mail")).to_be_visible()
    assert swept(page) == []


def test_a_person_signing_in_by_mail_is_welcomed_and_offered_a_passkey(
    desk: BrowserDesk, furnished: tuple[World, dict[str, str]]
) -> None:
    world, _ = furnished
    for who in ("max", "aude"):
        page = desk.person(secret=sign_in(world.db, world.people[who], AuthMethod.MAIL))
        page.goto("/welcome")
        expect(page.get_by_role("button", name="Add a passkey")).to_be_visible()
        first = swept(page)
        page.get_by_role("link", name="Later").click()
        expect(page.get_by_role("heading", name="What arrives by mail")).to_be_visible()

        assert first + swept(page) == []


ENDORSED = ("max", Action.ENDORSE)
APPROVED = ("ann", Action.APPROVE)
WAYS_THERE: tuple[tuple[State, *tuple[tuple[str, Action], ...]], ...] = (
    (State.PENDING, ENDORSED),
    (State.ACTIVE, ENDORSED, APPROVED),
    (State.DENIED, ENDORSED, ("ann", Action.DENY)),
    (State.CANCELLED, ("erin", Action.CANCEL)),
    (State.COMPLETED, ENDORSED, APPROVED, ("erin", Action.COMPLETE)),
    (State.REVOKED, ENDORSED, APPROVED, ("ann", Action.REVOKE)),
    (State.TIMED_OUT,),
    (State.EXPIRED, ENDORSED, APPROVED),
)


@pytest.fixture(scope="module")
def in_states(stage: RunningStack) -> dict[State, tuple[World, UUID]]:
    slow, quick = stage.world(approval_window=3600, review_window=3600, vendor_review=True), stage.world()
    found = {State.REVIEWING: (slow, slow.fresh().id)}
    for state, *acts in WAYS_THERE:
        world = quick if state is State.TIMED_OUT else slow
        request = world.fresh(access_window=2 if state is State.EXPIRED else 3600)
        for who, action in acts:
            world.act(who, action, request.id)
        found[state] = world, request.id
    for state, (_, request_id) in found.items():
        stage.ends(request_id, state.value)
    return found


@pytest.mark.parametrize("who", ["erin", "max", "ann"])
@pytest.mark.parametrize("state", State)
def test_the_page_of_a_request_in_each_state_fits_its_readers_screens(
    desk: BrowserDesk, in_states: dict[State, tuple[World, UUID]], state: State, who: str
) -> None:
    world, request_id = in_states[state]
    page = desk.person(world, who)

    page.goto(f"/requests/{request_id}")

    assert swept(page) == []


def test_several_requests_are_denied_at_once_and_failures_are_listed(stage: RunningStack, desk: BrowserDesk) -> None:
    world = stage.world(approval_window=3600)
    gone, *rest = (world.fresh() for _ in range(3))
    page = desk.person(world, "ann")
    page.goto("/waiting")
    wrong = swept(page)
    page.get_by_role("link", name="Deny all 3").click()
    wrong += swept(page)
    choose(page, 3, checked=False)
    page.get_by_label("Reason").fill("Not today")
    page.get_by_role("button", name="Deny the chosen requests").click()
    expect(page.get_by_role("alert")).to_be_focused()
    wrong += swept(page)
    choose(page, 3)
    world.act("abe", Action.APPROVE, gone.id)

    page.get_by_role("button", name="Deny the chosen requests").click()

    expect(page.get_by_role("heading", level=1)).to_have_text("You denied 2 requests")
    expect(page.get_by_role("alert")).to_contain_text("1 request was not denied")
    assert wrong + swept(page) == []
    assert [stage.state(one.id) for one in (gone, *rest)] == ["active", "denied", "denied"]


def test_an_engineer_cancels_several_requests_at_once(stage: RunningStack, desk: BrowserDesk) -> None:
    world = stage.world(approval_window=3600)
    requests = [world.fresh() for _ in range(2)]
    page = desk.person(world, "erin")
    page.goto("/mine")
    wrong = swept(page)
    page.get_by_role("link", name="Cancel several requests").click()
    choose(page, 2)
    wrong += swept(page)

    page.get_by_role("button", name="Cancel the chosen requests").click()

    expect(page.get_by_role("heading", level=1)).to_have_text("You cancelled 2 requests")
    expect(page.get_by_role("heading", level=1)).to_be_focused()
    assert wrong + swept(page) == []
    assert {stage.state(request.id) for request in requests} == {"cancelled"}


def test_a_manager_denies_several_reviews_at_once(stage: RunningStack, desk: BrowserDesk) -> None:
    world = stage.world(approval_window=3600, review_window=3600, vendor_review=True)
    requests = [world.fresh() for _ in range(2)]
    page = desk.person(world, "max")
    page.goto("/review")
    wrong = swept(page)
    page.get_by_role("link", name="Deny several requests").click()
    page.locator(f"#choose-{requests[0].id}").check()
    page.get_by_label("Reason").fill("No case")
    wrong += swept(page)

    page.get_by_role("button", name="Deny the chosen requests").click()

    expect(page.get_by_role("heading", level=1)).to_have_text("You denied 1 request")
    assert wrong + swept(page) == []
    assert sorted(stage.state(request.id) for request in requests) == ["denied", "reviewing"]
