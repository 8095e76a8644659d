"""A systemd unit, read from its files: the user, the settings and the folder of its process.

The properties raise UnitRefused.
"""

import grp
import os
import pwd
import re
import shlex
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cli.doctor.files import KEY_FILES
from cli.doctor.findings import DoctorFinding, failure
from config.children import replace_own, unit_folders

RUNS = Path("/run/systemd/system")
LISTS = frozenset({"EnvironmentFile", "Environment", "SupplementaryGroups", "ReadWritePaths", "StateDirectory"})
CHECK = "Settings"
CHECKPOINTS = "LOCKBOX_CHECKPOINT_FOLDER"
PATHS = frozenset(
    {CHECKPOINTS, "LOCKBOX_CONNECTOR_TARGETS", *(f"LOCKBOX_{name.upper()}" for name in KEY_FILES)},
)
"""The settings that name files and folders."""
A_PATH = re.compile(r'/[^",\]]+')
WRITERS = frozenset({"LOCKBOX_AUDIT_KEY_FILES", "LOCKBOX_WORKER_DATABASE_URL"})
HOMES = ("/home", "/root", "/run/user")
YES = frozenset({"yes", "true", "on", "1"})
DONE = "done\n"
# The PATH that systemd gives to every service.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"


class UnitRefused(Exception):  # noqa: N818 - the name says what went wrong
    """The unit does not exist, or its user, settings or folder cannot be used."""


@dataclass(frozen=True)
class ServiceUnit:
    """The lines of a unit that decide what its process may do and see."""

    name: str
    said: dict[str, list[str]]

    @classmethod
    def read(cls, name: str) -> "ServiceUnit":
        """Read a unit and its drop-ins: from systemd if it runs on this machine, otherwise from systemd's folders."""
        name = name.removesuffix(".service")
        prefix, at, instance = name.partition("@")
        names = {"%i": instance, "%I": instance, "%p": prefix, "%N": name, "%n": f"{name}.service", "%%": "%"}
        said: dict[str, list[str]] = {}
        for key, value in _lines(_text(name, f"{prefix}{at}" if instance else name)):
            for short, full in names.items():
                value = value.replace(short, full)  # noqa: PLW2901 - the same value, with its names
            said[key] = [*said.get(key, []), value] if key in LISTS and value else [value] if value else []
        return cls(name, said)

    def last(self, key: str) -> str:
        return next(reversed(self.said.get(key, [])), "")

    @property
    def user(self) -> tuple[int, int, list[int]]:
        """The ids of the unit's user, of its group, and of all its groups."""
        name = self.last("User") or "root"
        try:
            entry = pwd.getpwuid(int(name)) if name.isdigit() else pwd.getpwnam(name)
        except KeyError:
            entry = None
        group = self.last("Group")
        if entry is None and not (name.isdigit() and group):
            raise UnitRefused(f"{self.name}: this machine has no user {name}: run systemd-sysusers lockbox.conf")
        gid = _gid(self.name, group) if group else entry.pw_gid if entry else 0
        further = [
            _gid(self.name, one) for words in self.said.get("SupplementaryGroups", []) for one in words.split()
        ]
        of_user = os.getgrouplist(entry.pw_name, gid) if entry else [gid]
        return entry.pw_uid if entry else int(name), gid, sorted({*of_user, *further})

    @property
    def files(self) -> Iterator[tuple[Path, bool]]:
        for value in self.said.get("EnvironmentFile", []):
            yield Path(value.removeprefix("-")), not value.startswith("-")

    @property
    def environment(self) -> dict[str, str]:
        """If a variable is set twice, its last value counts."""
        found = {"PATH": PATH, "LANG": "C.UTF-8"}
        for value in self.said.get("Environment", []):
            found |= dict(word.partition("=")[::2] for word in shlex.split(value))
        for file, is_needed in self.files:
            try:
                found |= _settings(file.read_text(encoding="utf-8"))
            except UnicodeDecodeError:
                raise UnitRefused(f"{self.name}: {file} is not in UTF-8") from None
            except OSError as error:
                if is_needed:
                    raise UnitRefused(f"{self.name}: {file} can't be read: {error.strerror}") from None
        return found

    def check_files(self) -> Iterator[DoctorFinding]:
        """Check that only root can read the files of settings, because they hold passwords."""
        for file, _ in self.files:
            found = file.stat() if file.exists() else None
            if found is None:
                continue
            by_group = found.st_mode & stat.S_IRWXG and found.st_gid != 0
            if found.st_mode & stat.S_IRWXO or by_group or found.st_uid != 0:
                mode = f"{stat.S_IMODE(found.st_mode):04o}"
                says = f"others than root may read {file}, which holds passwords (mode {mode})"
                named = shlex.quote(str(file))
                yield failure(CHECK, says, f"chown root:root {named} && chmod 600 {named}")

    def check_sandbox(self) -> Iterator[DoctorFinding]:
        told = self.environment
        named = {(name, path) for name in sorted(PATHS & told.keys()) for path in A_PATH.findall(told[name])}
        for name, path in sorted(named) if self.last("ProtectHome") in {*YES, "tmpfs"} else ():
            if any(Path(os.path.realpath(path)).is_relative_to(home) for home in HOMES):
                says = f"{name}: the unit hides {path} from its process (ProtectHome)"
                yield failure(CHECK, says, "move it to /etc/lockbox, and name it there")
        folder = told.get(CHECKPOINTS, "")
        if folder and WRITERS & told.keys() and self.last("ProtectSystem") == "strict" and not self._writes(folder):
            says = f"{CHECKPOINTS}: the unit lets its process only read {folder} (ProtectSystem=strict)"
            fix = f"systemctl edit {self.name}, with ReadWritePaths={folder} in a part [Service]"
            yield failure(CHECK, says, fix)

    def _writes(self, folder: str) -> bool:
        given = [word.lstrip("-+") for value in self.said.get("ReadWritePaths", []) for word in shlex.split(value)]
        given += [f"/var/lib/{one}" for value in self.said.get("StateDirectory", []) for one in value.split()]
        found = Path(os.path.realpath(folder))
        return any(found.is_relative_to(os.path.realpath(one)) for one in given)

    def run(self, does: Callable[[], str]) -> str:
        """Run a function in a child process with the unit's user, groups, settings and folder.

        Raises UnitRefused if the user can't enter the folder, or the function failed.
        """
        uid, gid, groups = self.user
        environment, folder = self.environment, self.last("WorkingDirectory") or "/"
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            try:
                os.setgroups(groups)
                os.setgid(gid)
                os.setuid(uid)
                os.umask(0o077)
                os.chdir(folder)
                replace_own(environment)
                said = f"{DONE}{does()}"
            except BaseException as error:  # noqa: BLE001 - the parent reports it, and none of the parent's code runs here
                said = f"{type(error).__name__}: {error}"
            with os.fdopen(writing, "w") as pipe:
                pipe.write(said)
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            said = pipe.read()
        os.waitpid(child, 0)
        if not said.startswith(DONE):
            raise UnitRefused(f"{self.name}: it could not be looked at as its user in {folder}: {said}")
        return said.removeprefix(DONE)

    def transient(self, command: Sequence[str]) -> str:
        """Return the `systemd-run` command line by which root runs a program with the unit's user and environment."""
        kept = ("User", "Group", "SupplementaryGroups", "WorkingDirectory", "Environment", "EnvironmentFile")
        properties = [f"--property={key}={value}" for key in kept for value in self.said.get(key, [])]
        return shlex.join(["systemd-run", "--pipe", "--wait", "--collect", *properties, *command])


