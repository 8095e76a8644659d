"""Checks of key files and folders: only this process may read them."""

import grp
import os
import pwd
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path

from cli.doctor.findings import DoctorFinding, failure, well
from config.settings import SECRETS_FOLDER, Settings

KEYS, FOLDERS = "Key files", "Folders"
GROUP, EVERYBODY = stat.S_IRWXG, stat.S_IRWXO
ROOT = 0
KEY_FILES = ("approval_key_files", "credential_key_files", "code_key_files", "mark_key_files", "audit_key_files")
SHARED = {"credential_key_files": "lockbox-credential", "checkpoint_folder": "lockbox-checkpoints"}
"""Files that several processes read have a group of their own in deploy/systemd."""


def check_keys(settings: Settings) -> Iterator[DoctorFinding]:
    """Check that only this process can read each key file; mounts of containers are excepted.

    After an install, the files belong to root, with the process's group and mode 0640.
    """
    files = [(name, file) for name in KEY_FILES for file in getattr(settings, name)]
    targets = settings.connector_targets
    if targets is not None and may_enter(targets) and targets.is_dir():
        files += [("connector_targets", file) for file in sorted(targets.iterdir())]
    findings = [finding for name, file in files for finding in _key(name, file)]
    if files:
        yield from findings or [well(KEYS, f"{len(files)}, and nobody else reads them")]


def _key(setting: str, file: Path) -> Iterator[DoctorFinding]:
    variable = f"LOCKBOX_{setting.upper()}"
    named = shlex.quote(str(file))
    mend = f"chown root:{_own_group(setting)} {named} && chmod 640 {named}"
    try:
        with file.open("rb") as opened:
            found = os.fstat(opened.fileno())
    except PermissionError:
        yield _unreadable(variable, file, mend)
        return
    except OSError as error:
        yield failure(KEYS, f"{variable}: {file} can't be read: {error.strerror}", "name the file, or restore it")
        return
    if found.st_gid in _own_groups() and found.st_uid == ROOT and found.st_mode & stat.S_IRGRP and os.geteuid():
        # Only the rights of others are wrong. The group stays, because other processes may need it to read the file.
        mend = f"chmod o= {named}"
    if SECRETS_FOLDER not in file.parents and (who := _others(found)):
        yield failure(KEYS, f"{variable}: {who} may read {file} (mode {stat.S_IMODE(found.st_mode):04o})", mend)


def _unreadable(variable: str, file: Path, mend: str) -> DoctorFinding:
    return _shut(KEYS, variable, file) or failure(KEYS, f"{variable}: this user can't read {file}", mend)


def _shut(check: str, variable: str, path: Path) -> DoctorFinding | None:
    above = [*reversed(path.absolute().parents), *reversed(Path(os.path.realpath(path)).parents)]
    closed = [one for one in above if os.path.lexists(one) and not os.access(one, os.X_OK, effective_ids=True)]
    if not closed:
        return None
    return failure(
        check, f"{variable}: this user can't enter {closed[0]}", f"chmod 755 {shlex.quote(str(closed[0]))}"
    )


def _others(found: os.stat_result) -> str | None:
    """Return who else may read the file. As root, only report "everybody": root cannot tell the process' group."""
    if found.st_mode & EVERYBODY:
        return "everybody"
    if os.geteuid() == ROOT:
        return None
    if found.st_uid not in {ROOT, os.geteuid()} and found.st_mode & stat.S_IRUSR:
        return f"the user {_user(found.st_uid)}"
    if found.st_mode & GROUP and found.st_gid not in {ROOT, *_own_groups()}:
        return f"the group {_group(found.st_gid)}"
    return None


def check_folders(settings: Settings) -> Iterator[DoctorFinding]:
    folder = settings.checkpoint_folder
    if folder is not None:
        is_writer = bool(settings.audit_key_files) or settings.worker_database_url is not None
        yield from _checkpoints(folder, is_writer=is_writer)
    targets = settings.connector_targets
    if targets is not None and not may_enter(targets):
        named = shlex.quote(str(targets))
        if shut := _shut(FOLDERS, "LOCKBOX_CONNECTOR_TARGETS", targets):
            yield shut
        elif not targets.is_dir():
            yield failure(FOLDERS, f"LOCKBOX_CONNECTOR_TARGETS: there is no folder {targets}", f"mkdir -p {named}")
        else:
            mend = f"chown root:{_own_group('connector_targets')} {named} && chmod 750 {named}"
            yield failure(FOLDERS, f"LOCKBOX_CONNECTOR_TARGETS: this user can't read {targets}", mend)


def _checkpoints(folder: Path, *, is_writer: bool) -> Iterator[DoctorFinding]:
    variable, named = "LOCKBOX_CHECKPOINT_FOLDER", shlex.quote(str(folder))
    if shut := _shut(FOLDERS, variable, folder):
        yield shut
        return
    if not folder.is_dir():
        fix = "mount or make it, on a disk that no restore of the database touches"
        yield failure(FOLDERS, f"{variable}: there is no folder {folder}", fix)
        return
    if is_writer and not os.access(folder, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
        mend = f"chown {_user(os.geteuid())} {named} && chmod u+rwx {named}"
        yield failure(FOLDERS, f"{variable}: this user can't write {folder}", mend)
        return
    if folder.stat().st_mode & stat.S_IWOTH:
        yield failure(FOLDERS, f"{variable}: everybody may write {folder}", f"chmod o-w {named}")
    group = _own_group("checkpoint_folder")
    if not may_enter(folder):
        is_ours = folder.stat().st_gid in _own_groups()
        mend = f"chmod g+rxs {named}" if is_ours else f"chgrp {group} {named} && chmod g+rxs {named}"
        yield failure(FOLDERS, f"{variable}: this user can't read {folder}", mend)
    elif unread := [one for one in sorted(folder.iterdir()) if not _may_read(one)]:
        mend = f"chgrp -R {group} {named} && chmod -R g+rX {named}"
        yield failure(FOLDERS, f"{variable}: this user can't read {unread[0]}", mend)


def may_enter(folder: Path) -> bool:
    return os.access(folder, os.R_OK | os.X_OK, effective_ids=True)


def _may_read(path: Path) -> bool:
    return may_enter(path) if path.is_dir() else os.access(path, os.R_OK, effective_ids=True)


def _own_groups() -> list[int]:
    return [os.getegid(), *os.getgroups()]


def _own_group(setting: str) -> str:
    if os.geteuid() == ROOT:
        return "GROUP"
    own = [_group(number) for number in _own_groups()]
    wanted = SHARED.get(setting)
    return wanted if wanted in own else own[0]


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)
