"""This machine: ports that are free or ours, files of keys that nobody else reads, and room on its disks."""

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx

from cli.doctor.findings import DoctorFinding, failure, warning, well
from config import ports
from config.settings import SECRETS_FOLDER, Settings

PORTS, KEYS, DISK = "Ports", "Key files", "Disk"
API_PORT = "LOCKBOX_API_PORT"
SECONDS = 2.0
WARNED_BYTES, LEAST_BYTES = 1 << 30, 100 << 20
MEGABYTE = 10**6
OTHERS = stat.S_IRWXG | stat.S_IRWXO
KEY_FILES = ("approval_key_files", "credential_key_files", "code_key_files", "mark_key_files", "audit_key_files")


def check_ports(settings: Settings, given: Mapping[str, str]) -> Iterator[DoctorFinding]:
    """Check that nothing else listens where a process of this machine is going to."""
    if settings.database_url is not None:
        try:
            port = int(given.get(API_PORT, "8000"))
        except ValueError:
            yield failure(PORTS, f"{API_PORT} is no number", "set it to a port, such as 8000")
        else:
            yield _port("the API", port, "/livez", "alive", f"free it, or choose another {API_PORT}")
    if settings.flower_password is not None:
        fix = "free it, or choose another LOCKBOX_FLOWER_PORT"
        yield _port("Flower", settings.flower_port, "/healthcheck", "OK", fix)


def _port(process: str, port: int, path: str, expected: str, fix: str) -> DoctorFinding:
    if ports.is_free(port):
        return well(PORTS, f"{port} is free for {process}")
    try:
        answer = httpx.get(f"http://127.0.0.1:{port}{path}", timeout=SECONDS, trust_env=False)
        is_ours = answer.is_success and expected in answer.text
    except httpx.HTTPError:
        is_ours = False
    if is_ours:
        return well(PORTS, f"{process} answers at {port}")
    return failure(PORTS, f"something else listens at {port}, where {process} is to listen", fix)


def check_keys(settings: Settings) -> Iterator[DoctorFinding]:
    """Check that each file of keys can be read by this user and by nobody else; containers mount theirs otherwise."""
    files = [(name, file) for name in KEY_FILES for file in getattr(settings, name)]
    findings = [finding for name, file in files for finding in _key(f"LOCKBOX_{name.upper()}", file)]
    if files:
        yield from findings or [well(KEYS, f"{len(files)}, and nobody else reads them")]


def _key(variable: str, file: Path) -> Iterator[DoctorFinding]:
    try:
        with file.open("rb") as opened:
            mode = os.fstat(opened.fileno()).st_mode
    except PermissionError:
        yield failure(KEYS, f"{variable}: this user can't read {file}", "chown it to the user of the process")
        return
    except OSError as error:
        yield failure(KEYS, f"{variable}: {file} can't be read: {error.strerror}", "name the file, or restore it")
        return
    if mode & OTHERS and SECRETS_FOLDER not in file.parents:
        yield failure(
            KEYS, f"{variable}: others may read {file} (mode {stat.S_IMODE(mode):04o})", f"chmod 600 {file}"
        )


def _can_write(folder: Path) -> bool:
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


def check_disk(
    settings: Settings, *, warned_bytes: int = WARNED_BYTES, least_bytes: int = LEAST_BYTES
) -> Iterator[DoctorFinding]:
    """Check that the folder of checkpoints is there and can be written, and that no disk of ours is nearly full."""
    folder = settings.checkpoint_folder
    if folder is not None:
        if not folder.is_dir():
            fix = "mount or make it, on a disk that no restore of the database touches"
            yield failure(DISK, f"LOCKBOX_CHECKPOINT_FOLDER: there is no folder {folder}", fix)
        elif not _can_write(folder):
            fix = "chown it to the user of the core worker"
            yield failure(DISK, f"LOCKBOX_CHECKPOINT_FOLDER: this user can't write {folder}", fix)
    places = {folder, Path.cwd()} if folder is not None and folder.is_dir() else {Path.cwd()}
    for place in sorted(places):
        free = shutil.disk_usage(place).free
        says = f"{free / MEGABYTE:,.0f} MB are free at {place}"
        if free < warned_bytes:
            yield (failure if free < least_bytes else warning)(DISK, says, "make room, or give it a larger disk")
        else:
            yield well(DISK, says)
