"""Commands of the database's owner."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Annotated

import typer
from sqlalchemy.exc import DBAPIError, OperationalError

from catalogue.unsafe_settings import UnsafeSettings
from cli import bootstrap, credentials
from cli.client import stop, warn
from cli.terminal import say
from config.settings import Settings, load
from devstack import sample
from lockbox import failpoints, migrations, startup_checks
from lockbox.database import ProcessKeys, UnitOfWork
from lockbox.errors import LockboxError
from lockbox.failpoints import UnknownFailpoint
from lockbox.owner_transaction import as_owner
from lockbox.requests.policy_rules import Policy
from lockbox.startup_checks import StartupCheckFailed

NEXT = """
The token can read and revoke. Approving takes a passkey or your identity provider. To add one, start the API and
open this link, which works once and for 24 hours:

    {url}/invitations/{invitation}#{code}

Next, with LOCKBOX_URL={url}:
  lockbox sign-in                       # signs this terminal in by your browser, for a quarter of an hour
  lockbox tenant add contoso --name Contoso --admin-name "Tara Todd" --admin-email tara@contoso.example
  lockbox vendor invite --name "Erin Engel" --email erin@vendor.example --role engineer
"""

OwnerTransactions = Callable[..., AbstractContextManager[UnitOfWork]]
app = typer.Typer()


@app.command("bootstrap")
def make_first_operator(
    name: Annotated[str, typer.Option(help="what the operator is called")],
    email: Annotated[str, typer.Option(help="the operator's mail address")],
) -> None:
    """Make the first operator on an empty database.

    Works once, as the database's owner (LOCKBOX_OWNER_DATABASE_URL), and prints that operator's own first token and
    the link by which they add a passkey. Both last 24 hours. LOCKBOX_ENVIRONMENT has to be that of the API.
    """
    with owner_session(bootstrap.AlreadyBootstrapped, bootstrap.InvalidOperator) as (session, settings):
        made = bootstrap.first_operator(session, name=name, email=email, environment=settings.environment)
    warn(f"{made.name} is the first operator. This token is theirs, lasts 24 hours and is shown once:")
    print(made.token)
    warn(NEXT.format(url=settings.public_url, invitation=made.invitation_id, code=made.code).rstrip())


@app.command()
def migrate() -> None:
    """Bring the database's schema up to date.

    Run it as the database's owner (LOCKBOX_OWNER_DATABASE_URL).
    """
    try:
        found = migrations.upgrade(load().require("owner_database_url"))
    except (UnsafeSettings, migrations.UnknownRevision, migrations.OwnerRefused) as refused:
        raise stop(str(refused)) from None
    except DBAPIError as error:
        raise stop(_refused(error)) from None
    say(f"The database is at migration {found}.")


@app.command("sample")
def make_sample() -> None:
    """Add sample people to a try-out and print their tokens.

    Run it as the database's owner (LOCKBOX_OWNER_DATABASE_URL). It creates the tenant `contoso`. Production refuses
    it.
    """
    with owner_session(sample.NotInProduction) as (session, settings):
        made = sample.seed(
            session,
            tenant="contoso",
            policy=Policy(),
            environment=settings.environment,
            services=settings.catalogue.services,
        )
    migrations.analyze(settings.require("owner_database_url"))
    for name, token in made.tokens.items():
        print(f"{name.upper()}={token}")
    print(f"ERIN_ID={made.people['erin']}")


@contextmanager
def owner_session(
    *refusals: type[Exception], armed_by_reconcile: bool = False
) -> Iterator[tuple[UnitOfWork, Settings]]:
    """Open one transaction as the database's owner; exit with a message if it is refused.

    `refusals` are further errors that become a message. With `armed_by_reconcile`, the transaction may make entries
    that reconciliation adds to the schedule later.
    """
    with owner_transactions(*refusals) as (transactions, settings), transactions(armed_by_reconcile) as session:
        yield session, settings


@contextmanager
def owner_transactions(*refusals: type[Exception]) -> Iterator[tuple[OwnerTransactions, Settings]]:
    """Like `owner_session`, but yield a function that opens transactions."""
    try:
        settings = load()
        failpoints.arm(settings.failpoint)
        keys = ProcessKeys(credentials.keyring_of(settings))
        yield partial(_transaction, settings.require("owner_database_url"), keys), settings
    except (UnsafeSettings, UnknownFailpoint, StartupCheckFailed, migrations.OwnerRefused) as refused:
        raise stop(str(refused)) from None
    except refusals as refused:
        raise stop(str(refused)) from None
    except LockboxError as refused:
        raise stop(refused.detail) from None
    except DBAPIError as error:
        raise stop(_refused(error)) from None


@contextmanager
def _transaction(url: str, keys: ProcessKeys, armed_by_reconcile: bool = False) -> Iterator[UnitOfWork]:  # noqa: FBT001 - passed by position
    with as_owner(url, keys, armed_by_reconcile=armed_by_reconcile) as session:
        startup_checks.fits(session.connection(), also_later=False)
        migrations.check_owner(session.connection())
        yield session


def _refused(error: DBAPIError) -> str:
    why = str(error.orig).splitlines()[0]
    if getattr(error.orig, "sqlstate", None) is None and isinstance(error, OperationalError):
        return f"Postgres cannot be reached at LOCKBOX_OWNER_DATABASE_URL: {why}"
    return f"the database refused: {type(error.orig).__name__}: {why}"
