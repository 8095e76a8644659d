"""The words of the command line: help for every command, fitting a terminal, and values as people write them."""

import csv
import io
import re
import shlex
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from rich.text import Text
from typer.main import get_command
from typer.testing import CliRunner

from cli import client, request_table, terminal, values
from cli.app import app
from cli.lazy import LazyGroup, commands_of
from cli.terminal import Facts, Listing, OutputFormat
from cli.values import Duration
from lockbox.facts.enumerations import State
from lockbox.notifications import account_mail
from lockbox.notifications.account_mail import DIGEST, AccountMail
from lockbox.notifications.mail_text import OUTLIVED
from tests.each import each

COMMANDS = get_command(app)


def walked(command: Any = COMMANDS, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command and group with the words that lead to it."""
    yield path, command
    for name, part in commands_of(command).items():
        yield from walked(part, (*path, name))


FOUND = dict(walked())
PATHS = list(FOUND)


def helped(path: tuple[str, ...]) -> str:
    """Return the help of a command in a terminal of eighty columns."""
    result = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"})
    assert result.exit_code == 0
    return result.stdout


@pytest.mark.far
@each("path", PATHS)
def test_every_cli_command_has_help_within_eighty_columns(path: tuple[str, ...]) -> None:
    text = helped(path)

    assert FOUND[path].help
    assert max(map(len, text.splitlines())) <= 80
    assert "..." not in re.sub(r"\[OPTIONS\].*", "", text), "a sentence is cut: shorten its first one"


@each("path", PATHS)
def test_every_cli_option_and_argument_has_help(path: tuple[str, ...]) -> None:
    bare = [part.name for part in FOUND[path].params if not getattr(part, "help", None)]

    assert bare == []


@pytest.mark.far
@each("path", [path for path in PATHS if not hasattr(FOUND[path], "commands")])
def test_every_cli_command_that_lists_or_shows_data_has_output_formats(path: tuple[str, ...]) -> None:
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

    has_formats = any("--output" in part.opts for part in FOUND[path].params)

    assert has_formats or not reads


@each("path", [path for path in PATHS if isinstance(FOUND[path], LazyGroup)])
def test_a_lazily_loaded_group_shows_the_same_help_as_its_commands(path: tuple[str, ...]) -> None:
    group = FOUND[path]

    for name, part in commands_of(group).items():
        assert group.commands[name].get_short_help_str(80) == part.get_short_help_str(80)


def test_cli_commands_are_listed_in_their_usual_order() -> None:
    listed = re.findall(r"^  ([a-z-]+)  +[A-Z]", helped(()).partition("Commands:")[2], re.MULTILINE)

    assert listed[:3] == ["me", "request", "access"]
    assert listed[-3:] == ["bootstrap", "migrate", "sample"]
    assert sorted(listed) == sorted(COMMANDS.commands)  # type: ignore[attr-defined]


def test_cli_commands_named_in_a_digest_mail_exist() -> None:
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

    said = account_mail.render(
        content, public_url="https://lockbox.example", services={}, sender="lockbox@lockbox.example"
    ).text
    assert "Approvals are signed by another key" in said
    commands = re.findall(r"^ +lockbox (\S+) (\S+) (.*?)(?: > \S+)?$", said, re.MULTILINE)

    assert [words[:2] for words in commands] == [("audit", "export"), ("audit", "verify")]
    for *path, options in commands:
        FOUND[tuple(path)].make_context(" ".join(path), shlex.split(options))


def test_no_cli_command_takes_a_token_as_an_argument() -> None:
    names = {name for command in FOUND.values() for part in command.params for name in part.opts}

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
def test_the_cli_prints_values_as_people_write_them(value: object, shown: str) -> None:
    assert values.shown(value).plain == shown


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(1, "1 s"), (59, "59 s"), (60, "1 min"), (90, "90 s"), (3600, "1 h"), (5400, "90 min"), (259200, "3 d")],
)
def test_the_cli_prints_a_duration_in_the_largest_exact_unit(seconds: int, said: str) -> None:
    assert str(Duration(seconds)) == said


AT = "2030-05-01T08:00:01.123456Z"


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("berlin")
def test_the_cli_prints_times_in_local_time_and_sends_utc() -> None:
    instant = values.moment(AT)

    assert str(instant) == "2030-05-01 10:00:01"
    assert values.exact(instant) == AT
    assert values.shown(values.moment(None)).plain == "-"


@pytest.mark.usefixtures("berlin")
def test_cli_output_states_the_time_zone_once(capsys: pytest.CaptureFixture[str]) -> None:
    at = values.moment(AT)
    listing = Listing.of(("Time", "What"), [(at, values.phrase("open until ", at)), (at, None)])

    terminal.show(OutputFormat.TABLE, {}, listing, values.phrase("Since ", at))
    out = capsys.readouterr().out

    assert out.count("Times are in Europe/Berlin (UTC+0") == 1
    assert out.count("10:00:01") == 4
    assert "08:00" not in out


def test_cli_output_without_times_states_no_time_zone(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.show(OutputFormat.TABLE, {}, Facts({"Name": "Ann"}), "Done.")

    assert "Times" not in capsys.readouterr().out


def test_every_request_state_has_a_label_in_the_cli() -> None:
    assert set(request_table.WORDS) == {*State, OUTLIVED}


TERMINAL = {"TTY_COMPATIBLE": "1", "TERM": "dumb", "LINES": "25", "COLUMNS": "80"}
ID = "01a20f05-b903-72c9-a099-71e4eacade78"


def printed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int, long: int
) -> list[str]:
    """Print a table with an id and a word of this length, and return its lines."""
    for name, value in (TERMINAL | {"COLUMNS": str(columns)}).items():
        monkeypatch.setenv(name, value)
    terminal.show(OutputFormat.TABLE, {}, Listing.of(("Id", "Name"), [(ID, "x" * long), ("short", "[red]y")]))
    return [line.rstrip() for line in capsys.readouterr().out.splitlines()]


def test_a_cli_table_that_fits_has_one_line_for_each_row(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = printed(capsys, monkeypatch, 80, 40)

    assert lines == [f"{'Id':36}  Name", f"{ID}  {'x' * 40}", f"{'short':36}  [red]y"]


def test_a_cli_table_that_is_too_wide_becomes_a_list_of_facts(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = printed(capsys, monkeypatch, 80, 60)

    assert lines == [f"Id    {ID}", f"Name  {'x' * 60}", "", "Id    short", "Name  [red]y"]


def test_cli_output_does_not_cut_a_word_wider_than_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = printed(capsys, monkeypatch, 50, 120)

    assert f"Id    {ID}" in lines
    assert "".join(lines).count("x") == 120
    assert max(map(len, lines)) <= 50


def test_the_cli_says_in_words_that_a_list_is_empty(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.show(OutputFormat.TABLE, {}, Listing.of(("Id",), []))

    assert capsys.readouterr().out == "None.\n"


def test_a_cli_table_written_to_a_file_has_one_line_for_each_row(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")

    terminal.show(OutputFormat.TABLE, {}, Listing.of(("Id", "Name"), [(ID, "x" * 300)]))

    assert capsys.readouterr().out.splitlines()[1].rstrip() == f"{ID}  {'x' * 300}"


def test_ids_shortened_by_the_cli_remain_distinct(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    same_millisecond = [f"01a20f05-b903-7{digit}c9-a099-71e4eacade78" for digit in "12"]
    rows = {1: [ID], 2: same_millisecond}
    for name, value in TERMINAL.items():
        monkeypatch.setenv(name, value)

    shown = {}
    for number, ids in rows.items():
        listing = Listing.of(("Id", "Name"), [(values.Identifier(one), "x") for one in ids])
        terminal.show(OutputFormat.TABLE, {}, listing)
        shown[number] = [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]]

    assert shown == {1: ["01a20f05-b903"], 2: ["01a20f05-b903-71c9", "01a20f05-b903-72c9"]}


def test_cli_csv_contains_ids_in_full_and_times_in_utc_and_the_words_of_the_api(
    capsys: pytest.CaptureFixture[str],
) -> None:
    row = (
        values.Identifier(ID),
        values.moment(AT),
        values.Word("timed_out"),
        Duration(900),
        ["tenant_admin", "approver"],
        values.phrase("until ", values.moment(AT)),
        None,
        True,
    )
    names = ("Id", "At", "State", "Window", "Roles", "Good", "Case", "Open")

    terminal.show(OutputFormat.CSV, {}, "Not in a file.", Listing.of(names, [row]))

    read = list(csv.reader(io.StringIO(capsys.readouterr().out)))
    assert read == [
        [*names],
        [ID, AT, "timed_out", "900", "tenant_admin, approver", f"until {AT}", "", "true"],
    ]


@each("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\tx"])
def test_no_cell_of_a_cli_csv_is_a_formula(capsys: pytest.CaptureFixture[str], text: str) -> None:
    terminal.show(OutputFormat.CSV, {}, Facts({"Comment": text}))

    assert list(csv.reader(io.StringIO(capsys.readouterr().out)))[1] == [f"'{text}"]


def test_an_empty_cli_csv_has_its_header(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.show(OutputFormat.CSV, {}, Listing.of(("Id", "Name"), []))

    assert capsys.readouterr().out == "Id,Name\n"


@pytest.mark.parametrize(("page", "said"), [({"next_cursor": None}, ""), ({"next_cursor": "b"}, "--cursor b")])
def test_a_cli_list_with_more_pages_says_how_to_continue(
    capsys: pytest.CaptureFixture[str], page: Mapping[str, Any], said: str
) -> None:
    terminal.more(OutputFormat.TABLE, page)

    assert said in capsys.readouterr().out


def test_the_hint_how_to_continue_a_cli_list_is_printed_to_stderr_only(capsys: pytest.CaptureFixture[str]) -> None:
    for output in (OutputFormat.CSV, OutputFormat.JSON):
        terminal.more(output, {"next_cursor": "b"})

    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "There are more: --cursor b\n")


def test_a_long_refusal_stays_on_one_line_of_cli_output(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
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
def test_a_path_part_with_slashes_stays_one_part(parts: tuple[str, ...], path: str) -> None:
    assert client.at(*parts) == path
