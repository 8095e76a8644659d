"""`lockbox audit verify`: what it prints, its exit codes, and that it needs no network."""

import base64
import hashlib
import json
import re
import subprocess
import sys
from email.message import EmailMessage
from pathlib import Path
from uuid import UUID

import pytest
from typer.testing import CliRunner

from cli.app import app
from lockbox.audit.log.checkpoint import Checkpoint, VerifierKey, sign
from lockbox.audit.log.merkle import root_of
from tests.logs import KEY, OTHER_KEY, Log, event, line, public

LOG = Log([event(number) for number in range(20)])
NOT_COMPARED = "Intact as signed by the vendor; not compared with a checkpoint of yours."
CONTINUES = "Intact, continues your checkpoint of 2026-01-01 00:00 UTC."
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
OF_THE_COMMAND = {"cli.app", "cli.audit_group", "cli.lazy", "cli.verify_memory", "cli.verify"}
AUDIT = "lockbox.audit"
PURE = {
    *("lockbox", AUDIT, f"{AUDIT}.canonical", f"{AUDIT}.log", f"{AUDIT}.log.checkpoint", f"{AUDIT}.log.merkle"),
    *("lockbox.errors", f"{AUDIT}.verifier"),
}
VERIFIER = f"{AUDIT}.verifier."
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


def home(folder: Path) -> dict[str, str]:
    return {"HOME": str(folder)}


def verify(folder: Path, *words: str) -> tuple[int, str]:
    names = [str(folder / word) if (folder / word).exists() else word for word in words]
    env = {"COLUMNS": "200", "LOCKBOX_VERIFIED_FOLDER": str(folder / "verified")}
    result = CliRunner().invoke(app, ["audit", "verify", *names], env=env)
    return result.exit_code, result.stdout


def test_verify_exits_0_for_a_good_export_and_says_what_the_export_was_compared_with(folder: Path) -> None:
    code, said = verify(folder, "export.ndjson", "--checkpoint", "note", "--checkpoint", "older", "--key", "key")

    assert code == 0
    assert said.startswith(
        "Intact, continues your checkpoint of 2026-01-01 00:00 UTC. 20 events, a whole export of lockb"
    )
    assert "it extends your checkpoint of 7 events, signed at 2026-01-01 00:00 UTC" in said
    assert "it extends your checkpoint of 20 events" in said


def test_verify_accepts_a_key_as_text_and_mentions_a_missing_checkpoint(folder: Path) -> None:
    code, said = verify(folder, "export.ndjson", "--key", public().text)

    assert code == 0
    assert said.startswith(f"{NOT_COMPARED} 20 events")


def test_the_fingerprint_in_an_invitation_is_computed_from_the_audit_key(folder: Path) -> None:
    """By docs/audit-format.md: SHA-256 over the 32 bytes of the key, in groups of eight."""
    _, _, encoded = public().text.split("+", 2)
    digest = hashlib.sha256(base64.b64decode(encoded)[1:]).hexdigest()

    _, said = verify(folder, "export.ndjson", "--key", public().text)

    assert f"its fingerprint: {' '.join(re.findall('.{8}', digest))}; compare it" in said
    assert "of another name" not in said


def test_verify_mentions_a_key_whose_name_differs_from_the_name_of_the_log(folder: Path) -> None:
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


def test_verify_exits_1_for_a_tampered_export_and_names_the_place(folder: Path) -> None:
    rows = LOG.whole().splitlines(keepends=True)
    rows[5] = rows[5].replace(b"submit", b"submIt")
    (folder / "export.ndjson").write_bytes(b"".join(rows))

    code, said = verify(folder, "export.ndjson", "--checkpoint", "note", "--key", "key")

    assert code == 1
    assert said.startswith("Tampered.")
    assert "  edited: line 6, number 3: this event differs from what was sealed" in said


def test_verify_does_not_trust_an_unlisted_key(folder: Path) -> None:
    code, said = verify(folder, "export.ndjson", "--key", public(OTHER_KEY).text)

    assert code == 1
    assert "unknown key: the export's checkpoint is signed by" in said


def test_verify_exits_2_for_an_export_that_cannot_be_verified(folder: Path) -> None:
    (folder / "export.ndjson").write_bytes(LOG.filtered(lambda number: number == 3))

    code, said = verify(folder, "export.ndjson", "--checkpoint", "older", "--key", "key")

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
        ("export.ndjson", "--key", "key", "--checkpoint", "no-such-file"),
    ],
)
def test_verify_reports_unreadable_input_in_one_line_and_exits_3(folder: Path, words: tuple[str, ...]) -> None:
    code, said = verify(folder, *words)

    assert code == 3
    assert said.startswith("Cannot read it. ")
    assert len(said.splitlines()) == 1


