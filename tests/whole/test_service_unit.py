"""A unit as `lockbox doctor --unit` reads it: its drop-ins, its instance, its settings, and its user."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.app import app
from cli.doctor.unit import ServiceUnit, UnitRefused
from harness.stage import own_folder
from tests.whole.test_doctor import as_nobody

UNIT = """
[Unit]
Description=User=nobody is no setting of this part

[Service]
# User=root
User=4711
Group=4712
SupplementaryGroups=4713 4714
EnvironmentFile={folder}/all.env
EnvironmentFile=-{folder}/missing.env
EnvironmentFile={folder}/own.env
Environment=REMAP_SIGTERM=SIGQUIT "GREETING=good day"
WorkingDirectory=/srv/\\
lockbox
ExecStart=/bin/%p-%i
"""


@pytest.fixture
def units(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the template of a unit; every user may read it."""
    with own_folder("service-unit") as tmp_path:
        _fill(tmp_path)
        monkeypatch.setenv("SYSTEMD_UNIT_PATH", str(tmp_path))
        yield tmp_path


def _fill(tmp_path: Path) -> None:
    (tmp_path / "lockbox-worker@.service").write_text(UNIT.format(folder=tmp_path))
    (tmp_path / "all.env").write_text("LOCKBOX_REDIS_URL=redis://a\n# LOCKBOX_X=y\nLOCKBOX_PUBLIC_URL=https://x\n")
    (tmp_path / "own.env").write_text("LOCKBOX_AUDIT_KEY_FILES='[\"a b\"]'\nLOCKBOX_REDIS_URL=redis://b\n")


def test_a_systemd_instance_is_read_from_its_template(units: Path) -> None:
    unit = ServiceUnit.read("lockbox-worker@2.service")

    assert unit.user == (4711, 4712, [4712, 4713, 4714])
    assert unit.last("ExecStart") == "/bin/lockbox-worker-2"
    assert unit.last("WorkingDirectory").replace(" ", "") == "/srv/lockbox"
    found = unit.environment
    assert found["LOCKBOX_REDIS_URL"] == "redis://b", "of two files the last one counts"
    assert found["LOCKBOX_AUDIT_KEY_FILES"] == '["a b"]'
    assert (found["REMAP_SIGTERM"], found["GREETING"]) == ("SIGQUIT", "good day")
    assert "LOCKBOX_X" not in found
    assert [file.name for file, _ in unit.files] == ["all.env", "missing.env", "own.env"]
    assert units.exists()


def test_a_systemd_drop_in_overrides_a_setting_and_an_empty_value_resets_a_list(units: Path) -> None:
    (units / "lockbox-worker@2.service.d").mkdir()
    drop_in = "[Service]\nGroup=4715\nSupplementaryGroups=\nEnvironmentFile=\nEnvironment=\n"
    (units / "lockbox-worker@2.service.d" / "own.conf").write_text(drop_in)

    changed, other = ServiceUnit.read("lockbox-worker@2"), ServiceUnit.read("lockbox-worker@3")

    assert changed.user == (4711, 4715, [4715])
    assert [name for name in changed.environment if name.startswith("LOCKBOX_")] == []
    assert other.user[1] == 4712


@pytest.mark.parametrize(
    ("line", "says"), [("User=nobody-knows", "no user nobody-knows"), ("Group=nobody-knows", "no group nobody-knows")]
)
def test_an_unknown_user_of_a_systemd_unit_is_reported(units: Path, line: str, says: str) -> None:
    (units / "lockbox-api.service").write_text(f"[Service]\nUser=4711\n{line}\n")

    with pytest.raises(UnitRefused, match=says):
        _ = ServiceUnit.read("lockbox-api").user


def test_a_missing_systemd_unit_is_reported(units: Path) -> None:
    refused = CliRunner().invoke(app, ["doctor", "--unit", "lockbox-nothing"])

    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr == f"there is no unit lockbox-nothing in {units}\n"


@pytest.mark.usefixtures("units")
def test_doctor_with_the_option_unit_but_without_root_prints_the_systemd_run_command_for_root() -> None:
    with as_nobody():
        if not os.geteuid():
            pytest.skip("this user can't be another one")
        refused = CliRunner().invoke(app, ["doctor", "--unit", "lockbox-worker@1"])

    assert refused.exit_code == 1
    assert "--unit takes root" in refused.stderr
    assert "systemd-run --pipe --wait --collect --property=User=4711 --property=Group=4712" in refused.stderr
    assert refused.stderr.rstrip().endswith("-m cli doctor")


def test_paths_hidden_or_read_only_for_a_systemd_unit_are_reported(units: Path) -> None:
    (units / "own.env").write_text(
        'LOCKBOX_AUDIT_KEY_FILES=["/etc/lockbox/a.pem", "/root/my keys/b.pem"]\n'
        "LOCKBOX_CHECKPOINT_FOLDER=/srv/checkpoints\n"
    )
    sandbox = "[Service]\nProtectSystem=strict\nProtectHome=yes\n"
    for name, drop_in in (("1", sandbox), ("2", f"{sandbox}ReadWritePaths=-/var/lib /srv\nProtectHome=no\n")):
        folder = units / f"lockbox-worker@{name}.service.d"
        folder.mkdir()
        (folder / "own.conf").write_text(drop_in)

    found = [one.says for one in ServiceUnit.read("lockbox-worker@1").check_sandbox()]

    assert found == [
        "LOCKBOX_AUDIT_KEY_FILES: the unit hides /root/my keys/b.pem from its process (ProtectHome)",
        "LOCKBOX_CHECKPOINT_FOLDER: the unit lets its process only read /srv/checkpoints (ProtectSystem=strict)",
    ]
    assert list(ServiceUnit.read("lockbox-worker@2").check_sandbox()) == []


def test_a_unit_environment_file_that_is_not_utf_8_is_refused_and_named(units: Path) -> None:
    (units / "own.env").write_bytes(b"LOCKBOX_VENDOR_NAME=Caf\xe9\n")

    with pytest.raises(UnitRefused, match=r"own\.env is not in UTF-8"):
        _ = ServiceUnit.read("lockbox-worker@1").environment
