"""Replace the database by a back-up, and end all access that the back-up holds open."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import psycopg
import typer
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from catalogue.unsafe_settings import UnsafeSettings
from cli import credentials, database_swap
from cli.client import stop
from cli.database_swap import DatabaseSwap, SwapRefused
from cli.owner import owner_session
from cli.terminal import say
from config.settings import Settings, load
from lockbox import migrations, startup_checks
from lockbox.admin import restore as admin_restore
from lockbox.admin.restore import RestoreResult
from lockbox.audit.log import signing_keys
from lockbox.audit.log.checkpoint import BadNote
from lockbox.audit.log.checkpoint_folder import WitnessCheck, WitnessFolder
from lockbox.audit.log.signing_keys import BadKey
from lockbox.database import ProcessKeys, UnitOfWork
from lockbox.owner_transaction import as_owner
from lockbox.startup_checks import StartupCheckFailed

app = typer.Typer()
Yes = Annotated[bool, typer.Option("--yes", help="do not ask for confirmation")]


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(help="a dump by pg_dump --format=custom", show_default=False)],
    end_connections: Annotated[
        bool, typer.Option("--end-connections", help="end what is connected to the database instead of refusing")
    ] = False,
    yes: Yes = False,
) -> None:
    """Put a back-up in the place of the database.

    Stop the processes first. The command restores into a new database, ends all
    access there that the back-up holds open, as `after-restore` does, and then
    renames both databases. If anything fails before that, the database stays as
    it was. As the database's owner, with LOCKBOX_CHECKPOINT_FOLDER,
    LOCKBOX_AUDIT_PUBLIC_KEYS and LOCKBOX_CREDENTIAL_KEY_FILES as the API has
    them, and Postgres' superuser in PGHOST, PGPORT, PGUSER and PGPASSWORD.
    """
    if not yes:
        typer.confirm("Replace the database, and end every open window and every request that waits", abort=True)
    with _nothing_changed():
        settings = load()
        owner = make_url(settings.require("owner_database_url"))
        folder = _folder(settings, is_optional=True)
        if folder and not os.access(str(settings.checkpoint_folder), os.W_OK):
            raise SwapRefused(f"LOCKBOX_CHECKPOINT_FOLDER cannot be written: {settings.checkpoint_folder}")
        database_swap.check_dump(file)
        with database_swap.superuser(owner) as root:
            swap = DatabaseSwap.plan(root, owner)
            if not end_connections:
                swap.refuse_connections()
            with swap.filled(file):
                done = _ended(swap.url.render_as_string(hide_password=False), settings, folder)
                swap.rename(ends_connections=end_connections)
    say(f"{swap.name} is the back-up now." + (f" What was there is {swap.aside}." if swap.is_there else ""))
    _set_aside(done, folder)


@app.command("after-restore")
def after_restore(
    anyway: Annotated[bool, typer.Option("--anyway", help="also where no log is behind what was shipped")] = False,
    yes: Yes = False,
) -> None:
    """End all access that a restored back-up holds open.

    `lockbox operate restore` does this itself; run this command after a restore
    by other means. As the database's owner, with LOCKBOX_CHECKPOINT_FOLDER and
    LOCKBOX_AUDIT_PUBLIC_KEYS set as the API has them. Windows are revoked,
    requests timed out, sessions ended, and each log that is behind begins a new
    generation. Tokens, members and policies are those of the back-up: look
    through them.
    """
    if not yes:
        typer.confirm("End every open window and every request that waits", abort=True)
    with owner_session(armed_by_reconcile=True) as (session, settings):
        try:
            folder = _folder(settings, is_optional=anyway)
            done = _end_all(session, settings, folder, anyway=anyway)
        except SwapRefused as refused:
            raise stop(str(refused)) from None
    if done.logs or anyway:
        _set_aside(done, folder)
    else:
        say("No log is behind what was shipped: nothing was done.")


@contextmanager
def _nothing_changed() -> Iterator[None]:
    """Exit with one line if anything fails: the database is unchanged."""
    try:
        yield
    except (
        SwapRefused, UnsafeSettings, BadKey, StartupCheckFailed, migrations.UnknownRevision, migrations.OwnerRefused
    ) as refused:  # fmt: skip
        raise stop(f"{refused}. Nothing was changed.") from None
    except (psycopg.Error, DBAPIError) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        raise stop(f"Postgres refused: {str(cause).splitlines()[0]}. Nothing was changed.") from None


def _folder(settings: Settings, *, is_optional: bool) -> WitnessFolder | None:
    if settings.checkpoint_folder is None and (not is_optional or settings.environment == "production"):
        raise SwapRefused("LOCKBOX_CHECKPOINT_FOLDER is not set; name the folder that the API has")
    return WitnessFolder(settings.checkpoint_folder) if settings.checkpoint_folder else None


def _ended(url: str, settings: Settings, folder: WitnessFolder | None) -> RestoreResult:
    """End all open access before any process uses the restored database."""
    migrations.upgrade(url)
    keys = ProcessKeys(credentials.keyring_of(settings))
    with as_owner(url, keys, armed_by_reconcile=True) as session:
        startup_checks.fits(session.connection(), also_later=False)
        return _end_all(session, settings, folder, anyway=True)


def _end_all(session: UnitOfWork, settings: Settings, folder: WitnessFolder | None, *, anyway: bool) -> RestoreResult:
    shipped = WitnessCheck(folder, signing_keys.trusted(settings.audit_public_keys)) if folder else None
    try:
        return admin_restore.restore(session, shipped, anyway=anyway)
    except BadNote as bad:
        raise SwapRefused(f"a checkpoint does not hold by LOCKBOX_AUDIT_PUBLIC_KEYS: {bad}") from None
    except OSError as error:
        raise SwapRefused(f"LOCKBOX_CHECKPOINT_FOLDER cannot be read: {error}") from None


def _set_aside(done: RestoreResult, folder: WitnessFolder | None) -> None:
    for log_id in done.logs:
        try:
            if folder:
                folder.set_aside(log_id)
        except OSError as error:
            raise stop(
                f"The database is restored, and all that was open has ended, but the checkpoint of the log {log_id} "
                f"can't be set aside: {error}. Access checks refuse until it is: make LOCKBOX_CHECKPOINT_FOLDER "
                "writable, and run lockbox operate after-restore"
            ) from None
    say(
        f"{done.revoked} windows were revoked, {done.timed_out} requests timed out, {len(done.logs)} logs begun anew."
    )
