"""The command `lockbox`: everything through the API, but for the migrations and what fills an empty database."""

from typing import Annotated, Any
from uuid import UUID

import typer
from sqlalchemy.exc import DBAPIError
from typer.core import TyperGroup

from cli import (
    audit,
    bootstrap,
    delegations,
    endpoints,
    invitations,
    members,
    operate,
    policies,
    requests,
    sample,
    signing,
    tenants,
    terminal,
    tokens,
    vendor,
    watchers,
)
from cli.client import at, call, stop, warn
from cli.terminal import Plain, as_json, moment, say, words
from config.settings import UnsafeSettings, load
from lockbox import migrations
from lockbox.database import as_owner
from lockbox.requests.rules import Policy
from lockbox.standing import NotFit

HELP = """An open Customer Lockbox: nobody at the vendor gets in without a yes.

LOCKBOX_URL names the API. LOCKBOX_TOKEN holds your token, or your browser
signs the terminal in. What reads also prints JSON, with --json. Ends with 1 where the answer is no, and with 2
where the command was written wrongly.
"""
NEXT = """
It reads and closes. Opening takes a passkey, or your sign-in service. To add one, start the API and enter this code,
which works once and for 24 hours, at {url}/invitations/{invitation}

    {code}

Next, with LOCKBOX_URL={url}:
  lockbox sign-in                       # signs this terminal in by your browser, for a quarter of an hour
  lockbox tenant add contoso --name Contoso --admin-name "Tara Todd" --admin-email tara@contoso.example
  lockbox vendor invite --name "Erin Engel" --email erin@vendor.example --role engineer
"""


class InOrder(TyperGroup):
    """Commands in the order in which somebody meets them."""

    ORDER = (
        *("me", "request", "access", "sign-in", "sign-out", "token"),
        *("tenant", "member", "invitation", "delegation", "policy", "endpoint", "watcher", "vendor", "audit"),
        *("operate", "bootstrap", "migrate", "sample"),
    )

    def __init__(self, **parts: Any) -> None:  # noqa: ANN401 - Typer's
        super().__init__(**parts)
        self.commands = dict(sorted(self.commands.items(), key=lambda pair: self.ORDER.index(pair[0])))


app = typer.Typer(cls=InOrder, no_args_is_help=True, add_completion=False, help=HELP, rich_markup_mode=None)
for _name, _group in (
    ("request", requests.app),
    ("token", tokens.app),
    ("tenant", tenants.app),
    ("member", members.app),
    ("invitation", invitations.app),
    ("delegation", delegations.app),
    ("policy", policies.app),
    ("endpoint", endpoints.app),
    ("watcher", watchers.app),
    ("vendor", vendor.app),
    ("audit", audit.app),
    ("operate", operate.app),
):
    app.add_typer(_group, name=_name)


app.command("sign-in")(signing.sign_in)
app.command("sign-out")(signing.sign_out)


@app.command()
def me(plain: Plain = False) -> None:
    """Show who you are here, and what you may be."""
    found = call("GET", at("me"))
    if plain:
        as_json(found)
        return
    terminal.facts(
        {
            "Name": found["name"],
            "Person": found["id"],
            "Side": found["side"],
            "At the vendor": found["roles"],
            **{f"At {slug}": roles for slug, roles in found["tenants"].items()},
            "Shown": words(found["means"]),
            "Signed in": moment(found["signed_in_at"]),
        }
    )


@app.command()
def access(
    tenant: Annotated[str, typer.Option(help="the customer")],
    service: Annotated[str, typer.Option(help="such as exchange-online")],
    resource: Annotated[str, typer.Option(help="kind:id, such as mailbox:anna@contoso.example")],
    engineer: Annotated[UUID, typer.Option(help="the engineer's id")],
    action: Annotated[str, typer.Option(help="read, change, export")] = "read",
    plain: Plain = False,
) -> None:
    """Ask whether a window is open; ends with 1 if not."""
    asked = {
        "tenant": tenant,
        "service": service,
        "resource": resource,
        "engineer": str(engineer),
        "action": action,
    }
    found = call("GET", at("access"), params=asked)
    if plain:
        as_json(found)
    else:
        say(f"Open until {moment(found['deadline_at'])} by request {found['request_id']}")


@app.command("bootstrap")
def make_first_operator(
    name: Annotated[str, typer.Option(help="what the operator is called")],
    email: Annotated[str, typer.Option(help="the operator's mail address")],
) -> None:
    """Make the first operator on an empty database.

    Works once, as the database's owner (LOCKBOX_OWNER_DATABASE_URL), and prints that operator's own first token and
    the code by which they add a passkey. Both last 24 hours. LOCKBOX_ENVIRONMENT has to be that of the API.
    """
    try:
        settings = load()
        with as_owner(settings.require("owner_database_url")) as session:
            made = bootstrap.first_operator(session, name=name, email=email, environment=settings.environment)
    except (UnsafeSettings, NotFit, bootstrap.NotTheFirst, bootstrap.Unusable) as refused:
        raise stop(str(refused)) from None
    except DBAPIError as error:
        raise stop(_refused(error)) from None
    warn(f"{made.name} is the first operator. This token is theirs, lasts 24 hours and is shown once:")
    print(made.token)
    warn(NEXT.format(url=settings.public_url, invitation=made.invitation_id, code=made.code).rstrip())


@app.command()
def migrate() -> None:
    """Bring the database's schema up to date.

    As its owner: LOCKBOX_OWNER_DATABASE_URL.
    """
    try:
        migrations.upgrade(load().require("owner_database_url"))
    except UnsafeSettings as unsafe:
        raise stop(str(unsafe)) from None
    except DBAPIError as error:
        raise stop(_refused(error)) from None
    say(f"The database is at migration {migrations.head()}.")


@app.command("sample")
def make_sample() -> None:
    """Add sample people to a try-out and print their tokens.

    As the database's owner (LOCKBOX_OWNER_DATABASE_URL); with the tenant `contoso`, and never in production.
    """
    try:
        settings = load()
        with as_owner(settings.require("owner_database_url")) as session:
            made = sample.seed(
                session,
                tenant="contoso",
                policy=Policy(),
                environment=settings.environment,
                services=settings.services,
            )
    except (UnsafeSettings, sample.NotInProduction) as refused:
        raise stop(str(refused)) from None
    for name, token in made.tokens.items():
        print(f"{name.upper()}={token}")
    print(f"ERIN_ID={made.people['erin']}")


def _refused(error: DBAPIError) -> str:
    return f"the database refused: {type(error.orig).__name__}: {str(error.orig).splitlines()[0]}"


def main() -> None:
    """Run the command."""
    app()
