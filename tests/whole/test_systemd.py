"""The systemd units: systemd accepts them, they are hardened, and each process reads only its own keys."""

import json
import re
import shutil
import subprocess
from grp import struct_group
from pathlib import Path

import pytest

from devstack.stack import CHECKOUT
from tests.programs import need, need_root

FOLDER = CHECKOUT / "deploy" / "systemd"
UNITS = sorted(FOLDER.glob("*.service"))
GUIDE = (CHECKOUT / "docs" / "operating" / "install.md").read_text()
OWN = frozenset(
    {
        "Description",
        "User",
        "SupplementaryGroups",
        "EnvironmentFile",
        "Environment",
        "ExecStart",
        "UMask",
        "ReadWritePaths",
        "CPUWeight",
    }
)
"""What units may differ in."""
MOST_EXPOSED = 2.0
"""Of ten, by `systemd-analyze security`; without the hardening it is 9.2."""
KEYS = {
    "approval.pem": {"lockbox-api"},
    "approval-2.pem": {"lockbox-api"},
    "audit.pem": {"lockbox-worker"},
    "credential.key": {"lockbox-api"},
    "mark.key": {"lockbox-connectors"},
    "code.key": {"lockbox-notifications"},
    "api.env": set(),
    "worker-2.env": set(),
    "targets/orders": {"lockbox-connectors"},
}


def said(unit: Path) -> list[tuple[str, str]]:
    lines = [line for line in unit.read_text().splitlines() if "=" in line and not line.startswith("#")]
    return [(name, value) for name, _, value in (line.partition("=") for line in lines)]


def one(unit: Path, name: str) -> str | None:
    """Return the value of a setting that a unit has at most once."""
    values = [value for found, value in said(unit) if found == name]
    assert len(values) <= 1
    return values[0] if values else None


@pytest.fixture
def placed(tmp_path: Path) -> list[Path]:
    """The units, with an instance of each template, and with the path of this checkout."""
    shutil.copy(FOLDER / "lockbox.target", tmp_path)
    made = []
    for unit in UNITS:
        text = unit.read_text().replace("/srv/lockbox", str(CHECKOUT))
        file = tmp_path / unit.name.replace("@", "@1")
        (tmp_path / unit.name).write_text(text)
        file.write_text(text)
        made.append(file)
    return made


