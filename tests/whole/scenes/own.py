"""Scenes at a person's own account: passkeys, an identity, tokens, mail addresses, and sessions."""

from playwright.sync_api import Page, expect

from harness.people import sign_in
from lockbox.facts.enumerations import AuthMethod
from tests.whole.forms import Book
from tests.whole.people import with_authenticator
from tests.whole.post import code_to
from tests.whole.scenes import scene

TURNED = "laptop\u202e"
"""A name with a mark that turns the direction of what follows."""
COUNTING = "SELECT name, trusted_at <= now() AS counts FROM passkeys WHERE person_id = :id"


@scene
def somebody_adds_a_passkey_signs_in_by_it_and_removes_it(book: Book) -> None:
    world = book.stage.world()
    page = book.at("/account", secret=sign_in(world.db, world.people["amir"], AuthMethod.OIDC))
    with_authenticator(page)
    named = page.get_by_label("Name of the new passkey")

    named.fill(TURNED)
    book.wrongly(page.get_by_role("button", name="Add a passkey"), "Choose a name for the passkey")
    named.fill("my laptop")
    page.get_by_role("button", name="Add a passkey").click()
    book.sees(page, "my laptop", at="/account")
    book.open(page, "/sign-in")
    page.get_by_role("button", name="Sign in with a passkey").click()
    book.sees(page, "There are no requests for you to decide", at="/waiting")
    book.open(page, "/account")
    book.rightly(page.get_by_role("button", name="Remove the passkey my laptop"))


@scene
def somebody_adds_a_further_passkey_confirmed_and_unconfirmed(book: Book) -> None:
    world = book.stage.world()
    amir = world.people["amir"]
    page = book.at("/account", secret=sign_in(world.db, amir, AuthMethod.OIDC))
    laptop = with_authenticator(page)
    adds(page, "my laptop")
    book.sees(page, "my laptop", at="/account")

    adds(page, "my phone")
    expect(page.locator("#status")).to_contain_text("This device has a passkey for you already")
    laptop.detach()
    with_authenticator(page)
    page.get_by_role("button", name="Ask again").click()
    book.sees(page, "my phone", at="/account")
    other = book.at("/account", secret=sign_in(world.db, amir, AuthMethod.OIDC))
    with_authenticator(other)
    adds(other, "my key")
    expect(other.locator("main")).to_contain_text("Confirm first with a passkey that you have")
    book.look(other)
    other.get_by_role("button", name="Add it without confirming").click()
    book.sees(other, "my key", at="/account")

    rows = book.stage.rows(COUNTING, id=str(amir.person_id))
    assert {row.name: row.counts for row in rows} == {"my laptop": True, "my phone": True, "my key": False}


def adds(page: Page, name: str) -> None:
    page.get_by_label("Name of the new passkey").fill(name)
    page.get_by_role("button", name="Add a passkey").click()


@scene
def somebody_adds_a_sign_in_service_and_removes_it(book: Book) -> None:
    at = int(book.clock().timestamp())
    book.issuer.id_token = {"iat": at, "exp": at + 300, "auth_time": at}
    page = book.at("/account", book.stage.world(), "max")

    page.get_by_role("button", name="Add the sign-in of the vendor").click()
    book.sees(page, "as anne", at="/account")
    book.rightly(page.get_by_role("button", name="Remove the sign-in of the vendor"))


@scene
def somebody_makes_a_token_and_revokes_it(book: Book) -> None:
    page = book.at("/account", book.stage.world(), "mia")
    button = page.get_by_role("button", name="Create a token")

    page.get_by_label("Name of the new token").fill(TURNED)
    book.wrongly(button, "Choose a name for the token")
    page.get_by_label("Name of the new token").fill("my script")
    book.rightly(button, "It is shown only once")
    page.get_by_role("link", name="Back to your account").click()
    book.rightly(page.get_by_role("button", name="Revoke the token my script"))


@scene
def somebody_says_where_and_when_mails_are_to_come(book: Book) -> None:
    world = book.stage.world()
    further = f"desk-{world.tenant.slug}@contoso.example"
    page = book.at("/account", world, "ann")

    page.get_by_role("combobox", name="Time zone").fill("Atlantis/Center")
    book.wrongly(page.get_by_role("button", name="Save"), "Choose a time zone by its name")
    page.get_by_role("combobox", name="Time zone").fill("Europe/Berlin")
    book.rightly(page.get_by_role("button", name="Save"), "Your time zone is Europe/Berlin")
    book.rightly(page.get_by_role("button", name="Turn off approval mails"), "You get a mail only when")
    book.unsendable(page.get_by_role("button", name="Send verification code"), page.get_by_label("A further address"))
    page.get_by_label("A further address").fill(further)
    book.rightly(page.get_by_role("button", name="Send verification code"), "not used until you confirm it")
    page.get_by_label("A further address").fill(further)
    book.wrongly(page.get_by_role("button", name="Send verification code"), "already")
    code = code_to(book.stage, further)
    page.get_by_label("Code from the mail").fill("AAAA")
    book.wrongly(page.get_by_role("button", name=f"Confirm {further}"), "code")
    page.get_by_label("Code from the mail").fill(code)
    book.rightly(page.get_by_role("button", name=f"Confirm {further}"), "gets all mails to you")
    book.rightly(page.get_by_role("button", name=f"Receipts only to {further}"), "gets only receipts")
    book.rightly(page.get_by_role("button", name=f"Remove {further}"), "and to no other address")


@scene
def somebody_signs_another_browser_of_theirs_out(book: Book) -> None:
    world = book.stage.world()
    other, page = book.at("/account", world, "vera"), book.at("/account", world, "vera")

    book.rightly(
        page.get_by_role("listitem").filter(has_not_text="this device").get_by_role("button", name="Sign out")
    )
    other.goto("/account")

    assert "/sign-in" in other.url
