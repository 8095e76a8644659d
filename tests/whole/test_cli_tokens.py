"""`lockbox token` and `lockbox me`: a person's own tokens, each printed once and alone on stdout."""

import pytest

from lockbox.identity.authentication import TOKEN_FORM
from tests.commands import CommandResult
from tests.whole.conftest import RunningStack
from tests.whole.shell import Shell

PROCESSES = ("api",)


@pytest.fixture
def shell(stage: RunningStack) -> Shell:
    return Shell(stage, stage.world(approval_window=600))


def printed(ended: CommandResult) -> str:
    """Return the token that was printed alone on stdout, with a warning on stderr."""
    assert ended.code == 0, ended
    assert ended.err.startswith("This is the only time that the token is shown")
    token = ended.out.removesuffix("\n")
    assert TOKEN_FORM.fullmatch(token)
    return token


def test_the_cli_prints_a_new_token_once_and_never_lists_or_logs_it(shell: Shell) -> None:
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


@pytest.mark.parametrize(
    ("token", "says"),
    [
        ("eyJhbGciOiJIUzI1NiJ9.e30.x", "name the id"),
        ("lbx_test_short", "name the id"),
        ("lbx_tést", "does not contain a token"),
        ("two\nlines", "does not contain a token"),
    ],
)
def test_the_cli_does_not_use_a_malformed_api_token(shell: Shell, token: str, says: str) -> None:
    ended = shell.run(token, "token", "rotate")

    assert (ended.code, ended.out) == (1, "")
    assert says in ended.err
    assert token not in ended.err
