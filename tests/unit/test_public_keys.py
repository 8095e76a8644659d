"""Public keys of logs and approvals: printed for people who verify, and passed to the processes that use them."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from catalogue.unsafe_settings import UnsafeSettings
from cli.operate import app as operate
from config.settings import Settings, load
from devstack.stack import APPROVAL_KEY, AUDIT_KEY, StackPlan, make_keys
from lockbox.audit.log import signing_keys
from lockbox.audit.log.checkpoint import VerifierKey
from lockbox.audit.verifier.approval_checks import NAME
from tests.logs import public

CHECKING = ("notifications", "connectors")


def printed(monkeypatch: pytest.MonkeyPatch, *files: Path) -> str:
    monkeypatch.setenv("LOCKBOX_AUDIT_NAME", "lockbox.example")
    monkeypatch.setenv("LOCKBOX_AUDIT_KEY_FILES", json.dumps([str(file) for file in files]))
    return CliRunner().invoke(operate, ["public-keys"]).output


def test_the_public_keys_command_prints_keys_in_file_order_in_the_form_of_their_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [signing_keys.make(tmp_path / name).public_key().public_bytes_raw() for name in ("new", "old")]

    text = printed(monkeypatch, tmp_path / "new", tmp_path / "old")

    monkeypatch.setenv("LOCKBOX_AUDIT_PUBLIC_KEYS", text)
    wanted = [VerifierKey("lockbox.example", public) for public in made]
    assert Settings().audit_public_keys == tuple(key.text for key in wanted)
    assert signing_keys.trusted(Settings().audit_public_keys) == {key.id: key for key in wanted}


def test_the_public_keys_command_says_that_key_files_are_unset_or_unreadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "LOCKBOX_AUDIT_KEY_FILES is not set" in printed(monkeypatch)
    assert "nothing-here cannot be read" in printed(monkeypatch, tmp_path / "nothing-here")


@pytest.mark.parametrize("process", ["api", "worker", "notifications", "connectors"])
def test_the_development_stack_gives_the_audit_public_keys_to_every_process_but_flower(
    tmp_path: Path, process: str
) -> None:
    plan = StackPlan(
        "", "", "", "", "", "", servers=None, keys=make_keys(tmp_path / "keys"), api_port=8000, flower_port=5555
    )

    told = json.loads(plan.variables(process)["LOCKBOX_AUDIT_PUBLIC_KEYS"])

    (key,) = signing_keys.read([tmp_path / "keys" / AUDIT_KEY])
    assert told == [VerifierKey("localhost", key.public_key().public_bytes_raw()).text]
    assert "LOCKBOX_AUDIT_PUBLIC_KEYS" not in plan.variables("flower")


def test_the_development_stack_gives_approval_keys_only_to_processes_that_use_the_keys(tmp_path: Path) -> None:
    plan = StackPlan(
        "", "", "", "", "", "", servers=None, keys=make_keys(tmp_path / "keys"), api_port=8000, flower_port=5555
    )

    told = {process: plan.variables(process) for process in ("api", *CHECKING, "worker", "flower")}

    (key,) = signing_keys.read([tmp_path / "keys" / APPROVAL_KEY])
    public_half = VerifierKey(NAME, key.public_key().public_bytes_raw()).text
    for process in CHECKING:
        assert json.loads(told[process]["LOCKBOX_APPROVAL_PUBLIC_KEYS"]) == [public_half]
    assert [name for name in told if "LOCKBOX_APPROVAL_PUBLIC_KEYS" in told[name]] == list(CHECKING)
    assert [name for name in told if APPROVAL_KEY in str(told[name])] == ["api"]


def test_an_approval_key_has_a_name_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCKBOX_APPROVAL_PUBLIC_KEYS", json.dumps([public().text]))

    with pytest.raises(UnsafeSettings, match=r"LOCKBOX_APPROVAL_PUBLIC_KEYS.*--of-approvals"):
        load()


def test_approval_public_keys_are_printed_in_the_form_of_their_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [tmp_path / "newest", tmp_path / "older"]
    wanted = [VerifierKey(NAME, signing_keys.make(file).public_key().public_bytes_raw()).text for file in files]
    words = ["public-keys", "--of-approvals"]

    assert "LOCKBOX_APPROVAL_KEY_FILES is not set" in CliRunner().invoke(operate, words).output
    monkeypatch.setenv("LOCKBOX_APPROVAL_KEY_FILES", json.dumps([str(file) for file in files]))
    printed = CliRunner().invoke(operate, words).output
    monkeypatch.setenv("LOCKBOX_APPROVAL_PUBLIC_KEYS", printed)

    assert load().approval_public_keys == tuple(wanted)


def test_a_customers_public_keys_are_the_keys_of_logs_and_approvals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_log = VerifierKey("lockbox.example", signing_keys.make(tmp_path / "log").public_key().public_bytes_raw())
    of_approvals = VerifierKey(NAME, signing_keys.make(tmp_path / "approvals").public_key().public_bytes_raw())
    words = ["public-keys", "--for-customers"]

    monkeypatch.setenv("LOCKBOX_AUDIT_PUBLIC_KEYS", json.dumps([of_log.text]))
    assert "LOCKBOX_APPROVAL_KEY_FILES" in CliRunner().invoke(operate, words).output

    monkeypatch.setenv("LOCKBOX_APPROVAL_KEY_FILES", json.dumps([str(tmp_path / "approvals")]))
    assert CliRunner().invoke(operate, words).output.split() == [of_log.text, of_approvals.text]
