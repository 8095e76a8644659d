"""The command `lockbox`: all of it calls the API, except migrations and the commands of the database's owner."""

from typing import ClassVar

import typer

from cli.lazy import LazyGroup, begin

HELP = """An open Customer Lockbox: the vendor gets in only with the customer's approval.

LOCKBOX_URL is the API's address. Set LOCKBOX_TOKEN to your token, or run
`lockbox sign-in` to sign in with your browser. Commands that read print JSON with --json. The exit code is 1 if the
API refuses and 2 if the command line is wrong.
"""


class CommandGroup(LazyGroup):
    """The commands, in the order in which people need them."""

    PLACES: ClassVar = {
        "me": "cli.access:me",
        "request": "cli.requests",
        "access": "cli.access:access",
        "sign-in": "cli.sign_in:sign-in",
        "sign-out": "cli.sign_in:sign-out",
        "token": "cli.tokens",
        "tenant": "cli.tenants",
        "member": "cli.commands:member",
        "invitation": "cli.commands:invitation",
        "delegation": "cli.commands:delegation",
        "policy": "cli.policies",
        "endpoint": "cli.commands:endpoint",
        "observer": "cli.commands:observer",
        "vendor": "cli.commands:vendor",
        "audit": "cli.audit_group",
        "gate": "cli.gate",
        "operate": "cli.operate",
        "bootstrap": "cli.owner:bootstrap",
        "migrate": "cli.owner:migrate",
        "sample": "cli.owner:sample",
    }


app = typer.Typer(
    cls=CommandGroup, callback=begin, no_args_is_help=True, add_completion=False, help=HELP, rich_markup_mode=None
)


def main() -> None:
    """Run the command."""
    app()
