"""What the command line says: help for every command that fits a terminal, and values as people write them."""

import re
import shlex
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from rich.text import Text
from typer.main import get_command
from typer.testing import CliRunner

from cli import client, request_table, terminal
from cli.app import app
from lockbox.notifications import account_mail
from lockbox.notifications.account_mail import DIGEST, AccountMail
from lockbox.requests.lifecycle import State
from tests.each import each

COMMANDS = get_command(app)


def paths(command: Any = COMMANDS, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield every command and group by the words that lead to it."""
    yield path
    for name, part in getattr(command, "commands", {}).items():
        yield from paths(part, (*path, name))


def found(path: tuple[str, ...]) -> Any:
    """Return the command that the words lead to."""
    command: Any = COMMANDS
    for name in path:
        command = command.commands[name]
    return command


PATHS = list(paths())


def helped(path: tuple[str, ...]) -> str:
    """Return the help of a command in a terminal of eighty columns."""
    result = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"})
    assert result.exit_code == 0
    return result.stdout


@each("path", PATHS)
def test_every_command_has_help_that_fits_eighty_columns(path: tuple[str, ...]) -> None:
    text = helped(path)

    assert found(path).help
    assert max(map(len, text.splitlines())) <= 80
    assert "..." not in re.sub(r"\[OPTIONS\].*", "", text), "a sentence is cut: shorten its first one"


@each("path", PATHS)
def test_every_option_and_argument_says_what_it_is(path: tuple[str, ...]) -> None:
    bare = [part.name for part in found(path).params if not getattr(part, "help", None)]

    assert bare == []


@each("path", [path for path in PATHS if not hasattr(found(path), "commands")])
def test_whatever_reads_also_prints_json(path: tuple[str, ...]) -> None:
    reads = path[-1] in {
        "me",
        "access",
        "list",
        "show",
        "events",
        "notifications",
        "deliveries",
        "preview",
        "versions",
        "diff",
        "invitations",
    }

    has_json = any("--json" in part.opts for part in found(path).params)

    assert has_json or not reads


def test_the_commands_come_in_the_order_in_which_they_are_met() -> None:
    listed = re.findall(r"^  ([a-z-]+)  +[A-Z]", helped(()).partition("Commands:")[2], re.MULTILINE)

    assert listed[:3] == ["me", "request", "access"]
    assert listed[-3:] == ["bootstrap", "migrate", "sample"]
    assert sorted(listed) == sorted(COMMANDS.commands)  # type: ignore[attr-defined]


def test_the_commands_in_a_digest_are_commands_that_there_are() -> None:
    content = AccountMail(
        notification_id=UUID(int=1),
        template=DIGEST,
        at=datetime(2026, 1, 1, tzinfo=UTC),
        until=None,
        tenant="Contoso & Sons",
        slug="contoso",
        tenant_id=UUID(int=2),
        event_id=None,
        about_id=None,
        actor=None,
        role="",
        changes={"events": "7", "checkpoint": "NOTE", "key": "KEY", "fingerprint": "PRINT", "approval_keys": ""},
        named={},
        recipient_name="Tara Todd",
        recipient_address="tara@contoso.example",
        time_zone="UTC",
    )

    said = account_mail.render(content, public_url="https://lockbox.example", sender="lockbox@lockbox.example").text
    assert "Approvals are signed by another key" in said
    commands = re.findall(r"^ +lockbox (\S+) (\S+) (.*?)(?: > \S+)?$", said, re.MULTILINE)

    assert [words[:2] for words in commands] == [("audit", "export"), ("audit", "verify")]
    for *path, options in commands:
        found(tuple(path)).make_context(" ".join(path), shlex.split(options))


def test_nothing_takes_a_token_from_the_command_line() -> None:
    names = {name for path in paths() for part in found(path).params for name in part.opts}

    assert not names & {"--token", "--password", "--secret"}


@each(
    ("value", "shown"),
    [
        (None, "-"),
        ("", "-"),
        (True, "yes"),
        (False, "no"),
        (0, "0"),
        ([], "-"),
        (["tenant_admin", "approver"], "tenant admin, approver"),
        ("[bold]now[/]", "[bold]now[/]"),
        ("mailbox:a_b", "mailbox:a_b"),
        (Text("as it is"), "as it is"),
    ],
)
def test_a_value_is_shown_as_people_write_it(value: object, shown: str) -> None:
    assert terminal.cell(value).plain == shown


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(1, "1 s"), (59, "59 s"), (60, "1 min"), (90, "90 s"), (3600, "1 h"), (5400, "90 min"), (259200, "3 d")],
)
def test_a_duration_is_said_in_the_largest_unit_that_is_exact(seconds: int, said: str) -> None:
    assert terminal.duration(seconds) == said


def test_an_instant_is_said_to_the_second() -> None:
    assert terminal.moment("2030-05-01T08:00:01.123456Z") == "2030-05-01 08:00:01Z"
    assert terminal.moment(None) == "-"


def test_every_state_has_words() -> None:
    assert set(request_table.WORDS) == set(State)


ID = "01a20f05-b903-72c9-a099-71e4eacade78"


def printed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int, long: int
) -> list[str]:
    """Print a table with an id and a word so long, and return its lines."""
    monkeypatch.setenv("COLUMNS", str(columns))
    terminal.table(("Id", "Name"), [(ID, "x" * long), ("short", "[red]y")])
    return [line.rstrip() for line in capsys.readouterr().out.splitlines()]


def test_a_table_that_fits_has_a_line_for_each_row(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = printed(capsys, monkeypatch, 80, 40)

    assert lines == [f"{'Id':36}  Name", f"{ID}  {'x' * 40}", f"{'short':36}  [red]y"]


def test_rows_are_facts_where_a_table_would_break_words(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = printed(capsys, monkeypatch, 80, 60)

    assert lines == [f"Id    {ID}", f"Name  {'x' * 60}", "", "Id    short", "Name  [red]y"]


def test_a_word_that_is_longer_than_the_terminal_is_wide_is_not_cut(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = printed(capsys, monkeypatch, 50, 120)

    assert f"Id    {ID}" in lines
    assert "".join(lines).count("x") == 120
    assert max(map(len, lines)) <= 50


def test_an_empty_list_is_said_so(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.table(("Id",), [])

    assert capsys.readouterr().out == "None.\n"


@pytest.mark.parametrize(("page", "said"), [({"next_cursor": None}, ""), ({"next_cursor": "b"}, "--cursor b")])
def test_a_list_that_goes_on_says_how(capsys: pytest.CaptureFixture[str], page: Mapping[str, Any], said: str) -> None:
    terminal.more(page)

    assert said in capsys.readouterr().out


def test_a_long_refusal_stays_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")

    ended = client.stop("x [b]y[/b] " * 40)

    err = capsys.readouterr().err
    assert ended.exit_code == 1
    assert err.count("\n") == 1
    assert err.count("[b]y[/b]") == 40


@pytest.mark.parametrize(
    ("parts", "path"),
    [
        (("me",), "/v1/me"),
        (("tenants", "contoso", "members"), "/v1/tenants/contoso/members"),
        (("tenants", "../me?x=1#y"), "/v1/tenants/..%2Fme%3Fx%3D1%23y"),
        (("tenants", "ä b"), "/v1/tenants/%C3%A4%20b"),
    ],
)
def test_a_part_of_a_path_stays_one_part(parts: tuple[str, ...], path: str) -> None:
    assert client.at(*parts) == path
