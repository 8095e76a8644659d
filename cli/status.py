"""The status of an installation, as the terminal shows it."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from rich.text import Text

from catalogue.unsafe_settings import UnsafeSettings
from cli.terminal import Facts, Part
from cli.values import NOTHING, phrase
from config.settings import Settings
from devstack import embedded
from devstack.embedded import EmbeddedRefused, ServerAddresses
from devstack.stack import CHECKOUT
from lockbox.database import Database, make_engine
from lockbox.monitoring import metrics, status
from lockbox.monitoring.heartbeats import JOBS
from lockbox.monitoring.metrics import MOST_SILENT
from lockbox.monitoring.status import Status
from lockbox.notifications.senders.protocol import SendFailed
from lockbox.notifications.senders.smtp import SmtpMail
from lockbox.schedule import Schedule

WELL, BAD = "green", "bold red"
RELAY_SECONDS = 4.0
NOWHERE = "redis://127.0.0.1:1/0"

Line = tuple[str, str, bool | None]


def read(settings: Settings, folder: Path | None = None) -> Status:
    """Read the status with the database login of the API or of the owner, whichever is set.

    If neither is set, read it from the running embedded servers of this checkout, or of another folder. Raises
    UnsafeSettings if no server is known.
    """
    login = settings.database_url or settings.owner_database_url
    if login is None and (servers := _running(settings, folder)):
        return _asked(servers.database_url, servers.redis_url)
    if login is None:
        raise UnsafeSettings("set LOCKBOX_DATABASE_URL (or LOCKBOX_OWNER_DATABASE_URL), and LOCKBOX_REDIS_URL")
    redis = settings.redis_url.get_secret_value() if settings.redis_url else None
    with ThreadPoolExecutor(1) as thread:
        relay = thread.submit(lambda: asyncio.run(_relay(settings)))
        return replace(_asked(login.get_secret_value(), redis), relay=relay.result())


async def _relay(settings: Settings) -> str:
    if settings.smtp_url is None:
        return "not asked"
    url = settings.smtp_url.get_secret_value()
    relay = SmtpMail(url, sender=settings.mail_from, ca_file=settings.smtp_ca_file, seconds=RELAY_SECONDS)
    try:
        await relay.check()
    except SendFailed as failed:
        return str(failed)
    else:
        return "ok"
    finally:
        await relay.close()


def _running(settings: Settings, folder: Path | None) -> ServerAddresses | None:
    if settings.environment == "production":
        return None
    with suppress(EmbeddedRefused):
        servers = embedded.find(folder or embedded.default_folder(CHECKOUT))
        if servers.pids and servers.database_url:
            return servers
    return None


def _asked(login: str, redis: str | None) -> Status:
    database = Database(make_engine(login, role="status"), Schedule(redis or NOWHERE))
    try:
        return status.read(database, with_redis=redis is not None)
    finally:
        database.dispose()


def parts(found: Status) -> Iterator[Part]:
    lines = (*_servers(found), *_figures(found), *_processes(found))
    styles = {None: "", True: WELL, False: BAD}
    yield Facts({name: Text(value, styles[is_well]) for name, value, is_well in lines})
    for trouble in found.troubles:
        yield phrase(f"! {trouble}", style=BAD)
    if not found.troubles:
        yield "All is well."


def _servers(found: Status) -> Iterator[Line]:
    yield "Postgres", found.postgres, found.postgres == "ok"
    yield "Mail relay", found.relay, None if found.relay == "not asked" else found.relay == "ok"
    yield "Redis", found.redis, None if found.redis == "not asked" else found.redis == "ok"
    both = f"database {found.migration or NOTHING}, code {found.wanted}"
    yield "Migrations", both, found.migration == found.wanted


def _figures(found: Status) -> Iterator[Line]:
    if found.figures.postgres is None:
        return
    yield "Open requests", ", ".join(f"{state} {metrics.at_most(n)}" for state, n in found.states.items()), None
    for line in status.lines(found):
        yield line.name, line.value, line.is_well


def _processes(found: Status) -> Iterator[Line]:
    for beat in found.beats:
        if beat.part not in JOBS:
            name = beat.node if beat.node.startswith(f"{beat.part}@") else f"{beat.node} ({beat.part})"
            yield name, f"{status.lag(beat.age)} ago, clock {beat.skew:+.3f} s", beat.age <= MOST_SILENT