def _gid(unit: str, group: str) -> int:
    try:
        return int(group) if group.isdigit() else grp.getgrnam(group).gr_gid
    except KeyError:
        raise UnitRefused(f"{unit}: this machine has no group {group}: run systemd-sysusers lockbox.conf") from None


def _text(name: str, template: str) -> str:
    systemctl = shutil.which("systemctl") if RUNS.is_dir() else None
    if systemctl:
        ran = subprocess.run(  # noqa: S603 - a program on the path, no shell
            [systemctl, "cat", f"{name}.service"], capture_output=True, text=True, check=False
        )
        if ran.returncode == 0:
            return ran.stdout
    folders = unit_folders()
    names = [f"{one}.service" for one in dict.fromkeys((name, template))]
    unit = next((folder / one for folder in folders for one in names if (folder / one).is_file()), None)
    if unit is None:
        raise UnitRefused(f"there is no unit {name} in {', '.join(map(str, folders))}")
    drop_ins = {
        file.name: file
        for folder in reversed(folders)
        for one in reversed(names)
        for file in folder.glob(f"{one}.d/*.conf")
    }
    return "\n".join(
        file.read_text(encoding="utf-8") for file in (unit, *(drop_ins[key] for key in sorted(drop_ins)))
    )


def _lines(text: str) -> Iterator[tuple[str, str]]:
    section = ""
    for line in text.replace("\\\n", " ").splitlines():
        stripped = line.strip()
        if stripped.startswith("["):
            section = stripped
        elif section == "[Service]" and "=" in stripped and not stripped.startswith(("#", ";")):
            key, _, value = stripped.partition("=")
            yield key.strip(), value.strip()


def _settings(text: str) -> dict[str, str]:
    """Parse a file of settings as systemd does, including quotes."""
    found = {}
    for line in text.replace("\\\n", "").splitlines():
        name, is_one, value = line.strip().partition("=")
        if is_one and not name.startswith(("#", ";")):
            try:
                found[name.strip()] = "".join(shlex.split(value)) if value[:1] in {"'", '"'} else value.strip()
            except ValueError:
                found[name.strip()] = value
    return found
