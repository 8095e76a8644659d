"""`lockbox audit verify` after a restore: an option accepts that one restore, and later exports continue."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cli.app import app
from lockbox.audit.log import checkpoint
from lockbox.audit.verifier.export_format import FindingKind
from tests.logs import Log, event, public
from tests.unit.test_verifier_statements import AFTER, BEFORE, COMMON, gone_on

INTACT, TAMPERED, UNSURE = 0, 1, 2


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that remembers an export from before the restore, and holds one from after it."""
    (tmp_path / "before").write_bytes(BEFORE.whole())
    (tmp_path / "after").write_bytes(AFTER.whole())
    assert verify(tmp_path, "before").exit_code == INTACT
    return tmp_path


def verify(folder: Path, file: str, *options: str | int | Path) -> Result:
    """Run the command on a file of the folder, with the folder's memory of exports."""
    words = ["audit", "verify", str(folder / file), "--key", public().text, "--memory", str(folder / "verified")]
    return CliRunner().invoke(app, [*words, *map(str, options)], env={"COLUMNS": "200"})


def remembered(folder: Path) -> str:
    """Return the origin of the checkpoint that the next export has to continue."""
    (file,) = (folder / "verified").iterdir()
    return checkpoint.read(json.loads(file.read_text())["note"]).origin


def test_verify_does_not_accept_a_restored_log_by_default_and_names_the_option_that_accepts_it(folder: Path) -> None:
    results = [verify(folder, "after"), verify(folder, "after")]

    for result in results:
        assert (result.exit_code, f"--accept-restore {COMMON}" in result.stdout) == (UNSURE, True)
        assert f"{FindingKind.RESTORED}: number {COMMON}: a back-up was restored" in result.stdout
    assert remembered(folder) == BEFORE.origin


def test_verify_accepts_a_restore_once_and_later_exports_continue_the_new_checkpoint(folder: Path) -> None:
    accepted = verify(folder, "after", "--accept-restore", COMMON)
    known = remembered(folder)
    later = verify(folder, "after")

    assert (accepted.exit_code, accepted.stdout.startswith("Intact as signed by the vendor")) == (INTACT, True)
    said = f"restore accepted (event number {COMMON}): your checkpoint of {len(BEFORE.events)} events is not compared"
    assert said in accepted.stdout
    assert known == AFTER.origin
    assert (later.exit_code, later.stdout.startswith("Intact, continues your checkpoint")) == (INTACT, True)


def test_an_older_checkpoint_satisfies_verify_where_a_checkpoint_is_required(folder: Path) -> None:
    (folder / "older").write_text(BEFORE.note(COMMON), encoding="utf-8")
    accepts = ("--accept-restore", COMMON, "--require-checkpoint")

    without = verify(folder, "after", *accepts)
    known = remembered(folder)
    shown = verify(folder, "after", *accepts, "--checkpoint", folder / "older")

    assert (without.exit_code, known) == (UNSURE, BEFORE.origin)
    assert (shown.exit_code, shown.stdout.startswith("Intact, continues your checkpoint")) == (INTACT, True)
    assert remembered(folder) == AFTER.origin


def test_verify_accepts_only_the_restore_named_by_its_option(folder: Path) -> None:
    other = verify(folder, "after", "--accept-restore", COMMON + 1)
    assert verify(folder, "after", "--accept-restore", COMMON).exit_code == INTACT
    (folder / "again").write_bytes(gone_on(AFTER, 200, 3).whole())
    again = verify(folder, "again", "--accept-restore", COMMON)

    assert (other.exit_code, "--accept-restore 300" in other.stdout) == (UNSURE, True)
    assert (again.exit_code, "--accept-restore 200" in again.stdout) == (UNSURE, True)
    assert remembered(folder) == AFTER.origin


def test_verify_reports_tampering_with_a_restored_log_even_if_an_option_accepts_the_restore(folder: Path) -> None:
    silent = Log([*BEFORE.events[:COMMON], event(20_000)], generation=2)
    cut_back = Log(BEFORE.events[:COMMON], at="2025-12-31T00:00:00.000000Z")
    changed = AFTER.whole().replace(b"Erin 7", b"Eric 7", 1)
    for name, content in (("silent", silent.whole()), ("changed", changed), ("cut back", cut_back.whole())):
        (folder / name).write_bytes(content)

    codes = {name: verify(folder, name, "--accept-restore", COMMON).exit_code for name in ("silent", "changed")}
    shorter = verify(folder, "cut back", "--accept-restore", COMMON)

    assert codes == {"silent": TAMPERED, "changed": TAMPERED}
    assert shorter.exit_code == UNSURE
    assert remembered(folder) == BEFORE.origin


def test_verify_accepts_no_restore_if_the_export_is_filtered_or_the_checkpoint_was_given_up(folder: Path) -> None:
    (folder / "filtered").write_bytes(AFTER.filtered(lambda number: number == COMMON))
    (folder / "given up").write_text(BEFORE.note(), encoding="utf-8")

    filtered = verify(folder, "filtered", "--accept-restore", COMMON)
    given = verify(folder, "after", "--accept-restore", COMMON, "--checkpoint", folder / "given up")
    known = remembered(folder)
    verify(folder, "after", "--accept-restore", COMMON)
    later = verify(folder, "after", "--checkpoint", folder / "given up")

    assert (filtered.exit_code, given.exit_code, known) == (UNSURE, UNSURE, BEFORE.origin)
    assert (later.exit_code, "--accept-restore" in later.stdout) == (UNSURE, False)
