"""`lockbox audit verify`: what it prints, its exit codes, and that it calls nobody."""

import base64
import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.app import app
from lockbox.audit.checkpoint import Checkpoint, VerifierKey, sign
from lockbox.audit.merkle import root_of
from tests.logs import OTHER_KEY, Log, event, line, public

LOG = Log([event(number) for number in range(20)])
WITHOUT_NETWORK = """
import socket, sys
def refuse(*_, **__): raise SystemExit("it called somebody")
socket.socket.connect = socket.getaddrinfo = refuse
sys.argv = ["lockbox", *sys.argv[1:]]
from cli.app import main
main()
"""
LOADED = """
import sys
sys.argv = ["lockbox", *sys.argv[1:]]
from cli.app import main
try:
    main()
finally:
    print(*sys.modules, file=sys.stderr)
"""
OF_THE_COMMAND = {"cli.app", "cli.auditing", "cli.lazy", "cli.verifying"}
PARTS = ("approved", "bodies", "canonical", "checkpoint", "exported", "findings", "holding", "merkle", "moves")
PURE = {"lockbox.audit", *(f"lockbox.audit.{name}" for name in (*PARTS, "placing", "remarks", "tiles", "verify"))}
SERVERS = {
    *("alembic", "celery", "config", "fastapi", "httpx", "jinja2", "kombu", "psycopg", "redis"),
    *("sqlalchemy", "sqlmodel", "starlette", "structlog"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with an export, its checkpoint, an older one, and the key."""
    (tmp_path / "export.ndjson").write_bytes(LOG.whole())
    (tmp_path / "note").write_text(LOG.note(), encoding="utf-8")
    (tmp_path / "older").write_text(LOG.note(7), encoding="utf-8")
    (tmp_path / "key").write_text(f"{public().text}\n{public(OTHER_KEY).text}\n", encoding="utf-8")
    return tmp_path


def verify(folder: Path, *words: str) -> tuple[int, str]:
    names = [str(folder / word) if (folder / word).exists() else word for word in words]
    result = CliRunner().invoke(app, ["audit", "verify", *names], env={"COLUMNS": "200"})
    return result.exit_code, result.stdout


def test_a_good_export_ends_with_0_and_says_what_it_was_held_against(folder: Path) -> None:
    code, said = verify(folder, "export.ndjson", "--checkpoint", "note", "--since", "older", "--key", "key")

    assert code == 0
    assert said.startswith("Good. 20 events, a whole export of lockbox.test/audit/")
    assert "it extends the checkpoint that you gave, of 7 events" in said
    assert "it extends the checkpoint that you gave, of 20 events" in said


def test_a_key_may_be_given_as_text_and_a_missing_checkpoint_is_remarked(folder: Path) -> None:
    code, said = verify(folder, "export.ndjson", "--key", public().text)

    assert code == 0
    assert "no --checkpoint was given" in said


def test_the_fingerprint_that_an_invitation_bears_is_worked_out_from_the_key_alone(folder: Path) -> None:
    """By docs/audit-format.md: SHA-256 over the 32 bytes of the key, in groups of eight."""
    _, _, encoded = public().text.split("+", 2)
    digest = hashlib.sha256(base64.b64decode(encoded)[1:]).hexdigest()

    _, said = verify(folder, "export.ndjson", "--key", public().text)

    assert f"the fingerprint of that key: {' '.join(re.findall('.{8}', digest))}; compare it" in said
    assert "of another name" not in said


def test_a_key_of_another_name_than_the_log_is_remarked(folder: Path) -> None:
    other = Log(LOG.events, key=OTHER_KEY)
    name = VerifierKey("evil.example", OTHER_KEY.public_key().public_bytes_raw())
    said = Checkpoint(other.origin, 20, root_of(other.leaves), "2026-01-01T00:00:00.000000Z")
    rows = other.whole().splitlines(keepends=True)
    rows[0] = line(json.loads(rows[0]) | {"checkpoint": sign(said, name.name, [OTHER_KEY])})
    (folder / "export.ndjson").write_bytes(b"".join(rows))

    code, said_of_it = verify(folder, "export.ndjson", "--key", name.text)

    assert code == 0
    assert (
        f"the log is of another name than the key: give no --key but those of whoever keeps {LOG.origin}"
        in said_of_it
    )


def test_what_is_wrong_ends_with_1_and_is_named_with_its_place(folder: Path) -> None:
    rows = LOG.whole().splitlines(keepends=True)
    rows[5] = rows[5].replace(b"submit", b"submIt")
    (folder / "export.ndjson").write_bytes(b"".join(rows))

    code, said = verify(folder, "export.ndjson", "--checkpoint", "note", "--key", "key")

    assert code == 1
    assert said.startswith("NOT AS IT WAS SEALED.")
    assert "  edited: line 6, number 3: this event is not as it was sealed" in said


def test_a_key_that_was_not_given_is_not_trusted(folder: Path) -> None:
    code, said = verify(folder, "export.ndjson", "--key", public(OTHER_KEY).text)

    assert code == 1
    assert "unknown key: the export's checkpoint is signed by" in said


def test_what_cannot_be_shown_ends_with_2(folder: Path) -> None:
    (folder / "export.ndjson").write_bytes(LOG.filtered(lambda number: number == 3))

    code, said = verify(folder, "export.ndjson", "--since", "older", "--key", "key")

    assert code == 2
    assert "export it again with since=7" in said


@pytest.mark.parametrize(
    "words",
    [
        ("no-such-file", "--key", "key"),
        ("key", "--key", "key"),
        ("export.ndjson", "--key", "no key"),
        ("export.ndjson", "--key", "export.ndjson"),
        ("export.ndjson", "--key", "key", "--checkpoint", "key"),
        ("export.ndjson", "--key", "key", "--checkpoint", "export.ndjson"),
        ("export.ndjson", "--key", "key", "--since", "no-such-file"),
    ],
)
def test_what_cannot_be_read_ends_with_3_and_a_line(folder: Path, words: tuple[str, ...]) -> None:
    code, said = verify(folder, *words)

    assert code == 3
    assert said.startswith("Cannot read it. ")
    assert len(said.splitlines()) == 1


def test_it_needs_no_settings_and_calls_nobody(folder: Path) -> None:
    words = ["audit", "verify", str(folder / "export.ndjson"), "--key", str(folder / "key")]

    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT_NETWORK, *words], capture_output=True, text=True, check=False, env={}
    )

    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("Good.")


@pytest.mark.parametrize(
    "saved",
    [
        LOG.note().replace("\n", "\r\n"),
        LOG.note().removesuffix("\n"),
        LOG.note() + "\n",
        "\n" + LOG.note() + "\n\n",
        "\ufeff" + LOG.note(),
    ],
    ids=["CRLF", "no last line feed", "one more", "empty lines around", "a mark of the byte order"],
)
def test_a_checkpoint_that_an_editor_saved_in_its_own_way_is_the_same(folder: Path, saved: str) -> None:
    (folder / "note").write_bytes(saved.encode())

    code, said = verify(folder, "export.ndjson", "--checkpoint", "note", "--key", "key")

    assert code == 0
    assert "it extends the checkpoint that you gave, of 20 events" in said


@pytest.mark.parametrize("ends", ["", "\r\n", "\r\n\r\n"])
def test_a_file_of_keys_may_end_its_lines_as_it_likes(folder: Path, ends: str) -> None:
    (folder / "key").write_bytes(f"\ufeff{public(OTHER_KEY).text}\r\n{public().text}{ends}".encode())

    code, _ = verify(folder, "export.ndjson", "--key", "key")

    assert code == 0


def test_what_the_file_alone_says_is_taken_only_where_that_is_allowed(folder: Path) -> None:
    withheld = Log(LOG.events, withheld=[range(3, 5)]).whole()
    (folder / "export.ndjson").write_bytes(withheld.replace(b'"unproven":0', b'"unproven":2'))
    words = ("export.ndjson", "--key", "key")

    alone, said = verify(folder, *words)
    half, _ = verify(folder, *words, "--allow-withheld")
    taken, remarked = verify(folder, *words, "--allow-withheld", "--allow-unproven")

    assert (alone, half, taken) == (2, 2, 0)
    assert "withheld: the file says that 2 events are withheld" in said
    assert "before the seals: the file says that its first 2 events are older than the seals" in said
    assert "the file says that 2 events are withheld" in remarked


def test_it_loads_nothing_of_the_server(folder: Path) -> None:
    words = ["audit", "verify", str(folder / "export.ndjson"), "--key", str(folder / "key")]

    ended = subprocess.run([sys.executable, "-c", LOADED, *words], capture_output=True, text=True, check=True, env={})

    loaded = set(ended.stderr.split())
    assert ended.stdout.startswith("Good.")
    assert {name for name in loaded if name.startswith("cli.")} == OF_THE_COMMAND
    assert {name for name in loaded if name.startswith("lockbox.")} <= PURE
    assert not {name.partition(".")[0] for name in loaded} & SERVERS


def test_marks_for_a_terminal_in_a_file_are_not_obeyed(folder: Path) -> None:
    rows = LOG.whole().splitlines(keepends=True)
    first = json.loads(rows[0])
    rows[0] = json.dumps(first | {"origin": "\x1b[2J[red]x"}).encode() + b"\n"
    (folder / "export.ndjson").write_bytes(b"".join(rows))

    code, said = verify(folder, "export.ndjson", "--key", "key")

    assert code == 1
    assert "\x1b[2J" not in said
    assert "[red]x" in said
