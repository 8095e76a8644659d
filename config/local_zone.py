"""Name the time zone of this machine."""

import os
import time
from pathlib import Path
from zoneinfo import available_timezones

LOCALTIME = Path("/etc/localtime")
FOLDER = "zoneinfo/"
UTC_NAMES = frozenset({"UTC", "Etc/UTC", "Etc/UCT", "Zulu", "Universal"})


def described() -> str:
    """For example `Europe/Berlin (UTC+01:00)`, or `UTC`."""
    name, offset = _name(), time.strftime("%z")
    return "UTC" if name in UTC_NAMES else f"{name} (UTC{offset[:3]}:{offset[3:]})"


def _name() -> str:
    chosen = os.environ.get("TZ")
    found = chosen.removeprefix(":") if chosen is not None else str(LOCALTIME.resolve()).rpartition(FOLDER)[2]
    return found if found in available_timezones() else time.strftime("%Z")
