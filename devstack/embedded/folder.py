"""The data folder: its owner, its lock, and its file of passwords, ports and pids."""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import pwd
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ACCOUNT = "nobody"
FOLDERS_OF_ROOT = Path("/var/lib/lockbox-embedded")
STATE = "state.json"
LOCK = "lockbox.lock"  # also identifies our folders: each has it from its creation on
LOCK_SECONDS = 120.0
ROLES = ("superuser", "owner", "api", "worker", "notifications", "connectors", "redis")


class EmbeddedRefused(Exception):  # noqa: N818 - a refusal, as in lockbox.errors
    """The message says what to do."""


@dataclasses.dataclass(frozen=True)
class Account:
    """The unprivileged account for servers if we are root, because Postgres refuses to run as root."""

    name: str
    uid: int
    gid: int


@dataclasses.dataclass(frozen=True)
class DataFolder:
    """The servers run as `account`; None stands for our own account."""

    folder: Path
    account: Account | None

    @property
    def uid(self) -> int:
        return self.account.uid if self.account else os.geteuid()


@dataclasses.dataclass
class FolderState:
    """State that must survive a restart. `roles` is the hash of the roles.sql that was last run."""

    passwords: dict[str, str]
    ports: dict[str, int]
    pids: dict[str, int]
    roles: str = ""


def default_folder(checkout: Path) -> Path:
    if os.geteuid() != 0:
        return checkout / ".lockbox"
    return FOLDERS_OF_ROOT / hashlib.sha256(str(checkout.resolve()).encode()).hexdigest()[:12]


def open_home(folder: Path) -> DataFolder:
    """Create the folder, or accept one that we created; any other folder is refused and never changed."""
    home = DataFolder(folder.resolve(), _account())
    if home.account and home.folder.parent == FOLDERS_OF_ROOT and not FOLDERS_OF_ROOT.exists():
        with contextlib.suppress(FileExistsError):
            FOLDERS_OF_ROOT.mkdir()
            FOLDERS_OF_ROOT.chmod(0o755)  # whatever the umask was
    _refuse_unreachable(home)
    if not home.folder.exists():
        make_folder(home.folder, home.account, holding=LOCK)
    _refuse_foreign(home)
    return home


def find_home(folder: Path) -> DataFolder:
    home = DataFolder(folder.resolve(), _account())
    if not home.folder.exists():
        raise EmbeddedRefused(f"{home.folder} does not exist: nothing was ever started there")
    _refuse_foreign(home)
    return home


def make_folder(path: Path, account: Account | None, *, holding: str = "") -> None:
    """Create a folder of mode 0700 owned by the account, atomically.

    `holding` names an empty file in the new folder: of several concurrent calls with `holding`, only one creates the
    folder.
    """
    fresh = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    if holding:
        (fresh / holding).touch(0o600)
    if account:
        # The account may replace anything in its own folder with a link, and root must never follow one.
        os.chown(fresh, account.uid, account.gid, follow_symlinks=False)
    try:
        # A rename replaces only an empty folder.
        fresh.rename(path)
    except OSError:
        shutil.rmtree(fresh)
        if not path.is_dir():
            raise


def write_private(path: Path, text: str, account: Account | None = None) -> None:
    """Replace a file of mode 0600 atomically; without an account, only we can read it."""
    handle, fresh = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        if account:
            os.fchown(handle, account.uid, account.gid)
        file.write(text)
        file.flush()
        os.fsync(handle)
    Path(fresh).replace(path)


def read_state(home: DataFolder) -> FolderState:
    path = home.folder / STATE
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return FolderState({role: secrets.token_urlsafe(24) for role in ROLES}, {}, {})
    with os.fdopen(handle, encoding="utf-8") as file:
        try:
            state = FolderState(**json.load(file))
        except (TypeError, ValueError):
            raise EmbeddedRefused(f"{path} is damaged: restore it, or remove {home.folder} and its data") from None
    # A folder from an earlier version has fewer logins.
    for role in ROLES:
        state.passwords.setdefault(role, secrets.token_urlsafe(24))
    return state


def write_state(home: DataFolder, state: FolderState) -> None:
    write_private(home.folder / STATE, json.dumps(dataclasses.asdict(state), indent=1))


@contextlib.contextmanager
def locked(home: DataFolder, *, seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Lock the folder against every other start or stop, also in this process."""
    handle = os.open(home.folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        last = time.monotonic() + seconds
        while not _try_lock(handle):
            if time.monotonic() > last:
                raise EmbeddedRefused(f"another process has held {home.folder / LOCK} for {seconds:.0f} s")
            time.sleep(0.02)
        yield
    finally:
        os.close(handle)


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _account() -> Account | None:
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam(ACCOUNT)
    except KeyError:
        raise EmbeddedRefused(
            f"Postgres refuses to run as root, and the account {ACCOUNT!r} to run it as is missing: "
            "add it, or start as another user"
        ) from None
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def _refuse_unreachable(home: DataFolder) -> None:
    if not home.folder.parent.is_dir():
        raise EmbeddedRefused(f"{home.folder.parent} is not a folder: make it first")
    if not home.account:
        return
    for parent in home.folder.parents:
        found = parent.stat()
        if found.st_uid == home.account.uid:
            enter = stat.S_IXUSR
        elif found.st_gid == home.account.gid:
            enter = stat.S_IXGRP
        else:
            enter = stat.S_IXOTH
        if not found.st_mode & enter:
            raise EmbeddedRefused(
                f"as root the servers run as {home.account.name!r}, who can't enter {parent} "
                f"(mode {stat.S_IMODE(found.st_mode):04o}): choose another, such as {FOLDERS_OF_ROOT}/…"
            )


def _refuse_foreign(home: DataFolder) -> None:
    folder, owner = home.folder, home.account.name if home.account else "you"
    found = folder.stat()
    if not stat.S_ISDIR(found.st_mode):
        raise EmbeddedRefused(f"{folder} is not a folder")
    if found.st_uid != home.uid:
        raise EmbeddedRefused(f"{folder} does not belong to {owner}: remove it or choose another folder")
    if stat.S_IMODE(found.st_mode) != 0o700:  # noqa: PLR2004 - the mode that make_folder gives
        raise EmbeddedRefused(
            f"{folder} has mode {stat.S_IMODE(found.st_mode):04o}, not 0700: "
            "run chmod 700 on it if it is meant for this, or choose another folder"
        )
    if not (folder / LOCK).exists() and any(folder.iterdir()):
        raise EmbeddedRefused(f"{folder} is not empty and was not made by Lockbox: choose another folder")