@pytest.mark.far
def test_the_verify_command_needs_no_settings_and_no_network(folder: Path) -> None:
    words = ["audit", "verify", str(folder / "export.ndjson"), "--key", str(folder / "key")]

    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT_NETWORK, *words], capture_output=True, text=True, check=False, env=home(folder)
    )

    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("Intact as signed")


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
def test_verify_accepts_a_checkpoint_although_an_editor_changed_its_line_endings(folder: Path, saved: str) -> None:
    (folder / "note").write_bytes(saved.encode())

    code, said = verify(folder, "export.ndjson", "--checkpoint", "note", "--key", "key")

    assert code == 0
    assert "it extends your checkpoint of 20 events" in said


@pytest.mark.parametrize("ends", ["", "\r\n", "\r\n\r\n"])
def test_a_key_file_for_verify_may_have_any_line_endings(folder: Path, ends: str) -> None:
    (folder / "key").write_bytes(f"\ufeff{public(OTHER_KEY).text}\r\n{public().text}{ends}".encode())

    code, _ = verify(folder, "export.ndjson", "--key", "key")

    assert code == 0


@pytest.mark.far
def test_the_verify_command_imports_no_server_code(folder: Path) -> None:
    words = ["audit", "verify", str(folder / "export.ndjson"), "--key", str(folder / "key")]

    ended = subprocess.run(
        [sys.executable, "-c", LOADED, *words], capture_output=True, text=True, check=True, env=home(folder)
    )

    loaded = set(ended.stderr.split())
    assert ended.stdout.startswith("Intact as signed")
    assert {name for name in loaded if name.startswith("cli.")} == OF_THE_COMMAND
    ours = {name for name in loaded if name.startswith("lockbox.")}
    assert {name for name in ours if not name.startswith(VERIFIER)} <= PURE
    assert not {name.partition(".")[0] for name in loaded} & SERVERS


def test_verify_prints_no_terminal_escapes_from_a_file(folder: Path) -> None:
    rows = LOG.whole().splitlines(keepends=True)
    first = json.loads(rows[0])
    rows[0] = json.dumps(first | {"origin": "\x1b[2J[red]x"}).encode() + b"\n"
    (folder / "export.ndjson").write_bytes(b"".join(rows))

    code, said = verify(folder, "export.ndjson", "--key", "key")

    assert code == 1
    assert "\x1b[2J" not in said
    assert "[red]x" in said


def test_verify_requires_the_next_export_to_continue_the_verified_export(folder: Path) -> None:
    longer, forked = (
        Log([*LOG.events[: 20 - cut], *(event(90 + number) for number in range(cut + 5))]) for cut in (0, 1)
    )

    code, said = verify(folder, "export.ndjson", "--key", "key")
    assert (code, said.startswith(NOT_COMPARED)) == (0, True)

    (folder / "export.ndjson").write_bytes(forked.whole())
    code, said = verify(folder, "export.ndjson", "--key", "key")
    assert (code, said.startswith("Tampered.")) == (1, True)
    assert "forked: the log does not extend what it was at 20 events" in said

    (folder / "export.ndjson").write_bytes(longer.whole())
    code, said = verify(folder, "export.ndjson")
    assert (code, said.startswith(CONTINUES)) == (0, True)
    assert f"its fingerprint: {public().fingerprint}" in said


def test_verify_recognises_an_export_older_than_the_verified_export(folder: Path) -> None:
    verify(folder, "export.ndjson", "--key", "key")
    (folder / "export.ndjson").write_bytes(Log(LOG.events[:12], at="2025-12-31T00:00:00.000000Z").whole())

    code, said = verify(folder, "export.ndjson", "--key", "key")

    assert (code, said.startswith("Not fully verified.")) == (2, True)
    assert "has 20. That is well for a file that you kept from before; a fresh one is never shorter" in said
    again = verify(folder, "export.ndjson", "--checkpoint", "note", "--key", "key")
    assert (again[0], "a fresh one is never shorter" in again[1]) == (2, True)
    (folder / "export.ndjson").write_bytes(LOG.whole())
    assert verify(folder, "export.ndjson")[1].startswith(CONTINUES)


def test_verifying_one_log_says_nothing_about_another_log(folder: Path) -> None:
    verify(folder, "export.ndjson", "--key", "key")
    other = UUID(int=8)
    events = [event(number, log=other, tenant_id=other) for number in range(3)]
    (folder / "export.ndjson").write_bytes(Log(events, whose=str(other)).whole())

    code, said = verify(folder, "export.ndjson", "--key", "key")

    assert (code, said.startswith(NOT_COMPARED)) == (0, True)
    assert len(list((folder / "verified").iterdir())) == 2


def test_verify_does_not_accept_a_renamed_log_as_a_new_log(folder: Path) -> None:
    verify(folder, "export.ndjson", "--key", "key")
    (folder / "export.ndjson").write_bytes(Log(LOG.events[:12], name="other.test").whole())
    key = VerifierKey("other.test", public().public).text

    code, said = verify(folder, "export.ndjson", "--key", key)

    assert (code, said.startswith("Not fully verified.")) == (2, True)
    assert f"you have verified this log as {LOG.origin}; here it is called other.test/audit/" in said
    (folder / "export.ndjson").write_bytes(LOG.whole())
    assert verify(folder, "export.ndjson")[1].startswith(CONTINUES)


