"""Scenes of signing in: by a mailed code, by an invitation, as a demo user; and by a terminal's code."""

import re

import httpx
from playwright.sync_api import expect

from lockbox.admin import members
from lockbox.identity.roles import Role
from tests.database.tenancy import does
from tests.whole.conftest import wait_until
from tests.whole.forms import Book
from tests.whole.people import with_authenticator
from tests.whole.post import address_of, code_to, mails_to
from tests.whole.scenes import scene


@scene
def somebody_signs_in_by_a_mailed_code_and_out_again(book: Book) -> None:
    world = book.stage.world()
    address = address_of(book.stage, world, "ann")
    page = book.at("/waiting")
    button = page.get_by_role("button", name="Mail me a code")

    book.unsendable(button, page.get_by_label("Mail address"))
    page.get_by_label("Mail address").fill(f"{'a' * 65}@example.test")
    book.wrongly(button, "Write your whole mail address")
    page.get_by_label("Mail address").fill(address)
    book.rightly(button, "a mail with a code is on its way")
    code = code_to(book.stage, address)
    page.get_by_label("Code from the mail").fill("0000 0000")
    book.wrongly(page.get_by_role("button", name="Sign in"), "code")
    page.get_by_label("Code from the mail").fill(code)
    book.rightly(page.get_by_role("button", name="Sign in"), "There are no requests for you to decide")
    book.rightly(page.get_by_role("button", name="Sign out"), "Sign in")

    assert page.url.endswith("/sign-in")


@scene
def somebody_accepts_an_invitation(book: Book) -> None:
    world = book.stage.world()
    address = f"nora-{world.tenant.slug}@contoso.example"
    does(world, "tara", members.invite, name="Nora", address=address, roles=frozenset({Role.APPROVER}))
    code = code_to(book.stage, address)
    (path,) = re.findall(r"/invitations/[0-9a-f-]{36}", mails_to(book.stage, address)[-1])
    page = book.at(f"{path}#{code.replace('-', '')}")
    button = page.get_by_role("button", name="Accept the invitation")

    expect(page.get_by_label("Code of the invitation")).to_have_value(code.replace("-", ""))
    expect(page.get_by_text("The code from your mail is filled in")).to_be_visible()
    assert page.url.endswith(path)
    page.get_by_label("Code of the invitation").fill("WRONG")
    book.wrongly(button, "This invitation or its code is not valid")
    page.get_by_label("Code of the invitation").fill(code)
    book.rightly(button, "Welcome, Nora")
    with_authenticator(page)
    page.get_by_role("button", name="Add a passkey").click()
    book.sees(page, "You are an approver at", at="/welcome*")
    page.get_by_role("link", name="Go to Approvals").click()
    book.sees(page, "There are no requests for you to decide", at="/waiting")


@scene
def somebody_lets_a_terminal_in(book: Book) -> None:
    world = book.stage.world()
    asked = httpx.post(f"{book.desk.home}/v1/device-logins", timeout=30, trust_env=False).json()
    page = book.at("/device", world, "olga")

    page.get_by_label("Code in the terminal").fill("ABCD-EFGH")
    book.wrongly(page.get_by_role("button", name="Continue"), "code")
    page.get_by_label("Code in the terminal").fill(asked["user_code"])
    book.rightly(page.get_by_role("button", name="Continue"), "A terminal wants to act as you")
    book.rightly(page.get_by_role("button", name="Allow this terminal"), "The terminal is signed in")
    said = httpx.post(
        f"{book.desk.home}/v1/device-logins/state", json={"token": asked["token"]}, timeout=30, trust_env=False
    )

    assert said.json()["state"] == "allowed"


@scene
def a_newcomer_plays_somebody_and_reads_their_mails(book: Book) -> None:
    address = address_of(book.stage, book.samples, "ann")
    earlier = len(mails_to(book.stage, address))
    page = book.at("/play")

    book.rightly(page.get_by_role("button", name="Be Erin").first, "Request access")
    expect(page.locator(".playing")).to_contain_text("You are playing Erin")
    # The inbox lists the newest mails alone, and those of the moment in which the page was opened.
    book.samples.fresh()
    wait_until(lambda: len(mails_to(book.stage, address)) > earlier, "Ann is prompted")
    book.open(page, "/inbox")
    page.get_by_label("Recipient").select_option(address)
    book.rightly(page.get_by_role("button", name="Show these"), "Approval needed")
    page.get_by_role("link", name=re.compile("Approval needed")).first.click()
    book.rightly(page.get_by_role("button", name="Be Ann, and follow the link"), "wants to read")

    expect(page.locator(".playing")).to_contain_text("You are playing Ann")
