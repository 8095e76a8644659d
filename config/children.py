"""Environments of child processes, without our own settings."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

OURS = ("LOCKBOX_", "FLOWER_")


UNIT_FOLDERS = (
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
)


def unit_folders() -> list[Path]:
    chosen = os.environ.get("SYSTEMD_UNIT_PATH", "").split(":")
    return [Path(one) for one in chosen if one] or [Path(one) for one in UNIT_FOLDERS]


def replace_own(values: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(values)


def given() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.upper().startswith("LOCKBOX_")}


def environment(values: Mapping[str, str]) -> dict[str, str]:
    """Return a child's environment: no LOCKBOX_ variables except `values`, and this Python first on the path."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    path = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", os.defpath)])
    return {**kept, "PATH": path, "PYTHONUNBUFFERED": "1", "REMAP_SIGTERM": "SIGQUIT", **values}
