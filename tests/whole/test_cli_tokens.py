"""`lockbox token` and `lockbox me`: one's own tokens, each printed once and by itself."""

import re

import pytest

from lockbox.identity.authentication import TOKEN_FORM
from tests.commands import CommandResult
from tests.database.tenancy import id_of
from tests.whole.conftest import RunningStack
from tests.whole.shell import Shell, lockbox

PROCESSES = ("api",)


@pytest.fixture
def shell(stage: RunningStack) -> Shell:
    """A terminal of a world of the test's own."""
    return Shell(stage, stage.world(approval_window=600))


def printed(ended: CommandResult) -> str:
    """Return the token that was printed, by itself and with a warning beside it."""
    assert ended.code == 0, ended
    assert ended.err.startswith("This is the only time that the token is shown")
    token = ended.out.removesuffix("\n")
    assert TOKEN_FORM.fullmatch(token)
    return token


def test_me_is_who_the_token_is(shell: Shell) -> None:
    told = shell.does("olga", "me")

    assert shell.reads("tara", "me")["tenants"] == {shell.world.tenant.slug: ["tenant_admin"]}
    assert str(id_of(shell.world, "olga")) in told
    assert re.search(r"At the vendor +operator", told)
    assert re.search(rf"At {shell.world.tenant.slug} +approver", shell.does("ann", "me"))


def test_a_token_is_printed_once_and_by_itself_and_is_never_listed_or_logged(shell: Shell) -> None:
    token = printed(shell.run("erin", "token", "make", "laptop", "--lifetime", "7d"))

    listed = shell.does("erin", "token", "list")
    (one,) = [one for one in shell.reads("erin", "token", "list")["items"] if one["name"] == "laptop"]

    assert "laptop" in listed
    assert one["id"] in listed
    parts = TOKEN_FORM.fullmatch(token)
    assert parts
    for text in (listed, shell.does("erin", "token", "list", "--output", "json"), shell.log()):
        assert parts["secret"] not in text
    assert shell.reads(token, "me")["means"] == "token"
    assert "laptop" not in shell.does("eve", "token", "list")


def test_a_token_replaces_itself_without_being_named(shell: Shell) -> None:
    token = printed(shell.run("erin", "token", "make", "nightly"))

    new = printed(shell.run(token, "token", "rotate", "--overlap", "0h"))

    assert new != token
    shell.is_refused(token, "invalid-token: ", "me")
    assert shell.reads(new, "me")["name"] == "Erin"


def test_a_token_makes_and_replaces_no_other(shell: Shell) -> None:
    token = printed(shell.run("erin", "token", "make", "nightly"))
    printed(shell.run("erin", "token", "make", "other"))
    other = shell.reads("erin", "token", "list")["items"][0]["id"]

    shell.is_refused(token, "fresh-sign-in-needed: ", "token", "make", "another")
    shell.is_refused(token, "fresh-sign-in-needed: ", "token", "rotate", other)


@pytest.mark.far
def test_a_revoked_token_is_worthless_at_once(shell: Shell) -> None:
    token = printed(shell.run("erin", "token", "make", "lost"))
    id_ = shell.reads("erin", "token", "list")["items"][0]["id"]
    shell.is_refused("eve", "not-found: ", "token", "revoke", id_)
    shell.is_refused("olga", "not-found: ", "token", "rotate", id_)

    assert shell.does("erin", "token", "revoke", id_) == "Revoked.\n"
    assert shell.does("erin", "token", "revoke", id_) == "Revoked.\n"

    shell.is_refused(token, "invalid-token: ", "me")


def test_a_machines_token_is_bound(shell: Shell) -> None:
    bound = ("--scope", "access:check", "--service", "onedrive")

    made = shell.run("gate", "token", "make", "mail", *bound, "--output", "json")

    assert made.code == 0
    assert '"access:check"' in made.out
    shell.is_refused("erin", "wrong-role: ", "token", "make", "mine", *bound)
    shell.is_refused("gate", "unknown-service: ", "token", "make", "mail", "--service", "none")


@pytest.mark.parametrize(
    ("token", "says"),
    [
        ("eyJhbGciOiJIUzI1NiJ9.e30.x", "name the id"),
        ("lbx_test_short", "name the id"),
        ("lbx_tést", "does not contain a token"),
        ("two\nlines", "does not contain a token"),
    ],
)
def test_what_is_no_api_token_is_not_taken_for_one(shell: Shell, token: str, says: str) -> None:
    ended = shell.run(token, "token", "rotate")

    assert (ended.code, ended.out) == (1, "")
    assert says in ended.err
    assert token not in ended.err


@pytest.mark.far
def test_a_token_that_is_piped_on_comes_alone(shell: Shell) -> None:
    made = lockbox(shell.token("max"), "token", "make", "laptop")

    assert made.returncode == 0
    assert TOKEN_FORM.fullmatch(made.stdout.removesuffix("\n"))
    assert made.stderr.count("\n") == 1