def test_without_a_key_nothing_is_verified_and_verify_says_where_keys_are(folder: Path) -> None:
    code, said = verify(folder, "export.ndjson")

    assert code == 3
    assert "no key is known for this log" in said
    assert not (folder / "verified").exists()


def test_verify_with_require_checkpoint_does_not_remember_an_export_it_could_not_compare(folder: Path) -> None:
    for _ in range(2):
        code, said = verify(folder, "export.ndjson", "--key", "key", "--require-checkpoint")
        assert (code, said.startswith(NOT_COMPARED)) == (2, True)

    verify(folder, "export.ndjson", "--key", "key")
    code, said = verify(folder, "export.ndjson", "--require-checkpoint")
    assert (code, said.startswith(CONTINUES)) == (0, True)


@pytest.mark.parametrize("what", ["", "{}", "[]", "nonsense", "another log"])
def test_verify_reports_a_damaged_memory_of_earlier_exports(folder: Path, what: str) -> None:
    verify(folder, "export.ndjson", "--key", "key")
    (file,) = (folder / "verified").iterdir()
    other = json.loads(file.read_text()) | {"note": Log(LOG.events, name="other.test").note()}
    file.write_text(json.dumps(other) if what == "another log" else what)

    code, said = verify(folder, "export.ndjson", "--key", "key")

    assert code == 3
    assert "move it away" in said


def test_verify_remembers_exports_in_a_private_file_and_works_without_the_file(folder: Path) -> None:
    verify(folder, "export.ndjson", "--key", "key")
    (file,) = (folder / "verified").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600

    file.unlink()
    (folder / "verified").rmdir()
    (folder / "verified").write_text("no folder")
    code, said = verify(folder, "export.ndjson", "--key", "key")
    assert (code, said.startswith("Cannot read it.")) == (3, True)


def test_verify_reads_keys_from_the_servers_environment_variable_too(folder: Path) -> None:
    env = {
        "COLUMNS": "200",
        "LOCKBOX_VERIFIED_FOLDER": str(folder / "verified"),
        "LOCKBOX_AUDIT_PUBLIC_KEYS": json.dumps([public(OTHER_KEY).text, public().text]),
    }

    result = CliRunner().invoke(app, ["audit", "verify", str(folder / "export.ndjson")], env=env)

    assert (result.exit_code, result.stdout.startswith(NOT_COMPARED)) == (0, True)


@pytest.mark.parametrize("encoding", ["8bit", "quoted-printable", "base64"])
def test_verify_reads_the_checkpoint_in_a_saved_audit_digest_mail(folder: Path, encoding: str) -> None:
    mail = EmailMessage()
    text = f"On Monday the audit log held 7 events.\n\n{LOG.note(7)}\nKey: {public().text}\nFingerprint: 12345678\n"
    mail.set_content(text, cte=encoding)
    mail.add_alternative("<p>On Monday</p>", subtype="html")
    (folder / "digest.eml").write_bytes(mail.as_bytes())
    (folder / "text.txt").write_text("\r\n".join(f"> {one}" for one in text.split("\n")), encoding="utf-8")

    for name in ("digest.eml", "text.txt"):
        code, said = verify(folder, "export.ndjson", "--checkpoint", name)

        assert (code, said.startswith(CONTINUES)) == (0, True), said
        assert "it extends your checkpoint of 7 events" in said


def test_verify_reads_no_key_from_a_tenant_name_in_a_digest_mail(folder: Path) -> None:
    forger = VerifierKey("lockbox.test", public(OTHER_KEY).public).text
    note = LOG.note(7)
    text = f"On Monday the audit log of {forger} Inc. held 7 events.\nKey: {forger}\n\n{note}\nKey: {public().text}\n"
    (folder / "text.txt").write_text(text, encoding="utf-8")
    (folder / "export.ndjson").write_bytes(Log(LOG.events, key=OTHER_KEY).whole())

    code, said = verify(folder, "export.ndjson", "--checkpoint", "text.txt")

    assert (code, said.startswith("Tampered.")) == (1, True)
    assert "which you do not trust" in said


def test_verify_does_not_trust_a_checkpoint_from_the_future(folder: Path) -> None:
    rows = LOG.whole().splitlines(keepends=True)
    said = Checkpoint(LOG.origin, 20, root_of(LOG.leaves), "2999-01-01T00:00:00.000000Z")
    rows[0] = line(json.loads(rows[0]) | {"checkpoint": sign(said, "lockbox.test", [KEY])})
    (folder / "export.ndjson").write_bytes(b"".join(rows))

    code, told = verify(folder, "export.ndjson", "--key", "key")

    assert code == 2
    assert "from the future: the checkpoint of 20 events was signed at 2999-01-01T00:00:00.000000Z" in told
