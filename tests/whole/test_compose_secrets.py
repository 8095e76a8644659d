"""The script that makes the secrets of docker-compose.yml: file names, modes, and that the settings accept them."""

import subprocess
from pathlib import Path

import pytest
from pydantic import SecretStr

from config.setting_fields import DEVELOPMENT_KEY
from config.settings import Settings
from lockbox.audit.log import signing_keys
from lockbox.audit.log.checkpoint import VerifierKey
from lockbox.identity import keyring
from lockbox.identity.keyring import ApprovalKeys
from tests.whole.compose import SCRIPTS, compose, ours
from tests.whole.containers import SHELL


def make(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SCRIPTS / "secrets", folder], capture_output=True, text=True, timeout=30, check=False)


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


@pytest.mark.far
def test_the_secrets_script_makes_the_secrets_of_the_compose_file_in_a_private_folder(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "secrets"

    made = make(folder)

    assert made.returncode == 0
    assert set(contents(folder)) == set(compose()["secrets"])
    assert folder.stat().st_mode & 0o777 == 0o700
    for path in folder.iterdir():
        assert path.stat().st_mode & 0o777 == 0o444
        assert path.read_text() not in made.stdout + made.stderr


@pytest.mark.far
def test_the_secrets_script_keeps_existing_secrets_and_makes_missing_secrets(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    make(folder)
    before = contents(folder)
    (folder / "lockbox_redis_url").unlink()
    (folder / "lockbox_flower_password").unlink()

    make(folder)

    after = contents(folder)
    assert after.pop("lockbox_flower_password") != before.pop("lockbox_flower_password")
    assert after == before
    assert len(set(before.values())) == len(before)


def test_the_secrets_script_refuses_a_folder_that_other_users_may_enter(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o755)

    refused = make(tmp_path / "open")

    assert refused.returncode == 1
    assert "0700" in refused.stderr
    assert contents(tmp_path / "open") == {}


@pytest.mark.far
def test_settings_load_from_the_files_of_the_secrets_script(tmp_path: Path) -> None:
    make(tmp_path / "secrets")

    settings = Settings(_secrets_dir=tmp_path / "secrets")

    for role, value in (
        ("api", settings.database_url),
        ("worker", settings.worker_database_url),
        ("notifications", settings.notifications_database_url),
        ("connectors", settings.connectors_database_url),
        ("owner", settings.owner_database_url),
    ):
        password = (tmp_path / "secrets" / f"lockbox_{role}_password").read_text()
        assert value == SecretStr(f"postgresql+psycopg://lockbox_{role}:{password}@postgres:5432/lockbox")
    password = (tmp_path / "secrets" / "redis_password").read_text()
    assert settings.redis_url == SecretStr(f"redis://:{password}@redis:6379/0")
    assert settings.flower_password
    assert len(settings.secret_keys) == 1
    assert settings.secret_keys[0] != DEVELOPMENT_KEY


@pytest.mark.far
def test_the_api_can_read_the_approval_key_of_the_secrets_script(tmp_path: Path) -> None:
    make(tmp_path / "secrets")

    (key,) = signing_keys.read([tmp_path / "secrets" / "lockbox_approval_key"])

    assert ApprovalKeys([key]).public.name == "lockbox/approvals"
    assert Settings(_secrets_dir=tmp_path / "secrets").approval_public_keys == (ApprovalKeys([key]).public.text,)


@pytest.mark.far
def test_the_code_key_made_by_the_secrets_script_is_the_key_the_api_derives(tmp_path: Path) -> None:
    make(tmp_path / "secrets")

    ring = keyring.read([tmp_path / "secrets" / "lockbox_credential_key"])
    codes = keyring.read_codes([tmp_path / "secrets" / "lockbox_code_key"])

    nonce = ring.codes.nonce()
    assert codes.long(nonce, "about", 1) == ring.codes.long(nonce, "about", 1)
    assert codes.long(nonce, "about", 1) is not None


@pytest.mark.far
def test_the_row_mac_key_made_by_the_secrets_script_is_derived_from_the_credential_key(tmp_path: Path) -> None:
    make(tmp_path / "secrets")

    ring = keyring.read([tmp_path / "secrets" / "lockbox_credential_key"])
    marks = keyring.read_marks([tmp_path / "secrets" / "lockbox_mark_key"])

    assert marks.powers.is_mark(ring.powers.mark("membership", 1), "membership", 1)


@pytest.mark.far
def test_the_public_key_made_by_the_secrets_script_belongs_to_the_audit_key(tmp_path: Path) -> None:
    make(tmp_path / "secrets")

    (key,) = signing_keys.read([tmp_path / "secrets" / "lockbox_audit_key"])
    settings = Settings(_secrets_dir=tmp_path / "secrets")

    name = ours()["worker"]["environment"]["LOCKBOX_AUDIT_NAME"]
    assert settings.audit_public_keys == (VerifierKey(name, key.public_key().public_bytes_raw()).text,)


@pytest.mark.far
def test_the_public_key_of_a_replaced_audit_key_stays_listed_after_the_newest(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    make(folder)
    (before,) = Settings(_secrets_dir=folder).audit_public_keys
    (folder / "lockbox_audit_key").unlink()

    make(folder)

    newest, earlier = Settings(_secrets_dir=folder).audit_public_keys
    assert newest != before
    assert earlier == before


def test_the_secrets_scripts_are_posix_shell_and_stop_at_errors() -> None:
    for name in ("secrets", "roles.sh", "valkey.sh"):
        text = (SCRIPTS / name).read_text()

        assert text.startswith("#!/bin/sh\n")
        assert "\nset -eu\n" in text
        subprocess.run([SHELL, "-n", SCRIPTS / name], check=True, timeout=10)
