"""Checks of this machine's ports and disks."""

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx

from cli.doctor.findings import DoctorFinding, failure, warning, well
from config import ports
from config.settings import Settings

PORTS, DISK = "Ports", "Disk"
API_PORT = "LOCKBOX_API_PORT"
SECONDS = 2.0
WARNED_BYTES, LEAST_BYTES = 1 << 30, 100 << 20
MEGABYTE = 10**6


def check_ports(settings: Settings, given: Mapping[str, str]) -> Iterator[DoctorFinding]:
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


def check_disk(
    settings: Settings, *, warned_bytes: int = WARNED_BYTES, least_bytes: int = LEAST_BYTES
) -> Iterator[DoctorFinding]:
    folder = settings.checkpoint_folder
    places = (
        {folder, Path.cwd()}
        if folder is not None and os.access(folder, os.F_OK, effective_ids=True) and folder.is_dir()
        else {Path.cwd()}
    )
    for place in sorted(places):
        free = shutil.disk_usage(place).free
        says = f"{free / MEGABYTE:,.0f} MB are free at {place}"
        if free < warned_bytes:
            yield (failure if free < least_bytes else warning)(DISK, says, "make room, or give it a larger disk")
        else:
            yield well(DISK, says)
