"""Pictures of the pages and mails of an invented day for the documentation; `make screens` saves them.

No picture is a large file, and none shows a page that is wider than its window.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Page, ViewportSize, expect

from devstack.embedded import ServerAddresses
from devstack.mails import gallery
from devstack.mails.specimens import specimens
from harness.people import HERE, World
from lockbox.requests import questions
from lockbox.requests.lifecycle import Action
from tests.whole import people, special_states
from tests.whole.conftest import RunningStack, stage_of
from tests.whole.people import BrowserDesk, desk_of, overflow
from tests.whole.warm import WarmProcesses

pytestmark = [
    pytest.mark.far,
    pytest.mark.skipif(people.PROGRAM is None, reason=people.MISSING),
    pytest.mark.timeout(300),
]

Scheme = Literal["light", "dark"]
PHONE, TABLET = ViewportSize(width=390, height=844), ViewportSize(width=800, height=900)
SIZES = {"desktop": ViewportSize(width=1280, height=800), "phone": PHONE}
MOST_BYTES = 250_000
NAMES = {
    "erin": "Erin Engel",
    "eve": "Eve Novak",
    "max": "Max Marsh",
    "mia": "Mia Lindqvist",
    "olga": "Olga Reyes",
    "tara": "Tara Bell",
    "ann": "Ann Carter",
    "amir": "Amir Haddad",
    "abe": "Abe Okafor",
    "aude": "Aude Martin",
}
NAMED = "UPDATE people SET name = :name WHERE id = :id RETURNING 1"
LOOK = {"LOCKBOX_VENDOR_NAME": "Fabrikam Support", "LOCKBOX_CASE_URL": "https://desk.fabrikam.example/cases/{case}"}
INDEX = "The search index of both mailboxes is broken; I need to read folder names to rebuild it."


@dataclass(frozen=True)
class Shot:
    """A picture: of which page, as which person, on which device."""

    name: str
    who: str
    path: str
    on: str = "desktop"
    scheme: Scheme = "light"


SHOTS = (
    Shot("request", "ann", "/requests/{pending}"),
    Shot("request-dark", "ann", "/requests/{pending}", scheme="dark"),
    Shot("phone-request", "ann", "/requests/{pending}", "phone"),
    Shot("phone-request-dark", "ann", "/requests/{pending}", "phone", "dark"),
    Shot("request-open", "ann", "/requests/{open}"),
    Shot("request-extension", "ann", "/requests/{extension}"),
    Shot("phone-break-glass", "ann", "/requests/{glass}", "phone"),
    Shot("approvals", "ann", "/waiting"),
    Shot("phone-approvals-dark", "ann", "/waiting", "phone", "dark"),
    Shot("deny-several", "ann", "/waiting/deny"),
    Shot("phone-open-windows", "ann", "/open", "phone"),
    Shot("history-dark", "ann", "/requests", scheme="dark"),
    Shot("new-request", "erin", "/ask?from={denied}"),
    Shot("my-requests", "erin", "/mine"),
    Shot("audit-log", "aude", "/audit-log"),
    Shot("statistics-dark", "aude", "/statistics", scheme="dark"),
    Shot("phone-policy", "tara", "/tenants/{slug}/policy", "phone"),
    Shot("members", "tara", "/tenants/{slug}/members"),
    Shot("phone-welcome", "ann", "/welcome", "phone"),
    Shot("operations-dark", "olga", "/operations", scheme="dark"),
    Shot("phone-operations", "olga", "/operations", "phone"),
    Shot("api-reference", "erin", "/docs"),
    Shot("phone-sign-in", "", "/sign-in", "phone"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(people.SCREENS) if people.SCREENS else tmp_path_factory.mktemp("screens")


@pytest.fixture(scope="module")
def stage(template: ServerAddresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    logs = tmp_path_factory.mktemp("logs")
    with stage_of(template, logs, names=()) as found:
        processes = WarmProcesses(found.plan, logs, {"LOCKBOX_SHUTDOWN_SECONDS": "1"} | LOOK)
        try:
            for name in ("api", "worker", "notifications"):
                processes.start(name)
            processes.wait_until_ready()
            yield replace(found, processes=processes)
        finally:
            processes.stop()


@pytest.fixture(scope="module")
def desk(stage: RunningStack) -> Iterator[BrowserDesk]:
    with desk_of(stage) as found:
        yield found


@pytest.fixture(scope="module")
def day(stage: RunningStack) -> tuple[World, dict[str, str]]:
    """The world of a day with many requests, and the ids of its objects."""
    world = stage.world(approval_window=12 * 3600, review_window=4 * 3600, **special_states.GLASS)
    for key, name in NAMES.items():
        assert stage.rows(NAMED, name=name, id=world.people[key].person_id)
        world.people[key] = replace(world.people[key], name=name)
    denied = world.submit(
        service="sharepoint-online",
        resources=["site:finance"],
        actions=["export"],
        justification="Export the list of invoices, which the web page cuts at 5,000 rows.",
        case_ref="3088",
        access_window=4 * 3600,
    )
    world.act("amir", Action.DENY, denied.id, comment="Finance exports its lists itself. Ask Tara for the file.")
    revoked = world.submit("eve", case_ref="3094", justification="Mails to this box bounce.", access_window=3600)
    world.act("ann", Action.APPROVE, revoked.id)
    world.act("abe", Action.REVOKE, revoked.id, comment="The mails arrive again.")
    opened = world.submit(
        "eve",
        service="onedrive",
        resources=["drive:carla@contoso.example"],
        justification="Two folders do not sync since the move.",
        case_ref="3097",
        access_window=3600,
    )
    world.act("ann", Action.APPROVE, opened.id)
    extension = special_states.extension(
        world,
        resources=["mailbox:fred@contoso.example"],
        justification="Rules of this mailbox delete what they should move.",
        case_ref="3098",
    )
    glass = special_states.by_break_glass(
        world,
        resources=["mailbox:gateway@contoso.example"],
        justification="All mail to contoso.example is rejected.",
        case_ref="3100",
    )
    for address in ("carla", "dora", "emil"):
        world.submit(
            "eve",
            resources=[f"mailbox:{address}@contoso.example"],
            justification="The mailbox was moved last night and shows no calendar.",
            case_ref="3099",
            access_window=1800,
        )
    pending = world.submit(
        resources=["mailbox:anna@contoso.example", "mailbox:bob@contoso.example"],
        justification=INDEX,
        case_ref="3101",
        access_window=900,
    )
    with world.db.transaction() as session:
        asked = questions.ask(session, world.people["amir"], HERE, pending.id, "Can the owners see what you read?")
        questions.answer(
            session, world.people["erin"], HERE, pending.id, asked.id, "No, but each read is in your log."
        )
    ids = {"pending": pending, "open": opened, "denied": denied, "extension": extension, "glass": glass}
    return world, {name: str(one.id) for name, one in ids.items()} | {"slug": world.tenant.slug}


def take(page: Page, folder: Path, name: str) -> None:
    """Take a picture of what the window shows, and check it."""
    assert overflow(page) <= 0, name
    file = folder / f"{name}.png"
    page.screenshot(path=file, animations="disabled")
    assert file.stat().st_size <= MOST_BYTES, name


@pytest.mark.parametrize("shot", SHOTS, ids=lambda shot: shot.name)
def test_a_screenshot_of_a_page_is_taken(
    desk: BrowserDesk, day: tuple[World, dict[str, str]], folder: Path, shot: Shot
) -> None:
    world, places = day
    how: dict[str, Any] = {"viewport": SIZES[shot.on], "is_mobile": shot.on == "phone", "color_scheme": shot.scheme}
    page = desk.person(world if shot.who else None, shot.who, **how)

    answer = page.goto(shot.path.format(**places))

    assert answer is not None
    assert answer.status == 200
    take(page, folder, shot.name)
    page.context.close()


def test_a_screenshot_of_an_approval_on_a_phone_is_taken(
    desk: BrowserDesk, day: tuple[World, dict[str, str]], folder: Path
) -> None:
    world, _ = day
    request = world.submit(
        resources=["mailbox:anna@contoso.example", "mailbox:bob@contoso.example"],
        justification=INDEX,
        access_window=900,
    )
    page = desk.person(world, "ann", viewport=PHONE, is_mobile=True)
    page.goto(f"/requests/{request.id}")

    page.get_by_role("button", name="Approve 15 min").click()

    expect(page.locator("#done")).to_contain_text("You approved. Erin Engel can read 2 mailboxes")
    take(page, folder, "phone-approved")
    page.get_by_role("button", name="Menu").click()
    take(page, folder, "phone-menu")


@pytest.mark.parametrize(("size", "scheme"), [(PHONE, "light"), (PHONE, "dark"), (TABLET, "light")])
def test_a_screenshot_of_a_mail_is_taken(desk: BrowserDesk, folder: Path, size: ViewportSize, scheme: Scheme) -> None:
    asked, *_ = gallery.shown(specimens())
    page = desk.person(viewport=size, color_scheme=scheme)

    page.set_content(asked.mail.html)

    take(page, folder, f"mail-{size['width']}-{scheme}")
