"""Checks of the settings."""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches

from catalogue.unsafe_settings import UnsafeSettings
from cli.doctor.findings import DoctorFinding, failure, warning, well
from config.client import ClientSettings
from config.settings import Settings, load

CHECK = "Settings"
PREFIX = "LOCKBOX_"
OTHERS = frozenset(
    {"api_port", "owner_password", "api_password", "worker_password", "notifications_password", "connectors_password"}
)
"""Variables that only our scripts read: deploy/run and config/roles.sql."""
UNSET = "run this on the machine of a process, with its environment, or start `make run` on this one"
SERVERS = (
    "database_url",
    "worker_database_url",
    "notifications_database_url",
    "connectors_database_url",
    "owner_database_url",
    "redis_url",
    "smtp_url",
)


def read_settings(given: Mapping[str, str]) -> tuple[Settings | None, list[DoctorFinding]]:
    unknown = list(_unknown(given))
    try:
        settings = load()
    except UnsafeSettings as unsafe:
        problems = [failure(CHECK, *_parts(line)) for line in _lines(str(unsafe))]
        return None, [*problems, *unknown]
    if unknown:
        return settings, unknown
    return settings, [well(CHECK, f"a process would start with them, in {settings.environment}")]


def is_empty(settings: Settings) -> bool:
    return all(getattr(settings, name) is None for name in SERVERS)


def _lines(text: str) -> Iterator[str]:
    for line in text.splitlines():
        yield from line.removeprefix("unsafe in production: ").split("; LOCKBOX_")


def _parts(line: str) -> tuple[str, str]:
    line = line if line.startswith(PREFIX) else f"{PREFIX}{line}"
    name, _, what = line.partition(": ")
    return (f"{name} can't be used", what) if what else (line, "see docs/operating.md")


def _unknown(given: Mapping[str, str]) -> Iterator[DoctorFinding]:
    known = {*Settings.model_fields, *ClientSettings.model_fields, *OTHERS}
    for variable in sorted(given):
        name = variable.upper().removeprefix(PREFIX).lower()
        if name not in known:
            near = get_close_matches(name, known, n=1)
            fix = f"did you mean {PREFIX}{near[0].upper()}?" if near else "unset it: nothing reads it"
            yield warning(CHECK, f"{variable} is no setting", fix)