def analyzed(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [need("systemd-analyze"), "--no-pager", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_systemd_accepts_every_line_of_the_units(placed: list[Path]) -> None:
    checked = analyzed("verify", "--man=no", *placed)

    about_ours = [line for line in checked.stderr.splitlines() if "lockbox" in line]
    assert about_ours == [], checked.stderr


def test_an_unknown_line_of_a_systemd_unit_is_reported(placed: list[Path]) -> None:
    placed[0].write_text(placed[0].read_text().replace("ProtectHome=", "ProtectHomes="))

    assert "ProtectHomes" in analyzed("verify", "--man=no", placed[0]).stderr


def test_systemd_units_have_few_rights(placed: list[Path]) -> None:
    for unit in placed:
        found = analyzed("security", "--offline=true", "--json=short", "--threshold=100", unit)
        exposed = sum(float(line["exposure"] or 0) for line in json.loads(found.stdout))
        assert exposed <= MOST_EXPOSED, f"{unit.name}: {exposed}\n{found.stdout}"


def test_all_systemd_units_are_hardened_alike() -> None:
    shared = [[item for item in said(unit) if item[0] not in OWN] for unit in UNITS]

    assert len(UNITS) == 5
    assert all(lines == shared[0] for lines in shared)
    assert dict(shared[0])["KillMode"] == "mixed", "Celery's children end at once where they are told themselves"
    filters = [value for name, value in shared[0] if name == "SystemCallFilter"]
    assert filters == ["@system-service", "~@privileged"], "workers give way by setpriority, which is of @resources"
    assert dict(shared[0])["PartOf"] == dict(shared[0])["WantedBy"] == "lockbox.target"


def test_only_the_core_workers_systemd_unit_may_write_and_only_checkpoints() -> None:
    assert {unit.name: one(unit, "ReadWritePaths") for unit in UNITS if one(unit, "ReadWritePaths")} == {
        "lockbox-worker@.service": "/var/lib/lockbox/checkpoints"
    }


def test_each_systemd_unit_has_its_own_settings_file() -> None:
    written = set(re.findall(r"^cat > (/etc/lockbox/\w+\.env)", GUIDE, flags=re.MULTILINE))
    given = {}
    for unit in UNITS:
        shared, own = [value for name, value in said(unit) if name == "EnvironmentFile"]
        assert shared == "/etc/lockbox/all.env"
        given[unit.stem.removeprefix("lockbox-").rstrip("@")] = own

    assert given == {name: f"/etc/lockbox/{name}.env" for name in given}
    assert written <= {*given.values(), "/etc/lockbox/all.env"}
    assert len(written) == 4


def test_the_deploy_run_script_knows_every_start_command_of_the_systemd_units(tmp_path: Path) -> None:
    script = tmp_path / "deploy" / "run"
    script.parent.mkdir()
    text = (CHECKOUT / "deploy" / "run").read_text()
    script.write_text(re.sub(r"exec python", "echo python", text))

    def run(name: str) -> str:
        return subprocess.run(["/bin/sh", script, name], capture_output=True, text=True, check=False).stdout.strip()

    starts = {unit.stem: str(one(unit, "ExecStart")).removeprefix("/srv/lockbox/deploy/run ") for unit in UNITS}
    assert {name: run(start.replace("%i", "7")) for name, start in starts.items()} == {
        "lockbox-api": "python -m api --port 8000",
        "lockbox-worker@": "python -m worker core --name worker-7",
        "lockbox-notifications@": "python -m worker notifications --name notifications-7",
        "lockbox-connectors@": "python -m worker connectors --name connectors-7",
        "lockbox-flower": "python -m worker.flower",
    }
    assert not run("another")


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """The root folder of a machine, with users, keys and folders made as the guide says."""
    need_root()
    (tmp_path / "etc" / "lockbox" / "targets").mkdir(parents=True)
    for name in ("passwd", "group"):
        (tmp_path / "etc" / name).touch()
    for name in KEYS:
        file = tmp_path / "etc" / "lockbox" / name
        file.write_text("secret")
        file.chmod(0o600)
    root = f"--root={tmp_path}"
    for words in (
        [need("systemd-sysusers"), root, str(FOLDER / "lockbox.sysusers.conf")],
        [need("systemd-tmpfiles"), root, "--create", str(FOLDER / "lockbox.tmpfiles.conf")],
    ):
        ran = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        assert ran.returncode == 0, ran.stderr
    return tmp_path


def users(machine: Path) -> dict[str, tuple[int, set[int]]]:
    """Return the uid and the groups of each Lockbox user."""
    lines = [line.split(":") for line in (machine / "etc" / "passwd").read_text().splitlines()]
    groups = [
        struct_group((name, secret, int(number), [one for one in members.split(",") if one]))
        for name, secret, number, members in (
            line.split(":") for line in (machine / "etc" / "group").read_text().splitlines()
        )
    ]
    return {
        name: (int(uid), {int(gid)} | {group.gr_gid for group in groups if name in group.gr_mem})
        for name, _, uid, gid, *_ in lines
        if name.startswith("lockbox")
    }


def may(file: Path, right: int, user: tuple[int, set[int]]) -> bool:
    """Return whether a user has this right (4 to read, 2 to write) on a file."""
    found, (uid, gids) = file.stat(), user
    shift = 6 if found.st_uid == uid else 3 if found.st_gid in gids else 0
    return bool(found.st_mode >> shift & right)


def test_each_systemd_unit_has_its_own_user_and_needed_groups(machine: Path) -> None:
    known = users(machine)
    runs_as = {str(one(unit, "User")) for unit in UNITS}

    assert known.keys() == runs_as
    assert len(runs_as) == len(UNITS)
    for unit in UNITS:
        wanted = set((one(unit, "SupplementaryGroups") or "").split())
        user = str(one(unit, "User"))
        assert len(known[user][1]) == 1 + len(wanted)


def test_a_key_file_is_readable_by_users_that_need_it_and_writable_by_none(machine: Path) -> None:
    known = users(machine)

    for name, readers in KEYS.items():
        file = machine / "etc" / "lockbox" / name
        assert {user for user, ids in known.items() if may(file, 4, ids)} == readers, name
        assert not [user for user, ids in known.items() if may(file, 2, ids)]
        assert not file.stat().st_mode & 0o007


def test_checkpoints_are_writable_by_the_core_worker_and_readable_by_api_and_connectors(machine: Path) -> None:
    known, folder = users(machine), machine / "var" / "lib" / "lockbox" / "checkpoints"
    readers = {user for user, ids in known.items() if may(folder, 4, ids)}

    assert readers == {"lockbox-worker", "lockbox-api", "lockbox-connectors"}
    assert [user for user, ids in known.items() if may(folder, 2, ids)] == ["lockbox-worker"]
    assert folder.stat().st_mode & 0o2000, "what is written in it is of its group"
    (worker,) = [unit for unit in UNITS if unit.name.startswith("lockbox-worker")]
    assert one(worker, "UMask") == "0027"
